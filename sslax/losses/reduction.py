"""Means over valid elements."""

import jax
import jax.numpy as jnp

Array = jax.Array


def masked_mean(values: Array, mask: Array) -> Array:
    """Mean of the values where the mask is 1; zero, with zero gradient, where it is 0 everywhere.

    ```
    mean = sum_i mask_i * values_i / sum_i mask_i
    ```

    A value under a zero of the mask does not count, whatever it is: NaN and infinity stay out of
    the mean and of its gradient.

    Args:
        values: `[...]`, any shape.
        mask: `[...]` of the same shape, 1 (or True) where a value counts. Weights between 0 and 1
            are allowed.

    Returns:
        The mean, a float32 scalar (float64 for float64 values).

    Raises:
        ValueError: the shapes differ. Broadcast the mask first: a mask smaller than its values
            would be summed too few times.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> float(losses.masked_mean(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([1, 1, 0])))
        2.0
    """
    if jnp.shape(values) != jnp.shape(mask):
        raise ValueError(
            f"values {jnp.shape(values)} and mask {jnp.shape(mask)} differ in shape; "
            "use jnp.broadcast_to(mask, values.shape) so that each value has its own weight."
        )
    dtype = jnp.promote_types(values.dtype, jnp.float32)
    weights = mask.astype(dtype)
    kept = jnp.where(weights > 0, values, 0).astype(dtype)
    count = weights.sum()
    return jnp.where(count > 0, (kept * weights).sum() / jnp.where(count > 0, count, 1), 0)
