"""What a run's folder says of its training: facts, the config, the curves.

Only files are read, so that a page can be made while the run holds the devices.
"""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sslax import config_files, data
from sslax.figures import progress
from sslax.report.page import Section
from sslax.training import configuration, description

_POINTS = 1500  # of a curve; longer ones are thinned out


def name_of(workdir: Path) -> str:
    """A run's name: that of its folder."""
    return workdir.resolve().name


def facts(workdir: Path) -> dict[str, str]:
    """What was trained, on what, for how long and where, by the name of the fact.

    Args:
        workdir: the run's folder.

    Raises:
        UserError: there is no run.
    """
    config, shapes = description.read(workdir)
    *views, height, width, channels = shapes["image_shape"]
    size = f"{height}x{width}x{channels}"
    classes = f", {shapes['classes']} classes" if shapes["classes"] else ""
    examples = f"samples of {views[0]} images" if views else "images"
    per_epoch = shapes["examples"] // config.batch_size
    total = configuration.steps_of(
        config.duration, batch_size=config.batch_size, steps_per_epoch=per_epoch
    )
    epochs = total / per_epoch
    of = f"{shapes['examples']:,} {examples} of {size}{classes}"
    found = {
        "Method": config.method,
        "Model": config.model.name,
        "Data": f"{data.name_of(config.data)}: {of}",
        "Steps": f"{total:,}, each of {config.batch_size} examples ({epochs:.3g} epochs)",
    }
    series = _series(workdir)
    if "loss" in series:
        done, seconds = int(series["loss"][0][-1]), _seconds(series, config.batch_size)[1][-1]
        if done < total:
            found["So far"] = f"{done:,} steps, {100 * done // total} %"
        found["Training time"] = clock(seconds)
    return found | _machine(workdir)


def _machine(workdir: Path) -> dict[str, str]:
    machine = description.read_machine(workdir)
    if machine is None:  # a run of an earlier version
        return {}
    processes = f" of {machine['processes']} processes" if machine["processes"] > 1 else ""
    return {
        "Devices": f"{machine['devices']} x {machine['device']}{processes}",
        "Parameters": f"{machine['parameters']:,}",
        "Versions": f"sslax {machine['sslax']}, jax {machine['jax']}",
    }


def clock(seconds: float) -> str:
    """A duration as people say it.

    Example:
        >>> clock(59.6), clock(200), clock(7322)
        ('1 min', '3 min 20 s', '2 h 2 min')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else seconds, "s")]
    return " ".join(f"{value} {unit}" for value, unit in parts if value) or "0 s"


def changes(workdir: Path) -> Section:
    """A table of the config's values that differ from the method's default config.

    Raises:
        UserError: there is no run.
    """
    config = config_of(workdir)
    default = default_config(config.method)
    section = {"id": "config", "type": "table", "title": "Config"}
    if default is None:
        note = f"There is no configs/{config.method}.py to compare with."
        return section | {"blocks": [], "notes": [note]}
    file = f"configs/{config.method}.py"
    rows = differences({file: flat(default), "this run": flat(config)})
    if not rows:
        return section | {"blocks": [], "notes": [f"All values are those of {file}."]}
    return section | {"blocks": [{"columns": ["", file, "this run"], "rows": rows}], "notes": []}


def default_config(method: str) -> ConfigDict | None:
    """The config that a method starts from; None where the package has none."""
    file = config_files.ROOT / "configs" / f"{method}.py"
    spec = importlib.util.spec_from_file_location(f"sslax_config_{method}", file)
    if not file.is_file() or spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def config_of(workdir: Path) -> ConfigDict:
    """A run's config.

    Raises:
        UserError: there is no run.
    """
    return description.read(workdir)[0]


def flat(config: ConfigDict) -> dict[str, str]:
    """A config's values as text, by their dotted names.

    Example:
        >>> flat(ConfigDict({"a": {"b": (1, 2)}, "c": "x"}))
        {'a.b': '[1, 2]', 'c': '"x"'}
    """
    return _flat(json.loads(config.to_json_best_effort()), "")


def _flat(value: Any, name: str) -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        return {name: json.dumps(value, ensure_ascii=False)}
    parts = [_flat(below, f"{name}.{key}" if name else key) for key, below in value.items()]
    return {key: text for part in parts for key, text in part.items()}


def differences(configs: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    """Rows of the keys whose values are not the same in all of some flat configs.

    Example:
        >>> differences({"a": {"x": "1", "y": "2"}, "b": {"x": "1", "y": "3", "z": "4"}})
        [['y', '2', '3'], ['z', '-', '4']]
    """
    names = sorted(set().union(*configs.values()))
    rows = [[name, *(config.get(name, "-") for config in configs.values())] for name in names]
    return [row for row in rows if len({*row[1:]}) > 1]


def curves(workdirs: Mapping[str, Path]) -> Section:
    """The curves of runs, by the runs' names: everything that is in their `metrics.jsonl`.

    Returns:
        A section; of each run and metric the `step`, the `seconds` of training, and the `value`.

    Raises:
        UserError: there is no run.
    """
    runs = []
    for name, workdir in workdirs.items():
        series = _series(workdir)
        steps, seconds = _seconds(series, config_of(workdir).batch_size)
        lines = {
            metric: _line(at, np.interp(at, steps, seconds), values)
            for metric, (at, values) in series.items()
        }
        runs.append({"name": name, "series": lines})
    return {
        "id": "curves",
        "type": "curves",
        "title": "Training",
        "panels": [_panel(name, title) for name, title in progress.PANELS.items()],
        "runs": runs,
    }


def _panel(name: str, title: str) -> dict[str, Any]:
    return {"name": name, "title": title, "bounded": name in progress.BOUNDED}


def _series(workdir: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    path = workdir / "metrics.jsonl"
    return progress.read_series(path) if path.exists() else {}


def _seconds(
    series: Mapping[str, tuple[np.ndarray, np.ndarray]], batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the seconds that training had taken by then, from the images a second."""
    steps, rates = series.get("images_per_second", (np.zeros(0, int), np.zeros(0)))
    seconds = np.cumsum(np.diff(steps, prepend=0) * batch_size / np.maximum(rates, 1e-9))
    return np.append(0, steps), np.append(0.0, seconds)


def _line(steps: np.ndarray, seconds: np.ndarray, values: np.ndarray) -> dict[str, list]:
    stride = -(-len(steps) // _POINTS)
    kept = np.arange(len(steps) - 1, -1, -stride)[::-1]  # the last one is among them
    return {
        "step": steps[kept].tolist(),
        "seconds": [round(float(value), 2) for value in seconds[kept]],
        "value": [float(f"{value:.5g}") for value in values[kept]],
    }
