"""A batch as the steps of a loop, a few images at a time, so that intermediates stay in the cache.

A step takes one image from each of `size` consecutive runs of the batch: on a batch that is sharded
over devices every device has its share of every step, and no image moves.
"""

import jax
import jax.numpy as jnp
from jax import lax


def alike(x: jax.Array, *others: jax.Array) -> jax.Array:
    """The same values, varying over all mesh axes over which one of the others varies.

    Inside shard_map, what a loop starts with must vary as what its steps return, and the gradient
    of an operand as the operand.
    """
    for other in others:
        if 0 in other.shape:
            continue
        element = lax.stop_gradient(lax.slice(other, (0,) * other.ndim, (1,) * other.ndim))
        x = jnp.where(False, element.reshape(()).astype(x.dtype), x)
    return x


def count(n: int, wanted: int) -> int:
    """Images in a step: the largest divisor of the batch size up to `wanted`; at least 1."""
    return max(d for d in range(1, min(n, max(1, wanted)) + 1) if n % d == 0)


def split(x: jax.Array, size: int) -> jax.Array:
    """`[N, ...] -> [size, N / size, ...]`: `size` images for each step."""
    return x.reshape(size, x.shape[0] // size, *x.shape[1:])


def take(x: jax.Array, i: jax.Array) -> jax.Array:
    """The images of step i."""
    return lax.dynamic_index_in_dim(x, i, axis=1, keepdims=False)


def put(x: jax.Array, value: jax.Array, i: jax.Array) -> jax.Array:
    """`x` with the images of step i replaced."""
    return lax.dynamic_update_index_in_dim(x, value.astype(x.dtype), i, axis=1)
