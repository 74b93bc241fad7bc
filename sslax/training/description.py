"""What a run is: `config.json` and `data.json` in its folder, and a copy in every checkpoint.

A run that left a checkpoint or weights goes on with the same config and data alone. Its data may
move: where they are does not matter as long as their fingerprint agrees. Nor does it matter how its
devices share the state, or where its metrics are written, which changes no value.
"""

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

import sslax
from sslax.data.files.text import write_text
from sslax.errors import UserError
from sslax.methods import METHODS
from sslax.training import checkpoint, configuration, weights

PARTS = {"config": {"method", "data"}, "data": {"examples", "image_shape", "classes"}}
PLACES = ("config.data.path", "config.data.test_path", "config.data.camera.intrinsics")
FREE = ("config.sharding", "config.writers")
MACHINE = "machine.json"

Description = dict[str, dict[str, Any]]


def describe(config: ConfigDict, data: dict[str, Any]) -> Description:
    """The description of a run.

    Args:
        config: the whole config.
        data: what the state's shapes depend on beside it, and the fingerprint of the data.
    """
    return {"config": json.loads(config.to_json_best_effort()), "data": data}


def write(workdir: Path, now: Description) -> None:
    """Writes `config.json` and `data.json`."""
    for part, values in now.items():
        write_text(workdir / f"{part}.json", json.dumps(values, indent=2, sort_keys=True) + "\n")


def write_machine(workdir: Path, mesh: Mesh, parameters: int) -> None:
    """Writes `machine.json`: what the run is trained on, and with which versions.

    Args:
        workdir: the run's folder.
        mesh: the devices.
        parameters: how many the network has.
    """
    machine = {
        "device": mesh.devices.flat[0].device_kind,
        "devices": mesh.size,
        "processes": jax.process_count(),
        "parameters": parameters,
        "sslax": sslax.__version__,
        "jax": jax.__version__,
    }
    write_text(workdir / MACHINE, json.dumps(machine, indent=2) + "\n")


def read_machine(workdir: Path) -> dict[str, Any] | None:
    """What `write_machine` wrote; None where it is missing, as in runs of earlier versions."""
    keys = {"device", "devices", "processes", "parameters", "sslax", "jax"}
    return _read_file(workdir / MACHINE, keys)


def check(workdir: Path, now: Description) -> None:
    """Makes sure that the run in `workdir`, if there is one, is the one that is described.

    Raises:
        UserError: it was started with another config or other data; the difference is shown.
    """
    left = [checkpoint.steps(workdir / checkpoint.FOLDER), (workdir / weights.ENCODER).exists()]
    if not any(left):
        return
    before, now = (_with_knobs(_complete(found)) for found in (_read(workdir), now))
    changes = _differences(before, now)
    same_data = before["data"].get("fingerprint") == now["data"].get("fingerprint")
    free = FREE + PLACES if same_data else FREE
    changes = {name: change for name, change in changes.items() if name not in free}
    if changes:
        lines = [f"{name}: {change}" for name, change in changes.items()]
        raise UserError(
            f"{workdir} holds a run that was started differently:\n  "
            + "\n  ".join(lines)
            + "\nTo go on with that run give its values; for a new run give another --workdir."
        )


def check_config(workdir: Path, config: ConfigDict) -> None:
    """As `check`, of the config alone.

    Raises:
        UserError: there is no run, or it was started with another config.
    """
    check(workdir, describe(config, _read(workdir)["data"]))


def read(workdir: Path) -> tuple[ConfigDict, dict[str, Any]]:
    """The config of the run in `workdir`, and its data's `examples`, `image_shape`, `classes`.

    Raises:
        UserError: there is no run.
    """
    found = _complete(_read(workdir))
    shapes = {name: value for name, value in found["data"].items() if name != "fingerprint"}
    return ConfigDict(found["config"]).lock(), shapes


def without_places(workdir: Path) -> Description:
    """The description of the run in `workdir` for others: without paths of this machine, and
    without the fingerprint of its data.

    Raises:
        UserError: there is no run.
    """
    found = _read(workdir)
    config = ConfigDict(found["config"])
    config.update_from_flattened_dict(
        dict.fromkeys((p.removeprefix("config.") for p in PLACES), "")
    )
    config.model.encoder_from = ""
    section = config.get(config.method, {})
    if "teacher_from" in section:
        section.teacher_from = ""
    data = {name: value for name, value in found["data"].items() if name != "fingerprint"}
    return {"config": config.to_dict(), "data": data}


def _read(workdir: Path) -> Description:
    """Each part from its file, or, where that is missing or damaged, from a checkpoint."""
    found = {}
    for part, keys in PARTS.items():
        file = workdir / f"{part}.json"
        values = _read_file(file, keys)
        if values is None:
            values = checkpoint.description(workdir / checkpoint.FOLDER).get(part)
        if values is None:
            if not file.exists() and not found:
                raise UserError(
                    f"{workdir} holds no run; --workdir is the folder that training wrote to."
                )
            raise UserError(
                f"{file} is missing or damaged, and no checkpoint holds a copy; start again in "
                "a new --workdir."
            )
        found[part] = values
    return found


def _complete(found: Description) -> Description:
    """With what later versions added to configs: its default is what the run's own version did."""
    known = json.loads(configuration.defaults().to_json_best_effort())
    return {**found, "config": _filled(found["config"], known)}


def _with_knobs(found: Description) -> Description:
    """With the defaults of the method's own knobs that are missing, of whole descriptions alone:
    a factory has knobs that no config has."""
    config = found["config"]
    build = METHODS.get(config["method"])
    factory = build and getattr(sys.modules[build.__module__], config["method"], None)
    section = config.get(config["method"])
    if factory is None or section is None:
        return found
    parameters = inspect.signature(factory).parameters.values()
    knobs = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {**found, "config": {**config, config["method"]: {**knobs, **section}}}


def _filled(values: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Values, with those that are missing from the known ones; also in the sections of both."""
    both = {
        name: _filled(values[name], default)
        for name, default in known.items()
        if isinstance(default, dict) and isinstance(values.get(name), dict)
    }
    return {**known, **values, **both}


def _read_file(file: Path, keys: set[str]) -> dict[str, Any] | None:
    """The file's JSON; None where it is missing, or is not what was written."""
    try:
        values = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):  # of JSON or of UTF-8
        return None
    return values if isinstance(values, dict) and keys <= values.keys() else None


def _differences(old: Any, new: Any, name: str = "") -> dict[str, str]:
    """What changed, by the names of the values."""
    if name == "data.fingerprint" and old != new:
        return {"data": "other images: their names, sizes or labels changed"}
    if isinstance(old, dict) and isinstance(new, dict):
        changes = {}
        for key in sorted(old.keys() | new.keys()):
            below = f"{name}.{key}" if name else key
            changes |= _differences(old.get(key, "(absent)"), new.get(key, "(absent)"), below)
        return changes
    return {} if old == new else {name: f"was {old!r}, now {new!r}"}
