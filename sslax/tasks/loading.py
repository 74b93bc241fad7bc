"""`load(workdir)`: what a run trained, to be called on images."""

from pathlib import Path

import jax

from sslax import ranges
from sslax.errors import UserError
from sslax.inference.encoder import Trained
from sslax.inference.run import open_run, read_state
from sslax.ranges import Size
from sslax.tasks import task_of
from sslax.training import sharding


def load(workdir: str | Path, *, which: str = "latest", size: Size | None = None) -> Trained:
    """What a run trained: an `Encoder`, a `DepthEstimator` or a `FlowEstimator`.

    Args:
        workdir: the run's folder.
        which: `latest` or `best` checkpoint.
        size: height and width that an estimator's network works at, multiples of its stride; by
            default those of the run. Larger ones keep the detail that small images lose, as long
            as objects and motions are not much larger in pixels than those of training.

    Raises:
        UserError: no run, or no checkpoint, there; a size that the network cannot work at, or one
            for an encoder.
    """
    ranges.check("size", size, Size | None)
    run = open_run(workdir)
    task = task_of(run.plan.method)
    state = read_state(run, sharding.make_mesh(jax.local_devices()[:1]), which=which)
    if size and not task.resizable:
        raise UserError(f"{workdir} trained an encoder, which works at the size of the run alone.")
    if size:
        run = open_run(workdir, size=size)
        try:
            jax.eval_shape(run.plan.method.predict, state.variables, run.plan.batch)
        except ValueError as error:
            raise UserError(f"The network cannot work at a size of {size}: {error}") from error
    return task.load(run, state)
