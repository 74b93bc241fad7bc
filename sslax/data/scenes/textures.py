"""Photographs as textures, read without aliasing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sslax import checks
from sslax.data.files import images, installed

# The motorcycle is a data set of its own; the others are mostly empty background.
_LEFT_OUT = {"train": ("motorcycle", "rocket"), "test": ("motorcycle", "rocket", "flower")}
LEVELS = 6  # levels of detail: a texel of the last is the mean of 32 x 32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pyramid:
    """Textures at all levels of detail (a mipmap).

    Attributes:
        texels: `[K, P, 3]`, the levels of each texture end to end, flattened.
        size: height and width of the first level, powers of two.
    """

    texels: jax.Array
    size: tuple[int, int] = dataclasses.field(metadata={"static": True})


def textures(part: str = "train", *, count: int = 48, side: int = 128) -> np.ndarray:
    """Square crops of the photographs that come with scikit-image and scikit-learn.

    The left 30 % of each photograph is for the test and the rest for training, so they share no
    texel; the photograph of `motorcycle` and mostly empty ones are left out. A texture is the most
    detailed of four random crops, whose sides are log-uniform between `side` pixels and the
    photograph's shorter side, resized to `side`. It is a function of the arguments alone.

    Args:
        part: 'train' or 'test'.
        count: number of textures K.
        side: height and width in pixels, a power of two; up to 128, details are sharp.

    Returns:
        uint8 `[count, side, side, 3]`.

    Raises:
        ValueError: another part.
        DataError: a photograph is missing.

    Example:
        >>> textures("test", count=2, side=32).shape
        (2, 32, 32, 3)
    """
    if part not in ("train", "test"):
        raise ValueError(f"part is {part!r}; choose 'train' or 'test'.")
    everything = zip(installed.FILES, getattr(installed.photograph_parts(), part))
    photographs = [
        photograph
        for (_, name), photograph in everything
        if not any(word in name for word in _LEFT_OUT[part])
    ]
    rng = np.random.Generator(np.random.Philox(key=[count, part == "test"]))
    # The photographs take turns, so that even a few textures show several.
    turns = (photographs[i % len(photographs)] for i in range(count))
    crops = ([_random_crop(photograph, side, rng) for _ in range(4)] for photograph in turns)
    return np.stack([max(candidates, key=_detail) for candidates in crops])


def pyramid(textures: jax.Array) -> Pyramid:
    """All levels of detail: each averages 2 x 2 texels of the previous one.

    Args:
        textures: `[K, h, w, 3]`, uint8 or float in [0, 1]; h and w are powers of two, at least 32.

    Returns:
        The levels, float32.

    Raises:
        ValueError: a side is not a power of two, or too short.

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
    """The pyramid of textures, which may be one already."""
    return textures if isinstance(textures, Pyramid) else pyramid(textures)


def read_texture(
    pyramid: Pyramid, texture: jax.Array, coords: tuple[jax.Array, jax.Array], footprint: jax.Array
) -> jax.Array:
    """Trilinear texture lookup, blurred to the footprint of a ray.

    It is bilinear in the two levels whose texels are nearest to `footprint` in size, and linear
    between them. Textures repeat mirrored.

    Args:
        pyramid: K textures `[h, w]`.
        texture: `[...]` int32, index of the texture.
        coords: u and v, `[...]` each, in texels of the first level from the texture's left and top
            edge: the center of the first texel is at 0.5.
        footprint: `[...]`, extent in texels of the first level.

    Returns:
        `[..., 3]`.
    """
    height, width = pyramid.size
    u, v = _mirrored(coords[0], width), _mirrored(coords[1], height)
    level = jnp.clip(jnp.log2(jnp.maximum(footprint, 1.0)), max=LEVELS - 1)
    finer = jnp.clip(level.astype(jnp.int32), max=LEVELS - 2)
    one, other = (_bilinear(pyramid, texture, u, v, finer + i) for i in (0, 1))
    return one + (level - finer)[..., None] * (other - one)


def _random_crop(photograph: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of a photograph, resized to `side`."""
    shorter = min(photograph.shape[:2])
    extent = round(min(side, shorter) * max(1.0, shorter / side) ** rng.random())
    top, left = (int(rng.random() * (n - extent + 1)) for n in photograph.shape[:2])
    return images.convert(photograph[top : top + extent, left : left + extent], size=side)


def _detail(crop: np.ndarray) -> float:
    """Mean absolute difference between neighboring pixels."""
    return sum(np.abs(np.diff(crop.astype(np.float32), axis=axis)).mean() for axis in (0, 1))


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
    # The mirrored texture begins with the last texel again, so beyond an edge is that texel.
    x0, y0 = left.astype(jnp.int32), top.astype(jnp.int32)
    x0, x1 = jnp.maximum(x0, 0), jnp.minimum(x0 + 1, columns - 1)
    y0, y1 = jnp.maximum(y0, 0), jnp.minimum(y0 + 1, rows - 1)
    # The levels before this one have h w (1 + 1/4 + 1/16 + ...) texels.
    total = 4 * height * width
    start = texture * length + (total - jnp.right_shift(total, 2 * level)) // 3

    def read(row: jax.Array, column: jax.Array) -> jax.Array:
        index = start + row * columns + column
        return texels.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)

    upper = read(y0, x0) + fx * (read(y0, x1) - read(y0, x0))
    lower = read(y1, x0) + fx * (read(y1, x1) - read(y1, x0))
    return upper + fy * (lower - upper)
