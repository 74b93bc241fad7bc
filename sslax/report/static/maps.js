// Maps of depth or flow over images; films; trajectories.

SECTIONS.maps = (section) => {
  const state = { example: 0, layer: 1, share: 0.5 };
  const under = element("img");
  const over = element("img", { class: "over" });
  const edge = element("div", { class: "edge" });
  const arrows = element("canvas", { "aria-hidden": "true" });
  const slider = element("div", { class: "slider" }, under, over, edge, arrows);
  const readout = element("p", { class: "faint", role: "status" });
  const range = element("input", { type: "range", class: "wide", min: 0, max: 100, value: 50, "aria-label": "How much of the image is shown",
    oninput: () => { state.share = range.value / 100; place(); } });
  const layers = element("div", { class: "controls", role: "group", "aria-label": "What is shown beside the image" });
  const chooser = element("div", { class: "chooser", role: "group", "aria-label": "Examples" });
  const fields = section.examples.map((example) => (example.flow || [example.inverse_depth]).map(numbersOf));
  const cloud = section.examples[0].inverse_depth ? pointCloud(section) : null;

  function place() {
    // The image is on the left of the edge, and the map is under it.
    over.style.clipPath = `inset(0 ${100 * (1 - state.share)}% 0 0)`;
    edge.style.left = `calc(${100 * state.share}% - 1px)`;
  }

  function show() {
    const { layers: found } = section.examples[state.example];
    const layer = found[state.layer];
    const small = (node) => node.classList.toggle("sharp", node.naturalWidth < 300);
    for (const [node, { name, uri }] of [[under, layer], [over, found[0]]]) {
      node.onload = () => small(node);
      node.src = uri;
      node.alt = `${name}, example ${state.example + 1}`;
    }
    layers.replaceChildren(...found.slice(1).map(({ name }, i) => element("button", {
      type: "button", "aria-pressed": String(i + 1 === state.layer), onclick: () => { state.layer = i + 1; show(); },
    }, name)));
    chooser.replaceChildren(...section.examples.map((example, i) => element("button", {
      type: "button", "aria-pressed": String(i === state.example), "data-example": i, onclick: () => { state.example = i; show(); cloud?.show(i); },
    }, element("img", { src: example.layers[0].uri, alt: `example ${i + 1}` }))));
    readout.textContent = section.wheel ? "Point at the image to see the motion there." : "Point at the image to read the depth there.";
    fresh(arrows);
    place();
  }

  slider.addEventListener("pointermove", (event) => {
    const box = slider.getBoundingClientRect();
    const [u, v] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    if (event.buttons && event.isPrimary) { state.share = Math.min(1, Math.max(0, u)); range.value = 100 * state.share; place(); }
    const [field, second] = fields[state.example];
    const column = Math.min(field.width - 1, Math.max(0, Math.floor(u * field.width)));
    const row = Math.min(field.height - 1, Math.max(0, Math.floor(v * field.height)));
    const at = row * field.width + column;
    if (second) drawArrows(field, second, at, u, v);
    else readout.textContent = depthAt(field.values[at]);
  });
  function depthAt(inverse) {
    if (!(inverse > 0)) return "The depth here is not known.";
    return `depth ${short(1 / inverse)}${section.unit ? ` ${section.unit}` : ", of unknown scale"}`;
  }

  slider.addEventListener("pointerleave", () => fresh(arrows));

  function drawArrows(x, y, at, u, v) {
    const { context, width, height } = fresh(arrows);
    const { stride } = section.examples[state.example];
    const scale = width / (x.width * stride); // of a pixel of the flow, on the screen
    let fastest = 0;
    x.values.forEach((value, i) => { fastest = Math.max(fastest, Math.hypot(value, y.values[i]) || 0); });
    const gap = Math.max(22, width / 24);
    // As long as the motion, unless that would be too short to see or too long to tell apart.
    const longest = gap / (fastest || 1);
    const length = Math.min(Math.max(scale, Math.min(longest, 8 * scale)), 3 * longest);
    const arrow = (px, py, i, style, weight) => {
      const [dx, dy] = [x.values[i] * length, y.values[i] * length];
      if (!Number.isFinite(dx + dy)) return;
      context.strokeStyle = context.fillStyle = style;
      context.lineWidth = weight;
      context.beginPath();
      context.moveTo(px, py);
      context.lineTo(px + dx, py + dy);
      context.stroke();
      context.beginPath();
      context.arc(px, py, weight, 0, 7);
      context.fill();
    };
    for (let py = gap / 2; py < height; py += gap) {
      for (let px = gap / 2; px < width; px += gap) {
        const i = Math.floor(py / height * x.height) * x.width + Math.floor(px / width * x.width);
        arrow(px, py, i, "#000b", 2.6);
        arrow(px, py, i, "#fffd", 1.2);
      }
    }
    arrow(u * width, v * height, at, "#000", 5);
    arrow(u * width, v * height, at, "#ffd400", 2.6);
    const [dx, dy] = [x.values[at], y.values[at]];
    const longer = Math.abs(length / scale - 1) > 0.01 ? ` Arrows are ${short(length / scale)} times as long as the motion.` : "";
    readout.textContent = Number.isFinite(dx + dy)
      ? `${short(Math.abs(dx))} ${dx < 0 ? "left" : "right"}, ${short(Math.abs(dy))} ${dy < 0 ? "up" : "down"}: `
        + `${short(Math.hypot(dx, dy))} pixels. Dots mark where arrows start.${longer}`
      : "The motion here is not known.";
  }

  redraw(slider, () => fresh(arrows));
  show();
  const nodes = [chooser, layers, slider, range, readout];
  if (section.wheel) {
    nodes.push(element("div", { class: "query" },
      element("img", { src: section.wheel, alt: "Color wheel: right is red, down yellow, left cyan, up violet", class: "wheel" }),
      element("p", { class: "faint" }, "A pixel's color says where it moves, from the middle of the wheel to that color; faster motion is more saturated.")));
  }
  if (cloud) nodes.push(...cloud.nodes);
  return nodes;
};

SECTIONS.film = (section) => {
  const frames = section.images.length;
  const picture = element("img");
  const map = element("img");
  let playing = null;
  const show = () => {
    const i = Number(range.value);
    for (const [node, uris, what] of [[picture, section.images, "image"], [map, section.maps, "map"]]) {
      node.src = uris[i];
      node.alt = `${what} of frame ${i + 1} of ${frames}`;
    }
  };
  const range = element("input", { type: "range", class: "wide", min: 0, max: frames - 1, value: 0, "aria-label": "Frame", oninput: show });
  const play = element("button", { type: "button", onclick: () => {
    if (playing) { clearInterval(playing); playing = null; } else {
      playing = setInterval(() => { range.value = (Number(range.value) + 1) % frames; show(); }, 120);
    }
    play.textContent = playing ? "Pause" : "Play";
  } }, "Play");
  show();
  return [element("div", { class: "film" }, picture, map), range, element("div", { class: "controls" }, play)];
};

SECTIONS.trajectory = (section) => {
  const svg = element("svg", { height: 360, role: "img", "aria-label": `${section.title}: ${section.paths.map((path) => path.name).join(" and ")}` });
  const colors = ["var(--ink)", ...COLORS];
  redraw(svg, () => {
    const width = svg.getBoundingClientRect().width;
    const extent = (axis) => { const all = section.paths.flatMap((path) => path[axis]); return [Math.min(...all), Math.max(...all)]; };
    const [[x0, x1], [y0, y1]] = [extent("x"), extent("y")];
    const scale = Math.min((width - 70) / (x1 - x0 || 1), 300 / (y1 - y0 || 1)); // the same for both axes
    const [middleX, middleY] = [(x0 + x1) / 2, (y0 + y1) / 2];
    const to = (x, y) => [width / 2 + (x - middleX) * scale, 175 - (y - middleY) * scale];
    svg.replaceChildren(...section.paths.flatMap((path, i) => {
      const points = path.x.map((x, j) => to(x, path.y[j]).map((value) => value.toFixed(1)).join(","));
      const [cx, cy] = points[0].split(",");
      return [element("path", { d: `M${points.join("L")}`, style: `stroke:${colors[i]}` }),
        element("circle", { cx, cy, r: 4, style: `fill:${colors[i]}` })];
    }));
    // A bar of a round length.
    const bar = ticks(0, 120 / scale, 3).pop();
    svg.append(element("line", { x1: 10, x2: 10 + bar * scale, y1: 345, y2: 345, style: "stroke:var(--faint)" }),
      element("text", { x: 14 + bar * scale, y: 349 }, short(bar)));
  });
  const legend = section.paths.map((path, i) => element("span", {}, element("span", { class: "swatch", style: `background:${colors[i]}` }), ` ${path.name}`));
  return [element("div", { class: "legend" }, ...legend), svg, element("p", { class: "faint" }, "A dot marks the start; the first camera looks upward.")];
};
