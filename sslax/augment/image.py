"""The basis of all augmentations: float images, and separable linear maps."""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.types import Array


def to_float(image: Array) -> Array:
    """Converts an image to float32 in [0, 1].

    `y = x / 255` for uint8; float images are assumed to be in [0, 1] already.

    Args:
        image: `[...]`, any shape, uint8 or float.

    Returns:
        `[...]` float32.

    Raises:
        TypeError: the image has another integer dtype, whose range is unknown.
        ValueError: a float image has another range, such as 0 to 255.

    Example:
        >>> import jax.numpy as jnp
        >>> to_float(jnp.array([0, 255], jnp.uint8))
        Array([0., 1.], dtype=float32)
    """
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) / 255
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise checks.type_error(f"images must be uint8, or float in [0, 1]; got {image.dtype}.")
    checks.assert_unit_range(image)
    return image.astype(jnp.float32)


def assert_float_image(image: Array) -> None:
    """Checks that an image is `[H, W, C]` and float.

    Raises:
        AssertionError: the image does not have three axes.
        TypeError: the image has an integer dtype.
    """
    checks.assert_rank(image, 3)
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise checks.type_error(
            f"expected a float image in [0, 1], got {image.dtype}; use to_float first."
        )


def apply_separable(image: Array, rows: Array, columns: Array) -> Array:
    """Applies a separable linear map, such as a resize or a filter, as two matrix products.

    `y[i, j, c] = sum_pq rows[i, p] columns[j, q] x[p, q, c]`. Dense products are fast on CPUs and
    accelerators even if each example of a batch has its own weights.

    Args:
        image: `[H, W, C]` float.
        rows: `[h, H]`, weights of the vertical map.
        columns: `[w, W]`, weights of the horizontal map.

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
    image, rows, columns = (x.astype(jnp.float32) for x in (image, rows, columns))
    # With [H, C, W] both are plain matrix products, without a transpose between them. Full float32
    # precision, because lower ones err by more than one gray level.
    x = jnp.moveaxis(image, 2, 1)
    x = jnp.tensordot(x, columns, axes=((2,), (1,)), precision=jax.lax.Precision.HIGHEST)
    x = jnp.tensordot(rows, x, axes=((1,), (0,)), precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(x, 1, 2)
