"""Correlation of two feature maps: in a window around every pixel (PWC-Net), or all pairs (RAFT).

Everything is a matrix product: windows are cut from the products of a block of pixels with all
pixels that their windows cover, and RAFT's bilinear lookup multiplies with interpolation weights.
Nothing is gathered or scattered, so gradients are the same in every run.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from sslax.checks import (
    assert_axis_dimension,
    assert_equal_shape,
    assert_equal_shape_prefix,
    assert_equal_shape_suffix,
    assert_rank,
)

_BLOCK = 32  # pixels of a row that share one product: more would waste multiplications
_EPSILON = 1e-6  # added to the variance in `_standardize`

_product = partial(jnp.einsum, precision="highest", preferred_element_type=jnp.float32)


def cost_volume(
    first: jax.Array, second: jax.Array, *, radius: int = 4, normalize: bool = False
) -> jax.Array:
    """Correlation of every pixel with a window around it in the other map.

    `out(p)[d] = mean_c first(p, c) second(p + d, c)`, 0 where p + d is outside the image.

    Args:
        first: features `[N, h, w, C]`.
        second: likewise, warped towards the first where a coarser flow is known.
        radius: r of the window in pixels.
        normalize: normalizes each map to mean 0 and variance 1, over its pixels and channels.
            UFlow also averages the statistics over the batch, which makes a flow depend on the
            other examples.

    Returns:
        `[N, h, w, (2 r + 1)²]` float32; the displacement `(dx, dy)` is in channel
        `(dy + r) (2 r + 1) + dx + r`.

    Example:
        >>> first = jnp.zeros((1, 4, 4, 1)).at[0, 1, 1].set(2.0)
        >>> second = jnp.zeros((1, 4, 4, 1)).at[0, 1, 2].set(3.0)
        >>> cost_volume(first, second, radius=1)[0, 1, 1].tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0, 6.0, 0.0, 0.0, 0.0]

    Sun et al., PWC-Net, https://arxiv.org/abs/1709.02371, 2018; Jonschkowski et al., What Matters
    in Unsupervised Optical Flow (normalization), https://arxiv.org/abs/2006.04902, 2020.
    """
    assert_rank([first, second], 4)
    assert_equal_shape([first, second])
    if normalize:
        first, second = _standardize(first), _standardize(second)
    n, h, w, c = first.shape
    side = 2 * radius + 1
    block = max(2 * radius, min(w, _BLOCK), 1)
    blocks = -(-w // block)
    pixels = jnp.pad(first, ((0, 0), (0, 0), (0, blocks * block - w), (0, 0)))
    pixels = pixels.reshape(n, h, blocks, block, c)
    # `block` columns, and the next block's first 2 r.
    width = (blocks + 1) * block
    edges = ((0, 0), (radius, radius), (radius, width - w - radius), (0, 0))
    columns = jnp.pad(second, edges).reshape(n, h + 2 * radius, blocks + 1, block, c)
    columns = jnp.concatenate([columns[:, :, :-1], columns[:, :, 1:, : 2 * radius]], axis=3)
    rows = jnp.stack([columns[:, i : i + h] for i in range(side)], axis=3)
    span = block + 2 * radius
    products = _product("nhbxc,nhbiyc->nhbxiy", pixels, rows)
    # Pixel x of a block needs the columns from x on: skew the products by one column per row.
    products = products.reshape(n, h, blocks, block * side * span)
    products = jnp.pad(products, ((0, 0), (0, 0), (0, 0), (0, block)))
    products = products.reshape(n, h, blocks, block, side * span + 1)[..., :-1]
    products = products.reshape(n, h, blocks * block, side, span)[:, :, :w, :, :side]
    return products.reshape(n, h, w, side * side) / c


def _standardize(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    x = x - jnp.mean(x, axis=(1, 2, 3), keepdims=True)
    variance = jnp.mean(jnp.square(x), axis=(1, 2, 3), keepdims=True)
    return x * lax.rsqrt(variance + _EPSILON)


def correlation_pyramid(
    first: jax.Array, second: jax.Array, *, levels: int = 4
) -> tuple[jax.Array, ...]:
    """Correlation of all pairs of pixels, with the second map at several resolutions.

    `out_l(p, q) = Σ_c first(p, c) pool_l(second)(q, c) / √C`, where `pool_l` averages `2^l x 2^l`
    pixels and drops the last row or column of an odd size.

    Args:
        first: features `[N, h, w, C]`.
        second: likewise.
        levels: number of resolutions.

    Returns:
        For each level `[N, h, w, h // 2^l, w // 2^l]` float32.

    Raises:
        ValueError: the features are too small for that many levels.

    Example:
        >>> features = jnp.ones((1, 4, 6, 9))
        >>> [level.shape for level in correlation_pyramid(features, features, levels=2)]
        [(1, 4, 6, 4, 6), (1, 4, 6, 2, 3)]

    Teed and Deng, RAFT, https://arxiv.org/abs/2003.12039, 2020.
    """
    assert_rank([first, second], 4)
    assert_equal_shape_suffix([first, second], 1)
    if min(second.shape[1:3]) >> (levels - 1) == 0:
        raise ValueError(
            f"Features of {second.shape[1]} x {second.shape[2]} are too small for {levels} levels "
            f"of correlation, which need {2 ** (levels - 1)} pixels a side."
        )
    pyramid = []
    for level in range(levels):
        second = _halve(second) if level else second
        pyramid.append(_product("nhwc,nyxc->nhwyx", first, second) / first.shape[-1] ** 0.5)
    return tuple(pyramid)


def _halve(x: jax.Array) -> jax.Array:
    n, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2].astype(jnp.float32)
    return jnp.mean(x.reshape(n, h // 2, 2, w // 2, 2, c), axis=(2, 4))


def lookup(pyramid: tuple[jax.Array, ...], coords: jax.Array, *, radius: int = 4) -> jax.Array:
    """Bilinear samples of a correlation pyramid around each pixel's position in the second map.

    `out(p)[l, d] = pyramid_l(p, coords(p) / 2^l + d)`, 0 outside the image.

    Args:
        pyramid: from `correlation_pyramid`.
        coords: `[N, h, w, 2]`, the position of p in the second map, (x, y) in its pixels.
        radius: r of the window, in pixels of each level.

    Returns:
        `[N, h, w, levels (2 r + 1)²]` float32. Within a level, displacement (dx, dy) is in channel
        `(dx + r) (2 r + 1) + dy + r`: x-major, in the order of RAFT's weights, unlike
        `cost_volume`.

    Example:
        >>> features = jnp.eye(9).reshape(1, 3, 3, 9)
        >>> pyramid = correlation_pyramid(features, features, levels=1)
        >>> coords = jnp.full((1, 3, 3, 2), jnp.array([1.0, 0.5]))
        >>> (3 * lookup(pyramid, coords, radius=0))[0, :, :, 0].round(2).tolist()
        [[0.0, 0.5, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """
    assert_axis_dimension(coords, -1, 2)
    samples = []
    for level, volume in enumerate(pyramid):
        assert_equal_shape_prefix([volume, coords], 3)
        center = coords / 2**level
        x, y = (_weights(center[..., i], volume.shape[4 - i], radius) for i in range(2))
        rows = _product("nhwyx,nhway->nhwax", volume, y)
        samples.append(_product("nhwax,nhwbx->nhwba", rows, x).reshape(*coords.shape[:3], -1))
    return jnp.concatenate(samples, axis=-1)


def _weights(x: jax.Array, size: int, radius: int) -> jax.Array:
    """`[..., 2 r + 1, size]`: bilinear weights of pixels for samples at `x - r`, ..., `x + r`."""
    start = jnp.floor(x)
    # At integer coordinates the derivative is the right-hand one, as in `sslax.ops.warp`.
    fraction = (x - lax.stop_gradient(start))[..., None, None]
    pixel = jnp.arange(size) - jnp.arange(-radius, radius + 1)[:, None]
    before = lax.stop_gradient(pixel - start[..., None, None])
    return jnp.where(before == 0, 1 - fraction, 0) + jnp.where(before == 1, fraction, 0)


def correlation_lookup(
    first: jax.Array,
    second: jax.Array,
    coords: jax.Array,
    *,
    levels: int = 4,
    radius: int = 4,
    rows: int = 4,
) -> jax.Array:
    """`lookup` in `correlation_pyramid`, computed on demand: less memory, more multiplications.

    The pyramid is computed for a few rows of the first map at a time, and again in the backward
    pass. Memory grows with `h w²` rather than `h² w²`, but each lookup costs `h² w²`.

    Args:
        first: features `[N, h, w, C]`.
        second: likewise.
        coords: as in `lookup`.
        levels: as in `correlation_pyramid`.
        radius: as in `lookup`.
        rows: rows of the first map at a time; the largest divisor of h up to this number is used.

    Returns:
        As `lookup`, with the same values and gradients.

    Raises:
        ValueError: the features are too small for that many levels.

    Example:
        >>> features, coords = jnp.ones((1, 4, 4, 8)), jnp.zeros((1, 4, 4, 2))
        >>> correlation_lookup(features, features, coords, levels=2, radius=3).shape
        (1, 4, 4, 98)
    """
    assert_rank([first, second, coords], 4)
    n, h, w, _ = first.shape
    rows = max(d for d in range(1, rows + 1) if h % d == 0)

    @jax.checkpoint
    def lookup_rows(chunk: tuple[jax.Array, jax.Array]) -> jax.Array:
        features, coords = chunk
        return lookup(correlation_pyramid(features, second, levels=levels), coords, radius=radius)

    def split(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(n, h // rows, rows, w, x.shape[-1]), 1, 0)

    samples = lax.map(lookup_rows, (split(first), split(coords)))
    return jnp.moveaxis(samples, 0, 1).reshape(n, h, w, samples.shape[-1])
