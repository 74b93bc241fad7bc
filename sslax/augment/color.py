"""Color operations on one float image in [0, 1]; use `jax.vmap` for batches.

Brightness, contrast and saturation are all `clip(f x + (1 - f) base, 0, 1)`: the base is black, the
mean gray value, or the gray image. Definitions, gray weights and clipping follow torchvision.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from sslax import checks
from sslax.augment.image import assert_float_image
from sslax.types import Array

_GRAY_WEIGHTS = (0.2989, 0.587, 0.114)
_ORDERS = np.array(list(itertools.permutations(range(3))), np.int32)
_BRIGHTNESS, _CONTRAST, _SATURATION = range(3)


def assert_color_image(image: Array) -> None:
    """Checks that an image is `[H, W, C]` and float, with one channel or three.

    Raises:
        AssertionError: the image does not have three axes.
        TypeError: the image has an integer dtype.
        ValueError: the image has another number of channels.
    """
    assert_float_image(image)
    if image.shape[-1] not in (1, 3):
        raise checks.value_error(
            f"expected 1 (gray) or 3 (RGB) channels last; got shape {image.shape}."
        )


def _gray(image: Array) -> Array:
    """`[H, W, 1]` gray value; of bands that are neither gray nor RGB their mean."""
    if image.shape[-1] == 1:
        return image
    if image.shape[-1] != 3:
        return jnp.mean(image, axis=-1, keepdims=True)
    red, green, blue = (w * image[..., c : c + 1] for c, w in enumerate(_GRAY_WEIGHTS))
    return red + green + blue


def _blend(image: Array, base: Array | float, factor: Array) -> Array:
    factor = jnp.asarray(factor, image.dtype)
    return jnp.clip(factor * image + (1.0 - factor) * base, 0.0, 1.0)


def to_grayscale(image: Array) -> Array:
    """Converts an image to gray, keeping the number of channels.

    `y = 0.2989 R + 0.587 G + 0.114 B` in every channel; one-channel images are unchanged.

    Args:
        image: `[H, W, C]` float, C = 1 or 3.

    Returns:
        `[H, W, C]`.

    Raises:
        ValueError: C is not 1 or 3.

    Example:
        >>> import jax.numpy as jnp
        >>> to_grayscale(jnp.array([[[1.0, 0.0, 0.0]]]))
        Array([[[0.2989, 0.2989, 0.2989]]], dtype=float32)
    """
    assert_color_image(image)
    return jnp.broadcast_to(_gray(image), image.shape)


def adjust_brightness(image: Array, factor: Array) -> Array:
    """Adjusts brightness: `clip(f x, 0, 1)`.

    Args:
        image: `[H, W, C]` float in [0, 1].
        factor: f, a nonnegative scalar; 0 gives black, 1 the image.

    Returns:
        `[H, W, C]`.

    Example:
        >>> import jax.numpy as jnp
        >>> adjust_brightness(jnp.full((1, 1, 1), 0.75), 2.0).item()
        1.0
    """
    assert_float_image(image)
    checks.assert_unit_range(image)
    return _blend(image, 0.0, factor)


def adjust_contrast(image: Array, factor: Array) -> Array:
    """Adjusts contrast: `clip(f x + (1 - f) m, 0, 1)` with m the mean gray value of the image,
    or of bands that are neither gray nor RGB the mean of all.

    Args:
        image: `[H, W, C]` float in [0, 1].
        factor: f, a nonnegative scalar; 0 gives uniform gray, 1 the image.

    Returns:
        `[H, W, C]`.

    Example:
        >>> import jax.numpy as jnp
        >>> adjust_contrast(jnp.array([[[0.25], [0.75]]]), 0.5)[0, :, 0]
        Array([0.375, 0.625], dtype=float32)
    """
    assert_float_image(image)
    checks.assert_unit_range(image)
    return _blend(image, jnp.mean(_gray(image)), factor)


def adjust_saturation(image: Array, factor: Array) -> Array:
    """Adjusts saturation: `clip(f x + (1 - f) gray(x), 0, 1)`; identity for one channel.

    Args:
        image: `[H, W, C]` float in [0, 1], C = 1 or 3.
        factor: f, a nonnegative scalar; 0 gives the gray image, 1 the image.

    Returns:
        `[H, W, C]`.

    Raises:
        ValueError: C is not 1 or 3.

    Example:
        >>> import jax.numpy as jnp
        >>> adjust_saturation(jnp.array([[[1.0, 0.0, 0.0]]]), 0.0)
        Array([[[0.2989, 0.2989, 0.2989]]], dtype=float32)
    """
    assert_color_image(image)
    checks.assert_unit_range(image)
    if image.shape[-1] == 1:
        return image
    return _blend(image, _gray(image), factor)


def adjust_hue(image: Array, shift: Array) -> Array:
    """Shifts the hue, keeping value and saturation; identity for one channel.

    With `v = max(R, G, B)`, `c = v - min(R, G, B)` and hue h in [0, 6), the channels (R, G, B) are
    `v - c clip(min(k, 4 - k), 0, 1)` with `k = (h + 6 shift + n) mod 6` and `n = (5, 3, 1)`: the
    round trip through HSV in closed form.

    Args:
        image: `[H, W, C]` float in [0, 1], C = 1 or 3.
        shift: scalar in [-0.5, 0.5], as a fraction of the color circle; 1/3 maps red to green.

    Returns:
        `[H, W, C]`.

    Raises:
        ValueError: C is not 1 or 3.

    Example:
        >>> import jax.numpy as jnp
        >>> adjust_hue(jnp.array([[[1.0, 0.0, 0.0]]]), 0.5)
        Array([[[0., 1., 1.]]], dtype=float32)
    """
    assert_color_image(image)
    checks.assert_unit_range(image)
    if image.shape[-1] == 1:
        return image
    red, green, blue = (image[..., c : c + 1] for c in range(3))
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    per_chroma = 1.0 / jnp.where(chroma == 0.0, 1.0, chroma)  # gray pixels have no hue
    hue = jnp.where(
        value == red,
        (green - blue) * per_chroma,
        jnp.where(
            value == green, 2.0 + (blue - red) * per_chroma, 4.0 + (red - green) * per_chroma
        ),
    )
    k = hue + 6.0 * jnp.asarray(shift, image.dtype) + jnp.array([5.0, 3.0, 1.0], image.dtype)
    k = k - 6.0 * jnp.floor(k / 6.0)
    return value - chroma * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)


def solarize(image: Array, *, threshold: float = 0.5) -> Array:
    """Solarizes an image: inverts values at or above the threshold, `1 - x` where `x >= threshold`.

    0.5 corresponds to a threshold of 128 for 8-bit images: 128/255 is inverted, 127/255 is not.

    Args:
        image: `[H, W, C]` float in [0, 1].
        threshold: in [0, 1].

    Returns:
        `[H, W, C]`.

    Example:
        >>> import jax.numpy as jnp
        >>> solarize(jnp.array([[[0.25], [0.75]]]))[0, :, 0]
        Array([0.25, 0.25], dtype=float32)
    """
    assert_float_image(image)
    checks.assert_unit_range(image)
    return jnp.where(image >= threshold, 1.0 - image, image)


def color_jitter(
    key: Array,
    image: Array,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    probability: float = 1.0,
) -> Array:
    """Random brightness, contrast, saturation and hue, in random order.

    Factors `~ U(max(0, 1 - b), 1 + b)`, hue shift `~ U(-h, h)`; all 24 orders are equally likely.

    Args:
        key: random key.
        image: `[H, W, C]` float in [0, 1]; C = 1 or 3 for saturation and hue.
        brightness, contrast, saturation: strengths b, nonnegative; 0 changes nothing.
        hue: strength h, in [0, 0.5]; 0 changes nothing.
        probability: probability of the jitter as a whole.

    Returns:
        `[H, W, C]`.

    Raises:
        ValueError: a strength is out of range, or saturation or hue is to change and C is not 1 or
            3.

    Example:
        >>> import jax
        >>> x = jax.numpy.full((2, 2, 3), 0.5)
        >>> color_jitter(jax.random.key(0), x, brightness=0.4, hue=0.1).shape
        (2, 2, 3)
    """
    (assert_color_image if saturation or hue else assert_float_image)(image)
    checks.assert_unit_range(image)
    strengths = (brightness, contrast, saturation)
    if min(strengths) < 0 or not 0 <= hue <= 0.5:
        raise checks.value_error(
            f"brightness, contrast, saturation must be at least 0 and hue in [0, 0.5]; "
            f"got {strengths} and {hue}."
        )
    parameters = _sample_jitter(key, strengths=strengths, hue=hue, probability=probability)
    return _jitter(image, *parameters, shift_hue=hue > 0)


def _sample_jitter(
    key: Array, *, strengths: tuple[float, float, float], hue: float, probability: float
) -> tuple[Array, Array, Array, Array]:
    """Factors `[3]`, hue shift, order of the blends `[3]`, number of blends before the shift."""
    u = jax.random.uniform(key, (7,), jnp.float32)
    active = u[0] < probability
    low = np.array([max(0.0, 1.0 - s) for s in strengths], np.float32)
    high = np.array([1.0 + s for s in strengths], np.float32)
    factors = jnp.where(active, low + (high - low) * u[1:4], 1.0)
    shift = jnp.where(active, hue * (2.0 * u[4] - 1.0), 0.0)
    order = jnp.asarray(_ORDERS)[(u[5] * len(_ORDERS)).astype(jnp.int32)]
    before_hue = (u[6] * 4).astype(jnp.int32)
    return factors, shift, order, before_hue


def _jitter(
    image: Array, factors: Array, shift: Array, order: Array, before_hue: Array, *, shift_hue: bool
) -> Array:
    """Applies the three blends in the given order, and the hue shift after `before_hue` of them.

    Examples of a batch shift the hue at different points, and a batch runs every branch. So the hue
    shift, the most expensive operation, is done once, and all three blends before and after it,
    where a blend that is not due is an identity (factor 1).
    """
    checks.assert_shape([factors, order], (3,))

    def blend(x: Array, slot: int, due: Array | bool) -> Array:
        operation = order[slot]
        gray = _gray(x)
        base = jnp.where(operation == _CONTRAST, jnp.mean(gray), gray)
        base = jnp.where(operation == _BRIGHTNESS, 0.0, base)
        return _blend(x, base, jnp.where(due, factors[operation], 1.0))

    if not shift_hue or image.shape[-1] == 1:
        for slot in range(3):
            image = blend(image, slot, True)
        return image
    for slot in range(3):
        image = blend(image, slot, slot < before_hue)
    image = adjust_hue(image, shift)
    for slot in range(3):
        image = blend(image, slot, slot >= before_hue)
    return image


def random_grayscale(key: Array, image: Array, *, probability: float = 0.2) -> Array:
    """Applies `to_grayscale` with a given probability.

    Args:
        key: random key.
        image: `[H, W, C]` float, C = 1 or 3.
        probability: probability of a gray image.

    Returns:
        `[H, W, C]`.

    Raises:
        ValueError: C is not 1 or 3.

    Example:
        >>> import jax
        >>> x = jax.numpy.array([[[1.0, 0.0, 0.0]]])
        >>> random_grayscale(jax.random.key(0), x, probability=1.0)
        Array([[[0.2989, 0.2989, 0.2989]]], dtype=float32)
    """
    return jnp.where(jax.random.bernoulli(key, probability), to_grayscale(image), image)


def random_solarize(
    key: Array, image: Array, *, threshold: float = 0.5, probability: float = 0.2
) -> Array:
    """Applies `solarize` with a given probability.

    Args:
        key: random key.
        image: `[H, W, C]` float in [0, 1].
        threshold: in [0, 1].
        probability: probability of solarization.

    Returns:
        `[H, W, C]`.

    Example:
        >>> import jax
        >>> random_solarize(jax.random.key(0), jax.numpy.ones((1, 1, 1)), probability=1.0).item()
        0.0
    """
    return jnp.where(
        jax.random.bernoulli(key, probability), solarize(image, threshold=threshold), image
    )
