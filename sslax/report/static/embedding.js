// The map of the embedding, and the nearest neighbors of the image that was chosen.

SECTIONS.embedding = (section) => {
  const sheet = new Sheet(section.sheet);
  const count = sheet.count;
  const neighbors = section.neighbors.map((entry) => ({ ...entry, index: integers(entry.index) }));
  const state = { chosen: 0, hovered: null, found: null, thumbnails: false };

  const classOf = (i) => (section.labels ? section.classes[section.labels[i]] : null);
  const nameOf = (i) => section.files[i] + (section.labels ? `, ${classOf(i).name}` : "");
  const pick = (i, size, extra = "") =>
    element("button", { type: "button", title: nameOf(i), class: extra, "data-image": i, onclick: () => choose(i) },
      sheet.thumbnail(i, size, nameOf(i)));

  // The map.
  const canvas = element("canvas", { role: "img", "aria-label": `Map of ${count} images; the search below finds them as well` });
  const tip = element("div", { class: "tip", hidden: true });
  const map = element("div", { class: "map" }, canvas, tip);
  const place = (i, size) => section.points[i].map((value, axis) => {
    const share = 0.03 + 0.94 * value / 1000;
    return size * (axis ? 1 - share : share);
  });

  function drawMap() {
    const { context, width } = fresh(canvas);
    const faint = color("--faint");
    for (let i = 0; i < count; i++) {
      const [x, y] = place(i, width);
      context.globalAlpha = state.found && !state.found.has(i) ? 0.12 : 0.9;
      if (state.thumbnails) {
        const [w, h] = [18, 18 * sheet.height / sheet.width];
        context.imageSmoothingEnabled = sheet.width > 32;
        context.drawImage(sheet.image, ...sheet.at(i), x - w / 2, y - h / 2, w, h);
      } else {
        context.fillStyle = classOf(i)?.color ?? faint;
        context.beginPath();
        context.arc(x, y, 3.2, 0, 7);
        context.fill();
      }
    }
    context.globalAlpha = 1;
    context.strokeStyle = color("--ink");
    context.lineWidth = 2;
    const [x, y] = place(state.chosen, width);
    context.beginPath();
    context.arc(x, y, 8, 0, 7);
    context.stroke();
  }

  function nearest(event) {
    const box = canvas.getBoundingClientRect();
    const at = [event.clientX - box.left, event.clientY - box.top];
    let best = null;
    let least = 24 ** 2;
    for (let i = 0; i < count; i++) {
      if (state.found && !state.found.has(i)) continue;
      const [x, y] = place(i, box.width);
      const distance = (x - at[0]) ** 2 + (y - at[1]) ** 2;
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  }

  canvas.addEventListener("pointermove", (event) => {
    const i = nearest(event);
    tip.hidden = i == null;
    if (i == null || i === state.hovered) { state.hovered = i; return; }
    state.hovered = i;
    const width = canvas.getBoundingClientRect().width;
    const [x, y] = place(i, width);
    tip.replaceChildren(sheet.thumbnail(i, 72, nameOf(i)), nameOf(i));
    tip.style.left = x < width / 2 ? `${x + 12}px` : "";
    tip.style.right = x < width / 2 ? "" : `${width - x + 12}px`;
    tip.style.top = `${Math.max(0, y - 40)}px`;
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; state.hovered = null; });
  canvas.addEventListener("click", (event) => {
    const i = nearest(event);
    if (i != null) choose(i);
  });

  // The neighbors.
  const side = element("div", { "aria-live": "polite" });

  function choose(i) {
    state.chosen = i;
    const rows = neighbors.map((entry) => {
      const share = entry.same_class == null ? "" : `: ${Math.round(100 * entry.same_class)} % of all neighbors share the class`;
      const images = [...entry.index.slice(i * section.k, (i + 1) * section.k)];
      const frame = (j) => (section.labels ? (section.labels[i] === section.labels[j] ? "right" : "wrong") : "");
      return [
        element("h3", {}, entry.name + share),
        element("div", { class: "strip", "data-neighbors": images.join(" ") }, ...images.map((j) => pick(j, 56, frame(j)))),
      ];
    });
    side.replaceChildren(
      element("div", { class: "query" }, sheet.thumbnail(i, 112, nameOf(i)), element("p", {}, nameOf(i))),
      ...rows.flat(),
    );
    drawMap();
  }

  // The search.
  const results = element("div", { class: "strip" });
  const said = element("p", { class: "faint", role: "status" });
  const search = element("input", { type: "search", placeholder: "class or file", oninput: () => {
    const wanted = search.value.trim().toLowerCase();
    const found = wanted ? [...section.files.keys()].filter((i) => nameOf(i).toLowerCase().includes(wanted)) : null;
    state.found = found && new Set(found);
    said.textContent = found ? `${found.length} of ${count} images` + (found.length > 60 ? ", the first 60:" : "") : "";
    results.replaceChildren(...(found || []).slice(0, 60).map((i) => pick(i, 40)));
    drawMap();
  } });

  const thumbnails = element("input", { type: "checkbox", onchange: () => { state.thumbnails = thumbnails.checked; drawMap(); } });
  const legend = element("div", { class: "legend" });
  if (section.labels) {
    const present = [...new Set(section.labels)].sort((a, b) => a - b);
    legend.append(...present.slice(0, 20).map((c) => element("span", {},
      element("span", { class: "swatch", style: `background:${section.classes[c].color}` }), ` ${section.classes[c].name}`)));
    if (present.length > 20) legend.append(`and ${present.length - 20} more`);
  }
  sheet.ready.then(() => redraw(canvas, drawMap));
  choose(0);
  return [
    element("p", { class: "faint" }, `Choose an image, on the map or among its neighbors, to see what is nearest to it in feature space`
      + ` among these ${count}${section.labels ? "; solid green: the same class, dashed red: another" : ""}.`
      + " The map is a t-SNE of the features; only neighborhoods are meaningful."),
    element("div", { class: "controls" }, element("label", {}, "search ", search), element("label", {}, thumbnails, "thumbnails on the map")),
    said, results,
    element("div", { class: "halves" }, element("div", {}, map, legend), side),
  ];
};
