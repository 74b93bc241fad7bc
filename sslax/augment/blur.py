"""Gaussian blur of one image; `jax.vmap` makes it batched, each example with its own sigma."""

import jax
import jax.numpy as jnp

from sslax.augment.image import apply_separable, assert_float_image

Array = jax.Array


def blur_kernel_size(size: int) -> int:
    """Kernel size, odd, about a tenth of the image: ``2 floor(floor(size / 10) / 2) + 1``.

    The rule of SimCLR: 23 for 224 pixels, 9 for 96, 3 for 32.

    Args:
        size: of the image, in pixels.

    Returns:
        Kernel size in pixels.

    Example:
        >>> [blur_kernel_size(size) for size in (28, 32, 96, 224)]
        [3, 3, 9, 23]

    Reference: Chen et al., A Simple Framework for Contrastive Learning, 2020 (arXiv:2002.05709).
    """
    return size // 10 // 2 * 2 + 1


def _blur_weights(size: int, sigma: Array, kernel_size: int) -> Array:
    """`[size, size]` weights of the blur along one side, the reflected border folded in."""
    radius = kernel_size // 2
    if radius >= size:
        raise ValueError(f"kernel_size {kernel_size} needs more than {radius} pixels, got {size}.")
    tap = jnp.arange(-radius, radius + 1)
    total = jnp.sum(jnp.exp(-(tap**2) / (2 * sigma**2)))

    def gaussian(offset: Array) -> Array:
        weight = jnp.exp(-(offset**2) / (2 * sigma**2)) / total
        return jnp.where(jnp.abs(offset) <= radius, weight, 0.0)

    target, source = jnp.arange(size)[:, None], jnp.arange(size)
    last = size - 1
    # Beyond the border a pixel is met again at -source and at 2 last - source; the border pixels
    # themselves are not repeated.
    return (
        gaussian(source - target)
        + jnp.where(source > 0, gaussian(-source - target), 0.0)
        + jnp.where(source < last, gaussian(2 * last - source - target), 0.0)
    )


def gaussian_blur(image: Array, sigma: Array, *, kernel_size: int) -> Array:
    """Blur with a truncated Gaussian and reflected borders.

    ``y = sum_t g_t x[. + t]`` along each side, ``g_t ∝ exp(-t^2 / (2 sigma^2))`` for
    ``|t| <= (kernel_size - 1) / 2``, normalized to 1. The definition of torchvision.

    Args:
        image: `[H, W, C]` float.
        sigma: scalar, in pixels, positive; may be traced.
        kernel_size: odd number of taps.

    Returns:
        `[H, W, C]` float32.

    Raises:
        ValueError: if `kernel_size` is even or reaches beyond the reflected image.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.zeros((1, 5, 1)).at[0, 2].set(1.0)
        >>> gaussian_blur(x, 1.0, kernel_size=1)[0, :, 0]
        Array([0., 0., 1., 0., 0.], dtype=float32)
    """
    assert_float_image(image)
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}.")
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
    """`gaussian_blur` with ``sigma ~ U(sigma)``, with a probability.

    Args:
        key: random key.
        image: `[H, W, C]` float.
        kernel_size: odd number of taps.
        sigma: range of the standard deviation, in pixels.
        probability: of the blur.

    Returns:
        `[H, W, C]` float32.

    Raises:
        ValueError: if `sigma` is not a positive, increasing pair or `kernel_size` is even.

    Example:
        >>> import jax
        >>> x = jax.numpy.ones((4, 4, 3))
        >>> bool(jax.numpy.allclose(random_gaussian_blur(jax.random.key(0), x, kernel_size=3), x))
        True
    """
    if not 0 < sigma[0] <= sigma[1]:
        raise ValueError(f"sigma must be a positive, increasing pair, got {sigma}.")
    chance, place = jax.random.uniform(key, (2,))
    blurred = gaussian_blur(
        image, sigma[0] + (sigma[1] - sigma[0]) * place, kernel_size=kernel_size
    )
    return jnp.where(chance < probability, blurred, image)
