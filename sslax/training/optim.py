"""Optimizers and learning rates of self-supervised training, from the `optimizer` section."""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict
from optax import contrib

from sslax import ranges
from sslax.errors import UserError, check_choice, nearest
from sslax.methods.schedules import cosine
from sslax.ranges import Fraction, NonNegative, Positive, PositiveFraction, ProperFraction
from sslax.types import Array, PyTree, Schedule


class Section(NamedTuple):
    """The `optimizer` section of a config."""

    name: str = "sgd"  # sgd | lars | adamw | muon
    learning_rate: Positive = 0.3
    scaling: str = "linear"  # linear: x batch / 256; sqrt: x sqrt(batch); none
    warmup: str = "0 steps"
    final_fraction: Fraction = 0.0  # of the peak rate, at the end of the cosine
    # In place of the cosine: where in the run the rate drops
    drops: Sequence[Fraction] = ()
    drop_factor: PositiveFraction = 0.1
    momentum: ProperFraction = 0.9  # Adam's beta 1
    nesterov: bool = False  # SGD
    beta2: ProperFraction = 0.999  # Adam, and Muon's biases and norms
    epsilon: Positive = 1e-8  # likewise
    weight_decay: NonNegative = 1e-4
    spare_vectors: bool = True  # biases and norms: no weight decay, and no trust ratio of LARS
    spare_parts: Sequence[str] = ()  # parts of the network that are spared like these, by name
    final_decay_fraction: NonNegative = 1.0  # of the weight decay, at the end of a cosine
    trust_coefficient: Positive = 0.001  # LARS
    clip_norm: NonNegative = 0.0  # global norm of the gradient; 0: not clipped
    vector_rate: NonNegative = 1.0  # factor on the rate of biases and norms
    # Factor on the rate of a part of the network, by the part's name
    rates: Mapping[str, NonNegative] = MappingProxyType({})
    layer_decay: PositiveFraction = 1.0  # ViT: factor on the rate for each layer below the head


def defaults() -> ConfigDict:
    """The `optimizer` section of a config."""
    return ConfigDict(ranges.defaults(Section()))


def scaled_learning_rate(base: float, scaling: str, batch_size: int) -> float:
    """The peak learning rate for a batch size.

    `linear`: base · B / 256 (Goyal et al. 2017). `sqrt`: base · √B, which SimCLR recommends for
    small batches and short runs, with base 0.075 (Chen et al. 2020, B.1). `none`: base.

    Raises:
        UserError: unknown scaling.

    Example:
        >>> scaled_learning_rate(0.3, "linear", 512)
        0.6
    """
    rules = {"linear": base * batch_size / 256, "sqrt": base * batch_size**0.5, "none": base}
    check_choice("config.optimizer.scaling", scaling, rules)
    return rules[scaling]


def learning_rate(config: ConfigDict, *, batch_size: int, warmup: int, total: int) -> Schedule:
    """The rate at each step that the `optimizer` section describes.

    rate(t) = peak · (t + 1) / warmup for t < warmup (so that the first step already learns). Then
    half a cosine from the peak down to `final_fraction` of it, `cosine(1, final_fraction)`; or,
    with `drops`, the peak times `drop_factor` for each drop that has passed.

    Raises:
        UserError: unknown scaling, or the warm-up leaves no step for the decay.
    """
    peak = scaled_learning_rate(config.learning_rate, config.scaling, batch_size)
    if warmup >= total:
        raise UserError(
            f"The warm-up takes {warmup} of {total} steps; shorten config.optimizer.warmup or "
            "lengthen config.duration."
        )
    decay = cosine(1.0, config.final_fraction, total, first=warmup)
    drops = np.asarray(config.drops, np.float32) * total

    def rate(step: Array) -> Array:
        dropped = config.drop_factor ** jnp.sum(step >= drops)
        decayed = dropped if config.drops else decay(step)
        return peak * jnp.where(step < warmup, (step + 1) / max(warmup, 1), decayed)

    return rate


def decayed_leaves(params: PyTree) -> PyTree:
    """True for kernels; False for biases and the scales of norms, which have at most one axis."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def decayed_parts(params: PyTree, spared: Collection[str], *, vectors: bool) -> PyTree:
    """True for the leaves of parts that are not spared; for biases and norms if `vectors` is.

    Raises:
        UserError: there is no part of a name in `spared`.
    """
    if unknown := [name for name in spared if name not in params]:
        raise UserError(
            f"There is no part of the network for config.optimizer.spare_parts: {unknown[0]!r}: "
            f"{nearest(unknown[0], params)}"
        )
    return jax.tree.map_with_path(
        lambda path, leaf: path[0].key not in spared and (vectors or leaf.ndim > 1), params
    )


def as_matrices(params: PyTree) -> PyTree:
    """How Muon sees kernels: inputs by outputs, those of convolutions with their pixels among the
    inputs; None for the other leaves, which Adam updates."""
    return jax.tree.map(lambda leaf: _KERNEL_AXES.get(leaf.ndim), params)


def build(
    config: ConfigDict, rate: Schedule, total: int, *, optional: Collection[str] = ()
) -> optax.GradientTransformation:
    """The optimizer that the `optimizer` section names, with learning rate `rate(step)`.

    Weight decay, and LARS' trust ratio, spare biases and norms (`decayed_leaves`), unless the
    section's `spare_vectors` is False, and the parts in `spare_parts`. Factors on the rate
    (`vector_rate`, `rates`) multiply the whole update of a leaf, which for all these optimizers is
    the same as another rate for it: one state, several optimizers.

    Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon) replaces the momentum of a kernel,
    seen as a matrix, by about the nearest one whose singular values are equal; its steps are as
    large as Adam's (Liu et al. 2025, https://arxiv.org/abs/2502.16982), so that it takes Adam's
    rates. Leaves that are no kernels take AdamW's steps, with Nesterov momentum.

    Args:
        config: the section.
        rate: the learning rate at each step.
        total: steps of the run.
        optional: names of parts that may have a rate and be missing.

    Raises:
        UserError: unknown optimizer; when it is initialized, a part that is missing has a rate or
            is to be spared.
    """
    decay = config.weight_decay
    if config.final_decay_fraction != 1.0:
        decay = cosine(decay, decay * config.final_decay_fraction, total)

    mask = decayed_leaves if config.spare_vectors else None
    if config.spare_parts:
        mask = partial(
            decayed_parts, spared=tuple(config.spare_parts), vectors=not config.spare_vectors
        )

    def sgd() -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(decay, mask),
            optax.sgd(rate, config.momentum, nesterov=config.nesterov),
        )

    def lars() -> optax.GradientTransformation:
        return optax.lars(
            rate,
            weight_decay=decay,
            weight_decay_mask=mask if mask else True,
            trust_coefficient=config.trust_coefficient,
            trust_ratio_mask=mask if mask else True,
            momentum=config.momentum,
        )

    def adamw() -> optax.GradientTransformation:
        knobs = {"b1": config.momentum, "b2": config.beta2, "eps": config.epsilon}
        return optax.adamw(rate, **knobs, weight_decay=decay, mask=mask)

    def muon() -> optax.GradientTransformation:
        return contrib.muon(
            rate,
            beta=config.momentum,
            eps=config.epsilon,
            weight_decay=decay,
            weight_decay_mask=mask,
            adam_b1=config.momentum,
            adam_b2=config.beta2,
            adam_weight_decay=0.0 if mask else decay,
            muon_weight_dimension_numbers=as_matrices,
            consistent_rms=_ADAM_RMS,
        )

    optimizers = {"sgd": sgd, "lars": lars, "adamw": adamw, "muon": muon}
    check_choice("config.optimizer.name", config.name, optimizers)
    transform = optimizers[config.name]()
    if config.clip_norm > 0:
        transform = optax.chain(optax.clip_by_global_norm(config.clip_norm), transform)
    if config.vector_rate != 1.0 or config.rates:
        transform = optax.chain(
            transform, scale_parts(config.vector_rate, dict(config.rates), optional)
        )
    if config.layer_decay != 1.0:
        transform = optax.chain(transform, scale_layers(config.layer_decay))
    return transform


def scale_parts(
    vector_rate: float, rates: Mapping[str, float], optional: Collection[str] = ()
) -> optax.GradientTransformation:
    """Multiplies updates: of biases and norms by `vector_rate`, of part `name` by `rates[name]`.

    Args:
        vector_rate: for leaves of at most one axis.
        rates: by the name of the part, the first key of a leaf's path.
        optional: names of parts that may be missing.

    Raises:
        UserError: when it is initialized, for another part that is missing.
    """

    def factor(path: tuple, leaf: Array) -> float:
        return rates.get(path[0].key, 1.0) * (vector_rate if leaf.ndim <= 1 else 1.0)

    def init(params: PyTree) -> optax.EmptyState:
        for name in rates:
            if name not in params and name not in optional:
                raise UserError(
                    f"There is no part of the network for config.optimizer.rates.{name}: "
                    f"{nearest(name, params)}"
                )
        return optax.EmptyState()

    def update(updates: PyTree, state: optax.EmptyState, params: PyTree = None) -> tuple:
        return jax.tree.map_with_path(lambda path, leaf: factor(path, leaf) * leaf, updates), state

    return optax.GradientTransformation(init, update)


def scale_layers(decay: float) -> optax.GradientTransformation:
    """Multiplies the updates of a vision transformer by `decay` once for each layer above them.

    Only the part `encoder` of the network is scaled; its patch embedding, class token and positions
    lie below all blocks, its last norm above them.

    Clark et al., ELECTRA, https://arxiv.org/abs/2003.10555, 2020; MAE fine-tunes with 0.75.

    Raises:
        UserError: when it is initialized, for an encoder without blocks.
    """

    def depth_of(encoder: PyTree) -> int:
        return sum(bool(_BLOCK.fullmatch(name)) for name in encoder)

    def layer(path: tuple, depth: int) -> int:
        name = path[0].key
        block = _BLOCK.fullmatch(name)
        return depth + 1 if name == "norm" else int(block[1]) if block else 0

    def init(params: PyTree) -> optax.EmptyState:
        if not depth_of(params["encoder"]):
            raise UserError(
                "A layer_decay is for vision transformers, and this encoder has no blocks: set it "
                "to 1.0."
            )
        return optax.EmptyState()

    def update(updates: PyTree, state: optax.EmptyState, params: PyTree = None) -> tuple:
        depth = depth_of(updates["encoder"])
        encoder = jax.tree.map_with_path(
            lambda path, leaf: decay ** (depth + 1 - layer(path, depth)) * leaf, updates["encoder"]
        )
        return {**updates, "encoder": encoder}, state

    return optax.GradientTransformation(init, update)


_KERNEL_AXES = {  # of inputs and of outputs
    2: contrib.MuonDimensionNumbers(0, 1),
    4: contrib.MuonDimensionNumbers((0, 1, 2), 3),
}
_ADAM_RMS = 0.2  # root mean square of Adam's steps, over the rate, in the long run
_BLOCK = re.compile(r"block(\d+)")  # a layer of a vision transformer, counted from 1
