// Facts, tables, and grids of pictures.

SECTIONS.facts = (section) => [
  element("dl", {}, ...section.rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
];

SECTIONS.table = (section) => [
  ...section.blocks.map((block) => {
    const head = element("tr", {}, ...block.columns.map((name) => element("th", { scope: "col" }, name)));
    const groups = (block.groups || []).map(([name, span]) =>
      element("th", { colspan: span, scope: "colgroup", class: "group" }, name));
    const rows = block.rows.map(([name, ...cells]) =>
      element("tr", {}, element("th", { scope: "row" }, name), ...cells.map((cell) => element("td", {}, cell))));
    const table = element(
      "table",
      { class: section.id.startsWith("results") ? (groups.length ? "" : "numbers") : "texts" },
      element("thead", {}, ...(groups.length ? [element("tr", {}, element("td"), ...groups)] : []), head),
      element("tbody", {}, ...rows),
    );
    // Wide tables scroll, also by the keyboard.
    return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": section.title }, table);
  }),
  ...section.notes.map((note) => element("p", { class: "faint" }, note)),
];

SECTIONS.pictures = (section) => {
  const { columns } = section;
  const grid = element("div", {
    class: "task",
    tabindex: 0,
    role: "region",
    "aria-label": section.title,
    style: `grid-template-columns:repeat(${columns.length}, minmax(4.5rem, 8rem))`,
  });
  grid.append(...columns.map((column) => element("div", {}, column.title)));
  for (let row = 0; row < columns[0].images.length; row++) {
    for (const { title, images } of columns) {
      grid.append(element("img", { src: images[row], alt: `${title}, example ${row + 1}`, class: "sharp" }));
    }
  }
  return [grid];
};
