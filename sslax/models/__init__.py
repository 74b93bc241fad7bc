"""Networks: the only home of Flax modules. Everything else sees `sslax.types.Model`."""

import math
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from sslax.errors import UserError, nearest
from sslax.models.conv import Conv, conv2d
from sslax.models.correlation import correlation_lookup, correlation_pyramid, cost_volume, lookup
from sslax.models.decoders import ColorDecoder, ContextDecoder, Discriminator, MAEDecoder, as_map
from sslax.models.depth import (
    DepthDecoder,
    DispNetDecoder,
    DispNetEncoder,
    UpConv,
    encoder_decoder,
    scaled,
)
from sslax.models.heads import Classifier, DINOHead, Projector, Prototypes, TileClassifier
from sslax.models.pose import PoseCNN, PoseCorrelation, PoseDecoder
from sslax.models.pwc import PWCNet, upsample_flow
from sslax.models.raft import RAFT, load_torchvision_raft
from sslax.models.resnet import ResNet
from sslax.models.vit import ViT, patchify, sincos_positions, unpatchify
from sslax.models.weights import (
    fit_weights,
    load_safetensors,
    load_torchvision_resnet,
    read_weights,
    save_safetensors,
)
from sslax.types import Array, Model, PyTree

__all__ = [
    "MODELS",
    "RAFT",
    "Classifier",
    "ColorDecoder",
    "ContextDecoder",
    "Conv",
    "DINOHead",
    "DepthDecoder",
    "Discriminator",
    "DispNetDecoder",
    "DispNetEncoder",
    "MAEDecoder",
    "PWCNet",
    "PoseCNN",
    "PoseCorrelation",
    "PoseDecoder",
    "Projector",
    "Prototypes",
    "ResNet",
    "TileClassifier",
    "UpConv",
    "ViT",
    "as_map",
    "build_depth_network",
    "build_encoder",
    "build_pose_network",
    "build_projector",
    "conv2d",
    "correlation_lookup",
    "correlation_pyramid",
    "cost_volume",
    "defaults",
    "encoder_decoder",
    "fit_weights",
    "from_linen",
    "is_vit",
    "load_safetensors",
    "load_torchvision_raft",
    "load_torchvision_resnet",
    "lookup",
    "parameter_count",
    "parameter_overview",
    "patchify",
    "read_weights",
    "save_safetensors",
    "sincos_positions",
    "unpatchify",
    "upsample_flow",
]

MODELS = {
    "resnet10": partial(ResNet, blocks=(1, 1, 1, 1)),
    "resnet18": partial(ResNet, blocks=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, blocks=(3, 4, 6, 3)),
    "resnet50": partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=True),
    "resnet101": partial(ResNet, blocks=(3, 4, 23, 3), bottleneck=True),
    "resnet152": partial(ResNet, blocks=(3, 8, 36, 3), bottleneck=True),
    "dispnet": partial(DispNetEncoder),
    "vit_micro": partial(ViT, width=128, depth=6, heads=4),
    "vit_tiny": partial(ViT, width=192, depth=12, heads=3),
    "vit_small": partial(ViT, width=384, depth=12, heads=6),
    "vit_base": partial(ViT, width=768, depth=12, heads=12),
    "vit_large": partial(ViT, width=1024, depth=24, heads=16),
}

# The fields of the section that only one family reads.
_OWN_FIELDS = {
    ResNet: ("patch_stem", "small_stem", "zero_init_residual"),
    DispNetEncoder: (),
    ViT: ("patch", "pool", "position", "freeze_patch_embedding"),
}


def defaults() -> ml_collections.ConfigDict:
    """The configuration section that `build_encoder` reads.

    For every network: `name` (a key of `MODELS`), `blocks` (of each stage; of a ViT, their one
    number; empty for the name's own), `width` (factor on the channels), `dtype` ("float32" or
    "bfloat16"), `mean`, `std`: statistics of the images' channels, empty to leave the images as
    they are, and `encoder_from`: weights to start from instead of random ones, empty for none.
    These are a run's folder (its encoder.safetensors), a file of `save_safetensors`, or
    torchvision's ResNet (.pth, .npz or .safetensors).

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
            "encoder_from": "",
        }
    )


def build_encoder(
    config: ml_collections.ConfigDict,
    *,
    norm_groups: int = 1,
    norm_blocks: bool = False,
    stem_stage: bool = False,
) -> Model:
    """Builds the encoder that a section made by `defaults` describes.

    Args:
        config: the section.
        norm_groups: groups of examples with batch statistics of their own in training (see
            `sslax.models.norm.BatchNorm`); only ResNets have batch statistics.
        norm_blocks: these groups are consecutive examples, rather than interleaved.
        stem_stage: a ResNet's stages begin with its stem.

    Returns:
        A `Model` from images `[N, H, W, C]` to an `Encoding`. That of a ViT also takes a
        dictionary of 'image' and 'keep' (see `ViT`). With `config.encoder_from`, `init` returns the
        weights of that file, which it reads when it is first called; of images that are F frames
        on the channels, the first convolution's weights are repeated and divided by F.

    Raises:
        UserError: an unknown name or dtype, or a field of another family of networks that is not
            as `defaults` has it; from `init`, there is no such file, or its weights are not those
            of this encoder.

    Example:
        >>> config = defaults()
        >>> config.name, config.small_stem = "resnet10", True
        >>> encoder = build_encoder(config)
    """
    if config.name not in MODELS:
        known = nearest(config.name, [*MODELS])
        raise UserError(f'There is no encoder config.model.name = "{config.name}": {known}')
    knobs = {"dtype": _dtype(config), **_own_knobs(config)}
    if is_vit(config.name):
        knobs |= _vit_size(config)
    elif MODELS[config.name].func is DispNetEncoder:
        if config.blocks:
            raise UserError('config.model.blocks is of no use to "dispnet": leave it ().')
        knobs |= {"width": config.width}
    else:
        knobs |= {"blocks": tuple(config.blocks)} if config.blocks else {}
        knobs |= {"width": config.width, "norm_groups": norm_groups, "norm_blocks": norm_blocks}
        knobs |= {"stem_stage": stem_stage}
    encoder = from_linen(MODELS[config.name](**knobs), mean=config.mean, std=config.std)
    return _starting_from(encoder, config.encoder_from) if config.encoder_from else encoder


def _starting_from(encoder: Model, source: str) -> Model:
    """The encoder with the weights of a file for its first ones."""
    read = cache(partial(read_weights, source))

    def init(rng: Array, x: Any) -> tuple[PyTree, PyTree]:
        return fit_weights(read(), jax.eval_shape(encoder.init, rng, x), source)

    return encoder._replace(init=init)


def build_depth_network(
    config: ml_collections.ConfigDict, *, outputs: int = 1, **knobs: Any
) -> Model:
    """Builds the depth network of a section made by `defaults`.

    The name "dispnet" gives SfMLearner's (`DispNetEncoder`, `DispNetDecoder`), a ResNet's name
    Monodepth2's (`ResNet` with its stem, `DepthDecoder`).

    Args:
        config: the section.
        outputs: channels K of each map.
        **knobs: further fields of the decoder: `scales`, `bias` and `widths`, without which
            `config.width` scales those of a `DispNetDecoder`.

    Returns:
        A `Model` from images `[N, H, W, C]` to a tuple of maps `[N, h, w, K]` in (0, 1), float32,
        (H, W) first. Parameters and state are dictionaries of 'encoder' and 'decoder'.

    Raises:
        UserError: as `build_encoder`; the name of a ViT; an unknown knob.

    Example:
        >>> config = defaults()
        >>> config.name, config.width = "resnet10", 0.25
        >>> network = build_depth_network(config, scales=3, widths=(8, 16, 32))
    """
    encoder = build_encoder(config, stem_stage=True)
    if is_vit(config.name):
        raise UserError(
            f'config.model.name is "{config.name}", but depth is decoded from the stages of a '
            'ResNet or of "dispnet".'
        )
    unknown = sorted(knobs.keys() - {"scales", "bias", "widths"})
    if unknown:
        known = nearest(unknown[0], ["bias", "scales", "widths"])
        raise UserError(f'A decoder of depth has no "{unknown[0]}": {known}')
    kind = DepthDecoder
    if MODELS[config.name].func is DispNetEncoder:
        kind = DispNetDecoder
        knobs.setdefault("widths", tuple(scaled(c, config.width) for c in kind.widths))
    decoder = kind(outputs=outputs, dtype=jnp.dtype(config.dtype), **knobs)
    return encoder_decoder(encoder, from_linen(decoder))


def build_pose_network(
    config: ml_collections.ConfigDict,
    *,
    name: str = "",
    frames: int = 2,
    decoder_width: int = 256,
    factors: Sequence[int] = (1,),
    explainability: bool = False,
    norm_groups: int = 1,
) -> Model:
    """Builds a pose network of stacked frames with the section of the depth network's encoder.

    Args:
        config: a section made by `defaults`.
        name: "posecnn" for SfMLearner's `PoseCNN`, "correlation" for `PoseCorrelation`, or a
            ResNet's for that encoder with a `PoseDecoder`, as Monodepth2 has it; empty for
            `config.name`, where "dispnet" goes with "posecnn".
        frames: F that are stacked.
        decoder_width: channels of the `PoseDecoder`, or of `PoseCorrelation`.
        factors: of `PoseCorrelation`'s searches.
        explainability: predicts masks, too; not of a ResNet.
        norm_groups: as in `build_encoder`.

    Returns:
        A `Model` from `[N, H, W, F·C]` to twists `[N, F - 1, 6]`; with `explainability` to a pair
        (see `PoseCNN`). With a ResNet, parameters and state are dictionaries of 'encoder' and
        'decoder'; where the name is the section's own, its `encoder_from` holds here, too.

    Raises:
        UserError: as `build_encoder`; the name of a ViT; `explainability` of a ResNet; `factors`
            below 1, or of another network than "correlation".

    Example:
        >>> network = build_pose_network(defaults(), name="posecnn", frames=3)
    """
    name = name or ("posecnn" if config.name == "dispnet" else config.name)
    factors = tuple(factors)
    if not factors or min(factors) < 1:
        raise UserError(f"A pose network's factors are {factors}: give one or more, from 1 on.")
    if factors != (1,) and name != "correlation":
        raise UserError(f'The factors {factors} are of "correlation"; those of "{name}" are (1,).')
    if name == "posecnn":
        network = PoseCNN(frames - 1, explainability, config.width, _dtype(config))
        return from_linen(network, mean=config.mean, std=config.std)
    if name == "correlation":
        knobs = {"width": decoder_width, "factors": factors, "dtype": _dtype(config)}
        network = PoseCorrelation(frames - 1, explainability, **knobs)
        return from_linen(network, mean=config.mean, std=config.std)
    if name not in MODELS or MODELS[name].func is not ResNet:
        known = ["posecnn", "correlation", *(n for n in MODELS if MODELS[n].func is ResNet)]
        raise UserError(f'There is no pose network "{name}": {nearest(name, known)}')
    if explainability:
        raise UserError(
            f'Explainability masks are of "posecnn" and "correlation", not of "{name}".'
        )
    weights = config.encoder_from if name == config.name else ""
    section = ml_collections.ConfigDict({**config, "name": name, "encoder_from": weights})
    encoder = build_encoder(section, norm_groups=norm_groups)
    decoder = PoseDecoder(frames - 1, decoder_width, jnp.dtype(config.dtype))
    return encoder_decoder(encoder, from_linen(decoder))


def is_vit(name: str) -> bool:
    """Whether the encoder of that name in `MODELS` is a vision transformer.

    Example:
        >>> is_vit("vit_small"), is_vit("resnet18")
        (True, False)
    """
    return MODELS[name].func is ViT


def _dtype(config: ml_collections.ConfigDict) -> jnp.dtype:
    if config.dtype not in ("float32", "bfloat16"):
        raise UserError(f"config.model.dtype is {config.dtype!r}; choose 'float32' or 'bfloat16'.")
    return jnp.dtype(config.dtype)


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
            the entry 'image'; of stacked frames `[N, H, W, F·C]` it is each frame. Empty or None
            for none.
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

    def normalize(x: Array | dict[str, Array]) -> Array | dict[str, Array]:
        if not mean:
            return x
        if isinstance(x, dict):
            return {**x, "image": normalize(x["image"])}
        frames = max(1, x.shape[-1] // len(mean)) if len(mean) > 1 else 1
        return (x - jnp.tile(jnp.array(mean, x.dtype), frames)) / jnp.tile(
            jnp.array(std, x.dtype), frames
        )

    def init(rng: Array, x: Array) -> tuple[PyTree, PyTree]:
        variables = dict(module.init(rng, normalize(x), train=True))
        return variables.pop("params", {}), variables

    def apply(params: PyTree, model_state: PyTree, x: Array, train: bool) -> tuple[Any, PyTree]:
        variables = {"params": params, **model_state}
        if not train:
            return module.apply(variables, normalize(x), train=False), model_state
        return module.apply(variables, normalize(x), train=True, mutable=list(model_state))

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
