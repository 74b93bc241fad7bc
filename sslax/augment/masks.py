"""Masks of what is hidden from a network that is asked to fill it in: True is hidden."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from sslax.augment.image import apply_separable

Array = jax.Array


def center_mask(height: int, width: int, *, side: int, overlap: int = 0) -> Array:
    """Hidden square in the middle of an image.

    The square of `side` pixels is what the network predicts; of it, a band of `overlap` pixels
    along its inside border stays visible, so that the prediction has to join the image. With
    ``square = center_mask(..., overlap=0)`` the band is ``square & ~center_mask(..., overlap=4)``;
    context encoders weigh the error in the band ten times the rest.

    Args:
        height, width: of the image, in pixels.
        side: of the predicted square, in pixels.
        overlap: width of its visible band, in pixels.

    Returns:
        `[H, W]` bool, True where hidden: ``(side - 2 overlap)^2`` pixels.

    Raises:
        ValueError: if the square is larger than the image, or the band leaves nothing hidden.

    Example:
        >>> center_mask(4, 6, side=2).astype(int)
        Array([[0, 0, 0, 0, 0, 0],
               [0, 0, 1, 1, 0, 0],
               [0, 0, 1, 1, 0, 0],
               [0, 0, 0, 0, 0, 0]], dtype=int32)

    Reference: Pathak et al., Context Encoders: Feature Learning by Inpainting, 2016
    (arXiv:1604.07379): a square of half the image's side, a band of 4 of 128 pixels.
    """
    if side > min(height, width):
        raise ValueError(f"A square of {side} pixels does not fit a {(height, width)} image.")
    if overlap < 0 or 2 * overlap >= side:
        raise ValueError(
            f"overlap is a band inside a square of {side} pixels, in 0, ..., {(side - 1) // 2}; "
            f"got {overlap}."
        )
    mask = np.zeros((height, width), bool)
    top, left = (round((size - side) / 2) for size in (height, width))  # that of `center_crop`
    mask[top + overlap : top + side - overlap, left + overlap : left + side - overlap] = True
    return jnp.asarray(mask)


def random_blocks_mask(key: Array, height: int, width: int, *, blocks: int, side: int) -> Array:
    """Hidden squares at random places, which may overlap.

    Args:
        key: random key.
        height, width: of the image, in pixels.
        blocks: how many squares.
        side: of each, in pixels. At most ``blocks side^2`` pixels are hidden.

    Returns:
        `[H, W]` bool, True where hidden.

    Raises:
        ValueError: if a square is larger than the image, or there is none.

    Example:
        >>> import jax
        >>> mask = random_blocks_mask(jax.random.key(0), 8, 8, blocks=1, side=3)
        >>> mask.shape, int(mask.sum())
        ((8, 8), 9)

    Reference: Pathak et al., Context Encoders: Feature Learning by Inpainting, 2016
    (arXiv:1604.07379): small squares over up to a quarter of the image.
    """
    if blocks < 1 or not 1 <= side <= min(height, width):
        raise ValueError(
            f"{blocks} squares of {side} pixels do not fit a {(height, width)} image, or are none."
        )
    last = np.array([height - side, width - side], np.int32)
    corners = jax.random.randint(key, (blocks, 2), 0, last + 1)

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
    """Hidden regions of random shape, without straight edges a network could recognize.

    Uniform noise on a coarse grid at a random offset, enlarged by cubic interpolation; hidden are
    its lowest ``round(s H W)`` values, exactly, with ``s ~ U(share)``.

    Context encoders cut windows of 20 to 30 % from one large pattern, 16.7 times enlarged: about 8
    cells along 128 pixels, the default here. A fresh pattern for each key needs no pattern in
    memory and rejects none.

    Args:
        key: random key.
        height, width: of the image, in pixels.
        share: range of the hidden share of the pixels.
        cells: of the coarse grid along the shorter side; more give smaller regions.

    Returns:
        `[H, W]` bool, True where hidden.

    Raises:
        ValueError: if `share` is not an increasing pair in [0, 1] or `cells` not positive.

    Example:
        >>> import jax
        >>> mask = random_region_mask(jax.random.key(0), 20, 20, share=(0.25, 0.25))
        >>> mask.shape, int(mask.sum())
        ((20, 20), 100)

    Reference: Pathak et al., Context Encoders: Feature Learning by Inpainting, 2016
    (arXiv:1604.07379).
    """
    if not 0 <= share[0] <= share[1] <= 1:
        raise ValueError(f"share must be an increasing pair in [0, 1], got {share}.")
    if cells <= 0:
        raise ValueError(f"cells must be positive, got {cells}.")
    cell = min(height, width) / cells
    # Two more grid points on each side than the image covers, which the interpolation reaches.
    points = [math.ceil(size / cell) + 4 for size in (height, width)]
    u = jax.random.uniform(key, (3 + math.prod(points),))
    rows = _cubic_weights(height, points[0], cell, u[0])
    columns = _cubic_weights(width, points[1], cell, u[1])
    field = apply_separable(u[3:].reshape(*points, 1), rows, columns)
    count = jnp.round(height * width * (share[0] + (share[1] - share[0]) * u[2]))
    # By rank, not by value: equal values would make the share inexact.
    hidden = jnp.arange(field.size) < count
    mask = jnp.zeros(field.size, bool).at[jnp.argsort(field.ravel())].set(hidden)
    return mask.reshape(height, width)


def _cubic_weights(size: int, points: int, cell: float, offset: Array) -> Array:
    """`[size, points]` weights of a cubic interpolation between points `cell` pixels apart."""
    place = 1.0 + offset + jnp.arange(size) / cell
    t = jnp.abs(jnp.arange(points) - place[:, None])
    near = (1.5 * t - 2.5) * t * t + 1.0
    far = ((2.5 - 0.5 * t) * t - 4.0) * t + 2.0
    return jnp.where(t < 1, near, jnp.where(t < 2, far, 0.0))


def random_keep(key: Array, tokens: int, *, ratio: float = 0.75) -> tuple[Array, Array]:
    """Tokens that a masked autoencoder sees: a uniform choice without replacement.

    Args:
        key: random key.
        tokens: T, how many there are.
        ratio: share that is hidden.

    Returns:
        Indices of the ``K = T - int(ratio T)`` visible tokens, `[K]` int32, increasing; mask `[T]`
        bool, True for a hidden token.

    Raises:
        ValueError: if `ratio` is not in [0, 1).

    Example:
        >>> import jax
        >>> keep, mask = random_keep(jax.random.key(0), 8, ratio=0.75)
        >>> keep.shape, int(mask.sum()), bool(mask[keep].any())
        ((2,), 6, False)

    Reference: He et al., Masked Autoencoders Are Scalable Vision Learners, 2022 (arXiv:2111.06377).
    """
    if tokens < 1 or not 0 <= ratio < 1:
        raise ValueError(f"ratio is a share in [0, 1) of the tokens; got {ratio} of {tokens}.")
    visible = tokens - int(ratio * tokens)
    keep = jnp.sort(jax.random.permutation(key, tokens)[:visible]).astype(jnp.int32)
    return keep, jnp.ones(tokens, bool).at[keep].set(False)
