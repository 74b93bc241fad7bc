"""Trained networks, and encoders of images."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from sslax.errors import UserError
from sslax.inference.predictor import Predictor, check_images, concatenated, padded
from sslax.inference.run import Run
from sslax.training import sharding, weights
from sslax.types import Features, TrainState


class Trained:
    """What a run trained.

    Attributes:
        config: the run's config.
        method: built from it.
        step: the step of the checkpoint.
        variables: everything the method owns.
        params: the parameters of the exported encoder (for a method with a teacher, the
            teacher's); `model_state` likewise.
        image_shape: (height, width, channels) of the images it was trained with.
        channels: of these images, 1 or 3.
        predictor: the method's predictions for batches.
    """

    def __init__(self, run: Run, state: TrainState) -> None:
        self.config = run.config
        self.method = run.plan.method
        self.step = int(state.step)
        self.variables = state.variables
        self.params, self.model_state = self.method.encoder(state.variables)
        self.image_shape = run.plan.batch["image"].shape[-3:]
        self.channels = self.image_shape[-1]
        mesh = sharding.make_mesh(jax.local_devices()[:1])
        self.predictor = Predictor(run.plan, state.variables, mesh)

    def save(self, path: str | Path) -> None:
        """Writes the encoder to a safetensors file, for `models.load_encoder`."""
        weights.save_encoder(
            path,
            self.config,
            self.method,
            self.variables,
            image_shape=self.image_shape,
            step=self.step,
        )


class Encoder(Trained):
    """A trained encoder: `encoder(images) -> features`."""

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
        return self._predict(images, batch_size).features

    def stages(self, images: Any, *, batch_size: int = 256) -> dict[str, np.ndarray]:
        """Pooled activations `[N, C]` of each stage of the encoder, as `__call__` takes images."""
        return self._predict(images, batch_size).stages

    def _predict(self, images: Any, batch_size: int) -> Features:
        images = np.asarray(images)
        if images.ndim not in (3, 4) or images.shape[-1] != self.channels:
            raise UserError(
                f"This encoder takes images [N, H, W, {self.channels}] or "
                f"[H, W, {self.channels}]; got an array of shape {list(images.shape)}."
            )
        images = check_images(images)
        batch = images[None] if images.ndim == 3 else images
        size = min(batch_size, len(batch))
        chunks = (batch[start : start + size] for start in range(0, len(batch), size))
        features = concatenated(
            self.predictor(padded({"image": chunk}, size))[0] for chunk in chunks
        )
        return jax.tree.map(lambda leaf: leaf[0], features) if images.ndim == 3 else features
