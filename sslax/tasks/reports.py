"""A run's page, `report.html`: written at each evaluation, and rendered while the run trains."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sslax import figures
from sslax.report import page, pictures, run
from sslax.report.page import Section
from sslax.tasks import tables
from sslax.types import Pictures

FILE = "report.html"
# Sections in their order; any others, those of the task, come between these.
_FIRST = ("facts", "results", "results-finetune", "results-linear-probe", "curves")
_LAST = ("config",)


def write(workdir: Path, make: Callable[[], list[Section]], *, suffix: str = "") -> Path | None:
    """Writes the page of a run; what goes wrong is said in a sentence, and the run goes on.

    Args:
        workdir: the run's folder.
        make: returns the sections that an evaluation brings. Those of other evaluations stay,
            those that are read from the run's folder are made anew.
        suffix: of the file, for another data set than the run's.

    Returns:
        The file; None where it could not be written.
    """
    path = workdir / f"report{suffix}.html"
    try:
        page.write(path, run.name_of(workdir), merged(page.read(path), make(), training(workdir)))
    except Exception as error:  # whatever it is, hours of training are worth more than a picture
        reason = " ".join(str(error).split()) or "no reason given"
        print(f"warning: {path} was not written: {type(error).__name__}: {reason}", flush=True)
        return None
    return path


def render(workdir: Path, *, live: bool = False) -> str:
    """The page of a run as it is now: what was evaluated, and the training up to this moment.

    Raises:
        UserError: there is no run.
    """
    sections = merged(page.read(workdir / FILE), training(workdir))
    return page.render(run.name_of(workdir), sections, live=live)


def news(workdir: Path) -> dict[str, Any]:
    """What a live page asks for: the training up to this moment.

    Returns:
        `sections`; `status`, a sentence; and `version`, which changes when the run is evaluated.

    Raises:
        UserError: there is no run.
    """
    page_file, metrics = workdir / FILE, workdir / "metrics.jsonl"
    version = page_file.stat().st_mtime if page_file.exists() else 0
    status = "Nothing is measured yet."
    if metrics.exists():
        age = run.clock(max(0.0, time.time() - metrics.stat().st_mtime))
        status = f"Last measured {age} ago."
    live = [section for section in training(workdir) if section["id"] != "config"]
    return {"version": version, "status": status, "sections": live}


def training(workdir: Path) -> list[Section]:
    """The sections that are read from the run's folder.

    Raises:
        UserError: there is no run.
    """
    facts = {"id": "facts", "type": "facts", "title": "Run", "rows": [*run.facts(workdir).items()]}
    return [facts, run.changes(workdir), run.curves({run.name_of(workdir): workdir})]


def merged(*groups: Sequence[Section]) -> list[Section]:
    """Sections in their order; of those with one id the last.

    Example:
        >>> old = [{"id": "maps", "n": 1}, {"id": "curves", "n": 1}]
        >>> merged(old, [{"id": "curves", "n": 2}])
        [{'id': 'curves', 'n': 2}, {'id': 'maps', 'n': 1}]
    """
    by_id = {section["id"]: section for group in groups for section in group}
    between = [name for name in by_id if name not in _FIRST + _LAST]
    return [by_id[name] for name in (*_FIRST, *between, *_LAST) if name in by_id]


def results_section(
    results: Mapping[str, float], suffixes: Sequence[str], *, kind: str = "", on: str = ""
) -> Section:
    """The table of an evaluation.

    Args:
        results: numbers by name, with the `step` that they belong to.
        suffixes: as in `tables.blocks`.
        kind: of the evaluation, as in the name of its file: '', '-finetune' or '-linear-probe'.
        on: name of the data set, where it is not the run's.
    """
    numbers = {name: value for name, value in results.items() if name != "step"}
    blocks, notes = tables.blocks(numbers, suffixes)
    title = {"": "Evaluation", "-finetune": "Fine-tuning", "-linear-probe": "Linear probe"}[kind]
    title += f" on {on}" if on else ""
    if "step" in results:
        title += f", step {int(results['step']):,}"
    return {
        "id": f"results{kind}",
        "type": "table",
        "title": title,
        "blocks": [{"columns": rows[0], "rows": rows[1:]} for rows in blocks],
        "notes": notes,
    }


def task_section(columns: Pictures) -> Section:
    """What a method is given and what it predicts, from `Method.visualize`."""
    colored = {title: figures.colorize(column) for title, column in columns.items()}
    uris = {
        title: [pictures.data_uri(image, side=160) for image in images]
        for title, images in colored.items()
    }
    found = [{"title": title, "images": images} for title, images in uris.items()]
    return {"id": "task", "type": "pictures", "title": "Training task", "columns": found}


def comparison(workdirs: Sequence[Path]) -> list[Section]:
    """The sections of a page of several runs: facts, configs, results and curves side by side.

    Raises:
        UserError: one of the folders holds no run.
    """
    runs = _named(workdirs)
    facts = {name: run.facts(workdir) for name, workdir in runs.items()}
    rows = [[key, *(of.get(key, "-") for of in facts.values())] for key in _keys(facts)]
    sections = [_table("facts", "Runs", ["", *runs], rows), run.curves(runs)]
    configs = {name: run.flat(run.config_of(workdir)) for name, workdir in runs.items()}
    changed = _table("config", "Config", ["", *runs], run.differences(configs))
    if not changed["blocks"][0]["rows"]:
        changed |= {"blocks": [], "notes": ["The configs are alike."]}
    results = {name: found for name, at in runs.items() if (found := tables.read_results(at))}
    if results:
        sections.append(_results(results))
    return merged(sections, [changed])


def _table(name: str, title: str, columns: list[str], rows: list[list[str]]) -> dict[str, Any]:
    blocks = [{"columns": columns, "rows": rows}]
    return {"id": name, "type": "table", "title": title, "blocks": blocks, "notes": []}


def _results(results: Mapping[str, Mapping[str, float]]) -> Section:
    """Tables with a group of columns for each run: its networks and its baselines."""
    tabled = {name: results_section(found, tables.ALL_SUFFIXES) for name, found in results.items()}
    titles = _keys({n: {b["columns"][0]: b for b in t["blocks"]} for n, t in tabled.items()})
    blocks = []
    for title in titles:
        found = {n: _block(table, title) for n, table in tabled.items()}
        of = {n: block for n, block in found.items() if block["columns"]}
        rows = _keys({n: block["cells"] for n, block in of.items()})
        cells = [
            [row, *(c for b in of.values() for c in b["cells"].get(row, ["-"] * len(b["columns"])))]
            for row in rows
        ]
        groups = [[name, len(block["columns"])] for name, block in of.items()]
        columns = [title, *(column for block in of.values() for column in block["columns"])]
        blocks.append({"columns": columns, "groups": groups, "rows": cells})
    return {
        "id": "results",
        "type": "table",
        "title": "Evaluation",
        "blocks": blocks,
        "notes": [],
    }


def _block(table: Section, title: str) -> dict[str, Any]:
    """A run's block of that title: its columns, and its cells by row."""
    for block in table["blocks"]:
        if block["columns"][0] == title:
            return {"columns": block["columns"][1:], "cells": {r[0]: r[1:] for r in block["rows"]}}
    return {"columns": [], "cells": {}}


def _keys(tables_by_run: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The keys of all of them, each once, in the order in which they come."""
    return [*dict.fromkeys(key for table in tables_by_run.values() for key in table)]


def _named(workdirs: Sequence[Path]) -> dict[str, Path]:
    """The folders by their names, with as many parts of the path as tell them apart.

    Example:
        >>> [*_named([Path("/a/run"), Path("/b/run")])]
        ['a/run', 'b/run']
    """
    parts = [workdir.resolve().parts for workdir in workdirs]
    longest = max(map(len, parts))
    for count in range(1, longest + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len({*names}) == len(names):
            break
    return dict(zip(names, workdirs))
