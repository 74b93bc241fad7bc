"""What every augmentation starts from: float images, and separable linear maps of them."""

import jax
import jax.numpy as jnp

from sslax import checks

Array = jax.Array


def to_float(image: Array) -> Array:
    """Image as float32 in [0, 1].

    ``y = x / 255`` for uint8; a float image is taken to be in [0, 1] already.

    Args:
        image: array of any shape, uint8 or float.

    Returns:
        float32 array of the same shape.

    Raises:
        TypeError: for integers other than uint8, whose range is not known.

    Example:
        >>> import jax.numpy as jnp
        >>> to_float(jnp.array([0, 255], jnp.uint8))
        Array([0., 1.], dtype=float32)
    """
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) / 255
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise TypeError(f"Images are uint8, or float in [0, 1]; convert this {image.dtype} image.")
    return image.astype(jnp.float32)


def assert_float_image(image: Array) -> None:
    """Asserts `[H, W, C]` and a float dtype.

    Raises:
        TypeError: if the image holds integers.
        AssertionError: if it does not have three axes.
    """
    checks.assert_rank(image, 3)
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise TypeError(f"Expected a float image in [0, 1], got {image.dtype}; use to_float first.")


def apply_separable(image: Array, rows: Array, columns: Array) -> Array:
    """Linear map of an image along its rows, then along its columns.

    ``y[i, j, c] = sum_pq rows[i, p] columns[j, q] x[p, q, c]``: any separable resize or filter is
    two matrix products, which suits CPUs and accelerators when each example of a batch has its own
    weights.

    Args:
        image: `[H, W, C]` float.
        rows: `[h, H]` weights.
        columns: `[w, W]` weights.

    Returns:
        `[h, w, C]` float32.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.arange(4.0).reshape(2, 2, 1)
        >>> apply_separable(x, jnp.eye(2), jnp.full((1, 2), 0.5))[..., 0]
        Array([[0.5],
               [2.5]], dtype=float32)
    """
    assert_float_image(image)
    checks.assert_shape(rows, (None, image.shape[0]))
    checks.assert_shape(columns, (None, image.shape[1]))
    # [H, C, W] makes both products plain matrix products, without a transpose between them.
    # Full float32 precision, as lower ones err by more than one gray level.
    x = jnp.moveaxis(image, 2, 1)
    x = jnp.tensordot(x, columns, axes=((2,), (1,)), precision=jax.lax.Precision.HIGHEST)
    x = jnp.tensordot(rows, x, axes=((1,), (0,)), precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(x, 1, 2)
