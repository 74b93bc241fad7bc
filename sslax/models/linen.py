"""From a Flax module to the two pure functions that methods take."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from sslax.types import Array, Model, PyTree


def from_linen(
    module: nn.Module, *, mean: Sequence[float] = (), std: Sequence[float] = ()
) -> Model:
    """A module with `__call__(x, *, train)` as a `Model`.

    Args:
        module: its 'params' become the parameters, all its other collections the model state.
        mean, std: per channel; where given, the module sees `(x - mean) / std`.
    """
    if len(mean) != len(std):
        raise ValueError(f"mean and std are both given per channel, or neither: {mean}, {std}.")

    def normalised(x: Array) -> Array:
        if not mean:
            return x
        if x.shape[-1] != len(mean):
            raise ValueError(f"mean has {len(mean)} channels and the images {x.shape[-1]}.")
        return (x - jnp.asarray(mean, x.dtype)) / jnp.asarray(std, x.dtype)

    def init(rng: Array, x: Array) -> tuple[PyTree, PyTree]:
        variables = dict(module.init(rng, normalised(x), train=False))
        return variables.pop("params"), variables

    def apply(params: PyTree, model_state: PyTree, x: Array, train: bool) -> tuple[Any, PyTree]:
        variables = {"params": params, **model_state}
        if not train:
            return module.apply(variables, normalised(x), train=False), model_state
        mutable = list(model_state)
        return module.apply(variables, normalised(x), train=True, mutable=mutable)

    return Model(init, apply)
