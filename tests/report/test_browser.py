"""The page in a browser: it opens without an error, pictures load, and a click changes things."""

import json
import re
import shutil
import subprocess
import threading

import pytest

from sslax.report import depth, flow, page, representation, run, server
from sslax.tasks import reports

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)

# Before anything of the page runs.
LISTEN = """<script>
window.problems = [];
for (const kind of ["error", "unhandledrejection", "securitypolicyviolation"]) {
  const tell = (event) => problems.push(`${kind}: ${event.message || event.reason}`);
  addEventListener(kind, tell, true);
}
console.error = (...words) => problems.push(words.join(" "));
</script>"""

# After it: what a reader does, and what comes of it.
ACT = """<script>
const one = (query) => document.querySelector(query);
const neighbors = () => [...document.querySelectorAll("[data-neighbors]")].map((node) => node.dataset.neighbors);
const inked = (canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((value, i) => i % 4 < 3 && value > 60);
onload = () => setTimeout(async () => {
  const found = { before: neighbors(), alerts: document.querySelectorAll("main img[onerror]").length };
  one("#embedding .strip button").click();
  found.chosen = one("#embedding .query p").textContent;
  found.after = neighbors();
  const search = one("input[type=search]");
  search.value = "DARK";
  search.dispatchEvent(new Event("input"));
  found.search = document.querySelectorAll("#embedding > .strip button").length;
  found.theme = getComputedStyle(document.body).backgroundColor;
  one("#theme").click();
  found.dark = getComputedStyle(document.body).backgroundColor;
  const chart = one("#curves svg");
  const read = () => one("#curves output").textContent;
  found.last = read();
  chart.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  found.first = read();
  const axis = one("#curves select");
  axis.value = "seconds";
  axis.dispatchEvent(new Event("change"));
  found.seconds = chart.getAttribute("aria-label");
  const image = () => one("#maps .slider .over").src;
  const first = image();
  document.querySelectorAll("#maps .chooser button")[1].click();
  found.moved = image() !== first;
  await Promise.all([...document.images].map((node) => node.decode()));
  found.pictures = document.images.length;
  found.missing = [...document.images].filter((node) => !node.naturalWidth || !node.alt).length;
  found.cloud = inked(one(".cloud"));
  found.thumbnail = inked(one("#embedding .query canvas"));
  found.map = inked(one(".map canvas"));
  found.unnamed = [...document.querySelectorAll("button, input, select")].filter(
    (node) => !(node.labels?.length || node.textContent.trim() || node.title || node.getAttribute("aria-label") || node.querySelector("[alt]"))).length;
  found.problems = problems;
  document.body.append(Object.assign(document.createElement("pre"), { id: "outcome", textContent: JSON.stringify(found) }));
}, 300);
</script>"""  # noqa: E501


def opened(address, folder):
    """What a browser made of the page after some seconds of its own clock."""
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000"]
    done = subprocess.run([*command, address], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def outcome(features, depths, flows, workdir, tmp_path):
    """What happened on a page of all kinds of sections."""
    folder = workdir("a")
    of_flow = [section | {"id": f"flow-{section['id']}"} for section in flow.sections(flows)]
    sections = [
        run.curves({"a": folder}),
        run.changes(folder),
        *representation.sections(features),
        *depth.sections(depths),
        *of_flow,
    ]
    text = page.render("</title><img src=x onerror=alert(1)>", sections)
    text = text.replace("<style>", LISTEN + "<style>", 1).replace("</body>", ACT + "</body>")
    (tmp_path / "page.html").write_text(text)
    dom = opened((tmp_path / "page.html").as_uri(), tmp_path)
    found = re.search(r'<pre id="outcome">(.*?)</pre>', dom, re.DOTALL)
    assert found, dom[-2000:]
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


def test_a_reader_finds_their_way(outcome):
    assert outcome["problems"] == [] and outcome["alerts"] == outcome["missing"] == 0
    assert outcome["unnamed"] == 0  # every control says what it is
    assert outcome["pictures"] > 8 and outcome["moved"]
    assert outcome["cloud"] and outcome["thumbnail"] and outcome["map"]
    before, after = outcome["before"], outcome["after"]
    assert len(before) == len(after) == 2 and before[0] != after[0]
    assert f"/{before[0].split()[0]}.png" in outcome["chosen"]  # the one that was clicked
    assert outcome["search"] == 6  # of twelve
    assert outcome["theme"] != outcome["dark"]
    assert outcome["last"] == "3" and outcome["first"] == "step 10: 5"
    assert "over seconds of training: a ends at 3" in outcome["seconds"]


def test_a_live_page_follows_the_run(workdir, tmp_path):
    """Lines are written after the page was sent."""
    folder = workdir("a")
    news = []

    def news_of_more():
        news.append(len(news))
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('\n{"step": 40, "loss": 2.25, "images_per_second": 1280.0}\n')
        return reports.news(folder)

    with server.make(lambda: reports.render(folder, live=True), news_of_more) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            dom = opened(f"http://127.0.0.1:{serving.server_port}", tmp_path)
        finally:
            serving.shutdown()
            thread.join()
    assert len(news) > 1 and "a ends at 2.25" in dom and "40 steps, 2 %" in dom
    assert re.search(r'role="status">Last measured .* ago\.</p>', dom)
