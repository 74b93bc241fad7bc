"""Photographs as textures, and reading them without aliasing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sslax import checks
from sslax.data.files import images
from sslax.data.sources import photographs

# The first is data of its own here; of the others little is more than empty background.
_LEFT_OUT = {"train": ("motorcycle", "rocket"), "test": ("motorcycle", "rocket", "flower")}
LEVELS = 6  # of detail: the last has one texel for 32 x 32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pyramid:
    """Textures at all levels of detail, end to end.

    Attributes:
        texels: `[K, P, 3]`, each texture's levels one after the other, in rows.
        size: height and width of the first level, powers of two.
    """

    texels: jax.Array
    size: tuple[int, int] = dataclasses.field(metadata={"static": True})


def textures(part: str = "train", *, count: int = 48, side: int = 128) -> np.ndarray:
    """Square crops of the photographs that scikit-image and scikit-learn bring with them.

    The left 30 % of each photograph is for the test and the rest for training, so that no texel is
    in both; the photograph of `motorcycle` is left out, and what is mostly empty. Of four random
    crops, whose sides are log-uniform between `side` pixels and the photograph's shorter side, the
    one with most detail is kept and shrunk to `side`: a function of the arguments alone.

    Args:
        part: 'train' or 'test'.
        count: number of textures K.
        side: their height and width in pixels, a power of two; at most 128 has details everywhere.

    Returns:
        uint8 `[count, side, side, 3]`.

    Raises:
        ValueError: for another part.
        DataError: if a photograph is missing.

    Example:
        >>> textures("test", count=2, side=32).shape
        (2, 32, 32, 3)
    """
    if part not in ("train", "test"):
        raise ValueError(f"part is {part!r}; choose 'train' or 'test'.")
    pictures = [
        picture
        for (_, name), picture in zip(
            photographs.FILES, getattr(photographs.photograph_parts(), part)
        )
        if not any(word in name for word in _LEFT_OUT[part])
    ]
    rng = np.random.Generator(np.random.Philox(key=[count, part == "test"]))

    def crop(picture: np.ndarray) -> np.ndarray:
        shorter = min(picture.shape[:2])
        extent = round(min(side, shorter) * max(1.0, shorter / side) ** rng.random())
        top, left = (int(rng.random() * (n - extent + 1)) for n in picture.shape[:2])
        return images.convert(picture[top : top + extent, left : left + extent], size=side)

    def detail(crop: np.ndarray) -> float:
        return sum(np.abs(np.diff(crop.astype(np.float32), axis=axis)).mean() for axis in (0, 1))

    # The photographs take turns, so that a few textures are not all of one.
    return np.stack(
        [
            max((crop(pictures[i % len(pictures)]) for _ in range(4)), key=detail)
            for i in range(count)
        ]
    )


def pyramid(textures: jax.Array) -> Pyramid:
    """All levels of detail: each is the mean of 2 x 2 texels of the one before.

    Args:
        textures: `[K, h, w, 3]`, uint8 or float in [0, 1]; h and w are powers of two, at least 32.

    Returns:
        The levels, float32.

    Raises:
        ValueError: if a side is no power of two or too short.

    Example:
        >>> pyramid(jnp.zeros((2, 32, 32, 3), jnp.uint8)).texels.shape
        (2, 1365, 3)
    """
    textures = jnp.asarray(textures)
    checks.assert_shape(textures, (None, None, None, 3))
    count, height, width, _ = textures.shape
    shortest = 2 ** (LEVELS - 1)
    if any(side < shortest or side & (side - 1) for side in (height, width)):
        raise ValueError(
            f"textures of {height} x {width}; sides must be powers of two, {shortest} or more."
        )
    if textures.dtype == jnp.uint8:
        textures = textures.astype(jnp.float32) / 255
    levels = [textures]
    while len(levels) < LEVELS:
        blocks = levels[-1].reshape(count, levels[-1].shape[1] // 2, 2, -1, 2, 3)
        levels.append(blocks.mean((2, 4)))
    texels = jnp.concatenate([level.reshape(count, -1, 3) for level in levels], axis=1)
    return Pyramid(texels, (height, width))


def as_pyramid(textures: jax.Array | Pyramid) -> Pyramid:
    """The pyramid of textures, unless they are one."""
    return textures if isinstance(textures, Pyramid) else pyramid(textures)


def look_up(
    pyramid: Pyramid, texture: jax.Array, place: tuple[jax.Array, jax.Array], footprint: jax.Array
) -> jax.Array:
    """Textures read where the rays hit them, blurred to what a ray stands for.

    Bilinear in the two levels whose texels are next to `footprint` in size, and linear between
    them. Textures are continued by their mirror images.

    Args:
        pyramid: of K textures `[h, w]`.
        texture: `[...]` int32, which of the K.
        place: `u, v`, `[...]` each, in texels of the first level from the texture's left and upper
            edge: the center of the first texel is at 0.5.
        footprint: `[...]`, extent in texels of the first level.

    Returns:
        `[..., 3]`.
    """
    height, width = pyramid.size
    u, v = _mirrored(place[0], width), _mirrored(place[1], height)
    level = jnp.clip(jnp.log2(jnp.maximum(footprint, 1.0)), max=LEVELS - 1)
    finer = jnp.clip(level.astype(jnp.int32), max=LEVELS - 2)
    one, other = (_bilinear(pyramid, texture, u, v, finer + i) for i in (0, 1))
    return one + (level - finer)[..., None] * (other - one)


def _mirrored(x: jax.Array, size: int) -> jax.Array:
    x = jnp.mod(x, 2 * size)
    return jnp.minimum(x, 2 * size - x)


def _bilinear(
    pyramid: Pyramid, texture: jax.Array, u: jax.Array, v: jax.Array, level: jax.Array
) -> jax.Array:
    height, width = pyramid.size
    count, length, _ = pyramid.texels.shape
    texels = pyramid.texels.reshape(count * length, 3)
    scale = 1.0 / jnp.left_shift(1, level)
    columns, rows = jnp.right_shift(width, level), jnp.right_shift(height, level)
    x, y = u * scale - 0.5, v * scale - 0.5
    left, top = jnp.floor(x), jnp.floor(y)
    fx, fy = (x - left)[..., None], (y - top)[..., None]
    # The mirror image begins with the last texel again, so beyond an edge is that texel.
    x0, y0 = left.astype(jnp.int32), top.astype(jnp.int32)
    x0, x1 = jnp.maximum(x0, 0), jnp.minimum(x0 + 1, columns - 1)
    y0, y1 = jnp.maximum(y0, 0), jnp.minimum(y0 + 1, rows - 1)
    # The levels before this one have h w (1 + 1/4 + 1/16 + ...) texels.
    whole = 4 * height * width
    start = texture * length + (whole - jnp.right_shift(whole, 2 * level)) // 3

    def read(row: jax.Array, column: jax.Array) -> jax.Array:
        index = start + row * columns + column
        return texels.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)

    upper = read(y0, x0) + fx * (read(y0, x1) - read(y0, x0))
    lower = read(y1, x0) + fx * (read(y1, x1) - read(y1, x0))
    return upper + fy * (lower - upper)
