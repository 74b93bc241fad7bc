"""Patches of one image for spatial pretext tasks: relative position, jigsaw puzzles, rotation.

Use `jax.vmap` for batches. Functions that only crop or rotate keep the image's dtype.
"""

import jax
import jax.numpy as jnp
import numpy as np

from sslax import checks
from sslax.augment.crop import resize_weights
from sslax.augment.image import apply_separable, assert_float_image
from sslax.types import Array

# Directions of the eight neighbors, (down, right), row by row.
_NEIGHBORS = np.array(
    [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)], np.int32
)


def _windows(image: Array, corners: Array, size: int) -> Array:
    """`[N, size, size, C]` windows with first rows and columns `corners` `[N, 2]`."""
    shape = (size, size, image.shape[2])

    def window(corner: Array) -> Array:
        return jax.lax.dynamic_slice(image, (*corner, np.int32(0)), shape)

    return jax.vmap(window)(corners)


def _assert_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise checks.value_error(f"{name} must be at least {least}; got {value}.")


def jigsaw_tiles(key: Array, image: Array, *, grid: int = 3, tile: int, jitter: int) -> Array:
    """Crops one tile from each cell of a grid, the pieces of a jigsaw puzzle.

    The image is divided into `grid` x `grid` cells of `floor(H / grid)` by `floor(W / grid)`
    pixels, with any remainder split between opposite borders. A tile is the central window of its
    cell, shifted by `U{-jitter, ..., jitter}` pixels vertically and, independently, horizontally.
    Tiles do not overlap. The gap between neighbors, `cell - tile` on average, removes a shortcut:
    edges that continue from one tile to the next.

    Args:
        key: random key.
        image: `[H, W, C]`, any dtype.
        grid: number of cells along each side.
        tile: side of a tile, in pixels.
        jitter: largest shift, in pixels; 0 gives the central windows.

    Returns:
        `[grid * grid, tile, tile, C]`, same dtype, row by row.

    Raises:
        ValueError: a shifted tile would leave its cell.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> image = jnp.arange(36).reshape(6, 6, 1)
        >>> jigsaw_tiles(jax.random.key(0), image, grid=2, tile=1, jitter=0)[..., 0].ravel()
        Array([ 7, 10, 25, 28], dtype=int32)

    Noroozi and Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles",
    ECCV 2016, arXiv:1603.09246: images of 255 pixels, cells of 85, tiles of 64 and the largest
    possible jitter, 10.
    """
    checks.assert_rank(image, 3)
    _assert_at_least("grid", grid, 1)
    _assert_at_least("tile", tile, 1)
    _assert_at_least("jitter", jitter, 0)
    size = np.array(image.shape[:2])
    cell = size // grid
    room = (cell - tile) // 2
    if np.any(room < jitter):
        raise checks.value_error(
            f"a {tuple(map(int, size))} image has {grid} x {grid} cells of {tuple(map(int, cell))} "
            f"pixels; a tile of {tile} with a jitter of {jitter} needs {tile + 2 * jitter}."
        )
    rows, columns = np.divmod(np.arange(grid * grid), grid)
    corners = np.stack([rows, columns], 1) * cell + (size - grid * cell) // 2 + room
    shifts = jax.random.randint(key, (grid * grid, 2), -jitter, jitter + 1, jnp.int32)
    return _windows(image, corners.astype(np.int32) + shifts, tile)


def patch_pair(
    key: Array, image: Array, *, patch: int, gap: int, jitter: int
) -> tuple[Array, Array]:
    """Crops a patch and one of its eight neighbors.

    The first patch has a uniform position that leaves room for all its neighbors. The second is
    `patch + gap` pixels away in one of eight directions, all equally likely, shifted by
    `U{-jitter, ..., jitter}` pixels vertically and, independently, horizontally. Directions are
    numbered row by row:

    ```
    0 1 2
    3   4
    5 6 7
    ```
    The gap and the jitter remove a shortcut: edges that continue from one patch to the other. The
    patches never touch if `gap > jitter`.

    Args:
        key: random key.
        image: `[H, W, C]`, any dtype, with sides of at least `3 patch + 2 gap + 2 jitter`.
        patch: side of a patch, in pixels.
        gap: distance between the patches before the jitter, in pixels.
        jitter: largest shift of the second patch, in pixels.

    Returns:
        Patches `[2, patch, patch, C]`, same dtype, and the direction from the first to the second,
        an int32 scalar in 0, ..., 7.

    Raises:
        ValueError: the image is too small.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> image = jnp.arange(9).reshape(3, 3, 1)  # pixel numbers, row by row
        >>> patches, direction = patch_pair(jax.random.key(0), image, patch=1, gap=0, jitter=0)
        >>> patches.ravel().tolist(), direction.item()
        ([4, 7], 6)

    Doersch et al., "Unsupervised Visual Representation Learning by Context Prediction", ICCV 2015,
    arXiv:1505.05192: patches of 96 pixels, a gap of 48 and a jitter of 7.
    """
    checks.assert_rank(image, 3)
    _assert_at_least("patch", patch, 1)
    _assert_at_least("gap", gap, 0)
    _assert_at_least("jitter", jitter, 0)
    height, width = image.shape[:2]
    margin = patch + gap + jitter
    needed = patch + 2 * margin
    if min(height, width) < needed:
        raise checks.value_error(
            f"a patch of {patch} and its neighbors, with a gap of {gap} and a jitter of {jitter}, "
            f"need {needed} x {needed} pixels; got {height} x {width}."
        )
    center_key, direction_key, shift_key = jax.random.split(key, 3)
    last = np.array([height, width], np.int32) - margin - patch
    center = jax.random.randint(center_key, (2,), margin, last + 1, jnp.int32)
    direction = jax.random.randint(direction_key, (), 0, len(_NEIGHBORS), jnp.int32)
    shift = jax.random.randint(shift_key, (2,), -jitter, jitter + 1, jnp.int32)
    neighbor = center + (patch + gap) * jnp.asarray(_NEIGHBORS)[direction] + shift
    return _windows(image, jnp.stack([center, neighbor]), patch), direction


def random_patch(key: Array, image: Array, *, patch: int) -> tuple[Array, Array]:
    """Crops a patch at a random position, and returns the position.

    A coordinate of the position is `first / (side - patch)`: 0 where the patch touches the top (or
    left) border and 1 where it touches the bottom (or right) one. A network that predicts the
    position in a photograph far better than chance has found a shortcut, usually chromatic
    aberration (see `chromatic_aberration`, `drop_colors`).

    Args:
        key: random key.
        image: `[H, W, C]`, any dtype.
        patch: side of the patch, in pixels.

    Returns:
        Patch `[patch, patch, C]`, same dtype, and position `[2]`, (down, right), float32 in [0, 1];
        1/2 along a side that the patch fills.

    Raises:
        ValueError: the patch is larger than the image.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> image = jnp.arange(25).reshape(5, 5, 1)
        >>> patch, position = random_patch(jax.random.key(0), image, patch=1)
        >>> patch.item(), (position * 4).tolist()
        (20, [4.0, 0.0])

    Doersch et al., "Unsupervised Visual Representation Learning by Context Prediction", ICCV 2015,
    arXiv:1505.05192.
    """
    checks.assert_rank(image, 3)
    _assert_at_least("patch", patch, 1)
    height, width = image.shape[:2]
    if patch > min(height, width):
        raise checks.value_error(
            f"a {(height, width)} image has no patch of {patch} x {patch} pixels."
        )
    slack = np.array([height - patch, width - patch], np.int32)
    corner = jax.random.randint(key, (2,), 0, slack + 1, jnp.int32)
    share = corner.astype(jnp.float32) / np.maximum(slack, 1).astype(np.float32)
    position = jnp.where(slack > 0, share, 0.5)
    return _windows(image, corner[None], patch)[0], position


def location_class(position: Array, bins: int) -> Array:
    """Quantizes a position into the cells of a `bins` x `bins` grid, numbered row by row.

    Args:
        position: `[..., 2]`, (down, right) in [0, 1], from `random_patch`.
        bins: number of cells along each side.

    Returns:
        `[...]` int32 in 0, ..., `bins^2 - 1`.

    Example:
        >>> import jax.numpy as jnp
        >>> location_class(jnp.array([[0.0, 0.4], [1.0, 1.0]]), 3)
        Array([1, 8], dtype=int32)
    """
    checks.assert_axis_dimension(position, -1, 2)
    cell = jnp.minimum(jnp.floor(position * bins).astype(jnp.int32), bins - 1)
    return cell[..., 0] * bins + cell[..., 1]


def rotations(image: Array) -> Array:
    """The image rotated by 0, 90, 180 and 270 degrees, counterclockwise.

    Args:
        image: `[H, H, C]`, any dtype.

    Returns:
        `[4, H, H, C]`, same dtype.

    Raises:
        ValueError: the image is not square.

    Example:
        >>> import jax.numpy as jnp
        >>> rotations(jnp.array([[1, 2], [3, 4]])[..., None])[1, :, :, 0]
        Array([[2, 4],
               [1, 3]], dtype=int32)

    Gidaris et al., "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018,
    arXiv:1803.07728.
    """
    checks.assert_rank(image, 3)
    if image.shape[0] != image.shape[1]:
        raise checks.value_error(
            f"a {image.shape[:2]} image is not square, so rotations change its shape; crop a "
            "square first."
        )
    return jnp.stack([jnp.rot90(image, turns) for turns in range(4)])


def standardize(patch: Array, *, floor: float = 1 / 255) -> Array:
    """Normalizes a patch to mean 0 and standard deviation 1 in each channel.

    `y = (x - mean) / max(std, floor)` over the pixels of the patch. Neighboring patches have
    similar brightness, color and contrast; this removes that shortcut.

    Args:
        patch: `[h, w, C]` float.
        floor: smallest standard deviation to divide by; the default is one gray level, so that the
            noise of a flat patch is not amplified.

    Returns:
        `[h, w, C]` float32.

    Raises:
        TypeError: the patch has an integer dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> standardize(jnp.array([[[0.25], [0.75]]]))[0, :, 0]
        Array([-1.,  1.], dtype=float32)

    Noroozi and Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles",
    ECCV 2016, arXiv:1603.09246.
    """
    assert_float_image(patch)
    checks.assert_positive(floor=floor)
    patch = patch.astype(jnp.float32)
    centered = patch - patch.mean((0, 1), keepdims=True)
    variance = jnp.square(centered).mean((0, 1), keepdims=True)
    # The floor is applied before the root, whose slope at zero is infinite.
    return centered * jax.lax.rsqrt(jnp.maximum(variance, floor**2))


def random_downsample(
    key: Array, patch: Array, *, probability: float = 0.33, min_pixels: int = 100
) -> Array:
    """Downsamples a patch and upsamples it again, with a given probability, to remove fine detail.

    The small patch has `n ~ U(min_pixels, h w)` pixels and the same aspect ratio, with sides
    rounded; both resizes are antialiased bilinear, as in `resized_crop`. Keeps a network from
    comparing the resolution and noise of two patches instead of their content.

    Args:
        key: random key.
        patch: `[h, w, C]` float.
        probability: probability of downsampling.
        min_pixels: smallest number of pixels of the small patch.

    Returns:
        `[h, w, C]` float32.

    Raises:
        ValueError: `min_pixels` is not in 1, ..., h w.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> patch = jnp.arange(64.0).reshape(8, 8, 1) / 64
        >>> y = random_downsample(jax.random.key(1), patch, probability=1.0, min_pixels=4)
        >>> y.shape, bool(jnp.std(y) < jnp.std(patch))
        ((8, 8, 1), True)

    Doersch et al., "Unsupervised Visual Representation Learning by Context Prediction", ICCV 2015,
    arXiv:1505.05192.
    """
    assert_float_image(patch)
    height, width = patch.shape[:2]
    if not 1 <= min_pixels <= height * width:
        raise checks.value_error(
            f"min_pixels must be in 1, ..., {height * width} for a patch of {height} x {width}; "
            f"got {min_pixels}."
        )
    chance, amount = jax.random.uniform(key, (2,), jnp.float32)
    factor = jnp.sqrt(min_pixels / (height * width) * (1 - amount) + amount)
    rows, columns = (_round_trip_weights(side, side * factor) for side in (height, width))
    small = apply_separable(patch, rows, columns)
    return jnp.where(chance < probability, small, patch.astype(jnp.float32))


def _round_trip_weights(size: int, small: Array) -> Array:
    """`[size, size]` weights that resize an axis to `small` pixels, rounded, and back."""
    small = jnp.clip(jnp.round(small), 1, size)
    scale = size / small
    pixel = jnp.arange(size, dtype=jnp.float32)
    # `small` is traced, so the small axis is stored in `size` rows: the rows beyond `small` repeat
    # its last pixel, and the upsampling ignores them.
    center = (jnp.minimum(pixel, small - 1) + 0.5) * scale - 0.5
    down = jnp.maximum(0.0, 1.0 - jnp.abs(pixel - center[:, None]) / scale)
    down = down / jnp.sum(down, axis=1, keepdims=True)
    up = resize_weights(0, small, size, size)
    return jnp.matmul(up, down, precision=jax.lax.Precision.HIGHEST)
