"""Sweeps: one run for each row of values and each seed, and a table of their results."""

import csv
import io
import itertools
import json
import re
import statistics
import tomllib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from sslax.data.files.text import write_text
from sslax.errors import UserError, nearest
from sslax.inference.run import open_run
from sslax.methods import METHODS
from sslax.tasks import evaluation
from sslax.training import configuration, description
from sslax.training.fit import fit

RESULTS = "results.json"
_HEADLINES = ("linear", "knn20", "abs_rel", "disparity_error", "epe")  # where none is named
_HIGHER = ("knn", "linear", "finetune", "delta", "occlusion")  # is better
_LONGEST = 100  # characters of a folder's name


class Row(NamedTuple):
    """One setting of a sweep.

    Attributes:
        name: of its folder, made of its values, so that rows may be added or moved in the file.
        values: by dotted key of the config.
    """

    name: str
    values: dict[str, Any]


class Outcome(NamedTuple):
    """What came of one row.

    Attributes:
        row: the row.
        results: of each finished run, by name.
    """

    row: Row
    results: list[dict[str, float]]


def read_rows(file: Path) -> list[Row]:
    """The rows of a file of values.

    Args:
        file: TOML or JSON. Either a table of lists by key of the config, whose combinations are
            the rows, the last key changing fastest; or a list of tables, each a row: in JSON the
            file itself, in TOML `[[rows]]`. Keys may be dotted or nested.

    Raises:
        UserError: the file is missing, cannot be read or has another form, or a row comes twice.
    """
    content = _read(file)
    listed = content.get("rows") if isinstance(content, dict) else content
    if isinstance(listed, list) and listed and all(isinstance(row, dict) for row in listed):
        values = [configuration.flat(row) for row in listed]
    elif isinstance(content, dict) and content and listed is None:
        grid = configuration.flat(content)
        for key, choices in grid.items():
            if not isinstance(choices, list) or not choices:
                raise UserError(
                    f"{file}: {key} = {choices!r} is not a list of values; write "
                    f"{key} = [{json.dumps(choices)}]."
                )
        values = [dict(zip(grid, chosen)) for chosen in itertools.product(*grid.values())]
    else:
        raise UserError(
            f"{file} has no values: write lists by key of the config, such as "
            "seed = [0, 1], or rows, each a table of values."
        )
    rows = [Row(_name(row), row) for row in values]
    twice = {row.name for i, row in enumerate(rows) if row.name in {r.name for r in rows[:i]}}
    if twice:
        raise UserError(f"{file} has the row {min(twice)} twice: leave one out.")
    return rows


def configs_of(base: ConfigDict, row: Row, seeds: int) -> dict[str, ConfigDict]:
    """The config of each run of a row, by the folder's name.

    With several seeds, they are those from the config's own on.

    Raises:
        UserError: the config has no such key, or the value is of another type or out of range.
    """
    if seeds > 1 and "seed" in row.values:
        raise UserError("--seeds makes runs of several seeds: leave seed out of the file.")
    configs = {}
    for number in range(seeds):
        config = base.copy_and_resolve_references()
        for key, value in row.values.items():
            _set(config, key, value)
        config.seed += number
        configuration.check(config, METHODS)
        configs[f"{row.name}/seed_{config.seed}" if seeds > 1 else row.name] = config
    return configs


def run(config: ConfigDict, workdir: Path) -> bool:
    """Trains and evaluates in `workdir`, unless that is done.

    Returns:
        Whether it is complete; False where it was asked to stop.

    Raises:
        UserError: as `fit`; or the folder holds the results of another config.
    """
    if (workdir / RESULTS).exists():
        description.check_config(workdir, config)
        return True
    state = fit(config, workdir)
    if int(state.step) < open_run(workdir).plan.steps:
        return False
    evaluation.evaluate_run(workdir)
    jax.clear_caches()  # of a network that perhaps no other run has
    return True


def outcomes_of(base: ConfigDict, rows: Sequence[Row], output: Path, seeds: int) -> list[Outcome]:
    """The results that are there by now."""
    outcomes = []
    for row in rows:
        files = [output / name / RESULTS for name in configs_of(base, row, seeds)]
        outcomes.append(Outcome(row, [json.loads(f.read_text()) for f in files if f.exists()]))
    return outcomes


def write_tables(outcomes: Sequence[Outcome], output: Path, shown: Sequence[str] = ()) -> str:
    """Writes `sweep.md` and `sweep.csv`, best first.

    Args:
        outcomes: of all rows.
        output: the folder of both.
        shown: results in the Markdown table, sorted by the first of them; none for the task's own.

    Returns:
        The Markdown table: mean and, of several runs, deviation. The CSV file has all results.

    Raises:
        UserError: no run has such a result.
    """
    known = list(dict.fromkeys(n for o in outcomes for run in o.results for n in run))
    for name in shown:
        if known and name not in known:
            raise UserError(
                f"--results has {name!r}, which no run measured: {nearest(name, known)}"
            )
    shown = shown or [name for name in _HEADLINES if name in known][:1] or known[:1]
    outcomes = _sorted(outcomes, shown[0]) if shown else list(outcomes)
    keys = list(dict.fromkeys(key for outcome in outcomes for key in outcome.row.values))
    wide = [
        [*_values(outcome.row, keys), len(outcome.results)]
        + [number for name in known for number in _statistics(outcome, name)]
        for outcome in outcomes
    ]
    titles = [title for name in known for title in (name, f"{name} (deviation)")]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[*keys, "runs", *titles], *wide])
    write_text(output / "sweep.csv", text.getvalue())
    lines = [[*keys, "runs", *shown], ["---"] * (len(keys) + 1 + len(shown))]
    for outcome in outcomes:
        cells = [_cell(*_statistics(outcome, name)) for name in shown]
        lines.append([*_values(outcome.row, keys), str(len(outcome.results)), *cells])
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    write_text(output / "sweep.md", table)
    return table


def _read(file: Path) -> Any:
    readers = {".toml": tomllib.loads, ".json": json.loads}
    if file.suffix not in readers:
        raise UserError(f"--values={file} is neither a .toml nor a .json file.")
    try:
        return readers[file.suffix](file.read_text())
    except FileNotFoundError as error:
        raise UserError(f"--values={file} does not exist.") from error
    except ValueError as error:  # of TOML, of JSON or of UTF-8
        raise UserError(f"--values={file} is no {file.suffix[1:].upper()}: {error}.") from error


def _name(values: Mapping[str, Any]) -> str:
    """'optimizer.learning_rate=0.1,batch_size=64', shortened where that is too long for a folder.

    Example:
        >>> _name({"optimizer.learning_rate": 0.1, "duration": "5 epochs"})
        'optimizer.learning_rate=0.1,duration=5_epochs'
    """
    text = ",".join(f"{key}={_plain(value)}" for key, value in values.items())
    name = re.sub(r"[^\w.,=+-]", "_", text)
    if name == text.replace(" ", "_") and len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}-{zlib.crc32(text.encode()):08x}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _set(config: ConfigDict, key: str, value: Any) -> None:
    value = tuple(value) if isinstance(value, list) else value
    try:
        config.update_from_flattened_dict({key: value})
    except (KeyError, AttributeError) as error:
        known = configuration.flat(json.loads(config.to_json_best_effort()))
        raise UserError(f"The config has no key {key}: {_near(key, known)}") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"{key} = {value!r}: {error}") from error


def _near(key: str, known: Mapping[str, Any]) -> str:
    """The nearest key, or those of its section."""
    section = key.rpartition(".")[0]
    beside = [name for name in known if name.rpartition(".")[0] == section]
    return nearest(key, beside or [name for name in known if "." not in name])


def _statistics(outcome: Outcome, name: str) -> tuple[float | None, float | None]:
    """Mean and sample deviation of a result; None where there are too few runs."""
    numbers = [run[name] for run in outcome.results if run.get(name) is not None]
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
    return statistics.fmean(numbers) if numbers else None, deviation


def _sorted(outcomes: Sequence[Outcome], name: str) -> list[Outcome]:
    """Best first; without a result, last."""
    sign = -1 if name.startswith(_HIGHER) else 1

    def rank(outcome: Outcome) -> tuple[bool, float]:
        mean, _ = _statistics(outcome, name)
        return mean is None, sign * (mean or 0.0)

    return sorted(outcomes, key=rank)


def _values(row: Row, keys: Sequence[str]) -> list[str]:
    return [_plain(row.values[key]) if key in row.values else "" for key in keys]


def _cell(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "-"
    return f"{mean:.4g}" if deviation is None else f"{mean:.4g} ± {deviation:.2g}"
