// Training curves: one small chart for each metric, lines of one or of several runs.

const COLORS = ["#2f7ed8", "#e4572e", "#2a9d5c", "#b5890a", "#8e5bd0", "#0f9aa8", "#c43c86", "#7a7f87"];
const AXES = { step: "step", seconds: "seconds of training" };

SECTIONS.curves = (section) => {
  const state = { axis: "step", log: false, smoothing: 0, hidden: new Set() };
  const panels = element("div", { class: "panels" });
  const charts = [];

  function rebuild() {
    charts.length = 0;
    panels.replaceChildren(...panelsOf(section).map((panel) => {
      const chart = new Chart(panel, state, section.runs);
      charts.push(chart);
      return chart.node;
    }));
    if (!charts.length) panels.append(element("p", {}, "There are no numbers yet."));
  }

  const update = (change) => (event) => {
    change(event.target);
    for (const chart of charts) chart.draw();
  };
  const axis = element(
    "select",
    { onchange: update((node) => { state.axis = node.value; }) },
    ...Object.entries(AXES).map(([value, text]) => element("option", { value }, text)),
  );
  const controls = element(
    "div",
    { class: "controls" },
    element("label", {}, "over ", axis),
    element("label", {}, element("input", { type: "checkbox", onchange: update((node) => { state.log = node.checked; }) }), "logarithmic"),
    element("label", {}, "smoothing ", element("input", {
      type: "range", min: 0, max: 0.98, step: 0.02, value: 0, oninput: update((node) => { state.smoothing = Number(node.value); }),
    })),
  );
  if (section.runs.length > 1) {
    section.runs.forEach((run, i) => controls.append(element(
      "label",
      {},
      element("input", { type: "checkbox", checked: true, onchange: update((node) => {
        state.hidden[node.checked ? "delete" : "add"](i);
      }) }),
      element("span", { class: "swatch", style: `background:${COLORS[i % COLORS.length]}` }),
      run.name,
    )));
  }
  rebuild();
  section.refresh = (next) => {
    section.runs = next.runs;
    if (panelsOf(section).length !== charts.length) rebuild();
    for (const chart of charts) {
      chart.runs = next.runs; // the pointer stays where it is
      chart.draw();
    }
  };
  return [controls, panels];
};

/** The panels that have numbers: the known ones first, then whatever else the runs measured. */
function panelsOf(section) {
  const measured = new Set(section.runs.flatMap((run) => Object.keys(run.series)));
  const known = section.panels.filter((panel) => measured.has(panel.name));
  const named = new Set([...known.map((panel) => panel.name), "epoch"]);
  const others = [...measured].filter((name) => !named.has(name) && !name.endsWith("_at_chance")).sort();
  return [...known, ...others.map((name) => ({ name, title: name, bounded: false }))];
}

/** Exponential moving average, without the bias of its start. */
function smoothed(values, weight) {
  let sum = 0;
  let mass = 0;
  return values.map((value) => {
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + 1 - weight;
    return sum / mass;
  });
}

/** About `count` round numbers from `low` to `high`. */
function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step);
  return found;
}

class Chart {
  constructor(panel, state, runs) {
    Object.assign(this, { panel, state, runs, at: null });
    this.svg = element("svg", { height: 180, tabindex: 0, role: "img" });
    this.output = element("output", { "aria-live": "polite" });
    this.node = element("figure", {}, element("figcaption", {}, element("strong", {}, panel.title), this.output), this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event.clientX - this.svg.getBoundingClientRect().left));
    this.svg.addEventListener("pointerleave", () => { this.at = null; this.draw(); });
    this.svg.addEventListener("keydown", (event) => this.key(event));
    redraw(this.svg, () => this.draw());
  }

  lines() {
    const { name } = this.panel;
    const { axis, log, smoothing, hidden } = this.state;
    return this.runs.flatMap((run, i) => hidden.has(i) ? [] : [name, `${name}_at_chance`].filter((key) => run.series[key]).map((key) => {
      const chance = key !== name;
      const raw = run.series[key];
      const values = chance ? raw.value : smoothed(raw.value, smoothing);
      const kept = [...values.keys()].filter((j) => !log || values[j] > 0);
      return {
        run: run.name,
        chance,
        color: chance && this.runs.length < 2 ? "var(--faint)" : COLORS[i % COLORS.length],
        x: kept.map((j) => raw[axis][j]),
        y: kept.map((j) => values[j]),
      };
    })).filter((line) => line.x.length);
  }

  draw() {
    const width = this.svg.getBoundingClientRect().width;
    const lines = this.lines();
    this.svg.replaceChildren();
    this.output.textContent = "";
    if (!width || !lines.length) return;
    const height = 180;
    const { log, axis } = this.state;
    const forward = log ? Math.log10 : (value) => value;
    const xs = lines.flatMap((line) => [line.x[0], line.x[line.x.length - 1]]);
    const ys = lines.flatMap((line) => line.y.map(forward));
    let [low, high] = [Math.min(...ys.slice(0, 1)), Math.max(...ys.slice(0, 1))];
    for (const y of ys) { low = Math.min(low, y); high = Math.max(high, y); }
    if (!log && low >= 0 && (this.panel.bounded || low < 0.5 * high)) low = 0;
    if (!log && this.panel.bounded) high = 1;
    const margin = (high - low || Math.abs(high) || 1) * 0.05;
    if (low !== 0 || log) low -= margin;
    if (!(this.panel.bounded && !log)) high += margin;
    const [left, right] = [0, Math.max(...xs, 1)];
    const box = { left: 46, right: width - 8, top: 8, bottom: height - 20 };
    const toX = (x) => box.left + (x - left) / (right - left) * (box.right - box.left);
    const toY = (y) => box.bottom - (forward(y) - low) / (high - low) * (box.bottom - box.top);

    for (const tick of ticks(low, high, 4)) {
      const y = box.bottom - (tick - low) / (high - low) * (box.bottom - box.top);
      this.svg.append(
        element("line", { class: "grid", x1: box.left, x2: box.right, y1: y, y2: y }),
        element("text", { x: box.left - 5, y: y + 4, "text-anchor": "end" }, short(log ? 10 ** tick : tick)),
      );
    }
    for (const tick of ticks(left, right, Math.max(2, width / 90))) {
      const anchor = toX(tick) > box.right - 12 ? "end" : "middle";
      this.svg.append(element("text", { x: toX(tick), y: height - 5, "text-anchor": anchor }, short(tick)));
    }
    for (const line of lines) {
      const points = line.x.map((x, i) => `${toX(x).toFixed(1)},${toY(line.y[i]).toFixed(1)}`);
      this.svg.append(element("path", {
        d: `M${points.join("L")}`, style: `stroke:${line.color}`, "stroke-dasharray": line.chance ? "5 4" : null,
      }));
      if (points.length === 1) this.dot(toX(line.x[0]), toY(line.y[0]), line.color);
    }
    Object.assign(this, { box, left, right, drawn: lines });
    this.svg.setAttribute("aria-label", `${this.panel.title} over ${AXES[axis]}: ${lines.map((line) =>
      `${line.chance ? "chance" : line.run} ends at ${short(line.y[line.y.length - 1])}`).join("; ")}. Arrow keys read values.`);
    this.read(toX, toY);
  }

  dot(x, y, fill) {
    this.svg.append(element("circle", { cx: x, cy: y, r: 3, style: `fill:${fill}` }));
  }

  /** The values at the pointer, or the last ones. */
  read(toX, toY) {
    const parts = this.drawn.map((line) => {
      let i = line.x.length - 1;
      if (this.at != null) line.x.forEach((x, j) => { if (Math.abs(x - this.at) < Math.abs(line.x[i] - this.at)) i = j; });
      if (this.at != null) this.dot(toX(line.x[i]), toY(line.y[i]), line.color);
      return { line, i };
    });
    if (this.at != null) {
      const x = toX(this.at);
      this.svg.append(element("line", { class: "cross", x1: x, x2: x, y1: this.box.top, y2: this.box.bottom }));
      const { line, i } = parts[0];
      this.output.append(`${this.state.axis} ${short(line.x[i])}: `);
    }
    parts.forEach(({ line, i }, number) => this.output.append(
      number ? ", " : "",
      ...(this.runs.length > 1 ? [element("span", { class: "swatch", style: `background:${line.color}`, title: line.run }), " "] : []),
      `${line.chance ? "chance " : ""}${short(line.y[i])}`,
    ));
  }

  point(x) {
    if (!this.box) return;
    const share = (x - this.box.left) / (this.box.right - this.box.left);
    this.at = this.left + Math.min(1, Math.max(0, share)) * (this.right - this.left);
    this.draw();
  }

  key(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || !this.drawn?.length) return;
    event.preventDefault();
    const { x } = this.drawn[0];
    let i = this.at == null ? (move > 0 ? -1 : x.length) : x.reduce((best, value, j) => Math.abs(value - this.at) < Math.abs(x[best] - this.at) ? j : best, 0);
    i = Math.min(x.length - 1, Math.max(0, i + move));
    this.at = x[i];
    this.draw();
  }
}
