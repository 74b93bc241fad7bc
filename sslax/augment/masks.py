"""Pixel masks for inpainting: True where the image is hidden from the network."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from sslax import checks
from sslax.augment.image import apply_separable
from sslax.types import Array


def center_mask(height: int, width: int, *, side: int, overlap: int = 0) -> Array:
    """Masks a square in the center of an image.

    The network predicts a square of `side` pixels, of which a band of `overlap` pixels along the
    border stays visible, so that the prediction has to match its surroundings. With
    `square = center_mask(..., overlap=0)` the band is `square & ~center_mask(..., overlap=4)`;
    context encoders weight its error ten times higher.

    Args:
        height, width: image size in pixels.
        side: side of the predicted square, in pixels.
        overlap: width of its visible band, in pixels.

    Returns:
        `[H, W]` bool, True for the `(side - 2 overlap)^2` hidden pixels.

    Raises:
        ValueError: the square is larger than the image, or the band leaves nothing hidden.

    Example:
        >>> center_mask(4, 6, side=2).astype(int)
        Array([[0, 0, 0, 0, 0, 0],
               [0, 0, 1, 1, 0, 0],
               [0, 0, 1, 1, 0, 0],
               [0, 0, 0, 0, 0, 0]], dtype=int32)

    Pathak et al., "Context Encoders: Feature Learning by Inpainting", CVPR 2016, arXiv:1604.07379:
    a square of half the image's side, and a band of 4 pixels for images of 128.
    """
    if not 1 <= side <= min(height, width):
        raise checks.value_error(
            f"a square of {side} pixels does not fit into a {(height, width)} image."
        )
    if overlap < 0 or 2 * overlap >= side:
        raise checks.value_error(
            f"overlap must be in 0, ..., {(side - 1) // 2} for a square of {side} pixels; "
            f"got {overlap}."
        )
    mask = np.zeros((height, width), bool)
    top, left = (round((size - side) / 2) for size in (height, width))  # as in `center_crop`
    mask[top + overlap : top + side - overlap, left + overlap : left + side - overlap] = True
    return jnp.asarray(mask)


def random_block_mask(key: Array, height: int, width: int, *, blocks: int, side: int) -> Array:
    """Masks squares at random positions, which may overlap.

    Args:
        key: random key.
        height, width: image size in pixels.
        blocks: number of squares.
        side: side of a square, in pixels. At most `blocks side^2` pixels are hidden.

    Returns:
        `[H, W]` bool, True where hidden.

    Raises:
        ValueError: a square is larger than the image, or there are no squares.

    Example:
        >>> import jax
        >>> mask = random_block_mask(jax.random.key(0), 8, 8, blocks=1, side=3)
        >>> mask.shape, int(mask.sum())
        ((8, 8), 9)

    Pathak et al., "Context Encoders: Feature Learning by Inpainting", CVPR 2016, arXiv:1604.07379:
    small squares that cover up to a quarter of the image.
    """
    if blocks < 1 or not 1 <= side <= min(height, width):
        raise checks.value_error(
            f"a {(height, width)} image cannot have {blocks} squares of {side} pixels."
        )
    last = np.array([height - side, width - side], np.int32)
    corners = jax.random.randint(key, (blocks, 2), 0, last + 1, jnp.int32)

    def inside(size: int, first: Array) -> Array:
        return (jnp.arange(size) >= first[:, None]) & (jnp.arange(size) < first[:, None] + side)

    rows, columns = inside(height, corners[:, 0]), inside(width, corners[:, 1])
    return jnp.any(rows[:, :, None] & columns[:, None, :], axis=0)


def random_region_mask(
    key: Array,
    height: int,
    width: int,
    *,
    share: tuple[float, float] = (0.2, 0.3),
    cells: float = 8.0,
) -> Array:
    """Masks regions of random shape, without straight edges that a network could recognize.

    Uniform noise on a coarse grid with a random offset is enlarged by cubic interpolation; its
    lowest `round(s H W)` values, with `s ~ U(share)`, are hidden.

    Context encoders crop windows with 20 to 30 % hidden pixels from one large pattern, enlarged
    16.7 times: about 8 cells along 128 pixels, the default here. A new pattern per key needs no
    stored pattern and no rejection.

    Args:
        key: random key.
        height, width: image size in pixels.
        share: range of the fraction of hidden pixels.
        cells: cells of the coarse grid along the shorter side; more cells give smaller regions.

    Returns:
        `[H, W]` bool, True where hidden.

    Raises:
        ValueError: `share` is not an increasing pair in [0, 1], or `cells` is not positive.

    Example:
        >>> import jax
        >>> mask = random_region_mask(jax.random.key(0), 20, 20, share=(0.25, 0.25))
        >>> mask.shape, int(mask.sum())
        ((20, 20), 100)

    Pathak et al., "Context Encoders: Feature Learning by Inpainting", CVPR 2016, arXiv:1604.07379.
    """
    if not 0 <= share[0] <= share[1] <= 1:
        raise checks.value_error(f"share must be an increasing pair in [0, 1]; got {share}.")
    if cells <= 0:
        raise checks.value_error(f"cells must be positive; got {cells}.")
    cell = min(height, width) / cells
    # Cubic interpolation reads two grid points beyond each side of the image.
    points = [math.ceil(size / cell) + 4 for size in (height, width)]
    u = jax.random.uniform(key, (3 + math.prod(points),), jnp.float32)
    rows = _cubic_weights(height, points[0], cell, u[0])
    columns = _cubic_weights(width, points[1], cell, u[1])
    field = apply_separable(u[3:].reshape(*points, 1), rows, columns)
    count = jnp.round(height * width * (share[0] + (share[1] - share[0]) * u[2]))
    # By rank rather than by value, so that ties cannot change the number of hidden pixels.
    hidden = jnp.arange(field.size) < count.astype(jnp.int32)
    mask = jnp.zeros(field.size, bool).at[jnp.argsort(field.ravel())].set(hidden)
    return mask.reshape(height, width)


def _cubic_weights(size: int, points: int, cell: float, offset: Array) -> Array:
    """`[size, points]` weights of a cubic interpolation between points `cell` pixels apart."""
    position = 1.0 + offset + jnp.arange(size, dtype=jnp.float32) / cell
    t = jnp.abs(jnp.arange(points, dtype=jnp.float32) - position[:, None])
    near = (1.5 * t - 2.5) * t * t + 1.0
    far = ((2.5 - 0.5 * t) * t - 4.0) * t + 2.0
    return jnp.where(t < 1, near, jnp.where(t < 2, far, 0.0))
