"""Backward and forward warps by bilinear interpolation.

Pixel centres lie at integer coordinates, coordinates are `(x, y)` in pixels (x right, y down) and
flow points from the target pixel to its source: target `p` is read at `p + flow(p)`.
"""

import chex
import jax
import jax.numpy as jnp

_PADDINGS = ("border", "zeros", "reflection", "symmetric")


def bilinear_sample(
    image: jax.Array, coords: jax.Array, *, padding: str = "border"
) -> tuple[jax.Array, jax.Array]:
    """Bilinear interpolation of an image at real coordinates.

    `v(x, y) = Σ_ij image[j, i] max(0, 1 - |x - i|) max(0, 1 - |y - j|)`

    Args:
        image: `[H, W, C]`, floating.
        coords: `[..., 2]`, floating, `(x, y)` in pixels.
        padding: what lies outside: 'border' repeats the last pixel, 'zeros' is black, 'reflection'
            mirrors about the last pixel's centre, 'symmetric' about its outer edge.

    Returns:
        Values `[..., C]` in the image's dtype, and `valid` `[...]` (bool): the sample lies within
        the outermost pixel centres, `0 <= x <= W - 1` and `0 <= y <= H - 1`. Coordinates that are
        not finite are invalid; their values and gradients are finite.
    """
    chex.assert_rank(image, 3)
    chex.assert_axis_dimension(coords, -1, 2)
    if padding not in _PADDINGS:
        raise ValueError(f"padding is {padding!r}; choose one of {_PADDINGS}.")
    height, width, _ = image.shape
    x, y = coords[..., 0], coords[..., 1]
    valid = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    x, fade_x = _pad_coordinate(x, width, padding)
    y, fade_y = _pad_coordinate(y, height, padding)
    values = _interpolate(image, x, y)
    if padding == "zeros":
        values = values * (fade_x * fade_y)[..., None]
    return values.astype(image.dtype), valid


def warp_flow(
    image: jax.Array, flow: jax.Array, *, padding: str = "border"
) -> tuple[jax.Array, jax.Array]:
    """Backward warp: `out(p) = image(p + flow(p))`.

    Args:
        image: `[B, H, W, C]`, the source.
        flow: `[B, h, w, 2]`, `(x, y)` in pixels.
        padding: as in `bilinear_sample`.

    Returns:
        Values `[B, h, w, C]` and `valid` `[B, h, w]` (bool).
    """
    chex.assert_rank([image, flow], 4)
    coords = pixel_grid(flow.shape[1], flow.shape[2]) + flow
    return jax.vmap(lambda i, c: bilinear_sample(i, c, padding=padding))(image, coords)


def warp_disparity(
    image: jax.Array, disparity: jax.Array, *, direction: int = -1, padding: str = "border"
) -> tuple[jax.Array, jax.Array]:
    """Horizontal warp: `out(x, y) = image(x + direction · disparity(x, y), y)`.

    Args:
        image: `[B, H, W, C]`, the other view.
        disparity: `[B, H, W]`, in pixels, positive.
        direction: -1 reads the right view into the left frame; +1 the left view into the right.
        padding: as in `bilinear_sample`.

    Returns:
        Values `[B, H, W, C]` and `valid` `[B, H, W]` (bool).
    """
    chex.assert_rank([image, disparity], [4, 3])
    flow = jnp.stack([direction * disparity, jnp.zeros_like(disparity)], axis=-1)
    return warp_flow(image, flow, padding=padding)


def splat(values: jax.Array, flow: jax.Array) -> jax.Array:
    """Forward warp: every pixel's value is added at `p + flow(p)` with bilinear weights.

    Args:
        values: `[B, H, W, C]`.
        flow: `[B, H, W, 2]`, `(x, y)` in pixels.

    Returns:
        Sums `[B, H, W, C]`; what falls outside is dropped.
    """
    chex.assert_rank([values, flow], 4)
    chex.assert_equal_shape_prefix([values, flow], 3)
    _, height, width, channels = values.shape
    coords = pixel_grid(height, width) + flow

    def one(values: jax.Array, coords: jax.Array) -> jax.Array:
        zeros = jnp.zeros((height, width, channels), values.dtype)
        sample = lambda image: bilinear_sample(image, coords, padding="zeros")[0]  # noqa: E731
        return jax.linear_transpose(sample, zeros)(values)[0]

    return jax.vmap(one)(values, coords)


def range_map(flow: jax.Array) -> jax.Array:
    """Forward-warped coverage: how much of the image arrives at each pixel under the flow.

    Args:
        flow: `[B, H, W, 2]`, `(x, y)` in pixels.

    Returns:
        `[B, H, W]`: 1 where one pixel arrives, 0 where nothing does (Wang et al. 2018).
    """
    return splat(jnp.ones((*flow.shape[:-1], 1), flow.dtype), flow)[..., 0]


def pixel_grid(height: int, width: int) -> jax.Array:
    """Coordinates `[H, W, 2]` of the pixel centres, `(x, y)`, float32."""
    x = jnp.arange(width, dtype=jnp.float32)
    y = jnp.arange(height, dtype=jnp.float32)
    return jnp.stack(jnp.meshgrid(x, y), axis=-1)


def _pad_coordinate(x: jax.Array, size: int, padding: str) -> tuple[jax.Array, jax.Array]:
    """Moves a coordinate into [0, size - 1]; also the weight of what is there under 'zeros'."""
    last = size - 1
    x = jnp.where(jnp.isfinite(x), x, -2.0)  # outside, and without a gradient
    if padding == "reflection":
        x = _mirror(x, last) if last else jnp.zeros_like(x)
    if padding == "symmetric":
        x = _mirror(x + 0.5, size) - 0.5
    outside = jnp.maximum(-x, x - last)
    # `where` rather than `clip`: the gradient at exactly 0 and size - 1 is that of the inside.
    inside = jnp.where(x < 0, 0.0, jnp.where(x > last, last, x))
    fade = jnp.where(outside > 0, jnp.maximum(0.0, 1.0 - outside), 1.0)
    return inside.astype(x.dtype), fade


def _mirror(x: jax.Array, period: int) -> jax.Array:
    """Reflects x about 0 and `period`, again and again."""
    x = jnp.where(x < 0, -x, x)
    x = x - 2 * period * jax.lax.stop_gradient(jnp.floor(x / (2 * period)))
    return jnp.where(x > period, 2 * period - x, x)


def _interpolate(image: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    height, width, _ = image.shape
    # The last pixel is reached from its left: its gradient is the difference inside the image.
    left = jnp.clip(jnp.floor(x), 0, max(width - 2, 0))
    top = jnp.clip(jnp.floor(y), 0, max(height - 2, 0))
    fx = (x - left)[..., None]
    fy = (y - top)[..., None]
    left, top = left.astype(jnp.int32), top.astype(jnp.int32)
    right, bottom = jnp.minimum(left + 1, width - 1), jnp.minimum(top + 1, height - 1)
    v00, v01 = image[top, left], image[top, right]
    v10, v11 = image[bottom, left], image[bottom, right]
    upper = v00 + fx * (v01 - v00)
    lower = v10 + fx * (v11 - v10)
    return upper + fy * (lower - upper)
