"""Image processing: filters, resizing, gradients, structural similarity, the census transform."""

import functools
import itertools
import operator
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sslax import checks
from sslax.errors import check_choice
from sslax.ops.dtypes import accumulated, at_least_float32
from sslax.ops.no_inline import no_inline
from sslax.types import Array

_BOX3 = (1 / 3, 1 / 3, 1 / 3)


def separable_filter(image: Array, kernel: Sequence[float], *, padding: str = "reflect") -> Array:
    """Filters rows and columns with the same symmetric 1D kernel.

    `out(x, y) = Σ_ij k_i k_j image(x + i, y + j)`

    Args:
        image: `[..., H, W, C]`, floating.
        kernel: `k`, n Python floats, n odd, symmetric.
        padding: 'reflect' mirrors about the center of the outermost pixel and keeps H and W;
            'valid' keeps only the windows inside the image, `[..., H - n + 1, W - n + 1, C]`.

    Returns:
        The filtered image, float32 or wider. Differentiable in reverse mode only.

    Raises:
        ValueError: the kernel has even length or is asymmetric, the image is smaller than the
            kernel needs, or `padding` is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> image = jnp.array([0.0, 3.0, 6.0])[None, :, None] * jnp.ones((3, 1, 1))
        >>> print(ops.separable_filter(image, (0.25, 0.5, 0.25))[0, :, 0])
        [1.5 3.  4.5]
    """
    taps = tuple(float(tap) for tap in kernel)
    if len(taps) % 2 == 0 or taps != taps[::-1]:
        raise checks.value_error(
            f"kernel must be symmetric and of odd length, or it shifts; got {taps}."
        )
    rows = _pad_for_window(len(taps), padding, image.shape[-1], _to_rows(image))
    return _from_rows(_correlate(taps, image.shape[-1], rows), image)


def gaussian_kernel(sigma: float, size: int | None = None) -> tuple[float, ...]:
    """Normalized 1D Gaussian kernel `k_i ∝ exp(-i² / 2σ²)`.

    Args:
        sigma: σ in pixels.
        size: length of the kernel, odd; by default it reaches 4σ to each side.

    Returns:
        The kernel as Python floats, for `separable_filter`.

    Raises:
        ValueError: `sigma` or `size` is not positive, or `size` is even.

    Example:
        >>> from sslax import ops
        >>> [round(tap, 3) for tap in ops.gaussian_kernel(1.0, size=3)]
        [0.274, 0.452, 0.274]
    """
    checks.assert_positive(sigma=sigma)
    if size is not None and (size < 1 or size % 2 == 0):
        raise checks.value_error(
            f"size must be odd and positive, or the kernel shifts; got {size}."
        )
    radius = max(1, round(4 * sigma)) if size is None else size // 2
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return tuple((kernel / kernel.sum()).tolist())


def gaussian_blur(image: Array, *, sigma: float, size: int | None = None) -> Array:
    """Gaussian blur with reflected borders.

    `out = G_σ * image`, `G_σ(i) ∝ exp(-i² / 2σ²)`

    Args:
        image: `[..., H, W, C]`, floating.
        sigma: standard deviation in pixels.
        size: length of the kernel, odd; by default it reaches 4σ to each side.

    Returns:
        The blurred image in the image's shape and dtype. Differentiable in reverse mode only.

    Raises:
        ValueError: `sigma` is not positive, `size` is even, or the image is smaller than the kernel
            needs.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> float(ops.gaussian_blur(jnp.full((8, 8, 1), 0.5), sigma=1.0).min().round(3))
        0.5
    """
    return separable_filter(image, gaussian_kernel(sigma, size)).astype(image.dtype)


def rgb_to_gray(image: Array) -> Array:
    """Luma of ITU-R BT.601: `0.299 R + 0.587 G + 0.114 B`; a gray image is returned unchanged.

    Args:
        image: `[..., 3]` or `[..., 1]`, floating.

    Returns:
        `[..., 1]`, float32 or wider.

    Raises:
        ValueError: the last axis has neither one nor three channels.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> print(ops.rgb_to_gray(jnp.array([[1.0, 0.0, 0.0]])))
        [[0.299]]
    """
    image = at_least_float32(image)
    if image.shape[-1] == 1:
        return image
    if image.shape[-1] != 3:
        raise checks.value_error(
            f"image has shape {image.shape}; its last axis must be 3 (RGB) or 1."
        )
    # A sum rather than a matrix product, which some accelerators round to bfloat16.
    return (image * jnp.array([0.299, 0.587, 0.114], image.dtype)).sum(-1, keepdims=True)


def image_gradients(image: Array, *, stride: int = 1) -> tuple[Array, Array]:
    """Forward differences along x and y.

    `dx(x, y) = image(x + s, y) - image(x, y)`, `dy(x, y) = image(x, y + s) - image(x, y)`

    Args:
        image: `[..., H, W, C]`.
        stride: the distance `s`, in pixels.

    Returns:
        `dx [..., H, W - s, C]` and `dy [..., H - s, W, C]`.

    Raises:
        ValueError: `stride` is not positive, or the image is not larger.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> dx, dy = ops.image_gradients(jnp.arange(6.0).reshape(2, 3, 1))
        >>> dx[..., 0].tolist(), dy[..., 0].tolist()
        ([[1.0, 1.0], [1.0, 1.0]], [[3.0, 3.0, 3.0]])
    """
    if not 1 <= stride < min(image.shape[-3:-1]):
        raise checks.value_error(
            f"stride is {stride}; it must be positive and smaller than the image's sides, "
            f"{image.shape[-3:-1]}."
        )
    return (
        image[..., stride:, :] - image[..., :-stride, :],
        image[..., stride:, :, :] - image[..., :-stride, :, :],
    )


def resize(image: Array, size: tuple[int, int], *, method: str = "bilinear") -> Array:
    """Resizes an image with its outer edges fixed (`align_corners=False`).

    Pixel `x` of the result is at `(x + 1/2) W / w - 1/2` in the image, so intrinsics change as
    `c → (c + 1/2) w / W - 1/2` (`resize_intrinsics`). 'bilinear' interpolates there, without
    antialiasing; 'area' averages the image over the footprint of the pixel.

    Args:
        image: `[..., H, W, C]`, floating. The values of flow and disparity, which are in pixels,
            are not rescaled.
        size: `(h, w)` of the result.
        method: 'bilinear' or 'area'.

    Returns:
        `[..., h, w, C]` in the image's dtype.

    Raises:
        TypeError: the image has an integer dtype.
        ValueError: `method` is unknown, or `size` is not two positive integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> image = jnp.array([[0.0, 1.0, 2.0, 3.0]] * 2)[..., None]
        >>> ops.resize(image, (1, 2), method="area")[..., 0].tolist()
        [[0.5, 2.5]]
    """
    check_choice("method", method, ("bilinear", "area"))
    checks.assert_size(size)
    checks.assert_floating(image)
    out = at_least_float32(image)
    out = _resize_axis(out, size[0], out.ndim - 3, method)
    out = _resize_axis(out, size[1], out.ndim - 2, method)
    return out.astype(image.dtype)


def image_pyramid(image: Array, levels: int, *, method: str = "area") -> list[Array]:
    """The image at full, half, quarter, ... resolution.

    Args:
        image: `[..., H, W, C]`.
        levels: number of images including the full-resolution one; level `i` has size
            `(H // 2^i, W // 2^i)`.
        method: as in `resize`.

    Returns:
        A list of `levels` images, finest first.

    Raises:
        ValueError: the image is too small for that many levels, or there are none.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> [level.shape for level in ops.image_pyramid(jnp.zeros((8, 12, 3)), 3)]
        [(8, 12, 3), (4, 6, 3), (2, 3, 3)]
    """
    height, width = image.shape[-3:-1]
    if levels < 1:
        raise checks.value_error(f"levels must be at least 1; got {levels}.")
    if min(height, width) >> (levels - 1) == 0:
        raise checks.value_error(f"a {height} x {width} image is too small for {levels} levels.")
    pyramid = [image]
    for _ in range(levels - 1):
        height, width = height // 2, width // 2
        pyramid.append(resize(pyramid[-1], (height, width), method=method))
    return pyramid


def ssim(
    a: Array,
    b: Array,
    *,
    window: str = "box3",
    padding: str = "reflect",
    c1: float = 0.01**2,
    c2: float = 0.03**2,
) -> Array:
    """Structural similarity of two images, per pixel and channel; 1 where they are equal.

    ```
    ssim = (2 μa μb + c1)(2 σab + c2) / ((μa² + μb² + c1)(σa² + σb² + c2))
    ```
    with means `μ` and (biased) covariances `σ` over a window around each pixel.

    Args:
        a: `[..., H, W, C]` in [0, 1].
        b: the same shape; further leading axes broadcast, so one target can be compared with many
            reconstructions while its moments are computed once. The numbers of examples are equal.
        window: 'box3' averages 3 x 3 pixels, as in monodepth; 'gaussian' is the original 11 x 11
            window with a standard deviation of 1.5.
        padding: 'reflect' keeps H and W; 'valid' keeps only the windows inside the image.
        c1: stabilizes the ratio of the means, `(0.01 L)²` for a range L of 1.
        c2: stabilizes the ratio of the covariances, `(0.03 L)²`.

    Returns:
        `[..., H, W, C]` in [-1, 1], float32 or wider. Differentiable in reverse mode only.

    Raises:
        AssertionError: sizes, channels or numbers of examples differ.
        ValueError: `window` or `padding` is unknown, or the image is smaller than the window needs.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> image = jnp.linspace(0, 1, 48).reshape(4, 4, 3)
        >>> float(ops.ssim(image, image).min().round(4))
        1.0

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE
    TIP 2004.
    """
    checks.assert_same_examples(a, b, 3)
    a, b = accumulated(a, b)
    windows = {"box3": _BOX3, "gaussian": gaussian_kernel(1.5, 11)}
    check_choice("window", window, windows)
    taps, channels = windows[window], a.shape[-1]
    mean = partial(_correlate, taps, channels)
    rows_a, rows_b = (_pad_for_window(len(taps), padding, channels, _to_rows(x)) for x in (a, b))
    mean_a, mean_b = mean(rows_a), mean(rows_b)
    product = mean_a * mean_b
    energy = mean_a * mean_a + mean_b * mean_b
    covariance = mean(rows_a * rows_b) - product
    variances = mean(rows_a * rows_a) + mean(rows_b * rows_b) - energy
    similarity = ((2 * product + c1) * (2 * covariance + c2)) / ((energy + c1) * (variances + c2))
    return _from_rows(similarity, a)


def census_transform(image: Array, *, radius: int = 3, softness: float = 0.81) -> Array:
    """Soft census (ternary) transform: each pixel's neighborhood relative to its center.

    ```
    t_o(p) = Δ / sqrt(softness + Δ²),   Δ = 255 (gray(p + o) - gray(p))
    ```
    Invariant to additive brightness changes, and nearly invariant to contrast changes.

    Args:
        image: `[..., H, W, C]` in [0, 1], C = 1 or 3.
        radius: the neighborhood is `2 radius + 1` pixels wide.
        softness: in gray levels squared; differences well below its square root stay proportional.

    Returns:
        `[..., H, W, (2 radius + 1)²]` in (-1, 1), offsets in row-major order; 0 for neighbors
        outside the image. To compare two images use `losses.census_error`, which does not
        materialize this array.

    Raises:
        TypeError: the image has an integer dtype.
        ValueError: `radius` or `softness` is not positive, or the image has another range than
            [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> image = jnp.linspace(0, 1, 25).reshape(5, 5, 1)
        >>> dark, bright = ops.census_transform(image), ops.census_transform(image + 0.1)
        >>> bool(jnp.allclose(dark, bright, atol=1e-3))
        True

    Zabih and Woodfill, "Non-parametric Local Transforms for Computing Visual Correspondence", ECCV
    1994; soft form: Meister et al., "UnFlow", AAAI 2018.
    """
    checks.assert_axis_dimension_gt(image, -3, 0)
    checks.assert_unit_range(image)
    if radius < 1:
        raise checks.value_error(f"radius must be at least 1; got {radius}.")
    checks.assert_positive(softness=softness)
    gray = 255 * rgb_to_gray(image)[..., 0]
    height, width = gray.shape[-2:]
    borders = [(0, 0)] * (gray.ndim - 2) + [(radius, radius)] * 2
    padded = jnp.pad(gray, borders)
    inside = jnp.pad(jnp.ones((height, width), gray.dtype), borders[-2:])
    planes = []
    for y, x in np.ndindex(2 * radius + 1, 2 * radius + 1):
        here = (..., slice(y, y + height), slice(x, x + width))
        difference = padded[here] - gray
        planes.append(inside[here] * difference * jax.lax.rsqrt(softness + difference**2))
    return jnp.stack(planes, axis=-1)


# Filters work on rows of W * C values, in which neighbors are C apart: the inner loop is long, and
# the compiled code three times faster on a CPU than with an inner axis of three channels.


def _to_rows(image: Array) -> Array:
    """`[..., H, W, C]` to `[..., H, W * C]`."""
    return at_least_float32(image).reshape(*image.shape[:-2], -1)


def _from_rows(rows: Array, image: Array) -> Array:
    """The inverse of `_to_rows`, with the number of channels of `image`."""
    return rows.reshape(*rows.shape[:-1], -1, image.shape[-1])


def _pad_for_window(size: int, padding: str, channels: int, x: Array) -> Array:
    """Rows `[..., H, W * C]`, padded for a window of `size` x `size` pixels."""
    check_choice("padding", padding, ("reflect", "valid"))
    radius = size // 2
    height, width = x.shape[-2], x.shape[-1] // channels
    least = radius + 1 if padding == "reflect" else size
    if min(height, width) < least:
        raise checks.value_error(
            f"the image is {height} x {width}; this window needs at least {least}."
        )
    return _reflect(radius, channels, x) if padding == "reflect" else x


# The transposes that JAX would derive for these, sums of padded slices, are several times slower.


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _correlate(taps: tuple[float, ...], channels: int, x: Array) -> Array:
    """Filters `[..., H, W * C]` along both axes with symmetric taps, without padding."""
    height = x.shape[-2] - len(taps) + 1
    width = x.shape[-1] - (len(taps) - 1) * channels
    rows = _sum([tap * x[..., i : i + height, :] for i, tap in enumerate(taps)])
    starts = [i * channels for i in range(len(taps))]
    return _sum([tap * rows[..., i : i + width] for i, tap in zip(starts, taps)])


def _sum(terms: Sequence[Array]) -> Array:
    return functools.reduce(operator.add, terms)


def _correlate_backward(taps: tuple[float, ...], channels: int, _: None, g: Array) -> tuple[Array]:
    reach = len(taps) - 1
    return (_correlate(taps, channels, _zero_borders(g, rows=reach, columns=reach * channels)),)


@partial(no_inline, static_argnames=("rows", "columns"))
def _zero_borders(x: Array, *, rows: int, columns: int) -> Array:
    return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(rows, rows), (columns, columns)])


_correlate.defvjp(
    lambda taps, channels, x: (_correlate(taps, channels, x), None), _correlate_backward
)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _reflect(radius: int, channels: int, x: Array) -> Array:
    """Adds `radius` pixels to every border of `[..., H, W * C]` that mirror the pixels inside."""
    top = [x[..., i : i + 1, :] for i in range(radius, 0, -1)]
    bottom = [x[..., -1 - i : x.shape[-2] - i, :] for i in range(1, radius + 1)]
    x = jnp.concatenate([*top, x, *bottom], axis=-2)
    n = x.shape[-1] // channels
    pixel = lambda i: x[..., i * channels : (i + 1) * channels]  # noqa: E731
    left = [pixel(i) for i in range(radius, 0, -1)]
    right = [pixel(n - 1 - i) for i in range(1, radius + 1)]
    return jnp.concatenate([*left, x, *right], axis=-1)


def _reflect_backward(radius: int, channels: int, _: None, g: Array) -> tuple[Array]:
    def fold_columns(x: Array) -> Array:
        return _fold_borders(_split_borders(x, radius * channels, x.ndim - 1), channels, x.ndim - 1)

    # Splitting the rows first copies the interior once rather than once per axis.
    parts = [fold_columns(x) for x in _split_borders(g, radius, g.ndim - 2)]
    return (_fold_borders(parts, 1, g.ndim - 2),)


def _split_borders(x: Array, border: int, axis: int) -> list[Array]:
    """The first border, the interior and the last border along an axis."""
    size = x.shape[axis]
    cuts = (0, border, size - border, size)
    return [jax.lax.slice_in_dim(x, i, j, axis=axis) for i, j in itertools.pairwise(cuts)]


def _fold_borders(parts: Sequence[Array], step: int, axis: int) -> Array:
    """Adds the two borders to the interior pixels they mirror; a pixel has `step` entries."""
    first, inside, last = parts
    border, size = first.shape[axis], inside.shape[axis]
    for part, start in ((first, step), (last, size - step - border)):
        pixels = jnp.split(part, border // step, axis)
        mirrored = jnp.concatenate(pixels[::-1], axis)
        mirrored += jax.lax.slice_in_dim(inside, start, start + border, axis=axis)
        inside = jax.lax.dynamic_update_slice_in_dim(inside, mirrored, start, axis)
    return inside


_reflect.defvjp(
    lambda radius, channels, x: (_reflect(radius, channels, x), None), _reflect_backward
)


def _resize_axis(x: Array, size: int, axis: int, method: str) -> Array:
    length = x.shape[axis]
    if size == length:
        return x
    if method == "area" and length % size == 0:
        shape = (*x.shape[:axis], size, length // size, *x.shape[axis + 1 :])
        return x.reshape(shape).mean(axis + 1)
    if method == "bilinear" and size % length == 0:
        return _upsample_axis(x, size // length, axis)
    matrix = (_area_weights if method == "area" else _bilinear_weights)(length, size)
    out = jnp.tensordot(x, matrix.astype(x.dtype), (axis, 1), precision="highest")
    return jnp.moveaxis(out, -1, axis)


def _upsample_axis(x: Array, factor: int, axis: int) -> Array:
    """Bilinear upsampling by an integer factor: each phase blends a pixel with one neighbor."""
    n = x.shape[axis]
    slices = partial(jax.lax.slice_in_dim, x, axis=axis)
    before = jnp.concatenate([slices(0, 1), slices(0, n - 1)], axis)
    after = jnp.concatenate([slices(1, n), slices(n - 1, n)], axis)
    phases = []
    for phase in range(factor):
        offset = (phase + 0.5) / factor - 0.5
        phases.append(x + abs(offset) * ((after if offset > 0 else before) - x))
    shape = (*x.shape[:axis], n * factor, *x.shape[axis + 1 :])
    return jnp.stack(phases, axis + 1).reshape(shape)


def _area_weights(length: int, size: int) -> np.ndarray:
    """`[size, length]`: the fraction of an output pixel's footprint that an input pixel covers."""
    edges = np.arange(size + 1) * (length / size)
    start, stop = edges[:-1, None], edges[1:, None]
    pixel = np.arange(length)
    overlap = np.minimum(stop, pixel + 1) - np.maximum(start, pixel)
    return np.maximum(overlap, 0) * (size / length)


def _bilinear_weights(length: int, size: int) -> np.ndarray:
    """`[size, length]`: hat functions at the output pixels' positions, clamped to the image."""
    position = (np.arange(size) + 0.5) * (length / size) - 0.5
    position = np.clip(position, 0, length - 1)[:, None]
    return np.maximum(0, 1 - abs(position - np.arange(length)))
