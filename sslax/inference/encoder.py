"""Trained networks, and encoders of images."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sslax import models
from sslax.errors import UserError
from sslax.inference.predictor import Predictor, check_images, concatenated, padded
from sslax.inference.run import Run
from sslax.training import sharding, weights
from sslax.types import Array, Batch, Features, PyTree, TrainState


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

    def patches(self, images: Any, *, batch_size: int = 64) -> np.ndarray:
        """Dense features of images, see `models.patch_features`, as `__call__` takes images.

        Returns:
            `[N, h, w, D]` or `[h, w, D]` float32.
        """
        return self._in_batches(self._patches, images, batch_size)

    @cached_property
    def _patches(self) -> Callable[[Batch], np.ndarray]:
        section, method = self.config.model, self.method
        module, model = models.encoder_module(section), models.build_encoder(section)

        @jax.jit
        def dense(params: PyTree, model_state: PyTree, images: Array) -> Array:
            x = method.preprocess(method.evaluation_view(images))
            encoding, _ = model.apply(params, model_state, x, False)
            return models.patch_features(module, encoding, x.shape[1:3]).astype(jnp.float32)

        def of_batch(batch: Batch) -> np.ndarray:
            features = dense(self.params, self.model_state, batch["image"])
            return np.asarray(features)[np.asarray(batch["mask"])]

        return of_batch

    def _predict(self, images: Any, batch_size: int) -> Features:
        return self._in_batches(lambda batch: self.predictor(batch)[0], images, batch_size)

    def _in_batches(self, function: Callable[[Batch], Any], images: Any, batch_size: int) -> Any:
        """The outputs `[N, ...]` of a function of batches, without N for a single image."""
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
        outputs = concatenated(function(padded({"image": chunk}, size)) for chunk in chunks)
        return jax.tree.map(lambda leaf: leaf[0], outputs) if images.ndim == 3 else outputs
