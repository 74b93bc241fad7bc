"""Networks: the only home of Flax modules. Everything else sees `sslax.types.Model`."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from sslax.errors import UserError, nearest
from sslax.models.conv import Conv, conv2d
from sslax.models.heads import Classifier, Projector
from sslax.models.resnet import ResNet
from sslax.models.weights import load_safetensors, load_torchvision_resnet, save_safetensors
from sslax.types import Array, Model, PyTree

__all__ = [
    "MODELS",
    "Classifier",
    "Conv",
    "Projector",
    "ResNet",
    "build_encoder",
    "build_projector",
    "conv2d",
    "defaults",
    "from_linen",
    "load_safetensors",
    "load_torchvision_resnet",
    "parameter_count",
    "parameter_overview",
    "save_safetensors",
]

MODELS = {
    "resnet10": partial(ResNet, blocks=(1, 1, 1, 1)),
    "resnet18": partial(ResNet, blocks=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, blocks=(3, 4, 6, 3)),
    "resnet50": partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=True),
    "resnet101": partial(ResNet, blocks=(3, 4, 23, 3), bottleneck=True),
    "resnet152": partial(ResNet, blocks=(3, 8, 36, 3), bottleneck=True),
}


def defaults() -> ml_collections.ConfigDict:
    """The configuration section that `build_encoder` reads.

    Fields: `name` (a key of `MODELS`), `blocks` (of each stage; empty for the name's own), `width`
    (factor on the channels), `small_stem` (for images up to 64 pixels), `patch_stem` (for the
    smallest budgets), `zero_init_residual`, `dtype` ("float32" or "bfloat16"), and `mean`, `std`:
    statistics of the images' channels, empty to leave the images as they are.
    """
    return ml_collections.ConfigDict(
        {
            "name": "resnet18",
            "blocks": (),
            "width": 1.0,
            "patch_stem": 0,
            "small_stem": False,
            "zero_init_residual": False,
            "dtype": "float32",
            "mean": (),
            "std": (),
        }
    )


def build_encoder(config: ml_collections.ConfigDict) -> Model:
    """Builds the encoder that a section made by `defaults` describes.

    Args:
        config: the section.

    Returns:
        A `Model` from images `[N, H, W, C]` to an `Encoding`.

    Raises:
        UserError: an unknown name or dtype.

    Example:
        >>> config = defaults()
        >>> config.name, config.small_stem = "resnet10", True
        >>> encoder = build_encoder(config)
    """
    if config.name not in MODELS:
        known = nearest(config.name, [*MODELS])
        raise UserError(f'There is no encoder config.model.name = "{config.name}": {known}')
    if config.dtype not in ("float32", "bfloat16"):
        raise UserError(f"config.model.dtype is {config.dtype!r}; choose 'float32' or 'bfloat16'.")
    blocks = {"blocks": tuple(config.blocks)} if config.blocks else {}
    module = MODELS[config.name](
        **blocks,
        patch_stem=config.patch_stem,
        width=config.width,
        small_stem=config.small_stem,
        zero_init_residual=config.zero_init_residual,
        dtype=jnp.dtype(config.dtype),
    )
    return from_linen(module, mean=config.mean, std=config.std)


def build_projector(config: ml_collections.ConfigDict, *, dtype: str = "float32") -> Model:
    """Builds the projector of a section whose entries are fields of `Projector`.

    Example:
        >>> projector = build_projector(ml_collections.ConfigDict({"hidden": 64, "outputs": 16}))
    """
    return from_linen(Projector(**config, dtype=jnp.dtype(dtype)))


def from_linen(
    module: nn.Module, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Model:
    """Makes the two pure functions of a `Model` from a linen module `(x, *, train)`.

    Args:
        module: the module; its variables other than 'params' are the model state.
        mean: per-channel mean `[C]`; the input becomes `(x - mean) / std`. Empty or None for none.
        std: per-channel standard deviation `[C]`.

    Returns:
        The model.

    Raises:
        ValueError: only one of `mean` and `std` is given.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = from_linen(Projector(hidden=4, outputs=2))
        >>> params, state = model.init(jax.random.key(0), jnp.zeros((3, 5)))
        >>> model.apply(params, state, jnp.zeros((3, 5)), True)[0].shape
        (3, 2)
    """
    if bool(mean) != bool(std):
        raise ValueError("mean and std go together: give both or neither.")

    def normalise(x: Array) -> Array:
        return (x - jnp.asarray(mean, x.dtype)) / jnp.asarray(std, x.dtype) if mean else x

    def init(rng: Array, x: Array) -> tuple[PyTree, PyTree]:
        variables = dict(module.init(rng, normalise(x), train=True))
        return variables.pop("params", {}), variables

    def apply(params: PyTree, model_state: PyTree, x: Array, train: bool) -> tuple[Any, PyTree]:
        variables = {"params": params, **model_state}
        if not train:
            return module.apply(variables, normalise(x), train=False), model_state
        return module.apply(variables, normalise(x), train=True, mutable=list(model_state))

    return Model(init, apply)


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
