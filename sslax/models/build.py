"""Networks from the sections of a config."""

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from sslax import ranges
from sslax.errors import UserError, check_choice, nearest
from sslax.models.compose import Network
from sslax.models.depth import DepthDecoder, DispNetDecoder, DispNetEncoder, scaled
from sslax.models.heads import Projector
from sslax.models.linen import from_linen
from sslax.models.pose import PoseCNN, PoseCorrelation, PoseDecoder
from sslax.models.published import PublishedViT, is_vit_file, read_vit
from sslax.models.pwc import PWCNet
from sslax.models.raft import RAFT
from sslax.models.resnet import ResNet
from sslax.models.vit import ViT
from sslax.models.weights import fit_weights, read_file, weights_of
from sslax.ranges import (
    Fraction,
    NonNegative,
    NonNegativeInt,
    OneOrMore,
    Positive,
    PositiveInt,
    ProperFraction,
)
from sslax.types import Array, Encoding, Model, PyTree

MODELS: dict[str, partial[Any]] = {
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
    "vit_huge_plus": partial(ViT, width=1280, depth=32, heads=20),
    "vit_giant": partial(ViT, width=1536, depth=40, heads=24),
    "vit_7b": partial(ViT, width=4096, depth=40, heads=32),
}
"""Encoders by name."""

FLOW_NETWORKS: dict[str, type[PWCNet] | type[RAFT]] = {"pwc": PWCNet, "raft": RAFT}
"""Flow networks by name."""

# Fields of the section that not all families of encoders have.
_OWN_FIELDS: dict[Any, tuple[str, ...]] = {
    ResNet: ("patch_stem", "small_stem", "zero_init_residual", "remat"),
    DispNetEncoder: (),
    ViT: (
        *("patch", "mlp_ratio", "pool", "position", "position_antialias", "class_token"),
        *("freeze_patch_embedding", "drop_path", "drop_path_uniform", "mask_token"),
        *("registers", "layer_scale", "swiglu", "post_norm", "norm_epsilon", "remat"),
    ),
}


class Section(NamedTuple):
    """The `model` section of a config.

    Attributes:
        name: a key of `MODELS` (or, for flow, of `FLOW_NETWORKS`).
        blocks: blocks of each stage; for a ViT one number; empty for the name's own.
        width: factor on the number of channels.
        patch_stem: of a ResNet, for the smallest budgets; see `ResNet`, likewise
            `zero_init_residual`.
        small_stem: of a ResNet, for images up to 64 pixels.
        patch: of a ViT, side in pixels; see `ViT`, likewise `mlp_ratio`, `position_antialias`,
            `freeze_patch_embedding`, `drop_path`, `drop_path_uniform`, `mask_token`, `registers`,
            `layer_scale`, `swiglu`, `post_norm` and `norm_epsilon`.
        pool: of a ViT: "cls" or "mean".
        position: of a ViT: "sincos", "learned" or "rope".
        class_token: of a ViT.
        remat: of a ResNet or a ViT, recomputes each block in the backward pass rather than storing
            its activations; likewise the blocks of MAE's decoder and of I-JEPA's predictor.
        dtype: of the computation, "float32" or "bfloat16".
        mean: of the images' channels, to normalize by; empty for no normalization.
        std: standard deviation of the images' channels, likewise.
        encoder_from: weights to start from instead of random ones, empty for none: the folder of a
            run, a file of `save_encoder`, or torchvision's ResNet or a published vision transformer
            (.pth, .npz or .safetensors).
    """

    name: str = "resnet18"
    blocks: Sequence[PositiveInt] = ()
    width: Positive = 1.0
    patch_stem: NonNegativeInt = 0
    small_stem: bool = False
    zero_init_residual: bool = False
    patch: PositiveInt = 16
    mlp_ratio: Positive = 4.0
    pool: Literal["cls", "mean"] = "cls"
    position: Literal["sincos", "learned", "rope"] = "sincos"
    position_antialias: bool = True
    class_token: bool = True
    freeze_patch_embedding: bool = False
    drop_path: ProperFraction = 0.0
    drop_path_uniform: bool = False
    mask_token: bool = False
    registers: NonNegativeInt = 0
    layer_scale: NonNegative = 0.0
    swiglu: bool = False
    post_norm: bool = False
    norm_epsilon: Positive = 1e-6
    remat: bool = False
    dtype: str = "float32"
    mean: Sequence[Fraction] = ()
    std: Sequence[Positive] = ()
    encoder_from: str = ""


def defaults() -> ml_collections.ConfigDict:
    """The `model` section of a config, with its default values; see `Section`."""
    return ml_collections.ConfigDict(ranges.defaults(Section()))


def is_vit(name: str) -> bool:
    """Whether the encoder of that name is a vision transformer.

    Example:
        >>> is_vit("vit_small"), is_vit("resnet18")
        (True, False)
    """
    return MODELS[name].func is ViT


def encoder_module(
    config: ml_collections.ConfigDict,
    *,
    norm_groups: int = 1,
    norm_blocks: bool = False,
    stem_stage: bool = False,
    mlp_stages: int = 0,
) -> nn.Module:
    """The Flax module of an encoder, without normalization by `config.mean` and `config.std`.

    Arguments and errors are those of `build_encoder`.
    """
    _check(config, MODELS)
    family = MODELS[config.name].func
    knobs = {"dtype": _dtype(config), **_own_knobs(config)}
    if family is ViT:
        return MODELS[config.name](**knobs, **_vit_size(config), mlp_stages=mlp_stages)
    knobs["width"] = config.width
    if family is DispNetEncoder:
        if config.blocks:
            raise UserError('config.model.blocks has no effect on "dispnet": leave it ().')
        return MODELS[config.name](**knobs)
    knobs |= {"blocks": tuple(config.blocks)} if config.blocks else {}
    knobs |= {"norm_groups": norm_groups, "norm_blocks": norm_blocks, "stem_stage": stem_stage}
    return MODELS[config.name](**knobs)


def patch_features(encoder: nn.Module, encoding: Encoding, size: tuple[int, int]) -> Array:
    """Dense features: what an encoder's last layer says of each place of the images.

    Args:
        encoder: the module, as `encoder_module` makes it.
        encoding: what it returned for whole images.
        size: (H, W) of these images in pixels.

    Returns:
        `[N, h, w, D]`: of a ViT the patch tokens, after the last LayerNorm; of another network the
        map of its last stage.

    Example:
        >>> vit = ViT(patch=4, width=24, depth=1, heads=3)
        >>> images = jnp.zeros((2, 8, 12, 3))
        >>> encoding, _ = vit.init_with_output(jax.random.key(0), images, train=False)
        >>> patch_features(vit, encoding, (8, 12)).shape
        (2, 2, 3, 24)
    """
    if not isinstance(encoder, ViT):
        return encoding.stages[max(encoding.stages)]
    tokens = encoding.stages["tokens"][:, int(encoder.class_token) :]
    rows, columns = (side // encoder.patch for side in size)
    return tokens.reshape(len(tokens), rows, columns, -1)


def build_encoder(
    config: ml_collections.ConfigDict,
    *,
    norm_groups: int = 1,
    norm_blocks: bool = False,
    stem_stage: bool = False,
    mlp_stages: int = 0,
) -> Model:
    """The encoder of a `model` section.

    Args:
        config: the section, as `defaults` has it.
        norm_groups: groups of examples with batch statistics of their own in training (see
            `sslax.models.norm.BatchNorm`); only ResNets have batch statistics.
        norm_blocks: groups are consecutive examples rather than interleaved ones.
        stem_stage: a ResNet's stages begin with its stem.
        mlp_stages: a ViT's stages have the outputs of the MLPs of so many last blocks.

    Returns:
        A `Model` from images `[N, H, W, C]` in [0, 1] to an `Encoding`; a ViT also takes a
        dictionary (see `ViT`). With `config.encoder_from`, `init` returns the weights of that file,
        which is read at the first call. For images that are F stacked frames, `[N, H, W, F·C]`,
        the first convolution's weights are repeated and divided by F.

    Raises:
        UserError: an unknown name or dtype, or a field that belongs to another family and is not
            at its default; from `init`, the file is missing or its weights do not fit.

    Example:
        >>> config = defaults()
        >>> config.name, config.small_stem = "resnet10", True
        >>> encoder = build_encoder(config)
    """
    module = encoder_module(
        config,
        norm_groups=norm_groups,
        norm_blocks=norm_blocks,
        stem_stage=stem_stage,
        mlp_stages=mlp_stages,
    )
    encoder = from_linen(module, mean=config.mean, std=config.std)
    return _starting_from(encoder, config) if config.encoder_from else encoder


def build_projector(
    config: ml_collections.ConfigDict,
    *,
    dtype: str = "float32",
    norm_groups: int = 1,
    norm_blocks: bool = False,
) -> Model:
    """The projector of a section whose entries are fields of `Projector`.

    Args:
        config: the section.
        dtype: of the computation.
        norm_groups: groups of examples with batch statistics of their own in training (see
            `sslax.models.norm.BatchNorm`).
        norm_blocks: groups are consecutive examples rather than interleaved ones.

    Returns:
        A `Model` from features `[N, D]` to embeddings `[N, outputs]` float32.

    Example:
        >>> projector = build_projector(ml_collections.ConfigDict({"hidden": 64, "outputs": 16}))
    """
    groups = {"norm_groups": norm_groups, "norm_blocks": norm_blocks}
    return from_linen(Projector(**config, **groups, dtype=jnp.dtype(dtype)))


def build_depth_decoder(
    config: ml_collections.ConfigDict, *, outputs: int = 1, **knobs: Any
) -> Model:
    """The depth decoder that goes with the encoder of a `model` section.

    That of "dispnet" is SfMLearner's `DispNetDecoder`, that of a ResNet Monodepth2's
    `DepthDecoder`; the encoder is `build_encoder(config, stem_stage=True)`.

    Args:
        config: the section.
        outputs: channels K of each map.
        **knobs: fields of the decoder: `scales`, `bias` and `widths`. A `DispNetDecoder`'s default
            widths are scaled by `config.width`.

    Returns:
        A `Model` from {'stages', 'like'} to a tuple of maps `[N, h, w, K]` in (0, 1), float32, at
        full resolution first (see `DepthDecoder`).

    Raises:
        UserError: an unknown name, that of a ViT, or an unknown knob.

    Example:
        >>> config = defaults()
        >>> decoder = build_depth_decoder(config, scales=3, widths=(8, 16, 32))
    """
    check_choice("config.model.name", config.name, MODELS)
    if is_vit(config.name):
        raise UserError(
            f'config.model.name is "{config.name}", but depth is decoded from the stages of a '
            'ResNet or of "dispnet".'
        )
    for knob in knobs:
        if knob not in _DECODER_KNOBS:
            raise UserError(f'A depth decoder has no "{knob}": {nearest(knob, _DECODER_KNOBS)}')
    if MODELS[config.name].func is not DispNetEncoder:
        return from_linen(DepthDecoder(outputs=outputs, dtype=_dtype(config), **knobs))
    knobs.setdefault("widths", tuple(scaled(c, config.width) for c in DispNetDecoder.widths))
    return from_linen(DispNetDecoder(outputs=outputs, dtype=_dtype(config), **knobs))


_DECODER_KNOBS = ("bias", "scales", "widths")


def build_pose_network(
    config: ml_collections.ConfigDict,
    *,
    name: str = "",
    frames: int = 2,
    decoder_width: PositiveInt = 256,
    factors: OneOrMore[PositiveInt] = (1,),
    explainability: NonNegativeInt = 0,
    norm_groups: int = 1,
    camera: bool = False,
) -> Model:
    """The pose network that goes with the depth network of a `model` section.

    Args:
        config: the section.
        name: "posecnn" for SfMLearner's `PoseCNN`, "correlation" for `PoseCorrelation`, or a
            ResNet's name for that encoder with a `PoseDecoder`, as in Monodepth2; empty for
            `config.name`, where "dispnet" goes with "posecnn".
        frames: F, stacked on the channels.
        decoder_width: channels of the `PoseDecoder`, or of `PoseCorrelation`.
        factors: search resolutions of `PoseCorrelation`.
        explainability: also predicts masks, at so many of the largest sizes; not with a ResNet.
        norm_groups: as in `build_encoder`.
        camera: also predicts the frames' intrinsics.

    Returns:
        A `Model` from `[N, H, W, F·C]` to twists `[N, F - 1, 6]`; with `explainability` to a pair
        (see `PoseCNN`); with `camera` to a pair of that and of intrinsics `[N, 3, 3]` of the frames
        shrunk to one pixel (see `sslax.models.pose`). With a ResNet, parameters and state are
        dictionaries of 'encoder' and 'decoder'; where it is the section's own, it also starts from
        `encoder_from`.

    Raises:
        UserError: as `build_encoder`; a ViT's name; `explainability` with a ResNet; `factors`
            below 1, or with another network than "correlation".

    Example:
        >>> network = build_pose_network(defaults(), name="posecnn", frames=3)
    """
    _check(config, MODELS)
    name = name or ("posecnn" if config.name == "dispnet" else config.name)
    factors = tuple(factors)
    if not factors or min(factors) < 1:
        raise UserError(f"A pose network's factors are {factors}: give one or more, each >= 1.")
    if factors != (1,) and name != "correlation":
        raise UserError(f'Only "correlation" has factors; for "{name}" leave them (1,).')
    if name == "posecnn":
        network = PoseCNN(frames - 1, explainability, config.width, _dtype(config), camera)
        return from_linen(network, mean=config.mean, std=config.std)
    if name == "correlation":
        knobs = {"width": decoder_width, "factors": factors, "dtype": _dtype(config)}
        network = PoseCorrelation(frames - 1, explainability, camera=camera, **knobs)
        return from_linen(network, mean=config.mean, std=config.std)
    resnets = [n for n in MODELS if MODELS[n].func is ResNet]
    if name not in resnets:
        known = ["posecnn", "correlation", *resnets]
        raise UserError(f'There is no pose network "{name}": {nearest(name, known)}')
    if explainability:
        raise UserError(
            f'Only "posecnn" and "correlation" have explainability masks, not "{name}".'
        )
    weights = config.encoder_from if name == config.name else ""
    section = ml_collections.ConfigDict({**config, "name": name, "encoder_from": weights})
    encoder = build_encoder(section, norm_groups=norm_groups)
    decoder = from_linen(PoseDecoder(frames - 1, decoder_width, _dtype(config), camera))
    parts = Network({"encoder": encoder, "decoder": decoder})
    return parts.as_model(lambda net, x: net.decoder({"stages": net.encoder(x).stages}))


def build_flow_network(
    config: ml_collections.ConfigDict,
    knobs: Mapping[str, Any],
    *,
    section: str = "network",
    both: bool = True,
) -> Model:
    """The flow network of a `model` section, whose `name` is a key of `FLOW_NETWORKS`.

    Args:
        config: the section, of which `name`, `width` and `dtype` are used.
        knobs: further fields of the module, `PWCNet` or `RAFT`.
        section: where the knobs come from, for error messages: "config.uflow.network".
        both: also the flow from the second frame to the first; the parameters are the same.

    Returns:
        A `Model` from pairs of frames `[N, 2, H, W, C]` in [0, 1] to flows, as the module returns
        them.

    Raises:
        UserError: an unknown name, dtype or knob, or a knob out of its range.

    Example:
        >>> config = defaults()
        >>> config.name = "raft"
        >>> network = build_flow_network(config, {"small": True, "iterations": 4})
    """
    _check(config, FLOW_NETWORKS)
    module = FLOW_NETWORKS[config.name]
    common = {"width": config.width, "dtype": _dtype(config), "both": both}
    kinds = ranges.kinds_of(module)
    others = (*common, "parent", "name")
    known = {name: kind for name, kind in kinds.items() if name not in others}
    ranges.check_knobs(section, knobs, known)
    network = from_linen(module(**knobs, **common))

    def init(rng: Array, x: Any) -> tuple[PyTree, PyTree]:
        try:
            return network.init(rng, x)
        except ValueError as error:  # of frames that are too small
            raise UserError(f"{section}: {error}") from error

    return network._replace(init=init)


def feature_encoder(
    config: ml_collections.ConfigDict, params: PyTree, model_state: PyTree
) -> tuple[PyTree, PyTree]:
    """The part of a flow network that encodes single frames.

    Args:
        config: the `model` section of the network.
        params: its parameters.
        model_state: its state.

    Returns:
        The entries of both that belong to the feature encoder.

    Raises:
        UserError: an unknown name.
    """
    check_choice("config.model.name", config.name, FLOW_NETWORKS)
    is_feature = FLOW_NETWORKS[config.name].is_feature

    def features(tree: PyTree) -> PyTree:
        return {name: branch for name, branch in tree.items() if is_feature(name)}

    state = {collection: features(tree) for collection, tree in model_state.items()}
    return features(params), state


def section_of(published: PublishedViT, source: str | os.PathLike) -> ml_collections.ConfigDict:
    """The `model` section of a published vision transformer.

    Raises:
        UserError: no vision transformer of `MODELS` has its width, so that the number of its heads
            is not known; or its heads have another width.
    """
    sizes = {name: vit.keywords for name, vit in MODELS.items() if vit.func is ViT}
    same = [name for name, size in sizes.items() if size["width"] == published.width]
    if not same:
        raise UserError(
            f"{source} holds a vision transformer of width {published.width}, and does not say how "
            f"many heads it has. Known are widths of "
            f"{', '.join(str(size['width']) for size in sizes.values())}; for others, build "
            "`models.ViT` with its heads, and give it the arrays of `models.read_weights`."
        )
    (name,) = same
    heads = sizes[name]["heads"]
    if published.head_width not in (None, published.width // heads):
        raise UserError(
            f"{source} holds a vision transformer whose heads have a width of "
            f'{published.head_width}; "{name}" has {heads} heads of {published.width // heads}.'
        )
    section = defaults()
    section.update(name=name, **published.architecture)
    return section


def _starting_from(encoder: Model, config: ml_collections.ConfigDict) -> Model:
    """The encoder, initialized with the weights of the file that its section names."""
    source = config.encoder_from

    @cache
    def read() -> dict[str, Any]:
        tensors, _ = read_file(source)
        if not is_vit_file(tensors):
            return weights_of(tensors, source)
        published = read_vit(tensors, source)
        _check_architecture(config, section_of(published, source))
        return published.arrays

    def init(rng: Array, x: Any) -> tuple[PyTree, PyTree]:
        like, antialias = jax.eval_shape(encoder.init, rng, x), config.position_antialias
        return fit_weights(read(), like, source, position_antialias=antialias)

    return encoder._replace(init=init)


def _check_architecture(
    config: ml_collections.ConfigDict, published: ml_collections.ConfigDict
) -> None:
    """Checks that a section describes the network whose weights it starts from."""
    depth = tuple(config.blocks) or (MODELS[config.name].keywords.get("depth"),)
    given = {**config, "blocks": depth, "layer_scale": bool(config.layer_scale)}
    wanted = {**published, "layer_scale": bool(published.layer_scale)}
    wrong = [name for name in _ARCHITECTURE if given[name] != wanted[name]]
    if wrong:
        normalized = ("mean", "std") if published.mean else ()
        values = [(name, published[name]) for name in (*wrong, *normalized)]
        raise UserError(
            f"{config.encoder_from} holds the weights of another network than config.model "
            "describes; it needs "
            + " ".join(f"--config.model.{n}={shlex.quote(str(v))}" for n, v in values)
        )


# What the weights of a vision transformer depend on.
_ARCHITECTURE = (
    *("name", "blocks", "width", "patch", "mlp_ratio", "position", "position_antialias"),
    *("class_token", "registers", "layer_scale", "swiglu", "post_norm", "norm_epsilon"),
)


def _check(config: ml_collections.ConfigDict, networks: Mapping[str, Any]) -> None:
    """Checks that a section is one of these networks, and its fields."""
    check_choice("config.model.name", config.name, networks)
    ranges.check_knobs("config.model", config, Section)
    if len(config.mean) != len(config.std):
        raise UserError(
            f"config.model.mean has {len(config.mean)} values and config.model.std "
            f"{len(config.std)}: give one for each channel of the images, or none."
        )


def _dtype(config: ml_collections.ConfigDict) -> jnp.dtype:
    check_choice("config.model.dtype", config.dtype, ("float32", "bfloat16"))
    return jnp.dtype(config.dtype)


def _own_knobs(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The fields that only this encoder's family has; the other families' must be at defaults."""
    usual, own = defaults(), _OWN_FIELDS[MODELS[config.name].func]
    for field in {field for fields in _OWN_FIELDS.values() for field in fields}.difference(own):
        if config[field] != usual[field]:
            families = [family for family, fields in _OWN_FIELDS.items() if field in fields]
            raise UserError(
                f"config.model.{field} is {config[field]!r}, but only a "
                f"{' or a '.join(family.__name__ for family in families)} has it and "
                f'"{config.name}" is none: set it back to {usual[field]!r}.'
            )
    return {field: config[field] for field in own}


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
