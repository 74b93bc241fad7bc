"""The few functions that methods of all families share."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import ranges
from sslax.errors import UserError
from sslax.types import Array, Batch, LossOutput, PyTree, Schedule, Variables

Augmentation = Callable[[Array, Batch], Batch]


def at_step(knob: float | Schedule, step: Array) -> Array | float:
    """A knob's value at a step: the number itself, or the value of the schedule."""
    return knob(step) if callable(knob) else knob


def merge_views(images: Array) -> Array:
    """`[B, V, ...]` to `[B·V, ...]`, which moves no data between devices."""
    return images.reshape(-1, *images.shape[2:])


def split_views(outputs: Array, views: int) -> Array:
    """`[B·V, ...]` back to `[B, V, ...]`."""
    return outputs.reshape(-1, views, *outputs.shape[1:])


def select_views(images: Array, indices: Sequence[int]) -> Array:
    """Some of the images `[B, V, ...]`, `[B, T, ...]`.

    They are slices: a constant array of indices would be a gather, on TPU a loop over its pixels.
    """
    return jnp.stack([images[:, i] for i in indices], axis=1)


def no_update(variables: Variables, step: Array) -> PyTree:
    """`update` of a method without moving averages."""
    return variables.extra


def composed(embed: Callable, couple: Callable) -> Callable:
    """`Method.loss` of a method that has `Method.embed` and `Method.couple`."""

    def loss(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        outputs, variables = embed(variables, batch, rng, step)
        return couple(outputs, variables, batch, rng, step)

    return loss


def knobs_of(config: ConfigDict, factory: Callable, **own: ranges.Kind) -> dict[str, Any]:
    """The config's section of a method, every entry in its range, as a dictionary.

    Args:
        config: a whole config.
        factory: of the method, whose name the section has; entries that are arguments of it have
            the ranges that these declare.
        **own: the other entries: a range, or, for a section, what has its entries as arguments or
            fields.

    Raises:
        UserError: there is no such section or entry, or an entry is out of its range.
    """
    name = factory.__name__
    if name not in config:
        raise UserError(
            f"config.method is {name!r}, but this config has no section {name!r}: start from "
            f"--config=configs/{name}.py."
        )
    knobs = plain(config[name])
    ranges.check_knobs(f"config.{name}", knobs, {**ranges.kinds_of(factory), **own})
    return knobs


def plain(value: Any) -> Any:
    """Config sections as dictionaries, and the lists that a config read from JSON has as tuples."""
    if isinstance(value, ConfigDict | dict):
        return {name: plain(entry) for name, entry in value.items()}
    return tuple(value) if isinstance(value, list) else value
