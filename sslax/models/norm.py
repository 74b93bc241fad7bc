"""Batch normalization."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
    """Batch normalization over all axes but the last (Ioffe and Szegedy 2015).

    `y = a x + b` with `a = scale / sqrt(var + epsilon)` and `b = bias - a mean`. Parameters and
    statistics have the names and values of `flax.linen.BatchNorm`. In this form the backward pass
    keeps no large array but `x`, which saves memory and, on CPU, time. Statistics are computed and
    kept in float32, the variance with the divisor N. Under jit they are those of the global batch,
    however it is sharded.

    With `groups` > 1, training normalizes each group of examples (along the leading axis, N) by its
    own statistics; the running ones move towards the groups' average mean and variance. Interleaved
    groups, with example i in group `i mod groups`, are the views of a batch `[B, V]` merged to
    `[B·V]`, as in code that passes one view at a time (BYOL). With `blocks`, example i is in group
    `i // (N / groups)`, as on the devices of code that does not synchronize statistics. Grouping
    moves no image between devices.

    Attributes:
        train: normalizes by the batch and updates the running statistics; else normalizes by the
            running statistics.
        affine: learns a scale and a bias.
        momentum: weight of the old running statistics.
        epsilon: added to the variance.
        scale_init: initializer of the scale.
        groups: groups of examples with statistics of their own, in training; divides N.
        blocks: groups are consecutive examples rather than interleaved ones.
        dtype: of the output.
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
        # Initialization does not depend on statistics, and its batch may be of any size.
        grouped = self.train and self.groups > 1 and not self.is_initializing()
        x = x.astype(jnp.float32)
        if self.train:
            mean, square = self._group_means(x) if grouped else _means(x)
            var = jnp.maximum(square - jnp.square(mean), 0)
            if not self.is_initializing():
                old, new = self.momentum, 1 - self.momentum
                average = jnp.mean(jnp.stack([mean, var]), 1) if grouped else (mean, var)
                running_mean.value = old * running_mean.value + new * average[0]
                running_var.value = old * running_var.value + new * average[1]
        else:
            mean, var = running_mean.value, running_var.value
        a, b = jax.lax.rsqrt(var + self.epsilon), 0.0
        if self.affine:
            a = a * self.param("scale", self.scale_init, shape)
            b = self.param("bias", nn.initializers.zeros, shape)
        if grouped:
            a, b = (self._to_examples(values, x) for values in (a, b - a * mean))
            return (a * x + b).astype(self.dtype)
        return (a * x + (b - a * mean)).astype(self.dtype)

    def _group_means(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Means `[groups, C]` of `x` and its square, averaged within examples first."""
        if x.shape[0] % self.groups:
            raise ValueError(
                f"Batch normalization cannot split {x.shape[0]} examples into {self.groups} equal "
                "groups."
            )
        axes = tuple(range(1, x.ndim - 1))
        shape = (self.groups, -1) if self.blocks else (-1, self.groups)
        return tuple(
            jnp.mean(jnp.mean(y, axes).reshape(*shape, x.shape[-1]), 1 if self.blocks else 0)
            for y in (x, jnp.square(x))
        )

    def _to_examples(self, values: jax.Array, x: jax.Array) -> jax.Array:
        """`[groups, C] -> [N, 1, ..., C]`: the value of each example's group."""
        count = x.shape[0] // self.groups
        repeated = (
            jnp.repeat(values, count, axis=0) if self.blocks else jnp.tile(values, (count, 1))
        )
        return repeated.reshape(x.shape[0], *[1] * (x.ndim - 2), x.shape[-1])


def _means(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    axes = tuple(range(x.ndim - 1))
    return jnp.mean(x, axes), jnp.mean(jnp.square(x), axes)
