"""Runs, read from their folders."""

from pathlib import Path
from typing import NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from sslax import paths
from sslax.errors import UserError
from sslax.inference import exported
from sslax.training import checkpoint, description
from sslax.training.plan import Plan, make_plan, without_starting_weights
from sslax.types import TrainState

CHECKPOINTS = ("latest", "best")


class Run(NamedTuple):
    """A run's folder, its config, and what the config means."""

    workdir: Path
    config: ConfigDict
    plan: Plan


def open_run(workdir: str | Path, *, size: tuple[int, int] | None = None) -> Run:
    """The run in `workdir`, for images of another `size` (height, width) where one is given.

    Raises:
        UserError: there is no run.
    """
    workdir = paths.trained(workdir, "--workdir")
    config, spec = description.read(workdir)
    if size:
        *views, _, _, channels = spec["image_shape"]
        spec = {**spec, "image_shape": [*views, *size, channels]}
    return Run(workdir, config, make_plan(without_starting_weights(config), **spec))


def read_state(run: Run, mesh: Mesh, *, which: str = "latest") -> TrainState:
    """The `latest` or `best` checkpoint of a run, over `mesh` as the run's `sharding` says.

    Of a folder without checkpoints, as they are published, the exported weights: enough to predict.

    Raises:
        UserError: the run has no checkpoint yet, or `which` is neither.
    """
    if which not in CHECKPOINTS:
        raise UserError(f'A checkpoint is "latest" or "best", not "{which}".')
    folder = run.workdir / checkpoint.FOLDER
    state = checkpoint.restore(folder, run.plan.abstract_state(mesh), which=which)
    if state is None and (run.workdir / exported.file_of(run.plan)).exists():
        return exported.read_exported(run.workdir, run.plan, mesh)
    if state is None:
        raise UserError(f"The run in {run.workdir} has no checkpoint yet.")
    return state
