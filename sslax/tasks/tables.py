"""Results for people and for programs: a table of text and a JSON file."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sslax.data.files.text import write_text
from sslax.measures.representation import BEST_STAGE, COLLAPSE, stage_of

TRIVIAL = "_trivial"
SUFFIXES = ("", "_untrained", "_pixels")
ALL_SUFFIXES = (*SUFFIXES, "_teacher", TRIVIAL)  # of any task
NO_RESULTS = "The test set has no ground truth: there are no numbers, only pictures."
UNLABELED = "Only collapse was measured: accuracies need labels, for training and for testing."
TOO_LARGE = (
    "Logistic regression would take more than config.evaluate.linear_bytes on one device and was "
    "left out: see linear_sgd, or evaluate with --linear_probe, which have no such limit."
)

Cells = dict[str, dict[str, float]]  # by row and column


def table(results: Mapping[str, float], suffixes: Sequence[str] = SUFFIXES) -> str:
    """The numbers as aligned text: a row for each, and a column for each suffix.

    Accuracies of classifiers are in percent, with their standard deviations after `±` and the best
    stage named; collapse measures and any other numbers follow in blocks of their own.

    Args:
        results: numbers by name; a suffix says which network or baseline a number belongs to.
        suffixes: the suffixes, '' for the trained network among them.

    Returns:
        Lines for the terminal; a sentence where there are no labels, or no numbers, or no logistic
        regression.

    Example:
        >>> print(table({"epe": 0.5, "epe_trivial": 2.25}, ("", "_trivial")))
              trained   trivial
        epe     0.500     2.250
        >>> print(table({"knn": 0.5, "knn_pixels": 0.25, "rankme": 3.14}))
        accuracy, %   trained   pixels
        knn              50.0     25.0
        <BLANKLINE>
        collapse      trained   pixels
        rankme           3.14        -
    """
    found, notes = blocks(results, suffixes)
    return "\n\n".join([*aligned(found), *notes])


def blocks(
    results: Mapping[str, float], suffixes: Sequence[str] = SUFFIXES
) -> tuple[list[list[list[str]]], list[str]]:
    """The table's blocks, rows of cells with a heading first, and sentences that go with them.

    Example:
        >>> blocks({"epe": 0.5, "epe_trivial": 2.25}, ("", "_trivial"))
        ([[['', 'trained', 'trivial'], ['epe', '0.500', '2.250']]], [])
    """
    if not results:
        return [], [NO_RESULTS]
    cells = _by_column(results, suffixes)
    columns = [_column(suffix) for suffix in suffixes]
    columns = [column for column in columns if any(column in row for row in cells.values())]
    spreads = [n for n in cells if n.endswith("_std") and n.removesuffix("_std") in cells]
    names = [n for n in cells if n not in spreads]
    accuracies = [n for n in names if n.startswith(("knn", "linear", "finetune"))]
    collapse = [n for n in names if n in COLLAPSE]
    others = [n for n in names if n not in {*accuracies, *collapse}]
    found = [
        [[title, *columns], *([n, *(text(cells, n, c) for c in columns)] for n in names)]
        for title, names, text in (
            ("accuracy, %", accuracies, _percent),
            ("collapse", collapse, _significant),
            ("", others, _decimal),
        )
        if names
    ]
    notes = [UNLABELED] if collapse and not accuracies else []
    if cells.get("linear_sgd", {}).keys() - cells.get("linear", {}).keys():
        notes.append(TOO_LARGE)
    return found, notes


def write_results(path: str | os.PathLike, results: Mapping[str, float]) -> None:
    """Writes the numbers as sorted JSON, atomically; numbers that are not finite become null.

    Args:
        path: the file; its folder is created.
        results: numbers by name.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results.json"
        >>> write_results(path, {"knn": np.float32(0.5), "a": 1})
        >>> json.loads(path.read_text())
        {'a': 1.0, 'knn': 0.5}
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = {name: float(value) for name, value in results.items()}
    finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    write_text(path, json.dumps(finite, indent=2, sort_keys=True) + "\n")


def read_results(workdir: Path) -> dict[str, float] | None:
    """What `results.json` in a run's folder says; None where the run was not evaluated."""
    path = workdir / "results.json"
    if not path.exists():
        return None
    numbers = json.loads(path.read_text())
    return {name: value for name, value in numbers.items() if value is not None}


def _column(suffix: str) -> str:
    return suffix.removeprefix("_") or "trained"


def _by_column(results: Mapping[str, float], suffixes: Sequence[str]) -> Cells:
    """The numbers by their name without a suffix, then by column."""
    cells: Cells = {}
    for name, value in results.items():
        suffix = next((s for s in suffixes if s and name.endswith(s)), "")
        cells.setdefault(name.removesuffix(suffix), {})[_column(suffix)] = value
    return cells


def _percent(cells: Cells, name: str, column: str) -> str:
    value, spread = cells[name].get(column), cells.get(f"{name}_std", {}).get(column)
    if value is None:
        return "-"
    text = f"{100 * value:.1f}"
    if name == BEST_STAGE:
        stages = (stage_of(n) for n, row in cells.items() if row.get(column) == value)
        best = next((stage for stage in stages if stage), None)
        text += f" ({best})" if best else ""
    return text if spread is None else f"{text} ± {100 * spread:.1f}"


def _significant(cells: Cells, name: str, column: str) -> str:
    value = cells[name].get(column)
    if value is None:
        return "-"
    if value == round(value):
        return f"{value:.0f}"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"


def _decimal(cells: Cells, name: str, column: str) -> str:
    value = cells[name].get(column)
    if value is None:
        return "-"
    return str(value) if isinstance(value, int | np.integer) else f"{value:.3f}"


def aligned(blocks: list[list[list[str]]]) -> list[str]:
    """Each block's rows as lines, with the same column widths in all blocks.

    Args:
        blocks: of rows of cells, all with as many columns.

    Example:
        >>> print(aligned([[["", "epe"], ["ours", "0.5"]]])[0])
               epe
        ours   0.5
    """
    rows = [row for block in blocks for row in block]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "\n".join(
            "   ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in block
        )
        for block in blocks
    ]
