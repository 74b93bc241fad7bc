"""Crops, resizes and flips of one image; `jax.vmap` makes them batched."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.augment.image import apply_separable, to_float

Array = jax.Array
Size = int | tuple[int, int]


class Box(NamedTuple):
    """A rectangle of whole pixels: its first row and column, its height and width."""

    top: Array
    left: Array
    height: Array
    width: Array


def _height_and_width(size: Size) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"size must be positive, got {size}.")
    return height, width


def resize_weights(start: Array, extent: Array, source: int, target: int) -> Array:
    """`[target, source]` weights that resize the pixels [start, start + extent) to `target`."""
    pixel = jnp.arange(source, dtype=jnp.float32)
    scale = jnp.asarray(extent, jnp.float32) / target
    center = start + (jnp.arange(target, dtype=jnp.float32) + 0.5) * scale - 0.5
    # The triangle widens with the reduction, so that every source pixel is seen: antialiasing.
    support = jnp.maximum(scale, 1.0)
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(pixel - center[:, None]) / support)
    weights = jnp.where((pixel >= start) & (pixel < start + extent), weights, 0.0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def resized_crop(
    image: Array, top: Array, left: Array, height: Array, width: Array, *, size: Size
) -> Array:
    """Antialiased bilinear resize of one box of an image.

    ``w[i, p] ∝ max(0, 1 - |p - c_i| / max(s, 1))`` with ``c_i = top + (i + 1/2) s - 1/2``,
    ``s = height / size``, over the box's own pixels only (crop first, resize then) and normalized
    to 1; the same along the columns. The definition of torchvision with `antialias=True`.

    Args:
        image: `[H, W, C]`, uint8 or float in [0, 1].
        top, left: first row and column of the box, in pixels; may be traced.
        height, width: extent of the box, in pixels, at least 1; may be traced.
        size: of the result: one number, or (height, width).

    Returns:
        `[h, w, C]` float32.

    Raises:
        ValueError: if `size` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> image = jnp.arange(16.0).reshape(4, 4, 1) / 16
        >>> resized_crop(image, 0, 2, 2, 2, size=1)[..., 0] * 16
        Array([[4.5]], dtype=float32)
    """
    checks.assert_rank(image, 3)
    rows, columns = _height_and_width(size)
    return apply_separable(
        to_float(image),
        resize_weights(top, height, image.shape[0], rows),
        resize_weights(left, width, image.shape[1], columns),
    )


def sample_box(
    key: Array,
    height: int,
    width: int,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """Random box of an image, "Inception crop".

    ``area ~ U(scale) H W``, ``log aspect ~ U(log ratio)``, sides rounded to pixels; the first of
    ten tries that fits, at a uniform place. Where none fits, the largest central box with an
    aspect in `ratio`.

    Args:
        key: random key.
        height, width: of the image, in pixels.
        scale: range of the box's area, as a fraction of the image's.
        ratio: range of the box's aspect, width over height.

    Returns:
        Box of int32 scalars.

    Raises:
        ValueError: if a range is not positive and increasing.

    Example:
        >>> import jax
        >>> box = sample_box(jax.random.key(0), 32, 48, scale=(0.25, 0.25), ratio=(1.0, 1.0))
        >>> int(box.height), int(box.width)
        (20, 20)

    Reference: Szegedy et al., Going Deeper with Convolutions, 2014 (arXiv:1409.4842).
    """
    for name, (low, high) in (("scale", scale), ("ratio", ratio)):
        if not 0 < low <= high:
            raise ValueError(f"{name} must be a positive, increasing pair, got {(low, high)}.")
    tries = 10
    area, aspect, place = jnp.split(jax.random.uniform(key, (2 * tries + 2,)), [tries, 2 * tries])
    area = height * width * (scale[0] + (scale[1] - scale[0]) * area)
    aspect = jnp.exp(math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * aspect)
    box_widths = jnp.round(jnp.sqrt(area * aspect))
    box_heights = jnp.round(jnp.sqrt(area / aspect))
    fits = (box_widths >= 1) & (box_widths <= width) & (box_heights >= 1) & (box_heights <= height)
    first = jnp.argmax(fits)

    found = fits[first]
    box_height = jnp.where(found, box_heights[first], min(height, round(width / ratio[0])))
    box_width = jnp.where(found, box_widths[first], min(width, round(height * ratio[1])))
    spare = jnp.stack([height - box_height, width - box_width])
    corner = jnp.floor(jnp.where(found, place * (spare + 1), spare / 2))
    return Box(*(x.astype(jnp.int32) for x in (corner[0], corner[1], box_height, box_width)))


def random_resized_crop(
    key: Array,
    image: Array,
    *,
    size: Size,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Array:
    """Random box of an image (`sample_box`), resized to `size` (`resized_crop`).

    Args:
        key: random key.
        image: `[H, W, C]`, uint8 or float in [0, 1].
        size: of the result: one number, or (height, width).
        scale: range of the box's area, as a fraction of the image's.
        ratio: range of the box's aspect, width over height.

    Returns:
        `[h, w, C]` float32.

    Raises:
        ValueError: if `size` is not positive or a range not positive and increasing.

    Example:
        >>> import jax
        >>> images = jax.numpy.ones((4, 8, 8, 3))
        >>> keys = jax.random.split(jax.random.key(0), 4)
        >>> jax.vmap(lambda key, image: random_resized_crop(key, image, size=6))(keys, images).shape
        (4, 6, 6, 3)
    """
    checks.assert_rank(image, 3)
    box = sample_box(key, image.shape[0], image.shape[1], scale=scale, ratio=ratio)
    return resized_crop(image, *box, size=size)


def random_flip(key: Array, image: Array, *, probability: float = 0.5) -> Array:
    """Image mirrored left to right, with a probability.

    ``y[i, j] = x[i, W - 1 - j]`` or ``x[i, j]``.

    Args:
        key: random key.
        image: `[H, W, C]`.
        probability: of the flip.

    Returns:
        `[H, W, C]` of the same dtype.

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
    """Antialiased bilinear resize of a whole image, the resize of `resized_crop`.

    Args:
        image: `[H, W, C]`, uint8 or float in [0, 1].
        size: of the result: one number (both sides), or (height, width).

    Returns:
        `[h, w, C]` float32.

    Raises:
        ValueError: if `size` is not positive.

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
    """Central box of an image, cut out without resizing.

    Args:
        image: `[H, W, C]` of any dtype.
        size: of the box: one number, or (height, width).

    Returns:
        `[h, w, C]` of the same dtype.

    Raises:
        ValueError: if the box is larger than the image.

    Example:
        >>> import jax.numpy as jnp
        >>> center_crop(jnp.arange(5).reshape(1, 5, 1), size=(1, 3))[0, :, 0]
        Array([1, 2, 3], dtype=int32)
    """
    checks.assert_rank(image, 3)
    height, width = _height_and_width(size)
    if height > image.shape[0] or width > image.shape[1]:
        raise ValueError(f"A {image.shape[:2]} image has no {height, width} crop; resize it first.")
    # Python's round is half to even: so does torchvision place the box.
    top, left = round((image.shape[0] - height) / 2), round((image.shape[1] - width) / 2)
    return image[top : top + height, left : left + width]
