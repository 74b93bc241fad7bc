"""Means over valid elements."""

import jax.numpy as jnp

from sslax import checks
from sslax.ops.dtypes import accumulation_dtype
from sslax.types import Array


def masked_mean(values: Array, mask: Array) -> Array:
    """Mean of the values where the mask is 1; 0, with zero gradient, if the mask is all zeros.

    ```
    mean = sum_i mask_i * values_i / sum_i mask_i
    ```

    Masked values may be anything: NaN and infinity reach neither the mean nor its gradient.

    Args:
        values: `[...]`, any shape.
        mask: `[...]`, the same shape, 1 (or True) where a value counts; or any weights.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ValueError: the shapes differ. The mask is not broadcast, because the sum of a smaller mask
            would be too small.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> float(losses.masked_mean(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([1, 1, 0])))
        2.0
    """
    if jnp.shape(values) != jnp.shape(mask):
        raise checks.value_error(
            f"values {jnp.shape(values)} and mask {jnp.shape(mask)} differ in shape; "
            "use jnp.broadcast_to(mask, values.shape)."
        )
    dtype = accumulation_dtype(values)
    weights = jnp.asarray(mask).astype(dtype)
    kept = jnp.where(weights > 0, jnp.asarray(values).astype(dtype), 0)
    count = weights.sum()
    return jnp.where(count > 0, (kept * weights).sum() / jnp.where(count > 0, count, 1), 0)
