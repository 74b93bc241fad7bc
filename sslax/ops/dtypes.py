"""The precision that results are computed in: float32, or float64 for float64 inputs.

bfloat16 and float16 have too few bits for sums, exponentials and pixel coordinates. All promotions
are explicit, so that everything works under `jax_numpy_dtype_promotion=strict`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from sslax import checks
from sslax.types import Array


def floating_dtype(*arrays: ArrayLike) -> jnp.dtype:
    """The common dtype of some arrays; float32 if all of them are integers or booleans.

    Example:
        >>> str(floating_dtype(jnp.zeros(2, jnp.int32), jnp.zeros(2, jnp.uint8)))
        'float32'
    """
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*arrays)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise checks.type_error(f"the array is {dtype}; pass real numbers.")
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.dtype(jnp.float32)


def accumulation_dtype(*arrays: ArrayLike) -> jnp.dtype:
    """The common dtype of some arrays, widened to float32 if it is narrower.

    Example:
        >>> str(accumulation_dtype(jnp.zeros(2, jnp.bfloat16), jnp.zeros(2, jnp.float16)))
        'float32'
    """
    dtype = floating_dtype(*arrays)
    return dtype if dtype.itemsize > 4 else jnp.dtype(jnp.float32)


def at_least_float32(x: ArrayLike) -> Array:
    """The array in float32, or as it is if it is wider.

    Example:
        >>> str(at_least_float32(jnp.zeros(2, jnp.bfloat16)).dtype)
        'float32'
    """
    return jnp.asarray(x, accumulation_dtype(x))


def accumulated(*arrays: ArrayLike) -> tuple[Array, ...]:
    """The arrays in their `accumulation_dtype`.

    Example:
        >>> [str(x.dtype) for x in accumulated(jnp.zeros(2, jnp.bfloat16), jnp.zeros(2, jnp.int32))]
        ['float32', 'float32']
    """
    dtype = accumulation_dtype(*arrays)
    return tuple(jnp.asarray(x, dtype) for x in arrays)
