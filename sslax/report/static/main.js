// Puts the sections on the page, and keeps a live one up to date.

const report = JSON.parse(document.getElementById("contents").textContent);
const nav = document.querySelector("nav");
const main = document.querySelector("main");

setUpTheme();
for (const section of report.sections) {
  const heading = element("h2", {}, section.title);
  main.append(element("section", { id: section.id }, heading, ...SECTIONS[section.type](section)));
  nav.append(element("a", { href: `#${section.id}` }, section.title));
}
// The browser looked for the place in the address before it was there.
document.getElementById(location.hash.slice(1))?.scrollIntoView();

if (report.live) {
  const status = document.getElementById("status");
  let version = null;
  const ask = async () => {
    try {
      const news = await (await fetch("news")).json();
      if (version !== null && news.version !== version) location.reload(); // it was evaluated
      version = news.version;
      status.textContent = news.status;
      for (const section of news.sections) {
        const shown = report.sections.find(({ id }) => id === section.id);
        if (!shown) { location.reload(); return; }
        if (shown.refresh) shown.refresh(section);
        else document.querySelector(`#${section.id}`).replaceChildren(element("h2", {}, section.title), ...SECTIONS[section.type](section));
      }
    } catch {
      status.textContent = "sslax.watch has ended; this is what it knew last.";
    }
    setTimeout(ask, 3000);
  };
  ask();
}
