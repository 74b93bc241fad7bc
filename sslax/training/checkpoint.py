"""Checkpoints of a run: asynchronous, atomic, the latest two and the best one kept.

A checkpoint holds the training state; the state's `step` is also the position in the data (the
order of examples is a function of seed and step), and its `rng` the random key. The config is
stored beside the checkpoints in `config.json`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from sslax.data.files.text import write_text
from sslax.errors import UserError
from sslax.types import PyTree, TrainState

_policies = ocp.training.preservation_policies


class Checkpoints:
    """The checkpoints under `directory`; leaving the context waits for the last save."""

    def __init__(self, directory: Path) -> None:
        """Opens (or creates) the directory, which has one folder per step."""
        policy = _policies.AnyPreservationPolicy(
            [
                _policies.LatestN(2),
                _policies.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False),
            ]
        )
        self._checkpointer = ocp.training.Checkpointer(
            directory.absolute(), preservation_policy=policy, cleanup_tmp_directories=True
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpointer.close()

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, oldest first."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    def best_step(self) -> int | None:
        """The step of the checkpoint with the highest score; None if there is no checkpoint."""
        scored = [(_score(c.metrics), c.step) for c in self._checkpointer.checkpoints if c.metrics]
        return max(scored)[1] if scored else None

    def save(self, step: int, state: TrainState, score: float) -> None:
        """Starts saving `state`: the arrays are copied before this returns, the files follow.

        The checkpoint with the highest `score` is kept beside the latest two.
        """
        self._checkpointer.save_checkpointables_async(
            step,
            {"state": state},
            force=True,
            overwrite=step in self.steps,
            metrics={"score": score},
        )

    def restore(
        self,
        abstract: TrainState,
        *,
        step: int | None = None,
        say: Callable[[str], None] = print,
    ) -> TrainState | None:
        """The newest readable state, laid out as `abstract` says; None if there is no checkpoint.

        Args:
            abstract: the state as `jax.ShapeDtypeStruct`s with shardings, which may differ from
                the ones it was saved with.
            step: this step and no other.
            say: is called with a message when a damaged checkpoint is skipped.

        Raises:
            UserError: there are checkpoints but none can be read, or one has other parameters.
        """
        steps = self.steps[::-1] if step is None else [step]
        for candidate in steps:
            self._check_parameters(candidate, abstract.params)
            try:
                return self._checkpointer.load_checkpointables(candidate, {"state": abstract})[
                    "state"
                ]
            except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files
                say(
                    f"The checkpoint of step {candidate} is damaged ({type(error).__name__}); "
                    "going back to the one before."
                )
        if steps:
            raise UserError(
                f"None of the checkpoints of steps {steps} in {self._checkpointer.directory} can "
                "be read; start again in a new --workdir."
            )
        return None

    def _check_parameters(self, step: int, params: PyTree) -> None:
        """Checks names and shapes of a checkpoint's parameters, if it can be read at all.

        Raises:
            UserError: they differ.
        """
        try:
            saved = self._checkpointer.checkpointables_metadata(step).metadata["state"]
            before = _shapes(saved["params"])
        except Exception:  # damaged: loading says so
            return
        now = _shapes(params)
        if changed := sorted(now.items() ^ before.items()):
            name = changed[0][0]
            raise UserError(
                f"The checkpoint of step {step} in {self._checkpointer.directory} has other "
                f"parameters than the method of this version: {name} is {before.get(name, 'not')} "
                f"in it, and {now.get(name, 'not')} in the method. Continue with the version that "
                "made it, or start again in a new --workdir."
            )


def _shapes(params: PyTree) -> dict[str, tuple[int, ...]]:
    """Shapes of parameters, or of their descriptions, by name."""
    named, _ = jax.tree_util.tree_flatten_with_path(params)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in named
    }


def read_variables(workdir: Path, like: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
    """Parameters and model state of the latest checkpoint of the run in `workdir`.

    Args:
        workdir: the run's folder.
        like: `(params, model_state)`, shapes with shardings.

    Returns:
        The same as NumPy arrays on every process.

    Raises:
        UserError: the run has no checkpoint yet, or it cannot be read.
    """
    # Not through `Checkpoints`, which would clean up what a running training is about to save.
    folder = workdir / "checkpoints"
    steps = [int(at.name) for at in folder.glob("*") if at.name.isdigit()]
    if not steps:
        raise UserError(f"The run in {workdir} has no checkpoint yet.")
    part = {"params": like[0]} | ({"model_state": like[1]} if jax.tree.leaves(like[1]) else {})
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    try:
        with context:
            path = folder.absolute() / str(max(steps))
            found = ocp.load_checkpointables(path, {"state": part})["state"]
    except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files
        raise UserError(f"The latest checkpoint in {workdir} cannot be read: {error}") from error
    found = jax.device_get(found)
    return found["params"], found.get("model_state", like[1])


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]


def abstract_like(state: Any, sharding: jax.sharding.Sharding) -> Any:
    """`state` (arrays or shapes) as `jax.ShapeDtypeStruct`s with `sharding`."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state
    )


def keep_description(config: ConfigDict, data: dict[str, Any], workdir: Path) -> None:
    """Writes `config.json` and `data.json` of a new run, or makes sure a resumed one is the same.

    Args:
        config: the whole config.
        data: what the state's shapes depend on beside it (see `read_description`).
        workdir: the run's folder.

    Raises:
        UserError: the run in `workdir` was started with another config or other data; the
            difference is shown.
    """
    now = {"config": json.loads(config.to_json_best_effort()), "data": data}
    if not (workdir / "data.json").exists():
        for name in ("config", "data"):
            text = json.dumps(now[name], indent=2, sort_keys=True) + "\n"
            write_text(workdir / f"{name}.json", text)
        return
    before = {name: _read(workdir / f"{name}.json") for name in now}
    changes = _differences(before["config"], now["config"], "config")
    changes += _differences(before["data"], now["data"], "data")
    if changes:
        raise UserError(
            f"{workdir} holds a run that was started differently:\n  "
            + "\n  ".join(changes)
            + "\nTo continue that run, use its values; for a new run, give another --workdir."
        )


def read_description(workdir: Path) -> tuple[ConfigDict, dict[str, Any]]:
    """The config of the run in `workdir`, and its data's `examples`, `image_shape`, `classes`.

    Raises:
        UserError: there is no run.
    """
    if not (workdir / "data.json").exists():
        raise UserError(f"{workdir} holds no run; --workdir is the folder that training wrote to.")
    return ConfigDict(_read(workdir / "config.json")).lock(), _read(workdir / "data.json")


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _differences(old: Any, new: Any, name: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted(old.keys() | new.keys()):
            lines += _differences(
                old.get(key, "(absent)"), new.get(key, "(absent)"), f"{name}.{key}"
            )
        return lines
    return [] if old == new else [f"{name}: was {old!r}, now {new!r}"]
