"""Batch normalisation."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last (Ioffe and Szegedy 2015).

    `y = a x + b` with `a = scale / sqrt(var + epsilon)` and `b = bias - a mean`. Parameters and
    statistics have the names and values of `flax.linen.BatchNorm`; in this form the backward pass
    needs no other large array than `x`, which saves memory and, on CPU, time. Statistics are
    computed and kept in float32, the variance with the divisor N. Without an axis name they are
    those of the global batch under jit, however it is sharded.

    Attributes:
        train: normalises by the batch and moves the running statistics towards it, rather than
            by the running statistics.
        affine: trains a scale and a bias.
        momentum: weight of the old running statistics.
        epsilon: added to the variance.
        scale_init: initialiser of the scale.
        dtype: dtype of the output.
    """

    train: bool
    affine: bool = True
    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: Callable[..., jax.Array] = nn.initializers.ones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        x = x.astype(jnp.float32)
        if self.train:
            axes = tuple(range(x.ndim - 1))
            mean = jnp.mean(x, axes)
            var = jnp.maximum(jnp.mean(jnp.square(x), axes) - jnp.square(mean), 0)
            if not self.is_initializing():
                old, new = self.momentum, 1 - self.momentum
                running_mean.value = old * running_mean.value + new * mean
                running_var.value = old * running_var.value + new * var
        else:
            mean, var = running_mean.value, running_var.value
        a, b = jax.lax.rsqrt(var + self.epsilon), 0.0
        if self.affine:
            a = a * self.param("scale", self.scale_init, shape)
            b = self.param("bias", nn.initializers.zeros, shape)
        return (a * x + (b - a * mean)).astype(self.dtype)
