"""A method's predictions, compiled, for batches of any source."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from sslax.errors import UserError
from sslax.measures import rows
from sslax.training import sharding
from sslax.training.plan import Plan
from sslax.types import Array, Batch, Method, Pictures, Variables

# Known of a camera at prediction, whether or not training knew it.
_CAMERA = ("intrinsics", "alpha", "baseline")


class Predictor:
    """A method's `predict`, compiled, with one set of variables.

    Args:
        plan: of the run.
        variables: of the method.
        mesh: the devices.
        keep: entries of a batch that are returned beside the prediction, where the batch has them.
        own_rows: of a run of several processes, each returns the rows of its own devices alone.
    """

    def __init__(
        self,
        plan: Plan,
        variables: Variables,
        mesh: Mesh,
        *,
        keep: Sequence[str] = (),
        own_rows: bool = False,
    ) -> None:
        self.mesh = mesh
        self._variables = variables

        def predict(variables: Variables, batch: Batch) -> tuple[Any, dict[str, Array], Array]:
            inputs = {*plan.batch, *_CAMERA}
            given = {name: value for name, value in batch.items() if name in inputs}
            kept = {name: batch[name] for name in keep if name in batch}
            whole = sharding.gather(variables, mesh)
            return plan.method.predict(whole, given), kept, batch["mask"]

        # Replicated, so that every process of a run can read all of it, or as the batch is.
        out = sharding.batch_sharding(mesh) if own_rows else sharding.replicated(mesh)
        self._predict = jax.jit(predict, out_shardings=out)

    def using(self, variables: Variables) -> "Predictor":
        """The same with other variables; what is compiled is shared."""
        other = copy.copy(self)
        other._variables = variables
        return other

    def __call__(self, batch: Batch) -> tuple[Any, dict[str, np.ndarray]]:
        """The prediction and the kept entries of a batch's real rows (those in its 'mask')."""
        outputs = self._predict(self._variables, batch)
        prediction, kept, mask = jax.tree.map(rows.own, outputs)
        return jax.tree.map(lambda leaf: leaf[mask], (prediction, kept))

    def over(self, batches: Iterable[Batch]) -> tuple[Any, dict[str, np.ndarray]]:
        """The predictions and kept entries of all batches, concatenated."""
        return concatenated(self(batch) for batch in batches)


def concatenated(outputs: Iterable[Any]) -> Any:
    """Records of arrays `[N, ...]`, one after another, as one."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *outputs)


def visualize(method: Method, variables: Variables, batch: Batch, rng: Array) -> Pictures:
    """A method's visualization of a batch, compiled, with its columns in their order."""
    titles: list[str] = []

    @jax.jit
    def columns_of(variables: Variables, batch: Batch, rng: Array) -> list[Any]:
        columns = method.visualize(variables, batch, rng)
        titles.extend(columns)  # a dictionary would come back sorted by title
        return list(columns.values())

    # On this process alone, the one that draws: fetched, they belong to no global computation.
    variables = jax.device_get(variables)
    return dict(zip(titles, jax.device_get(columns_of(variables, batch, rng))))


def check_images(images: np.ndarray) -> np.ndarray:
    """Images as uint8, or as float32 in [0, 1].

    Raises:
        UserError: they are of another type or range, not finite, or there is none.
    """
    if images.dtype != np.uint8:
        if not np.issubdtype(images.dtype, np.floating):
            raise UserError(f"Images are uint8, or float in [0, 1]; got {images.dtype}.")
        images = images.astype(np.float32)
        if not np.isfinite(images).all():
            raise UserError(
                "Some pixels are NaN or infinite; replace them, for example with np.nan_to_num."
            )
        if images.size and (images.min() < -0.01 or images.max() > 1.01):
            raise UserError(
                "Float images lie in [0, 1]; these reach from "
                f"{images.min():.3g} to {images.max():.3g}. Divide by 255, or pass uint8."
            )
    if images.ndim > 3 and not len(images):
        raise UserError("There is no image: the array's first axis has length 0.")
    return images


def padded(batch: dict[str, np.ndarray], size: int) -> Batch:
    """A batch of `size` rows and its 'mask', so that one compilation serves all.

    The last row is repeated: zeros would be no camera's intrinsics.
    """
    count = len(batch["image"])
    index = np.minimum(np.arange(size), count - 1)
    return {name: value[index] for name, value in batch.items()} | {"mask": np.arange(size) < count}
