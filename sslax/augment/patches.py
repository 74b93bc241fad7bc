"""Patches of one image for the tasks of place: neighbors, jigsaw puzzles, rotations.

`jax.vmap` makes them batched. What only cuts and turns keeps the image's dtype.
"""

import jax
import jax.numpy as jnp
import numpy as np

from sslax import checks
from sslax.augment.crop import resize_weights
from sslax.augment.image import apply_separable, assert_float_image

Array = jax.Array

# Places of the eight neighbors, (down, right) in steps, row by row.
_NEIGHBORS = np.array(
    [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)], np.int32
)


def _windows(image: Array, corners: Array, size: int) -> Array:
    """`[N, size, size, C]` windows whose first row and column are `corners` `[N, 2]`."""
    shape = (size, size, image.shape[2])

    def window(corner: Array) -> Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), shape)

    return jax.vmap(window)(corners)


def _assert_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} is a number of pixels, at least {least}; got {value}.")


def grid_tiles(key: Array, image: Array, *, grid: int = 3, tile: int, jitter: int) -> Array:
    """One tile of each cell of a grid, the pieces of a jigsaw puzzle.

    The image is divided into `grid` x `grid` cells of ``floor(H / grid)`` by ``floor(W / grid)``
    pixels; a rest is left over equally at its borders. Of each cell comes the central window, moved
    by ``U{-jitter, ..., jitter}`` pixels down and, independently, right. No two tiles share a
    pixel. The gap between neighbors, ``cell - tile`` on average, removes a shortcut: edges that
    run on from one tile into the next.

    Args:
        key: random key.
        image: `[H, W, C]` of any dtype.
        grid: cells along each side.
        tile: side of a tile, in pixels.
        jitter: largest move, in pixels; 0 is the central windows.

    Returns:
        `[grid * grid, tile, tile, C]` of the same dtype, row by row.

    Raises:
        ValueError: if a moved window would leave its cell.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> image = jnp.arange(36).reshape(6, 6, 1)
        >>> grid_tiles(jax.random.key(0), image, grid=2, tile=1, jitter=0)[..., 0].ravel()
        Array([ 7, 10, 25, 28], dtype=int32)

    Reference: Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw
    Puzzles, 2016 (arXiv:1603.09246): 255 pixels, cells of 85, tiles of 64 and all the room there is
    (`jitter=10`).
    """
    checks.assert_rank(image, 3)
    _assert_at_least("grid", grid, 1)
    _assert_at_least("tile", tile, 1)
    _assert_at_least("jitter", jitter, 0)
    size = np.array(image.shape[:2])
    cell = size // grid
    room = (cell - tile) // 2
    if np.any(room < jitter):
        raise ValueError(
            f"A {tuple(map(int, size))} image has {grid} x {grid} cells of {tuple(map(int, cell))} "
            f"pixels; a tile of {tile} with a jitter of {jitter} needs {tile + 2 * jitter}."
        )
    rows, columns = np.divmod(np.arange(grid * grid), grid)
    corners = np.stack([rows, columns], 1) * cell + (size - grid * cell) // 2 + room
    moves = jax.random.randint(key, (grid * grid, 2), -jitter, jitter + 1)
    return _windows(image, corners.astype(np.int32) + moves, tile)


def patch_pair(
    key: Array, image: Array, *, patch: int, gap: int, jitter: int
) -> tuple[Array, Array]:
    """A patch and one of its eight neighbors, and which one it is.

    The first patch lies anywhere all its neighbors fit. The second lies ``patch + gap`` pixels
    from it in one of eight directions, all equally likely, moved by ``U{-jitter, ..., jitter}``
    pixels down and, independently, right. Directions count row by row, without the middle:

    ```
    0 1 2
    3   4
    5 6 7
    ```
    The gap and the jitter remove a shortcut: edges that run on from one patch into the other. The
    patches never touch if ``gap > jitter``.

    Args:
        key: random key.
        image: `[H, W, C]` of any dtype, both sides at least ``3 patch + 2 gap + 2 jitter``.
        patch: side of a patch, in pixels.
        gap: between the patches before the jitter, in pixels.
        jitter: largest move of the second patch, in pixels.

    Returns:
        Patches `[2, patch, patch, C]` of the same dtype; direction of the second as seen from the
        first, an int32 scalar in 0, ..., 7.

    Raises:
        ValueError: if the image is too small.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> image = jnp.arange(9).reshape(3, 3, 1)  # the place of each pixel, row by row
        >>> patches, direction = patch_pair(jax.random.key(0), image, patch=1, gap=0, jitter=0)
        >>> patches.ravel().tolist(), direction.item()
        ([4, 7], 6)

    Reference: Doersch et al., Unsupervised Visual Representation Learning by Context Prediction,
    2015 (arXiv:1505.05192): patches of 96 pixels, a gap of 48, a jitter of 7.
    """
    checks.assert_rank(image, 3)
    _assert_at_least("patch", patch, 1)
    _assert_at_least("gap", gap, 0)
    _assert_at_least("jitter", jitter, 0)
    height, width = image.shape[:2]
    margin = patch + gap + jitter
    needed = patch + 2 * margin
    if min(height, width) < needed:
        raise ValueError(
            f"A patch of {patch} and its neighbors, with a gap of {gap} and a jitter of {jitter}, "
            f"need {needed} x {needed} pixels; got {height} x {width}."
        )
    place, turn, move = jax.random.split(key, 3)
    last = np.array([height, width], np.int32) - margin - patch
    center = jax.random.randint(place, (2,), margin, last + 1)
    direction = jax.random.randint(turn, (), 0, len(_NEIGHBORS))
    moves = jax.random.randint(move, (2,), -jitter, jitter + 1)
    neighbor = center + (patch + gap) * jnp.asarray(_NEIGHBORS)[direction] + moves
    return _windows(image, jnp.stack([center, neighbor]), patch), direction


def patch_at(key: Array, image: Array, *, patch: int) -> tuple[Array, Array]:
    """A patch at a random position, and the position.

    Each coordinate of the position is ``first / (side - patch)``: 0 where the patch touches the top
    (or left) border, 1 where it touches the bottom (or right) one, and uniform between them. A
    network that finds the position of a patch of a photograph far better than by chance has found a
    shortcut, chromatic aberration above all (`render_aberration`, `drop_colors`).

    Args:
        key: random key.
        image: `[H, W, C]` of any dtype.
        patch: side of the patch, in pixels.

    Returns:
        Patch `[patch, patch, C]` of the same dtype; position `[2]`, down and right, float32 in
        [0, 1], 1/2 along a side without room.

    Raises:
        ValueError: if the patch is larger than the image.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> image = jnp.arange(25).reshape(5, 5, 1)
        >>> patch, position = patch_at(jax.random.key(0), image, patch=1)
        >>> patch.item(), (position * 4).tolist()
        (20, [4.0, 0.0])

    Reference: Doersch et al., Unsupervised Visual Representation Learning by Context Prediction,
    2015 (arXiv:1505.05192).
    """
    checks.assert_rank(image, 3)
    _assert_at_least("patch", patch, 1)
    height, width = image.shape[:2]
    if patch > min(height, width):
        raise ValueError(f"A {(height, width)} image has no patch of {patch} x {patch} pixels.")
    room = np.array([height - patch, width - patch], np.int32)
    corner = jax.random.randint(key, (2,), 0, room + 1)
    position = jnp.where(room > 0, corner / np.maximum(room, 1), 0.5)
    return _windows(image, corner[None], patch)[0], position


def location_class(position: Array, bins: int) -> Array:
    """Cell of a position in a grid of `bins` x `bins` equal cells, row by row.

    Args:
        position: `[..., 2]`, down and right in [0, 1], as `patch_at` gives it.
        bins: cells along each side.

    Returns:
        `[...]` int32 in 0, ..., ``bins^2 - 1``.

    Example:
        >>> import jax.numpy as jnp
        >>> location_class(jnp.array([[0.0, 0.4], [1.0, 1.0]]), 3)
        Array([1, 8], dtype=int32)
    """
    checks.assert_axis_dimension(position, -1, 2)
    cell = jnp.minimum(jnp.floor(position * bins).astype(jnp.int32), bins - 1)
    return cell[..., 0] * bins + cell[..., 1]


def rotations(image: Array) -> Array:
    """The image turned by 0, 90, 180 and 270 degrees, counter-clockwise as one looks at it.

    Args:
        image: `[S, S, C]` of any dtype.

    Returns:
        `[4, S, S, C]` of the same dtype.

    Raises:
        ValueError: if the image is not square.

    Example:
        >>> import jax.numpy as jnp
        >>> rotations(jnp.array([[1, 2], [3, 4]])[..., None])[1, :, :, 0]
        Array([[2, 4],
               [1, 3]], dtype=int32)

    Reference: Gidaris et al., Unsupervised Representation Learning by Predicting Image Rotations,
    2018 (arXiv:1803.07728).
    """
    checks.assert_rank(image, 3)
    if image.shape[0] != image.shape[1]:
        raise ValueError(
            f"A quarter turn of a {image.shape[:2]} image has another shape; crop a square first."
        )
    return jnp.stack([jnp.rot90(image, turns) for turns in range(4)])


def standardize(patch: Array, *, floor: float = 1 / 255) -> Array:
    """Patch with mean 0 and standard deviation 1 in each channel.

    ``y = (x - mean) / max(std, floor)`` over the patch's pixels. Neighboring patches are of like
    brightness, color and contrast; this removes the shortcut.

    Args:
        patch: `[h, w, C]` float.
        floor: least standard deviation to divide by: one gray level, so that a flat patch stays
            flat rather than becoming its noise.

    Returns:
        `[h, w, C]` float32.

    Raises:
        TypeError: if the patch holds integers.

    Example:
        >>> import jax.numpy as jnp
        >>> standardize(jnp.array([[[0.25], [0.75]]]))[0, :, 0]
        Array([-1.,  1.], dtype=float32)

    Reference: Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw
    Puzzles, 2016 (arXiv:1603.09246).
    """
    assert_float_image(patch)
    centered = patch - patch.mean((0, 1), keepdims=True)
    variance = jnp.square(centered).mean((0, 1), keepdims=True)
    # The floor comes before the root, whose slope at zero is infinite.
    return centered * jax.lax.rsqrt(jnp.maximum(variance, floor**2))


def down_up(key: Array, patch: Array, *, probability: float = 0.33, smallest: int = 100) -> Array:
    """Patch made smaller and large again, with a probability: its fine detail is lost.

    The small patch has ``n ~ U(smallest, h w)`` pixels and the aspect of the large one, its sides
    rounded; both resizes are antialiased bilinear, that of `resized_crop`. It keeps a network from
    comparing the resolution and the noise of two patches instead of what they show.

    Args:
        key: random key.
        patch: `[h, w, C]` float.
        probability: of the loss.
        smallest: least number of pixels of the small patch.

    Returns:
        `[h, w, C]` float32.

    Raises:
        ValueError: if `smallest` is not in 1, ..., h w.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> patch = jnp.arange(64.0).reshape(8, 8, 1) / 64
        >>> y = down_up(jax.random.key(1), patch, probability=1.0, smallest=4)
        >>> y.shape, bool(jnp.std(y) < jnp.std(patch))
        ((8, 8, 1), True)

    Reference: Doersch et al., Unsupervised Visual Representation Learning by Context Prediction,
    2015 (arXiv:1505.05192).
    """
    assert_float_image(patch)
    height, width = patch.shape[:2]
    if not 1 <= smallest <= height * width:
        raise ValueError(
            f"smallest is a number of pixels in 1, ..., {height * width} for a patch of "
            f"{height} x {width}; got {smallest}."
        )
    chance, amount = jax.random.uniform(key, (2,))
    factor = jnp.sqrt(smallest / (height * width) * (1 - amount) + amount)
    rows, columns = (_round_trip_weights(side, side * factor) for side in (height, width))
    return jnp.where(chance < probability, apply_separable(patch, rows, columns), patch)


def _round_trip_weights(size: int, small: Array) -> Array:
    """`[size, size]` weights that resize a side to `small` pixels, rounded, and up again."""
    small = jnp.clip(jnp.round(small), 1, size)
    scale = size / small
    pixel = jnp.arange(size)
    # The small side has `small` pixels, a number drawn on the device: the rows beyond repeat its
    # last pixel, and the way up does not look at them.
    center = (jnp.minimum(pixel, small - 1) + 0.5) * scale - 0.5
    down = jnp.maximum(0.0, 1.0 - jnp.abs(pixel - center[:, None]) / scale)
    down = down / jnp.sum(down, axis=1, keepdims=True)
    up = resize_weights(0, small, size, size)
    return jnp.matmul(up, down, precision=jax.lax.Precision.HIGHEST)
