"""Batch normalization."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
    """Batch normalization over all axes but the last (Ioffe and Szegedy 2015).

    `y = a x + b` with `a = scale / sqrt(var + epsilon)` and `b = bias - a mean`. Parameters and
    statistics have the names and values of `flax.linen.BatchNorm`; in this form the backward pass
    needs no other large array than `x`, which saves memory and, on CPU, time. Statistics are
    computed and kept in float32, the variance with the divisor N. Without an axis name they are
    those of the global batch under jit, however it is sharded.

    With `groups` above 1, training normalizes each group of examples (the leading axis, N) by
    its own statistics; the running ones move towards the means, over the groups, of the groups'
    means and variances. Interleaved groups, where example i is in group `i mod groups`, are the
    views of a batch `[B, V]` merged to `[B·V]`: codes that pass one view at a time, as BYOL's,
    have such statistics. With `blocks`, example i is in group `i // (N / groups)`: the statistics
    of each device in codes that do not synchronize them. Grouping moves no image.

    Attributes:
        train: normalizes by the batch and moves the running statistics towards it, rather than
            by the running statistics.
        affine: trains a scale and a bias.
        momentum: weight of the old running statistics.
        epsilon: added to the variance.
        scale_init: initializer of the scale.
        groups: of examples with statistics of their own, in training; divides N.
        blocks: groups are consecutive examples, rather than interleaved.
        dtype: dtype of the output.
    """

    train: bool
    affine: bool = True
    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: Callable[..., jax.Array] = nn.initializers.ones
    groups: int = 1
    blocks: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        # Initialization, which may see a batch of any size, draws nothing from the statistics.
        grouped = self.train and self.groups > 1 and not self.is_initializing()
        x = x.astype(jnp.float32)
        if self.train:
            mean, square = self._group_means(x) if grouped else _means(x)
            var = jnp.maximum(square - jnp.square(mean), 0)
            if not self.is_initializing():
                old, new = self.momentum, 1 - self.momentum
                of_all = jnp.mean(jnp.stack([mean, var]), 1) if grouped else (mean, var)
                running_mean.value = old * running_mean.value + new * of_all[0]
                running_var.value = old * running_var.value + new * of_all[1]
        else:
            mean, var = running_mean.value, running_var.value
        a, b = jax.lax.rsqrt(var + self.epsilon), 0.0
        if self.affine:
            a = a * self.param("scale", self.scale_init, shape)
            b = self.param("bias", nn.initializers.zeros, shape)
        if grouped:
            a, b = (self._to_examples(of_group, x) for of_group in (a, b - a * mean))
            return (a * x + b).astype(self.dtype)
        return (a * x + (b - a * mean)).astype(self.dtype)

    def _group_means(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Means `[groups, C]` of `x` and of its square, by way of the small means of examples."""
        if x.shape[0] % self.groups:
            raise ValueError(
                f"{x.shape[0]} examples do not fall into {self.groups} equal groups for batch "
                "normalization."
            )
        axes = tuple(range(1, x.ndim - 1))
        shape = (self.groups, -1) if self.blocks else (-1, self.groups)
        return tuple(
            jnp.mean(jnp.mean(y, axes).reshape(*shape, x.shape[-1]), 1 if self.blocks else 0)
            for y in (x, jnp.square(x))
        )

    def _to_examples(self, of_group: jax.Array, x: jax.Array) -> jax.Array:
        """`[groups, C] -> [N, 1, ..., C]`: to each example what belongs to its group."""
        count = x.shape[0] // self.groups
        repeated = (
            jnp.repeat(of_group, count, axis=0) if self.blocks else jnp.tile(of_group, (count, 1))
        )
        return repeated.reshape(x.shape[0], *[1] * (x.ndim - 2), x.shape[-1])


def _means(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    axes = tuple(range(x.ndim - 1))
    return jnp.mean(x, axes), jnp.mean(jnp.square(x), axes)
