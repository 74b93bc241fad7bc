"""Optimisers and learning rates of self-supervised training, from the `optimizer` section."""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from sslax.errors import UserError, nearest
from sslax.types import Array, PyTree, Schedule


def defaults() -> ConfigDict:
    """The `optimizer` section of a config."""
    return ConfigDict(
        {
            "name": "sgd",  # sgd | lars | adamw
            "learning_rate": 0.3,
            "scaling": "linear",  # linear: x batch / 256; sqrt: x sqrt(batch); none
            "warmup": "0 steps",
            "final_fraction": 0.0,  # of the peak rate, at the end of the cosine
            "momentum": 0.9,  # Adam's beta 1
            "weight_decay": 1e-4,
            "trust_coefficient": 0.001,  # LARS
            "clip_norm": 0.0,  # global norm of the gradient; 0: not clipped
        }
    )


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
    if scaling not in rules:
        raise UserError(
            f'Unknown config.optimizer.scaling "{scaling}": {nearest(scaling, [*rules])}'
        )
    return rules[scaling]


def warmup_cosine(peak: float, *, warmup: int, total: int, final_fraction: float = 0.0) -> Schedule:
    """Linear warm-up to `peak`, then half a cosine down to `final_fraction · peak`.

    rate(t) = peak · (t + 1) / warmup for t < warmup (so that the first step already learns), then
    peak · (f + (1 - f) (1 + cos(π (t - warmup) / (total - warmup))) / 2).

    Raises:
        UserError: the warm-up leaves no step for the decay.
    """
    if warmup >= total:
        raise UserError(
            f"The warm-up takes {warmup} of {total} steps; shorten config.optimizer.warmup or "
            "lengthen config.duration."
        )

    def rate(step: Array) -> Array:
        progress = jnp.clip((step - warmup) / (total - warmup), 0.0, 1.0)
        cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        decayed = final_fraction + (1.0 - final_fraction) * cosine
        return peak * jnp.where(step < warmup, (step + 1) / max(warmup, 1), decayed)

    return rate


def decayed_leaves(params: PyTree) -> PyTree:
    """True for kernels; False for biases and the scales of norms, which have at most one axis."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def build(config: ConfigDict, rate: Schedule) -> optax.GradientTransformation:
    """The optimiser that the `optimizer` section names, at learning rate `rate(step)`.

    Weight decay, and LARS' trust ratio, spare biases and norms (`decayed_leaves`).

    Raises:
        UserError: unknown optimiser.
    """

    def sgd() -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(config.weight_decay, decayed_leaves),
            optax.sgd(rate, config.momentum),
        )

    def lars() -> optax.GradientTransformation:
        return optax.lars(
            rate,
            weight_decay=config.weight_decay,
            weight_decay_mask=decayed_leaves,
            trust_coefficient=config.trust_coefficient,
            trust_ratio_mask=decayed_leaves,
            momentum=config.momentum,
        )

    def adamw() -> optax.GradientTransformation:
        return optax.adamw(
            rate, b1=config.momentum, weight_decay=config.weight_decay, mask=decayed_leaves
        )

    optimisers = {"sgd": sgd, "lars": lars, "adamw": adamw}
    if config.name not in optimisers:
        known = nearest(config.name, [*optimisers])
        raise UserError(f'Unknown config.optimizer.name "{config.name}": {known}')
    transform = optimisers[config.name]()
    if config.clip_norm > 0:
        transform = optax.chain(optax.clip_by_global_norm(config.clip_norm), transform)
    return transform
