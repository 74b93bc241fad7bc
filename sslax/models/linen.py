"""Flax modules as the pure functions of a `Model`."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sslax.errors import UserError
from sslax.types import Array, Model, PyTree


def from_linen(
    module: nn.Module, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Model:
    """The `Model` of a linen module that is called with `(x, *, train)`.

    Args:
        module: the module. Its variables other than 'params' are the model state. x is an array,
            or a dictionary of arrays.
        mean: per-channel mean `[C]` that images are normalized by (see `normalize`); empty or None
            for none.
        std: per-channel standard deviation `[C]`.

    Returns:
        The model.

    Raises:
        ValueError: only one of `mean` and `std` is given.

    Example:
        >>> from sslax import models
        >>> model = from_linen(models.Projector(hidden=4, outputs=2))
        >>> params, state = model.init(jax.random.key(0), jnp.zeros((3, 5)))
        >>> model.apply(params, state, jnp.zeros((3, 5)), True)[0].shape
        (3, 2)
    """
    if bool(mean) != bool(std):
        raise ValueError("mean and std go together: give both or neither.")
    if mean and std:
        module = Normalized(module, tuple(mean), tuple(std))

    def init(rng: Array, x: Any) -> tuple[PyTree, PyTree]:
        variables = dict(module.init(rng, x, train=True))
        return variables.pop("params", {}), variables

    def apply(params: PyTree, model_state: PyTree, x: Any, train: bool) -> tuple[Any, PyTree]:
        variables = {"params": params, **model_state}
        if not train:
            return module.apply(variables, x, train=False), model_state
        return module.apply(variables, x, train=True, mutable=list(model_state))

    return Model(init, apply)


class Normalized(nn.Module):
    """A module that is given normalized images, under its own parameter names.

    Attributes:
        module: the module, called with `(x, *, train)`; x is an array of images or a dictionary
            with an entry 'image'.
        mean: per-channel mean `[C]`.
        std: per-channel standard deviation `[C]`.
    """

    module: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def setup(self) -> None:
        nn.share_scope(self, self.module)

    def __call__(self, x: Array | dict[str, Array], *, train: bool) -> Any:
        """Normalizes the images, then calls the module."""
        if isinstance(x, dict):
            x = {**x, "image": normalize(x["image"], self.mean, self.std)}
        else:
            x = normalize(x, self.mean, self.std)
        return self.module(x, train=train)


def normalize(images: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """`(images - mean) / std`.

    Args:
        images: `[..., C]` float; or F frames stacked on the channels, `[..., F·C]`, each of which
            is normalized.
        mean: per-channel mean `[C]`, or a single number for any C.
        std: per-channel standard deviation, likewise.

    Returns:
        The shape and dtype of `images`.

    Raises:
        UserError: the channels are no multiple of the values.
    """
    channels = images.shape[-1]
    if len(mean) > 1 and channels % len(mean):
        raise UserError(
            f"config.model.mean has {len(mean)} values and the images {channels} channel(s): give "
            "one for each channel, or a single one for all."
        )
    frames = channels // len(mean) if len(mean) > 1 else 1
    shift, scale = (jnp.tile(jnp.array(v, images.dtype), frames) for v in (mean, std))
    return (images - shift) / scale


def parameter_count(params: PyTree) -> int:
    """Number of scalars in a tree of arrays.

    Example:
        >>> parameter_count({"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)})
        9
    """
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def parameter_overview(params: PyTree) -> str:
    """A table of every parameter's name, shape and size, with the total below.

    Example:
        >>> print(parameter_overview({"linear": {"kernel": jnp.zeros((2, 3))}}))
        linear/kernel  (2, 3)  6
        total                  6
    """
    flat, _ = jax.tree.flatten_with_path(params)
    rows = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), str(leaf.shape), f"{leaf.size:,}")
        for path, leaf in flat
    ]
    rows.append(("total", "", f"{parameter_count(params):,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {size:>{widths[2]}}"
        for name, shape, size in rows
    )
