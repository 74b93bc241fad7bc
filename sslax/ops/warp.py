"""Backward and forward warps by bilinear interpolation.

Flow points from the target pixel to its source: the target `p` is read at `p + flow(p)`.

All functions work under `jit`, `vmap`, `grad`, `jvp` and their compositions, inside `shard_map`,
and on arrays sharded over the batch. Gradients with respect to coordinates only need gathers, so
they are deterministic. The gradient with respect to the image is a scatter-add, which is compiled
only if something differentiates with respect to the image; `jax.lax.stop_gradient` on the image
rules it out.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sslax import checks
from sslax.errors import check_choice
from sslax.ops import platforms
from sslax.ops.dtypes import accumulated, accumulation_dtype, at_least_float32
from sslax.ops.no_inline import no_inline
from sslax.types import Array

_PADDINGS = ("border", "zeros", "reflection", "symmetric")


def bilinear_sample(image: Array, coords: Array, *, padding: str = "border") -> tuple[Array, Array]:
    """Samples an image at real-valued coordinates by bilinear interpolation.

    `v(x, y) = Σ_ij image[j, i] max(0, 1 - |x - i|) max(0, 1 - |y - j|)`

    At integer coordinates, where the left and right derivatives differ, the slope is the right one
    (the left one at the last pixel), so zero flow receives a gradient.

    Args:
        image: `[H, W, C]`, floating; interpolated in float32 or wider.
        coords: `[..., 2]`, float32 or wider, `(x, y)` in pixels.
        padding: values outside the image: 'border' repeats the last pixel, 'zeros' is black,
            'reflection' mirrors about the center of the last pixel, 'symmetric' about its outer
            edge.

    Returns:
        Values `[..., C]` in the image's dtype, and `valid` `[...]` (bool): the sample is within
        the outermost pixel centers, `0 <= x <= W - 1` and `0 <= y <= H - 1`. Non-finite
        coordinates are invalid; their values and gradients are finite.

    Raises:
        TypeError: the image has an integer dtype, or the coordinates are half precision or
            integers.
        ValueError: `padding` is unknown.

    Example:
        >>> image = jnp.array([[[0.0], [10.0]], [[20.0], [30.0]]])
        >>> values, valid = bilinear_sample(image, jnp.array([[0.5, 0.0], [1.0, 1.0], [2.0, 0.0]]))
        >>> values[:, 0].tolist(), valid.tolist()
        ([5.0, 30.0, 10.0], [True, True, False])

    Jaderberg et al., "Spatial Transformer Networks", NeurIPS 2015.
    """
    image, coords = jnp.asarray(image), jnp.asarray(coords)
    checks.assert_rank(image, 3)
    checks.assert_axis_dimension(coords, -1, 2)
    if coords.dtype.itemsize < 4 or not jnp.issubdtype(coords.dtype, jnp.floating):
        raise checks.type_error(
            f"{coords.dtype} coordinates are too coarse for pixels; use float32."
        )
    return _sample(image, (coords[..., 0], coords[..., 1]), padding)


def warp_flow(image: Array, flow: Array, *, padding: str = "border") -> tuple[Array, Array]:
    """Backward warp: `out(p) = image(p + flow(p))`.

    Args:
        image: `[B, H, W, C]`, the source, floating.
        flow: `[B, H', W', 2]`, `(x, y)` in pixels, from the target to the source.
        padding: as in `bilinear_sample`.

    Returns:
        The warped image `[B, H', W', C]` in the image's dtype, and `valid` `[B, H', W']` (bool), as
        in `bilinear_sample`.

    Raises:
        TypeError: the image has an integer dtype.
        ValueError: `padding` is unknown.

    Example:
        >>> image = jnp.arange(4.0).reshape(1, 1, 4, 1)
        >>> values, valid = warp_flow(image, jnp.full((1, 1, 4, 2), jnp.array([1.0, 0.0])))
        >>> values[0, 0, :, 0].tolist(), valid[0, 0].tolist()
        ([1.0, 2.0, 3.0, 3.0], [True, True, True, False])
    """
    checks.assert_rank([image, flow], 4)
    checks.assert_equal_shape_prefix([image, flow], 1)
    checks.assert_axis_dimension(flow, -1, 2)
    flow = at_least_float32(flow)
    coords = pixel_grid(*flow.shape[1:3]).astype(flow.dtype) + flow
    return jax.vmap(partial(bilinear_sample, padding=padding))(image, coords)


def warp_disparity(
    image: Array, disparity: Array, *, direction: int = -1, padding: str = "border"
) -> tuple[Array, Array]:
    """Horizontal warp: `out(x, y) = image(x + direction · disparity(x, y), y)`.

    Reads two pixels per output rather than four, and is several times faster than `warp_flow`.

    Args:
        image: `[B, H, W, C]`, the other view, floating.
        disparity: `[B, H, W]` of the target view, positive, in pixels of this resolution.
        direction: -1 warps the right view to the left one, 1 the left view to the right one.
        padding: as in `bilinear_sample`.

    Returns:
        The warped image `[B, H, W, C]` in the image's dtype, and `valid` `[B, H, W]` (bool), False
        where the disparity is unknown (NaN or infinite).

    Raises:
        TypeError: the image has an integer dtype.
        ValueError: `padding` or `direction` is unknown, or the resolutions differ.

    Example:
        >>> right = jnp.arange(4.0).reshape(1, 1, 4, 1)
        >>> left, valid = warp_disparity(right, jnp.ones((1, 1, 4)))
        >>> left[0, 0, :, 0].tolist(), valid[0, 0].tolist()
        ([0.0, 0.0, 1.0, 2.0], [False, True, True, True])

    Godard et al., "Unsupervised Monocular Depth Estimation with Left-Right Consistency", CVPR 2017.
    """
    checks.assert_rank([image, disparity], [4, 3])
    if image.shape[:3] != disparity.shape:
        raise checks.value_error(
            f"the disparity has shape {disparity.shape}, the image {image.shape[:3]}; resize the "
            "disparity and multiply its values by the ratio of the widths."
        )
    if direction not in (-1, 1):
        raise checks.value_error(
            f"direction is {direction}; use -1 to sample at x - d, 1 at x + d."
        )
    disparity = at_least_float32(disparity)
    x = jnp.arange(image.shape[2], dtype=disparity.dtype) + direction * disparity
    return jax.vmap(lambda image, x: _sample(image, (x,), padding))(image, x)


def splat(values: Array, flow: Array) -> Array:
    """Forward warp: adds each value to the four pixels around `p + flow(p)`, with bilinear weights.

    `out(q) = Σ_p values(p) max(0, 1 - |q_x - p_x - flow_x(p)|) max(0, 1 - |q_y - p_y - flow_y(p)|)`

    The adjoint of `warp_flow(..., padding="zeros")`. Values that land outside are dropped.

    Args:
        values: `[B, H, W, C]`, floating; summed in float32 or wider.
        flow: `[B, H, W, 2]`, `(x, y)` in pixels; values with a non-finite flow are dropped.

    Returns:
        Sums `[B, H, W, C]` in the dtype of the values.

    Raises:
        TypeError: the values have an integer dtype.

    Example:
        >>> values = jnp.array([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1)
        >>> splat(values, jnp.full((1, 1, 3, 2), jnp.array([0.5, 0.0])))[0, 0, :, 0].tolist()
        [0.5, 1.5, 3.0]
    """
    checks.assert_rank([values, flow], 4)
    checks.assert_equal_shape_prefix([values, flow], 3)
    checks.assert_axis_dimension(flow, -1, 2)
    checks.assert_floating(values)
    flow = at_least_float32(flow)
    coords = pixel_grid(*flow.shape[1:3]).astype(flow.dtype) + flow

    return jax.vmap(_splat)(values, coords)


def _splat(values: Array, coords: Array) -> Array:
    """`splat` of one example: the transpose of sampling at `coords`."""
    height, width, _ = values.shape
    faded, coords = accumulated(values, coords)
    x, y = coords[..., 0], coords[..., 1]
    faded = faded * (_fade(x, width) * _fade(y, height))[..., None]
    inside = (_into_image(x, width, "zeros"), _into_image(y, height, "zeros"))
    sums = platforms.choose(
        faded, inside, cpu=partial(_add, _SEPARATE), default=partial(_add, _JOINED)
    )
    return sums.astype(values.dtype)


def _add(access: "_Access", values: Array, coords: tuple[Array, ...]) -> Array:
    """The transpose of `_blend`: adds values `[H, W, C]` to the pixels around `coords`."""

    def sample(image: Array) -> Array:
        return _blend(access, _at_least_two(image), coords)

    return jax.linear_transpose(sample, values)(values)[0]


def range_map(flow: Array) -> Array:
    """Range map: how many pixels the flow moves to each pixel, the `splat` of ones.

    Args:
        flow: `[B, H, W, 2]`, `(x, y)` in pixels.

    Returns:
        `[B, H, W]`, float32 or wider: 1 where one pixel lands, 0 where none does. For the flow from
        the second frame to the first, pixels of the first frame where nothing lands are occluded in
        the second.

    Example:
        >>> range_map(jnp.full((1, 1, 4, 2), jnp.array([2.0, 0.0])))[0, 0].tolist()
        [0.0, 0.0, 1.0, 1.0]

    Wang et al., "Occlusion Aware Unsupervised Learning of Optical Flow", CVPR 2018.
    """
    checks.assert_rank(flow, 4)
    flow = at_least_float32(flow)
    return splat(jnp.ones_like(flow[..., :1]), flow)[..., 0]


def pixel_grid(height: int, width: int) -> Array:
    """Coordinates of all pixel centers.

    Args:
        height: number of rows.
        width: number of columns.

    Returns:
        `[height, width, 2]`, `(x, y)` in pixels, float32.

    Raises:
        ValueError: a side is not a positive integer.

    Example:
        >>> pixel_grid(2, 3)[1, 2].tolist()
        [2.0, 1.0]
    """
    checks.assert_size((height, width))
    x = jnp.arange(width, dtype=jnp.float32)
    y = jnp.arange(height, dtype=jnp.float32)
    return jnp.stack(jnp.meshgrid(x, y), axis=-1)


def _sample(image: Array, coords: tuple[Array, ...], padding: str) -> tuple[Array, Array]:
    """Values and `valid` at coordinates `(x, y)`, or at `(x,)` in each row."""
    checks.assert_floating(image)
    check_choice("padding", padding, _PADDINGS)
    sizes = image.shape[1::-1][: len(coords)]  # width, height
    valid = reduce(jnp.logical_and, [(c >= 0) & (c <= size - 1) for c, size in zip(coords, sizes)])
    inside = tuple(_into_image(c, size, padding) for c, size in zip(coords, sizes))
    values = platforms.choose(
        _at_least_two(image),
        inside,
        cpu=_interpolate_separate,
        default=partial(_interpolate, _JOINED),
    )
    if padding == "zeros":
        for c, size in zip(coords, sizes):
            values = values * _repeat_channels(_fade(c, size), image.shape[2])
    return values.astype(image.dtype), valid


def _into_image(x: Array, size: int, padding: str) -> Array:
    """Maps a coordinate into [0, size - 1] according to the padding; NaN to 0, without gradient."""
    last = size - 1
    if padding == "reflection":
        x = _mirror(x, last) if last else jnp.zeros_like(x)
    elif padding == "symmetric":
        x = _mirror(x + 0.5, size) - 0.5
    # Not `clip`, which halves the gradient at exactly 0 and size - 1.
    return jnp.where(x >= 0, jnp.where(x <= last, x, float(last)), 0.0)


def _fade(x: Array, size: int) -> Array:
    """Weight of the nearest pixel with zero padding: falls from 1 to 0 within a pixel outside."""
    outside = jnp.maximum(-x, x - (size - 1))
    return jnp.where(outside <= 0, 1.0, jnp.where(outside < 1, 1.0 - outside, 0.0))


def _mirror(x: Array, period: int) -> Array:
    """Reflects x about 0 and `period` until it lies between them."""
    x = jnp.mod(x, 2 * period)
    return jnp.where(x > period, 2 * period - x, x)


def _at_least_two(image: Array) -> Array:
    """Repeats a single row or column, so that every pixel has a neighbor."""
    return jnp.pad(image, [(0, size < 2) for size in image.shape[:2]] + [(0, 0)], mode="edge")


# The custom derivative combines two implementations of the same interpolation. Values and slopes
# come from the four pixels around a coordinate (`_value_and_slopes`), whose transpose would be four
# scatters; the gradient with respect to the image is one scatter, the transpose of `_blend`. Being
# a forward-mode rule, it leaves all other transformations to JAX.
#
# How the pixels are read and added to (`_Access`) depends on what the code is compiled for. A CPU
# is fastest with a gather for each of the four and a scatter of blocks of 2 x 2 pixels. On TPU such
# a scatter becomes a loop over all samples, and gathers and scatters cost by the index: there the
# image is first joined with copies of itself, shifted by a pixel, so that one index reads, or adds
# to, all four.


class _Access(NamedTuple):
    """How the pixels of cells, 2 x 2 or 1 x 2, are accessed.

    Attributes:
        read: `(image, corners, rows) -> pixels`: of each cell in reading order, `[..., C]` each.
        blend: `(image, corners, weights) -> sums` of the pixels with weights `[..., rows, 2]`.
    """

    read: Callable[[Array, Array, int], tuple[Array, ...]]
    blend: Callable[[Array, Array, Array], Array]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _interpolate(access: _Access, image: Array, coords: tuple[Array, ...]) -> Array:
    """Values of `image` `[H, W, C]` at coordinates inside it: `(x, y)`, or `(x,)` in each row."""
    return _value_and_slopes(access, image, coords)[0]


def _is_zero(tangent: object) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)


def _interpolate_jvp(access: _Access, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    image, coords = primals
    d_image, d_coords = tangents
    value, *slopes = _value_and_slopes(access, image, coords)
    tangent = jnp.zeros_like(value)
    for slope, d_coord in zip(slopes, d_coords):
        if not _is_zero(d_coord):
            tangent += slope * _repeat_channels(d_coord, slope.shape[-1])
    if not _is_zero(d_image):
        tangent += _blend(access, d_image, coords)
    return value, tangent


_interpolate.defjvp(_interpolate_jvp, symbolic_zeros=True)


def _repeat_channels(x: Array, channels: int) -> Array:
    """`x[..., None]`, to be multiplied with all channels.

    The transpose is a sum over channels; for a few of them XLA's CPU backend is several times
    faster with slices than with a reduction.
    """
    return jnp.stack([x] * channels, axis=-1) if channels <= 4 else x[..., None]


def _value_and_slopes(
    access: _Access, image: Array, coords: tuple[Array, ...]
) -> tuple[Array, ...]:
    """`(v, dv/dx, dv/dy)` from four pixels, or `(v, dv/dx)` from two pixels of each row."""
    corners, fractions = _cell(image, coords)
    fx, *fy = (fraction[..., None] for fraction in fractions)
    dtype = accumulation_dtype(image, fx)
    pixels = access.read(image, corners, len(fractions))
    left, right, *lower = (x.astype(dtype) for x in pixels)
    upper, upper_slope = left + fx * (right - left), right - left
    if not lower:
        return upper, upper_slope
    left, right = lower
    lower_slope = right - left
    slope_y = left + fx * lower_slope - upper
    return upper + fy[0] * slope_y, upper_slope + fy[0] * (lower_slope - upper_slope), slope_y


def _blend(access: _Access, image: Array, coords: tuple[Array, ...]) -> Array:
    """The values alone, linear in `image`; the transpose is one scatter."""
    corners, fractions = _cell(image, coords)
    dtype = accumulation_dtype(image, *fractions)
    hats = [jnp.stack([1 - fraction, fraction], axis=-1) for fraction in fractions]
    weights = hats[0][..., None, :] * (hats[1][..., :, None] if len(hats) == 2 else 1.0)
    # Widened before it is read, so that the transpose adds in full precision.
    return access.blend(image.astype(dtype), corners, weights)


def _cell(image: Array, coords: tuple[Array, ...]) -> tuple[Array, list[Array]]:
    """`[..., (row, column)]` of the pixel at the top left, and the fractional offsets from it."""
    starts = [
        jnp.minimum(c.astype(jnp.int32), size - 2)  # truncation equals floor: none is negative
        for c, size in zip(coords, image.shape[1::-1])
    ]
    fractions = [c - start.astype(c.dtype) for c, start in zip(coords, starts)]
    left = starts[0]
    top = starts[1] if len(starts) == 2 else jnp.arange(len(left), dtype=jnp.int32)[:, None]
    return jnp.stack(jnp.broadcast_arrays(top, left), axis=-1), fractions


def _read_separately(image: Array, corners: Array, rows: int) -> tuple[Array, ...]:
    """A gather for each pixel of a cell."""
    height, width, channels = image.shape
    # A sum, because XLA's CPU backend stores it; it would recompute products and conversions for
    # every channel.
    first = jnp.sum(corners * jnp.array([width, 1], jnp.int32), axis=-1, dtype=jnp.int32)
    pixels = image.reshape(height * width, channels)
    offsets = [row * width + column for row in range(rows) for column in range(2)]
    return tuple(
        pixels.at[first + offset].get(mode="promise_in_bounds", wrap_negative_indices=False)
        for offset in offsets
    )


def _blend_blocks(image: Array, corners: Array, weights: Array) -> Array:
    """One gather of cells, whose transpose is one scatter of cells."""
    rank = corners.ndim - 1
    dimensions = lax.GatherDimensionNumbers(
        offset_dims=(rank, rank + 1, rank + 2), collapsed_slice_dims=(), start_index_map=(0, 1)
    )
    block = (*weights.shape[-2:], image.shape[2])
    mode = lax.GatherScatterMode.PROMISE_IN_BOUNDS
    blocks = lax.gather(image, corners, dimensions, block, mode=mode)
    return jnp.sum(blocks * weights[..., None], axis=(-3, -2))


def _read_joined(image: Array, corners: Array, rows: int) -> tuple[Array, ...]:
    """One gather from the image joined with its shifted copies: a cell is a pixel of that."""
    height, width, _ = image.shape
    padded = jnp.pad(image, ((0, rows - 1), (0, 1), (0, 0)))
    shifted = [padded[y : y + height, x : x + width] for y in range(rows) for x in range(2)]
    joined = jnp.concatenate(shifted, axis=-1)
    cells = joined.at[corners[..., 0], corners[..., 1]].get(
        mode="promise_in_bounds", wrap_negative_indices=False
    )
    return tuple(jnp.split(cells, 2 * rows, axis=-1))


def _blend_joined(image: Array, corners: Array, weights: Array) -> Array:
    """The pixels of `_read_joined`, weighted."""
    rows = weights.shape[-2]
    pixels = _read_joined(image, corners, rows)
    terms = [weights[..., y, x, None] for y in range(rows) for x in range(2)]
    return reduce(jnp.add, [pixel * weight for pixel, weight in zip(pixels, terms)])


_SEPARATE = _Access(_read_separately, _blend_blocks)
_JOINED = _Access(_read_joined, _blend_joined)

_interpolate_separate = no_inline(partial(_interpolate, _SEPARATE))
