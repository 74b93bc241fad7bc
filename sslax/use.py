"""Using what was trained: `encoder = sslax.load(workdir)`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sslax import checkpoint, models, partition, train
from sslax.errors import UserError
from sslax.types import Array, Batch, TrainState


class Predictor:
    """A method's `predict`, compiled, with the variables of one training state."""

    def __init__(self, plan: train.Plan, state: TrainState, mesh: Mesh) -> None:
        self._variables = (state.params, state.model_state, state.extra)

        def predict(variables: tuple, batch: Batch) -> tuple[dict[str, Any], Array]:
            outputs = plan.method.predict(*variables, {"image": batch["image"]})
            labels = {"label": batch["label"]} if "label" in batch else {}
            return {**outputs, **labels}, jnp.sum(batch["mask"])

        # Replicated, so that every process of a run can read all of it.
        self._predict = jax.jit(predict, out_shardings=partition.replicated(mesh))

    def __call__(self, batch: Batch) -> dict[str, Any]:
        """What `predict` says of a batch's real rows (those in its 'mask'), and their labels."""
        outputs, rows = jax.device_get(self._predict(self._variables, batch))
        return jax.tree.map(lambda leaf: leaf[:rows], outputs)

    def over(self, batches: Iterator[Batch]) -> dict[str, Any]:
        """The outputs of all batches, one after another."""
        outputs = [self(batch) for batch in batches]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *outputs)


def pictures(plan: train.Plan, state: TrainState, batch: Batch, rng: Array) -> dict[str, Any]:
    """What the method's `show` draws of a batch, compiled, its columns in their order."""
    titles: list[str] = []

    @jax.jit
    def show(variables: tuple, batch: Batch, rng: Array) -> list[Array]:
        columns = plan.method.show(*variables, batch, rng)
        titles.extend(columns)  # a dictionary would come back sorted by title
        return list(columns.values())

    # On this process alone, the one that draws: fetched, they belong to no global computation.
    variables = jax.device_get((state.params, state.model_state, state.extra))
    images = jax.device_get(show(variables, batch, rng))
    return dict(zip(titles, images))


class Encoder:
    """A trained encoder: `encoder(images) -> features`.

    Attributes:
        config: the run's config.
        step: the step of the checkpoint.
        params: the method's parameters; `model_state` likewise.
    """

    def __init__(self, config: ConfigDict, plan: train.Plan, state: TrainState) -> None:
        self.config = config
        self.step = int(state.step)
        self.params = state.params
        self.model_state = state.model_state
        self._encoder = plan.method.encoder(state.params, state.model_state, state.extra)
        self._channels = plan.batch["image"].shape[-1]
        self._predictor = Predictor(plan, state, partition.make_mesh(jax.local_devices()[:1]))

    def __call__(self, images: Any, *, batch_size: int = 256) -> np.ndarray:
        """Features of images.

        Args:
            images: `[N, H, W, C]` or one `[H, W, C]`, uint8 or float in [0, 1]; resized to the
                size the encoder was trained at.
            batch_size: images at a time.

        Returns:
            `[N, D]` or `[D]` float32.

        Raises:
            UserError: wrong rank, number of channels, or type.
        """
        return self._over(images, batch_size)["features"]

    def stages(self, images: Any, *, batch_size: int = 256) -> dict[str, np.ndarray]:
        """Pooled activations `[N, C]` of each stage of the encoder, as `__call__` takes images."""
        return self._over(images, batch_size)["stages"]

    def save(self, path: str | Path) -> None:
        """Writes the encoder's weights to a safetensors file, for `models.load_safetensors`."""
        models.save_safetensors(path, *self._encoder)

    def _over(self, images: Any, batch_size: int) -> dict[str, Any]:
        images = np.asarray(images)
        if images.ndim not in (3, 4) or images.shape[-1] != self._channels:
            raise UserError(
                f"This encoder takes images [N, H, W, {self._channels}] or "
                f"[H, W, {self._channels}]; got an array of shape {list(images.shape)}."
            )
        if images.dtype != np.uint8:
            if not np.issubdtype(images.dtype, np.floating):
                raise UserError(f"Images are uint8, or float in [0, 1]; got {images.dtype}.")
            images = images.astype(np.float32)
            if images.size and (images.min() < -0.01 or images.max() > 1.01):
                raise UserError(
                    "Float images lie in [0, 1]; these reach from "
                    f"{images.min():.3g} to {images.max():.3g}. Divide by 255, or pass uint8."
                )
        batch = images[None] if images.ndim == 3 else images
        if not len(batch):
            raise UserError("There is no image: the array's first axis has length 0.")
        outputs = self._predictor.over(_chunks(batch, min(batch_size, len(batch))))
        return jax.tree.map(lambda leaf: leaf[0], outputs) if images.ndim == 3 else outputs


def _chunks(images: np.ndarray, size: int) -> Iterator[Batch]:
    """Batches of one size, the last one padded, so that one compilation serves all."""
    for start in range(0, len(images), size):
        chunk = images[start : start + size]
        padding = [(0, size - len(chunk))] + [(0, 0)] * (images.ndim - 1)
        yield {"image": np.pad(chunk, padding), "mask": np.arange(size) < len(chunk)}


def read_plan(workdir: str | Path) -> tuple[ConfigDict, train.Plan]:
    """The config and the plan of the run in `workdir`.

    Raises:
        UserError: there is no run.
    """
    config, spec = checkpoint.read_description(Path(workdir))
    return config, train.make_plan(config, **spec)


def read_state(
    workdir: str | Path, plan: train.Plan, mesh: Mesh, *, which: str = "latest"
) -> TrainState:
    """The `latest` or `best` checkpoint of the run in `workdir`, replicated over `mesh`.

    Raises:
        UserError: the run has no checkpoint yet, or `which` is neither.
    """
    if which not in ("latest", "best"):
        raise UserError(f'A checkpoint is "latest" or "best", not "{which}".')
    with checkpoint.Checkpoints(Path(workdir) / "checkpoints") as checkpoints:
        step = checkpoints.best_step() if which == "best" else None
        state = checkpoints.restore(plan.abstract_state(mesh), step=step)
    if state is None:
        raise UserError(f"The run in {workdir} has no checkpoint yet.")
    return state


def load(workdir: str | Path, *, which: str = "latest") -> Encoder:
    """The encoder that a run trained.

    Args:
        workdir: the run's folder.
        which: `latest` or `best` checkpoint.

    Raises:
        UserError: no run, or no checkpoint, there.
    """
    config, plan = read_plan(workdir)
    mesh = partition.make_mesh(jax.local_devices()[:1])
    return Encoder(config, plan, read_state(workdir, plan, mesh, which=which))
