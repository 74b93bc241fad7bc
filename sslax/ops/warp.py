"""Backward and forward warps by bilinear interpolation.

Pixel centers lie at integer coordinates, coordinates are `(x, y)` in pixels (x right, y down) and
flow points from the target pixel to its source: the target `p` is read at `p + flow(p)`.

All of it works under `jit`, `vmap`, `grad`, `jvp` and their compositions, inside `shard_map`, and
on arrays sharded over the batch. Coordinate gradients need gathers only, so they are the same at
every run; the gradient to the image is a scatter-add, which is compiled only if somebody
differentiates with respect to the image (`jax.lax.stop_gradient` on the image rules it out).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from sslax import checks
from sslax.ops.calls import computed_once

_PADDINGS = ("border", "zeros", "reflection", "symmetric")


def bilinear_sample(
    image: jax.Array, coords: jax.Array, *, padding: str = "border"
) -> tuple[jax.Array, jax.Array]:
    """Bilinear interpolation of an image at real coordinates.

    `v(x, y) = Σ_ij image[j, i] max(0, 1 - |x - i|) max(0, 1 - |y - j|)`

    The slope at an integer coordinate, where the left and right derivatives differ, is the right
    one (at the last pixel the left one), so a zero flow receives a gradient.

    Args:
        image: `[H, W, C]`, floating; interpolated in float32 at least.
        coords: `[..., 2]`, float32 or wider, `(x, y)` in pixels.
        padding: what lies outside: 'border' repeats the last pixel, 'zeros' is black, 'reflection'
            mirrors about the center of the last pixel, 'symmetric' about its outer edge.

    Returns:
        Values `[..., C]` in the image's dtype, and `valid` `[...]` (bool): the sample lies within
        the outermost pixel centers, `0 <= x <= W - 1` and `0 <= y <= H - 1`. Coordinates that are
        not finite are invalid, and their values and gradients finite.

    Raises:
        TypeError: for an image of integers, or coordinates too coarse to place a pixel.
        ValueError: for an unknown padding.

    Example:
        >>> image = jnp.array([[[0.0], [10.0]], [[20.0], [30.0]]])
        >>> values, valid = bilinear_sample(image, jnp.array([[0.5, 0.0], [1.0, 1.0], [2.0, 0.0]]))
        >>> values[:, 0].tolist(), valid.tolist()
        ([5.0, 30.0, 10.0], [True, True, False])

    Jaderberg et al., "Spatial Transformer Networks", 2015.
    """
    image, coords = jnp.asarray(image), jnp.asarray(coords)
    checks.assert_rank(image, 3)
    checks.assert_axis_dimension(coords, -1, 2)
    if coords.dtype.itemsize < 4 or not jnp.issubdtype(coords.dtype, jnp.floating):
        raise TypeError(f"{coords.dtype} coordinates cannot place a sample; use float32.")
    return _sample(image, (coords[..., 0], coords[..., 1]), padding)


def warp_flow(
    image: jax.Array, flow: jax.Array, *, padding: str = "border"
) -> tuple[jax.Array, jax.Array]:
    """Backward warp: `out(p) = image(p + flow(p))`.

    Args:
        image: `[B, H, W, C]`, the source, floating.
        flow: `[B, H', W', 2]`, `(x, y)` in pixels, from the target to the source.
        padding: as in `bilinear_sample`.

    Returns:
        Values `[B, H', W', C]` in the image's dtype, and `valid` `[B, H', W']` (bool).

    Raises:
        TypeError: for an image of integers.
        ValueError: for an unknown padding.

    Example:
        >>> image = jnp.arange(4.0).reshape(1, 1, 4, 1)
        >>> values, valid = warp_flow(image, jnp.full((1, 1, 4, 2), jnp.array([1.0, 0.0])))
        >>> values[0, 0, :, 0].tolist(), valid[0, 0].tolist()
        ([1.0, 2.0, 3.0, 3.0], [True, True, True, False])
    """
    checks.assert_rank([image, flow], 4)
    checks.assert_equal_shape_prefix([image, flow], 1)
    checks.assert_axis_dimension(flow, -1, 2)
    coords = pixel_grid(*flow.shape[1:3]) + flow
    return jax.vmap(functools.partial(bilinear_sample, padding=padding))(image, coords)


def warp_disparity(
    image: jax.Array, disparity: jax.Array, *, direction: int = -1, padding: str = "border"
) -> tuple[jax.Array, jax.Array]:
    """Horizontal warp: `out(x, y) = image(x + direction · disparity(x, y), y)`.

    Reads two pixels for each output where `warp_flow` reads four, and is several times as fast.

    Args:
        image: `[B, H, W, C]`, the other view, floating.
        disparity: `[B, H, W]`, in pixels of this resolution, positive.
        direction: -1 reads the right view into the left's frame; 1 the left view into the right's.
        padding: as in `bilinear_sample`.

    Returns:
        Values `[B, H, W, C]` in the image's dtype, and `valid` `[B, H, W]` (bool); an unknown
        disparity (NaN or infinite) is invalid.

    Raises:
        TypeError: for an image of integers.
        ValueError: for an unknown padding or direction, or a disparity of another resolution.

    Example:
        >>> right = jnp.arange(4.0).reshape(1, 1, 4, 1)
        >>> left, valid = warp_disparity(right, jnp.ones((1, 1, 4)))
        >>> left[0, 0, :, 0].tolist(), valid[0, 0].tolist()
        ([0.0, 0.0, 1.0, 2.0], [False, True, True, True])

    Godard et al., "Unsupervised Monocular Depth Estimation with Left-Right Consistency", 2017.
    """
    checks.assert_rank([image, disparity], [4, 3])
    if image.shape[:3] != disparity.shape:
        raise ValueError(
            f"disparity {disparity.shape} is not of the image's resolution {image.shape[:3]}; "
            "resize it and multiply its values by the ratio of the widths."
        )
    if direction not in (-1, 1):
        raise ValueError(f"direction is {direction}; -1 samples at x - d, 1 at x + d.")
    x = jnp.arange(image.shape[2], dtype=jnp.float32) + direction * disparity
    return jax.vmap(lambda image, x: _sample(image, (x,), padding))(image, x)


def splat(values: jax.Array, flow: jax.Array) -> jax.Array:
    """Forward warp: every value is added at `p + flow(p)`, shared among four pixels.

    `out(q) = Σ_p values(p) max(0, 1 - |q_x - p_x - flow_x(p)|) max(0, 1 - |q_y - p_y - flow_y(p)|)`

    The adjoint of `warp_flow(..., padding="zeros")`; what falls outside is dropped.

    Args:
        values: `[B, H, W, C]`, floating; summed in float32 at least.
        flow: `[B, H, W, 2]`, `(x, y)` in pixels; a flow that is not finite sends nothing.

    Returns:
        Sums `[B, H, W, C]` in the values' dtype.

    Raises:
        TypeError: for values that are integers.

    Example:
        >>> values = jnp.array([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1)
        >>> splat(values, jnp.full((1, 1, 3, 2), jnp.array([0.5, 0.0])))[0, 0, :, 0].tolist()
        [0.5, 1.5, 3.0]
    """
    checks.assert_rank([values, flow], 4)
    checks.assert_equal_shape_prefix([values, flow], 3)
    checks.assert_axis_dimension(flow, -1, 2)
    _check_floating(values)
    coords = pixel_grid(*flow.shape[1:3]) + flow

    def one(values: jax.Array, coords: jax.Array) -> jax.Array:
        height, width, _ = values.shape
        x, y = coords[..., 0], coords[..., 1]
        faded = values * (_fade(x, width) * _fade(y, height))[..., None]
        inside = (_into_image(x, width, "zeros"), _into_image(y, height, "zeros"))
        read = lambda image: _blend(_at_least_two(image), inside)  # noqa: E731
        (sums,) = jax.linear_transpose(read, faded)(faded)
        return sums.astype(values.dtype)

    return jax.vmap(one)(values, coords)


def range_map(flow: jax.Array) -> jax.Array:
    """Forward-warped coverage: how many pixels arrive at each pixel under the flow.

    Args:
        flow: `[B, H, W, 2]`, `(x, y)` in pixels.

    Returns:
        `[B, H, W]`, float32 at least: 1 where one pixel arrives, 0 where none does. Under the flow
        from the second image to the first, a pixel of the first is occluded in the second where
        nothing arrives.

    Example:
        >>> range_map(jnp.full((1, 1, 4, 2), jnp.array([2.0, 0.0])))[0, 0].tolist()
        [0.0, 0.0, 1.0, 1.0]

    Wang et al., "Occlusion Aware Unsupervised Learning of Optical Flow", 2018.
    """
    checks.assert_rank(flow, 4)
    ones = jnp.ones_like(flow[..., :1], dtype=jnp.promote_types(flow.dtype, jnp.float32))
    return splat(ones, flow)[..., 0]


def pixel_grid(height: int, width: int) -> jax.Array:
    """Coordinates of the pixel centers.

    Args:
        height: number of rows.
        width: number of columns.

    Returns:
        `[height, width, 2]`, `(x, y)` in pixels, float32.

    Example:
        >>> pixel_grid(2, 3)[1, 2].tolist()
        [2.0, 1.0]
    """
    x = jnp.arange(width, dtype=jnp.float32)
    y = jnp.arange(height, dtype=jnp.float32)
    return jnp.stack(jnp.meshgrid(x, y), axis=-1)


def _sample(
    image: jax.Array, coords: tuple[jax.Array, ...], padding: str
) -> tuple[jax.Array, jax.Array]:
    """Values and `valid` at `(x, y)`, or along every row at `(x,)`."""
    _check_floating(image)
    if padding not in _PADDINGS:
        raise ValueError(f"padding is {padding!r}; choose one of {_PADDINGS}.")
    sizes = image.shape[1::-1][: len(coords)]  # width, height
    valid = functools.reduce(
        jnp.logical_and, [(c >= 0) & (c <= size - 1) for c, size in zip(coords, sizes)]
    )
    inside = tuple(_into_image(c, size, padding) for c, size in zip(coords, sizes))
    values = _interpolate_once(_at_least_two(image), inside)
    if padding == "zeros":
        for c, size in zip(coords, sizes):
            values = values * _to_channels(_fade(c, size), image.shape[2])
    return values.astype(image.dtype), valid


def _check_floating(image: jax.Array) -> None:
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise TypeError(f"the image is {image.dtype}; convert it to float32 in [0, 1] first.")


def _into_image(x: jax.Array, size: int, padding: str) -> jax.Array:
    """The coordinate in [0, size - 1] to read instead; 0, and no gradient, for NaN."""
    last = size - 1
    if padding == "reflection":
        x = _mirror(x, last) if last else jnp.zeros_like(x)
    elif padding == "symmetric":
        x = _mirror(x + 0.5, size) - 0.5
    # Not `clip`, whose gradient at exactly 0 and size - 1 is halved.
    return jnp.where(x >= 0, jnp.where(x <= last, x, float(last)), 0.0)


def _fade(x: jax.Array, size: int) -> jax.Array:
    """The weight of the nearest pixel where the world outside is black: 1 to 0 within a pixel."""
    outside = jnp.maximum(-x, x - (size - 1))
    return jnp.where(outside <= 0, 1.0, jnp.where(outside < 1, 1.0 - outside, 0.0))


def _mirror(x: jax.Array, period: int) -> jax.Array:
    """Reflects x about 0 and `period`, again and again."""
    x = jnp.mod(x, 2 * period)
    return jnp.where(x > period, 2 * period - x, x)


def _at_least_two(image: jax.Array) -> jax.Array:
    """Repeats a lone row or column, so that every pixel has a neighbor."""
    return jnp.pad(image, [(0, size < 2) for size in image.shape[:2]] + [(0, 0)], mode="edge")


# Three forms of the same interpolation. Measured on CPU, values and slopes are fastest from
# separate reads of the corners, whose transpose is slow; the transpose, the gradient to the image,
# is fastest as one scatter of blocks of 2 x 2 pixels, which is a slow way to read. The custom rule
# joins them, and being a forward-mode rule it leaves every other transformation to JAX.


@jax.custom_jvp
def _interpolate(image: jax.Array, coords: tuple[jax.Array, ...]) -> jax.Array:
    """Values of `image` `[H, W, C]` at `coords` within it: `(x, y)`, or `(x,)` in each row."""
    return _value_and_slopes(image, coords)[0]


def _is_zero(tangent: object) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)


def _interpolate_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    image, coords = primals
    d_image, d_coords = tangents
    value, *slopes = _value_and_slopes(image, coords)
    tangent = jnp.zeros_like(value)
    for slope, d_coord in zip(slopes, d_coords):
        if not _is_zero(d_coord):
            tangent += slope * _to_channels(d_coord, slope.shape[-1])
    if not _is_zero(d_image):
        tangent += _blend(d_image, coords)
    return value, tangent


_interpolate.defjvp(_interpolate_jvp, symbolic_zeros=True)
_interpolate_once = computed_once(_interpolate)


def _to_channels(x: jax.Array, channels: int) -> jax.Array:
    """`x[..., None]`, to multiply all channels with.

    The transpose is a sum over them, and of a few XLA's CPU backend makes one several times as fast
    from slices as by a reduction.
    """
    return jnp.stack([x] * channels, axis=-1) if channels <= 4 else x[..., None]


def _value_and_slopes(image: jax.Array, coords: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """`(v, dv/dx, dv/dy)`, or `(v, dv/dx)` along the rows, from the four or two pixels around."""
    corners, fractions = _cell(image, coords)
    height, width, channels = image.shape
    # A sum, since that is stored: XLA's CPU backend computes products and conversions again for
    # every channel that is read.
    first = jnp.sum(corners * jnp.array([width, 1], jnp.int32), axis=-1, dtype=jnp.int32)
    fx, *fy = (fraction[..., None] for fraction in fractions)
    dtype = jnp.promote_types(image.dtype, fx.dtype)
    pixels = image.reshape(height * width, channels)

    def along_row(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        left, right = (_read(pixels, i).astype(dtype) for i in (index, index + 1))
        return left + fx * (right - left), right - left

    upper, upper_slope = along_row(first)
    if not fy:
        return upper, upper_slope
    lower, lower_slope = along_row(first + width)
    slope_y = lower - upper
    return upper + fy[0] * slope_y, upper_slope + fy[0] * (lower_slope - upper_slope), slope_y


def _read(pixels: jax.Array, index: jax.Array) -> jax.Array:
    return pixels.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


def _blend(image: jax.Array, coords: tuple[jax.Array, ...]) -> jax.Array:
    """The values alone, linear in `image`, whose transpose is one scatter of whole blocks."""
    corners, fractions = _cell(image, coords)
    dtype = jnp.promote_types(image.dtype, fractions[0].dtype)
    hats = [jnp.stack([1 - fraction, fraction], axis=-1) for fraction in fractions]
    weights = hats[0][..., None, :] * (hats[1][..., :, None] if len(hats) == 2 else 1.0)
    block = (len(fractions), 2, image.shape[2])  # two rows, or one
    rank = corners.ndim - 1
    dimensions = lax.GatherDimensionNumbers(
        offset_dims=(rank, rank + 1, rank + 2), collapsed_slice_dims=(), start_index_map=(0, 1)
    )
    # Widened before it is read, so that the transpose adds in full precision.
    blocks = lax.gather(
        image.astype(dtype),
        corners,
        dimensions,
        block,
        mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )
    return jnp.sum(blocks * weights[..., None], axis=(-3, -2))


def _cell(image: jax.Array, coords: tuple[jax.Array, ...]) -> tuple[jax.Array, list[jax.Array]]:
    """`[..., (row, column)]` of the pixel above and left, and the fractions of the way onward."""
    starts = [
        jnp.minimum(c.astype(jnp.int32), size - 2)  # truncation is the floor: none is negative
        for c, size in zip(coords, image.shape[1::-1])
    ]
    fractions = [c - start for c, start in zip(coords, starts)]
    left = starts[0]
    top = starts[1] if len(starts) == 2 else jnp.arange(len(left), dtype=jnp.int32)[:, None]
    return jnp.stack(jnp.broadcast_arrays(top, left), axis=-1), fractions
