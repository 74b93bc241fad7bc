"""Links between pages lead somewhere, and the course's notebooks are whole and run."""

import ast
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COURSE = ROOT / "docs" / "course"
CHAPTERS = sorted(COURSE.glob("*.ipynb"))
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "experiments" / "README.md",
    ROOT / "experiments" / "speedrun" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def anchors(page):
    """Those that GitHub and the site give to headings: words in lower case, joined by hyphens."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in headings}


def links(text):
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [link for link in found if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in links(page.read_text("utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def cells(chapter, kind):
    notebook = json.loads(chapter.read_text("utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def source(cell):
    return "".join(cell["source"])


def test_the_course_has_seven_chapters_which_its_page_lists():
    page = (COURSE / "README.md").read_text("utf-8")
    assert len(CHAPTERS) == 7 and all(f"({chapter.name})" in page for chapter in CHAPTERS)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_chapters_were_run_from_top_to_bottom_without_errors(chapter):
    code = cells(chapter, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 1 and chapter.stat().st_size < 600_000
    text = "\n".join(map(source, cells(chapter, "markdown")))
    assert re.search(r"^## Exercises\n+1\. .*^2\. .*^3\. ", text, flags=re.MULTILINE | re.DOTALL)
    for cell in code:
        ast.parse(source(cell))


@pytest.mark.parametrize("stem", ["05_stereo", "06_video"])
def test_chapters_run(stem, monkeypatch):
    """The two cheapest as they are but for the steps of training, of which there are two."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    spec = importlib.util.spec_from_file_location("lesson", COURSE / "lesson.py")
    lesson = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lesson)
    train = lesson.train
    lesson.train = lambda *args, **knobs: train(*args, **knobs | {"steps": 2})
    monkeypatch.setitem(sys.modules, "lesson", lesson)
    names: dict[str, object] = {}
    for cell in cells(COURSE / f"{stem}.ipynb", "code"):
        exec(compile(source(cell), stem, "exec"), names)
    matplotlib.pyplot.close("all")
    assert names["curve"] and len(names["curve"]) == 2
