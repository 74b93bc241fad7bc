"""Schedules of a method's knobs: functions of the step alone."""

import jax.numpy as jnp

from sslax.types import Array, Schedule


def cosine(start: float, end: float, total: float, *, first: float = 0) -> Schedule:
    """Half a cosine from `start` at step `first` to `end` at step `total`, and constant outside.

    `end + (start - end) (1 + cos(π (t - first) / (total - first))) / 2`

    Example:
        >>> schedule = cosine(0.9, 1.0, 100)
        >>> [round(float(schedule(step)), 3) for step in (0, 50, 100)]
        [0.9, 0.95, 1.0]
    """

    def value(step: Array) -> Array:
        progress = jnp.clip((step - first) / max(total - first, 1), 0.0, 1.0)
        return end + (start - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))

    return value


def linear(start: float, end: float, total: float, *, first: float = 0) -> Schedule:
    """A line from `start` at step `first` to `end` at step `total`, and constant outside.

    Example:
        >>> schedule = linear(0.0, 0.6, 150, first=100)
        >>> [round(float(schedule(step)), 2) for step in (100, 125, 200)]
        [0.0, 0.3, 0.6]
    """

    def value(step: Array) -> Array:
        progress = (jnp.asarray(step, jnp.float32) - first) / max(total - first, 1)
        return start + (end - start) * jnp.clip(progress, 0.0, 1.0)

    return value
