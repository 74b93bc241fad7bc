"""Corruptions of 8-bit images, in three grades each: functions of the images and a key alone.

Each takes the images of one sample `[S, H, W, C]`, uint8, a random key and a strength, and returns
images of the same shape, uint8. Values are rounded to the nearest integer and clipped to 0 to 255.
"""

import io

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sslax import checks, ops
from sslax.errors import check_choice
from sslax.types import Array

_READ_NOISE = 1.0  # gray levels, of images in the dark


def brightness(images: ArrayLike, key: Array, factor: float) -> np.ndarray:
    """Exposure that changes from image to image.

    `out_s = images_s · factor^(± 1/2)`, with signs that alternate over s; the key draws the first.

    Args:
        images: `[S, H, W, C]`, uint8.
        key: random key.
        factor: ratio of the exposures of neighboring images.

    Returns:
        `[S, H, W, C]`, uint8.

    Example:
        >>> images = np.full((2, 1, 1, 1), 100, np.uint8)
        >>> sorted(brightness(images, jax.random.key(0), 4.0).ravel().tolist())
        [50, 200]
    """
    images = _checked(images)
    first = 1 - 2 * int(jax.random.bernoulli(key))
    signs = first * (-1) ** np.arange(len(images))
    return _rounded(images * factor ** (0.5 * signs)[:, None, None, None])


def noise(images: ArrayLike, key: Array, deviation: float) -> np.ndarray:
    """Gaussian noise, independent for each pixel and channel: `out = images + deviation · n`.

    Args:
        images: `[S, H, W, C]`, uint8.
        key: random key.
        deviation: standard deviation in gray levels, of 255.

    Returns:
        `[S, H, W, C]`, uint8.

    Example:
        >>> gray = np.full((1, 64, 64, 3), 128, np.uint8)
        >>> noise(gray, jax.random.key(0), 10.0).std().round().item()
        10.0
    """
    return _noisy(_checked(images), key, deviation)


def blur(images: ArrayLike, key: Array, sigma: float) -> np.ndarray:
    """Gaussian blur, `ops.gaussian_blur`, with reflected borders and a kernel that reaches 4 sigma.

    Args:
        images: `[S, H, W, C]`, uint8, larger than the kernel's reach.
        key: not used; the signature is that of all corruptions.
        sigma: standard deviation in pixels.

    Returns:
        `[S, H, W, C]`, uint8.

    Example:
        >>> edge = np.repeat(np.uint8([0, 255]), 8)[None, None, :, None].repeat(16, 1)
        >>> blur(edge, jax.random.key(0), 1.0)[0, 0, 5:11, 0].tolist()
        [1, 15, 77, 178, 240, 254]
    """
    images = jnp.asarray(_checked(images), jnp.float32)
    return _rounded(np.asarray(_blur(images, sigma=sigma)))


def darkness(images: ArrayLike, key: Array, factor: float) -> np.ndarray:
    """Too little light: `out = images / factor + n`, with the noise n of reading the sensor.

    The noise has a standard deviation of one gray level however dark it is, so that contrast fades
    into noise and into the steps of 8 bits.

    Args:
        images: `[S, H, W, C]`, uint8.
        key: random key.
        factor: how many times darker.

    Returns:
        `[S, H, W, C]`, uint8.

    Example:
        >>> bright = np.full((1, 64, 64, 3), 200, np.uint8)
        >>> darkness(bright, jax.random.key(0), 4.0).mean().round().item()
        50.0
    """
    return _noisy(_checked(images) / factor, key, _READ_NOISE)


def compression(images: ArrayLike, key: Array, quality: float) -> np.ndarray:
    """JPEG compression of each image, by Pillow, with subsampled color.

    Args:
        images: `[S, H, W, 3]`, uint8.
        key: not used; the signature is that of all corruptions.
        quality: libjpeg's, 1 (worst) to 95.

    Returns:
        `[S, H, W, 3]`, uint8.

    Example:
        >>> flat = np.full((1, 16, 16, 3), 128, np.uint8)
        >>> bool((compression(flat, jax.random.key(0), 50) == flat).all())
        True
    """
    from PIL import Image

    compressed = []
    for image in _checked(images):
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="JPEG", quality=int(quality))
        compressed.append(np.asarray(Image.open(file)))
    return np.stack(compressed)


CORRUPTIONS = {  # each with its strength by grade, 1 to 3
    "brightness": (brightness, (1.25, 1.5, 2.0)),
    "noise": (noise, (5.0, 10.0, 20.0)),
    "blur": (blur, (1.0, 2.0, 4.0)),
    "darkness": (darkness, (4.0, 8.0, 16.0)),
    "compression": (compression, (40, 20, 10)),
}


def corrupt(images: ArrayLike, key: Array, name: str, grade: int) -> np.ndarray:
    """The images under a corruption of `CORRUPTIONS`.

    Args:
        images: of one sample, `[S, H, W, 3]`, uint8.
        key: random key; grades of one corruption with one key differ in strength alone.
        name: of the corruption.
        grade: 1 to 3.

    Returns:
        `[S, H, W, 3]`, uint8.

    Raises:
        UserError: the corruption or the grade is unknown.

    Example:
        >>> images = np.full((2, 16, 16, 3), 100, np.uint8)
        >>> corrupt(images, jax.random.key(0), "darkness", 2).mean().round().item()
        12.0
    """
    check_choice("corruption", name, CORRUPTIONS)
    function, strengths = CORRUPTIONS[name]
    check_choice("grade", grade, range(1, len(strengths) + 1))
    return function(images, key, strengths[grade - 1])


def _checked(images: ArrayLike) -> np.ndarray:
    images = np.asarray(images)
    checks.assert_rank(images, 4)
    if images.dtype != np.uint8:
        raise checks.value_error(f"images must be uint8; got {images.dtype}.")
    return images


def _noisy(values: np.ndarray, key: Array, deviation: float) -> np.ndarray:
    return _rounded(values + deviation * np.asarray(jax.random.normal(key, values.shape)))


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


_blur = jax.jit(ops.gaussian_blur, static_argnames="sigma")
