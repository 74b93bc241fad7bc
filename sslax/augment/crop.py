"""Crops, resizes and flips of one image; use `jax.vmap` for batches."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sslax import checks, ranges
from sslax.augment.image import apply_separable, to_float
from sslax.errors import check_choice
from sslax.ranges import PositiveRange
from sslax.types import Array

Size = int | tuple[int, int]
Scalar = int | Array


class Box(NamedTuple):
    """A rectangle in integer pixels: its first row and column, its height and width."""

    top: Array
    left: Array
    height: Array
    width: Array


def _height_and_width(size: Size) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    checks.assert_size((height, width))
    return height, width


INTERPOLATIONS = ("bilinear", "bicubic")


def resize_weights(
    start: Scalar, extent: Scalar, source: int, target: int, interpolation: str = "bilinear"
) -> Array:
    """`[target, source]` weights that resize pixels [start, start + extent) to `target` pixels."""
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    pixel = jnp.arange(source, dtype=jnp.float32)
    start, extent = jnp.asarray(start, jnp.float32), jnp.asarray(extent, jnp.float32)
    scale = extent / target
    center = start + (jnp.arange(target, dtype=jnp.float32) + 0.5) * scale - 0.5
    # Antialiasing: the filter widens with the reduction.
    distance = jnp.abs(pixel - center[:, None]) / jnp.maximum(scale, 1.0)
    weights = _cubic(distance) if interpolation == "bicubic" else jnp.maximum(0.0, 1.0 - distance)
    weights = jnp.where((pixel >= start) & (pixel < start + extent), weights, 0.0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def _cubic(x: Array) -> Array:
    """Keys' cubic with a = -1/2, of distances `x >= 0`."""
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0.0))


def resized_crop(
    image: Array,
    top: Scalar,
    left: Scalar,
    height: Scalar,
    width: Scalar,
    *,
    size: Size,
    interpolation: str = "bilinear",
) -> Array:
    """Crops a box and resizes it with antialiasing, as PIL and torchvision's `antialias=True`.

    Row weights `w[i, p] ∝ k(|p - c_i| / max(s, 1))` with `k(x) = max(0, 1 - x)`, or a cubic, with
    `c_i = top + (i + 1/2) s - 1/2` and `s = height / size`, over the pixels of the box only and
    normalized to sum 1; likewise for columns.

    Args:
        image: `[H, W, C]`, uint8 or float in [0, 1].
        top, left: first row and column of the box, in pixels; may be traced.
        height, width: size of the box, in pixels, at least 1; may be traced.
        size: size of the result: one number, or (height, width).
        interpolation: "bilinear" or "bicubic"; overshoots of the latter are clipped to [0, 1].

    Returns:
        `[h, w, C]` float32.

    Raises:
        ValueError: `size` is not positive, or `interpolation` is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> image = jnp.arange(16.0).reshape(4, 4, 1) / 16
        >>> resized_crop(image, 0, 2, 2, 2, size=1)[..., 0] * 16
        Array([[4.5]], dtype=float32)
    """
    checks.assert_rank(image, 3)
    rows, columns = _height_and_width(size)
    resized = apply_separable(
        to_float(image),
        resize_weights(top, height, image.shape[0], rows, interpolation),
        resize_weights(left, width, image.shape[1], columns, interpolation),
    )
    return jnp.clip(resized, 0.0, 1.0) if interpolation == "bicubic" else resized


def sample_box(
    key: Array,
    height: int,
    width: int,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """Samples a random box of an image ("Inception crop").

    `area ~ U(scale) H W`, `log aspect ~ U(log ratio)`, sides rounded to pixels, uniform position;
    the first of ten draws that fits. If none fits, the largest central box with an aspect ratio in
    `ratio`.

    Args:
        key: random key.
        height, width: image size in pixels.
        scale: range of the area, as a fraction of the image's.
        ratio: range of the aspect ratio, width over height.

    Returns:
        Box of int32 scalars.

    Raises:
        ValueError: a range is not a positive, increasing pair.

    Example:
        >>> import jax
        >>> box = sample_box(jax.random.key(0), 32, 48, scale=(0.25, 0.25), ratio=(1.0, 1.0))
        >>> int(box.height), int(box.width)
        (20, 20)

    Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, arXiv:1409.4842.
    """
    ranges.check("scale", scale, PositiveRange)
    ranges.check("ratio", ratio, PositiveRange)
    tries = 10
    u = jax.random.uniform(key, (2 * tries + 2,), jnp.float32)
    area, aspect, position = jnp.split(u, [tries, 2 * tries])
    area = height * width * (scale[0] + (scale[1] - scale[0]) * area)
    aspect = jnp.exp(math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * aspect)
    box_widths = jnp.round(jnp.sqrt(area * aspect))
    box_heights = jnp.round(jnp.sqrt(area / aspect))
    fits = (box_widths >= 1) & (box_widths <= width) & (box_heights >= 1) & (box_heights <= height)
    first = jnp.argmax(fits)

    any_fits = fits[first]
    box_height = jnp.where(any_fits, box_heights[first], min(height, round(width / ratio[0])))
    box_width = jnp.where(any_fits, box_widths[first], min(width, round(height * ratio[1])))
    slack = jnp.stack([height - box_height, width - box_width])
    corner = jnp.floor(jnp.where(any_fits, position * (slack + 1), slack / 2))
    return Box(*(x.astype(jnp.int32) for x in (corner[0], corner[1], box_height, box_width)))


def random_resized_crop(
    key: Array,
    image: Array,
    *,
    size: Size,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    interpolation: str = "bilinear",
) -> Array:
    """Crops a random box (`sample_box`) and resizes it (`resized_crop`).

    Args:
        key: random key.
        image: `[H, W, C]`, uint8 or float in [0, 1].
        size: size of the result: one number, or (height, width).
        scale: range of the box's area, as a fraction of the image's.
        ratio: range of the box's aspect ratio, width over height.
        interpolation: as in `resized_crop`.

    Returns:
        `[h, w, C]` float32.

    Raises:
        ValueError: `size` is not positive, a range is not a positive, increasing pair, or
            `interpolation` is unknown.

    Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, arXiv:1409.4842.

    Example:
        >>> import jax
        >>> images = jax.numpy.ones((4, 8, 8, 3))
        >>> keys = jax.random.split(jax.random.key(0), 4)
        >>> jax.vmap(lambda key, image: random_resized_crop(key, image, size=6))(keys, images).shape
        (4, 6, 6, 3)
    """
    checks.assert_rank(image, 3)
    box = sample_box(key, image.shape[0], image.shape[1], scale=scale, ratio=ratio)
    return resized_crop(image, *box, size=size, interpolation=interpolation)


def random_flip(key: Array, image: Array, *, probability: float = 0.5) -> Array:
    """Flips an image horizontally with a given probability.

    `y[i, j] = x[i, W - 1 - j]` or `x[i, j]`.

    Args:
        key: random key.
        image: `[H, W, C]`.
        probability: probability of the flip.

    Returns:
        `[H, W, C]`, same dtype.

    Example:
        >>> import jax
        >>> random_flip(jax.random.key(0), jax.numpy.arange(3.0).reshape(1, 3, 1), probability=1.0)
        Array([[[2.],
                [1.],
                [0.]]], dtype=float32)
    """
    checks.assert_rank(image, 3)
    return jnp.where(jax.random.bernoulli(key, probability), image[:, ::-1], image)


def resize(image: Array, *, size: Size) -> Array:
    """Resizes an image, bilinear with antialiasing, like `resized_crop`.

    Args:
        image: `[H, W, C]`, uint8 or float in [0, 1].
        size: size of the result: one number for both sides, or (height, width).

    Returns:
        `[h, w, C]` float32.

    Raises:
        ValueError: `size` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> resize(jnp.array([[[0.0], [1.0]]]), size=(1, 4))[0, :, 0]
        Array([0.  , 0.25, 0.75, 1.  ], dtype=float32)
    """
    checks.assert_rank(image, 3)
    if _height_and_width(size) == image.shape[:2]:
        return to_float(image)
    return resized_crop(image, 0, 0, image.shape[0], image.shape[1], size=size)


def center_crop(image: Array, *, size: Size) -> Array:
    """Crops the central box of an image, without resizing.

    Args:
        image: `[H, W, C]`, any dtype.
        size: size of the box: one number, or (height, width).

    Returns:
        `[h, w, C]`, same dtype.

    Raises:
        ValueError: the box is larger than the image.

    Example:
        >>> import jax.numpy as jnp
        >>> center_crop(jnp.arange(5).reshape(1, 5, 1), size=(1, 3))[0, :, 0]
        Array([1, 2, 3], dtype=int32)
    """
    checks.assert_rank(image, 3)
    height, width = _height_and_width(size)
    if height > image.shape[0] or width > image.shape[1]:
        raise checks.value_error(
            f"a {image.shape[:2]} image is too small for a {height, width} crop; resize it first."
        )
    # Python rounds half to even, as torchvision does.
    top, left = round((image.shape[0] - height) / 2), round((image.shape[1] - width) / 2)
    return image[top : top + height, left : left + width]
