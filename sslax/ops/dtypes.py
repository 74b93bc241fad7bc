"""The precision that results are computed in: float32, or float64 for float64 inputs.

bfloat16 and float16 have too few bits for sums, exponentials and pixel coordinates.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from sslax.types import Array


def accumulation_dtype(*arrays: ArrayLike) -> jnp.dtype:
    """The common dtype of some arrays, widened to float32 if it is narrower.

    Example:
        >>> str(accumulation_dtype(jnp.zeros(2, jnp.bfloat16), jnp.zeros(2, jnp.float16)))
        'float32'
    """
    return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def at_least_float32(x: ArrayLike) -> Array:
    """The array in float32, or as it is if it is wider.

    Example:
        >>> str(at_least_float32(jnp.zeros(2, jnp.bfloat16)).dtype)
        'float32'
    """
    x = jnp.asarray(x)
    return x.astype(accumulation_dtype(x))
