"""The weights that a run exports: self-describing files."""

import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import models
from sslax.types import Method, Variables

ENCODER = "encoder.safetensors"
NETWORK = "network.safetensors"


def save_encoder(
    path: str | Path,
    config: ConfigDict,
    method: Method,
    variables: Variables,
    *,
    image_shape: Sequence[int],
    step: int,
) -> None:
    """Writes the exported encoder, for `models.load_encoder`.

    Args:
        path: the file.
        config: of the run.
        method: of the run.
        variables: of the method.
        image_shape: (..., H, W, C) of the images in a batch.
        step: that the variables belong to.
    """
    image = jax.ShapeDtypeStruct((1, *image_shape[-3:]), jnp.uint8)
    _, height, width, channels = jax.eval_shape(method.evaluation_view, image).shape
    description = models.Description(
        architecture=config.model,
        size=(height, width),
        channels=channels,
        preprocessing=models.preprocessing_name(method.preprocess),
        method=config.method,
        task=type(method.task).__name__.lower(),
        step=step,
    )
    models.save_encoder(path, *method.encoder(variables), description)


def save_network(path: str | Path, config: ConfigDict, variables: Variables, *, step: int) -> None:
    """Writes all parts of the trained network, for `models.read_variables`."""
    metadata = {
        "method": config.method,
        "step": step,
        "config": json.loads(config.to_json_best_effort()),
    }
    models.save_weights(path, variables.params, variables.model_state, metadata)
