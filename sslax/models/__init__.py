"""Networks: the only home of Flax modules. Everything else sees `sslax.types.Model`."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from sslax.errors import UserError, nearest
from sslax.models.conv import Conv, conv2d
from sslax.models.decoders import ColorDecoder, ContextDecoder, Discriminator, MAEDecoder, as_map
from sslax.models.heads import Classifier, DINOHead, Projector, Prototypes, TileClassifier
from sslax.models.resnet import ResNet
from sslax.models.vit import ViT, patchify, sincos_positions, unpatchify
from sslax.models.weights import load_safetensors, load_torchvision_resnet, save_safetensors
from sslax.types import Array, Model, PyTree

__all__ = [
    "MODELS",
    "Classifier",
    "ColorDecoder",
    "ContextDecoder",
    "Conv",
    "DINOHead",
    "Discriminator",
    "MAEDecoder",
    "Projector",
    "Prototypes",
    "ResNet",
    "TileClassifier",
    "ViT",
    "as_map",
    "build_encoder",
    "build_projector",
    "conv2d",
    "defaults",
    "from_linen",
    "is_vit",
    "load_safetensors",
    "load_torchvision_resnet",
    "parameter_count",
    "parameter_overview",
    "patchify",
    "save_safetensors",
    "sincos_positions",
    "unpatchify",
]

MODELS = {
    "resnet10": partial(ResNet, blocks=(1, 1, 1, 1)),
    "resnet18": partial(ResNet, blocks=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, blocks=(3, 4, 6, 3)),
    "resnet50": partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=True),
    "resnet101": partial(ResNet, blocks=(3, 4, 23, 3), bottleneck=True),
    "resnet152": partial(ResNet, blocks=(3, 8, 36, 3), bottleneck=True),
    "vit_micro": partial(ViT, width=128, depth=6, heads=4),
    "vit_tiny": partial(ViT, width=192, depth=12, heads=3),
    "vit_small": partial(ViT, width=384, depth=12, heads=6),
    "vit_base": partial(ViT, width=768, depth=12, heads=12),
    "vit_large": partial(ViT, width=1024, depth=24, heads=16),
}

# The fields of the section that only one family reads.
_OWN_FIELDS = {
    ResNet: ("patch_stem", "small_stem", "zero_init_residual"),
    ViT: ("patch", "pool", "position", "freeze_patch_embedding"),
}


def defaults() -> ml_collections.ConfigDict:
    """The configuration section that `build_encoder` reads.

    For every network: `name` (a key of `MODELS`), `blocks` (of each stage; of a ViT, their one
    number; empty for the name's own), `width` (factor on the channels), `dtype` ("float32" or
    "bfloat16"), and `mean`, `std`: statistics of the images' channels, empty to leave the images
    as they are.

    For ResNets: `small_stem` (for images up to 64 pixels), `patch_stem` (for the smallest
    budgets), `zero_init_residual`. For ViTs: `patch` (side in pixels), `pool` ("cls" or "mean"),
    `position` ("sincos" or "learned"), `freeze_patch_embedding`.
    """
    return ml_collections.ConfigDict(
        {
            "name": "resnet18",
            "blocks": (),
            "width": 1.0,
            "patch_stem": 0,
            "small_stem": False,
            "zero_init_residual": False,
            "patch": 16,
            "pool": "cls",
            "position": "sincos",
            "freeze_patch_embedding": False,
            "dtype": "float32",
            "mean": (),
            "std": (),
        }
    )


def build_encoder(
    config: ml_collections.ConfigDict, *, norm_groups: int = 1, norm_blocks: bool = False
) -> Model:
    """Builds the encoder that a section made by `defaults` describes.

    Args:
        config: the section.
        norm_groups: groups of examples with batch statistics of their own in training (see
            `sslax.models.norm.BatchNorm`); a ViT has no batch statistics.
        norm_blocks: these groups are consecutive examples, rather than interleaved.

    Returns:
        A `Model` from images `[N, H, W, C]` to an `Encoding`. That of a ViT also takes a
        dictionary of 'image' and 'keep' (see `ViT`).

    Raises:
        UserError: an unknown name or dtype, or a field of the other family of networks that is
            not as `defaults` has it.

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
    knobs = {"dtype": jnp.dtype(config.dtype), **_own_knobs(config)}
    if is_vit(config.name):
        knobs |= _vit_size(config)
    else:
        knobs |= {"blocks": tuple(config.blocks)} if config.blocks else {}
        knobs |= {"width": config.width, "norm_groups": norm_groups, "norm_blocks": norm_blocks}
    return from_linen(MODELS[config.name](**knobs), mean=config.mean, std=config.std)


def is_vit(name: str) -> bool:
    """Whether the encoder of that name in `MODELS` is a vision transformer.

    Example:
        >>> is_vit("vit_small"), is_vit("resnet18")
        (True, False)
    """
    return MODELS[name].func is ViT


def _own_knobs(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The fields that only this family has; the other family's must be left alone."""
    usual = defaults()
    for family, fields in _OWN_FIELDS.items():
        if MODELS[config.name].func is not family:
            for field in fields:
                if config[field] != usual[field]:
                    raise UserError(
                        f"config.model.{field} is {config[field]!r}, which only a "
                        f'{family.__name__} has, and "{config.name}" is none: '
                        f"set it back to {usual[field]!r}."
                    )
    return {field: config[field] for field in _OWN_FIELDS[MODELS[config.name].func]}


def _vit_size(config: ml_collections.ConfigDict) -> dict[str, int]:
    if len(config.blocks) > 1:
        raise UserError(
            f'config.model.blocks is {tuple(config.blocks)}, but "{config.name}" has one stage: '
            "give one number, or () for its own."
        )
    size = MODELS[config.name].keywords
    unit = math.lcm(4, size["heads"])
    width = unit * max(1, round(config.width * size["width"] / unit))
    return {"width": width, "depth": config.blocks[0] if config.blocks else size["depth"]}


def build_projector(
    config: ml_collections.ConfigDict,
    *,
    dtype: str = "float32",
    norm_groups: int = 1,
    norm_blocks: bool = False,
) -> Model:
    """Builds the projector of a section whose entries are fields of `Projector`.

    Args:
        config: the section.
        dtype: of the computation.
        norm_groups: groups of examples with batch statistics of their own in training (see
            `sslax.models.norm.BatchNorm`).
        norm_blocks: these groups are consecutive examples, rather than interleaved.

    Example:
        >>> projector = build_projector(ml_collections.ConfigDict({"hidden": 64, "outputs": 16}))
    """
    groups = {"norm_groups": norm_groups, "norm_blocks": norm_blocks}
    return from_linen(Projector(**config, **groups, dtype=jnp.dtype(dtype)))


def from_linen(
    module: nn.Module, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Model:
    """Makes the two pure functions of a `Model` from a linen module `(x, *, train)`.

    Args:
        module: the module; its variables other than 'params' are the model state. What it takes
            may also be a dictionary of arrays.
        mean: per-channel mean `[C]`; the input becomes `(x - mean) / std`. Of a dictionary that is
            the entry 'image'. Empty or None for none.
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

    def normalise(x: Array | dict[str, Array]) -> Array | dict[str, Array]:
        if not mean:
            return x
        if isinstance(x, dict):
            return {**x, "image": normalise(x["image"])}
        return (x - jnp.asarray(mean, x.dtype)) / jnp.asarray(std, x.dtype)

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
