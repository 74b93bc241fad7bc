"use strict";

// What every section needs: elements, numbers from text, the sheet of thumbnails, the theme.

const SECTIONS = {}; // by the type of the section: (section) -> nodes

/** An element with attributes, listeners (`onclick`) and children; text is never taken for HTML. */
function element(tag, attributes = {}, ...children) {
  const node = tag === "svg" || SVG_TAGS.has(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}
const SVG_TAGS = new Set(["path", "line", "text", "circle", "g"]);

function bytesOf(base64) {
  const text = atob(base64);
  return Uint8Array.from(text, (c) => c.charCodeAt(0));
}

/** 16-bit integers from base64. */
function integers(base64) {
  const bytes = bytesOf(base64);
  return Uint16Array.from({ length: bytes.length / 2 }, (_, i) => bytes[2 * i] + 256 * bytes[2 * i + 1]);
}

/** A map of 16-bit codes as numbers, NaN where unknown, with its height and width. */
function numbersOf(map) {
  const codes = integers(map.data);
  const scale = (map.high - map.low) / 65534;
  return {
    height: map.shape[0],
    width: map.shape[1],
    values: Float64Array.from(codes, (code) => (code ? map.low + (code - 1) * scale : NaN)),
  };
}

/** A number in a few digits. */
function short(value) {
  if (value == null || Number.isNaN(value)) return "-";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

/** The thumbnails of a sheet: `draw(canvas, i)` into a canvas, sharp where they are small. */
class Sheet {
  constructor(sheet) {
    Object.assign(this, sheet);
    this.image = new Image();
    this.image.src = sheet.uri;
    this.ready = this.image.decode();
  }

  /** The thumbnail's rectangle on the sheet. */
  at(i) {
    return [(i % this.columns) * this.cell, Math.floor(i / this.columns) * this.cell, this.width, this.height];
  }

  /** A canvas with thumbnail `i`, `size` pixels on its longer side. */
  thumbnail(i, size, label) {
    const scale = size / Math.max(this.width, this.height);
    const canvas = element("canvas", {
      role: "img",
      "aria-label": label,
      width: this.width,
      height: this.height,
      class: scale > 1.5 ? "sharp" : "",
      style: `width:${Math.round(this.width * scale)}px;height:${Math.round(this.height * scale)}px`,
    });
    this.ready.then(() => {
      canvas.getContext("2d").drawImage(this.image, ...this.at(i), 0, 0, this.width, this.height);
    });
    return canvas;
  }
}

/** A canvas's context with as many pixels as the screen has, in units of CSS pixels, cleared. */
function fresh(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const { width, height } = canvas.getBoundingClientRect();
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return { context, width, height };
}

/** A color of the style sheet, as a canvas takes it. */
function color(name) {
  const probe = element("span", { style: `color:var(${name})` });
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** Draws now, whenever the element changes its width, and when the theme changes. */
function redraw(node, draw) {
  let width = 0;
  new ResizeObserver(([entry]) => {
    if (entry.contentRect.width === width) return;
    width = entry.contentRect.width;
    draw();
  }).observe(node);
  document.addEventListener("themechange", draw);
}

function setUpTheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  const store = (value) => {
    try {
      return value ? localStorage.setItem("sslax-theme", value) : localStorage.getItem("sslax-theme");
    } catch {
      return null; // a page that is opened as a file may keep nothing
    }
  };
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const tell = () => {
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to the ${dark() ? "light" : "dark"} theme`);
    document.dispatchEvent(new Event("themechange"));
  };
  const stored = store();
  if (stored) root.dataset.theme = stored;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    store(root.dataset.theme);
    tell();
  });
  system.addEventListener("change", tell);
  tell();
}
