"""Gaussian blur of one image; use `jax.vmap` for batches, with one sigma per example."""

import jax
import jax.numpy as jnp

from sslax import checks, ranges
from sslax.augment.image import apply_separable, assert_float_image
from sslax.ranges import PositiveRange
from sslax.types import Array


def blur_kernel_size(size: int) -> int:
    """SimCLR's kernel size, a tenth of the image and odd: `2 floor(floor(size / 10) / 2) + 1`.

    Args:
        size: image size in pixels.

    Returns:
        Kernel size in pixels: 23 for 224 pixels, 9 for 96, 3 for 32.

    Example:
        >>> [blur_kernel_size(size) for size in (28, 32, 96, 224)]
        [3, 3, 9, 23]

    Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
    arXiv:2002.05709.
    """
    return size // 10 // 2 * 2 + 1


def _blur_weights(size: int, sigma: Array, kernel_size: int) -> Array:
    """`[size, size]` weights of the blur along one axis, including the reflected borders."""
    radius = kernel_size // 2
    if radius >= size:
        raise checks.value_error(
            f"kernel_size {kernel_size} needs more than {radius} pixels; got {size}."
        )
    sigma = jnp.asarray(sigma, jnp.float32)
    tap = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    total = jnp.sum(jnp.exp(-(tap**2) / (2 * sigma**2)))

    def gaussian(offset: Array) -> Array:
        weight = jnp.exp(-(offset.astype(jnp.float32) ** 2) / (2 * sigma**2)) / total
        return jnp.where(jnp.abs(offset) <= radius, weight, 0.0)

    target, source = jnp.arange(size)[:, None], jnp.arange(size)
    last = size - 1
    # The reflections of a pixel are at -source and 2 last - source. The border pixels themselves
    # are not repeated.
    return (
        gaussian(source - target)
        + jnp.where(source > 0, gaussian(-source - target), 0.0)
        + jnp.where(source < last, gaussian(2 * last - source - target), 0.0)
    )


def gaussian_blur(image: Array, sigma: Array, *, kernel_size: int) -> Array:
    """Gaussian blur with a truncated kernel and reflected borders, as in torchvision.

    `y = sum_t g_t x[. + t]` along each axis, with `g_t ∝ exp(-t^2 / (2 sigma^2))` for
    `|t| <= (kernel_size - 1) / 2`, normalized to sum 1.

    Args:
        image: `[H, W, C]` float.
        sigma: positive scalar, in pixels; may be traced.
        kernel_size: odd number of taps.

    Returns:
        `[H, W, C]` float32.

    Raises:
        ValueError: `sigma` is not positive, or `kernel_size` is even or too large for the image.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.zeros((1, 5, 1)).at[0, 2].set(1.0)
        >>> gaussian_blur(x, 1.0, kernel_size=1)[0, :, 0]
        Array([0., 0., 1., 0., 0.], dtype=float32)
    """
    assert_float_image(image)
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise checks.value_error(f"kernel_size must be odd and positive; got {kernel_size}.")
    checks.assert_rank(sigma, 0)
    sigma = jnp.asarray(checks.positive("sigma", sigma), jnp.float32)
    rows, columns = (_blur_weights(size, sigma, kernel_size) for size in image.shape[:2])
    return apply_separable(image, rows, columns)


def random_gaussian_blur(
    key: Array,
    image: Array,
    *,
    kernel_size: int,
    sigma: tuple[float, float] = (0.1, 2.0),
    probability: float = 1.0,
) -> Array:
    """Applies `gaussian_blur` with `sigma ~ U(sigma)`, with a given probability.

    Args:
        key: random key.
        image: `[H, W, C]` float.
        kernel_size: odd number of taps.
        sigma: range of the standard deviation, in pixels.
        probability: probability of the blur.

    Returns:
        `[H, W, C]` float32.

    Raises:
        ValueError: `sigma` is not a positive, increasing pair, or `kernel_size` is even.

    Example:
        >>> import jax
        >>> x = jax.numpy.ones((4, 4, 3))
        >>> bool(jax.numpy.allclose(random_gaussian_blur(jax.random.key(0), x, kernel_size=3), x))
        True
    """
    ranges.check("sigma", sigma, PositiveRange)
    chance, u = jax.random.uniform(key, (2,), jnp.float32)
    blurred = gaussian_blur(image, sigma[0] + (sigma[1] - sigma[0]) * u, kernel_size=kernel_size)
    return jnp.where(chance < probability, blurred, image.astype(jnp.float32))
