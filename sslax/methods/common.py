"""The few lines that methods share."""

import jax.numpy as jnp

from sslax.types import Array, PyTree, Schedule


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
