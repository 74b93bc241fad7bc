"""The few lines that methods share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment
from sslax.errors import UserError
from sslax.types import Array, Batch, PyTree, Schedule

Views = Callable[[Array, Batch], Batch]
EvaluationView = Callable[[Array], Array]


def at_step(knob: float | Schedule, step: Array) -> Array | float:
    """A knob's value at a step: the knob itself, or what the schedule says."""
    return knob(step) if callable(knob) else knob


def merge_views(images: Array) -> Array:
    """`[B, V, ...]` to `[B·V, ...]`, which moves no data between devices."""
    return images.reshape(-1, *images.shape[2:])


def split_views(outputs: Array, views: int) -> Array:
    """`[B·V, ...]` back to `[B, V, ...]`."""
    return outputs.reshape(-1, views, *outputs.shape[1:])


def pool(stages: dict[str, Array]) -> dict[str, Array]:
    """Each stage's activations `[N, ..., C]`, averaged over their places: `[N, C]` float32."""
    return {
        name: jnp.mean(stage, axis=tuple(range(1, stage.ndim - 1)), dtype=jnp.float32)
        for name, stage in stages.items()
    }


def no_update(params: PyTree, extra: PyTree, step: Array) -> PyTree:
    """`update` of a method without moving averages."""
    return extra


def training_views(section: ConfigDict) -> Views:
    """The views of an `augment` section: a `recipe` by name, with any of its knobs replaced.

    Raises:
        UserError: unknown recipe or knob, or a knob out of its range.
    """
    knobs = {name: _hashable(value) for name, value in section.items()}
    recipe = knobs.pop("recipe")
    try:
        return augment.make_views(augment.get_recipes(recipe, **knobs))
    except ValueError as error:
        raise UserError(f"config.augment: {error}") from error


def evaluation_view(section: ConfigDict) -> EvaluationView:
    """Images `[B, H, W, C]` as they are, or their central square at an `augment` section's size."""
    view = augment.make_views((augment.ViewRecipe(size=section.get("size")),))

    def evaluate(images: Array) -> Array:
        index = jnp.zeros(images.shape[0], jnp.int32)  # nothing is random here
        return merge_views(view(jax.random.key(0), {"image": images, "index": index})["image"])

    return evaluate


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
