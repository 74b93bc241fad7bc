"""Image maths without parameters: filters, resizing, gradients, structural similarity, census."""

import itertools
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sslax import checks
from sslax.ops.calls import computed_once

_BOX3 = (1 / 3, 1 / 3, 1 / 3)


def separable_filter(
    image: jax.Array, taps: Sequence[float], *, padding: str = "reflect"
) -> jax.Array:
    """Filters rows and columns with the same symmetric kernel.

    `out(x, y) = Σ_ij t_i t_j image(x + i, y + j)`

    Args:
        image: `[..., H, W, C]`, floating; H and W at least half the kernel's length plus one.
        taps: the kernel `t`, of odd length and symmetric, in Python floats.
        padding: 'reflect' mirrors about the outermost pixel's center and keeps H and W; 'valid'
            returns only windows that lie inside, `[..., H - n + 1, W - n + 1, C]`.

    Returns:
        The filtered image, float32 (float64 for float64 images).

    Raises:
        ValueError: the kernel is even or asymmetric, or the image is smaller than the kernel needs.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> image = jnp.array([0.0, 3.0, 6.0])[None, :, None] * jnp.ones((3, 1, 1))
        >>> print(ops.separable_filter(image, (0.25, 0.5, 0.25))[0, :, 0])
        [1.5 3.  4.5]
    """
    taps = tuple(float(tap) for tap in taps)
    if len(taps) % 2 == 0 or taps != taps[::-1]:
        raise ValueError(f"taps {taps} must be symmetric and of odd length, or the image moves.")
    return _from_rows(_filter_rows(taps, padding, image.shape[-1], _to_rows(image)), image)


def gaussian_taps(sigma: float, size: int | None = None) -> tuple[float, ...]:
    """The normalized kernel `t_i ∝ exp(-i² / 2σ²)`, by default 4σ to each side."""
    radius = size // 2 if size else max(1, round(4 * sigma))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return tuple((taps / taps.sum()).tolist())


def gaussian_blur(image: jax.Array, *, sigma: float, size: int | None = None) -> jax.Array:
    """Gaussian blur, reflected at the border.

    `out = G_σ * image`, `G_σ(i) ∝ exp(-i² / 2σ²)`

    Args:
        image: `[..., H, W, C]`, floating.
        sigma: standard deviation in pixels.
        size: length of the kernel, odd; by default it reaches 4σ to each side.

    Returns:
        The blurred image in the image's shape and dtype.

    Raises:
        ValueError: `size` is even, or the image is smaller than half the kernel.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> float(ops.gaussian_blur(jnp.full((8, 8, 1), 0.5), sigma=1.0).min().round(3))
        0.5
    """
    if size is not None and size % 2 == 0:
        raise ValueError(f"size is {size}; an even kernel would move the image by half a pixel.")
    return separable_filter(image, gaussian_taps(sigma, size)).astype(image.dtype)


def rgb_to_gray(image: jax.Array) -> jax.Array:
    """Luma of ITU-R BT.601: `0.299 R + 0.587 G + 0.114 B`; a gray image is returned as it is.

    Args:
        image: `[..., 3]` or `[..., 1]`, floating.

    Returns:
        `[..., 1]`, float32 (float64 for float64 images).

    Raises:
        ValueError: the last axis holds neither one nor three channels.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> print(ops.rgb_to_gray(jnp.array([[1.0, 0.0, 0.0]])))
        [[0.299]]
    """
    image = _at_least_float32(image)
    if image.shape[-1] == 1:
        return image
    if image.shape[-1] != 3:
        raise ValueError(f"image has shape {image.shape}; its last axis must be 3 (RGB) or 1.")
    # A sum rather than a matrix product, which some accelerators round to bfloat16.
    return (image * jnp.array([0.299, 0.587, 0.114], image.dtype)).sum(-1, keepdims=True)


def image_gradients(image: jax.Array, *, stride: int = 1) -> tuple[jax.Array, jax.Array]:
    """Forward differences along x and y.

    `dx(x, y) = image(x + s, y) - image(x, y)`, `dy(x, y) = image(x, y + s) - image(x, y)`

    Args:
        image: `[..., H, W, C]`.
        stride: the distance `s` in pixels.

    Returns:
        `dx [..., H, W - s, C]` and `dy [..., H - s, W, C]`.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> dx, dy = ops.image_gradients(jnp.arange(6.0).reshape(2, 3, 1))
        >>> dx[..., 0].tolist(), dy[..., 0].tolist()
        ([[1.0, 1.0], [1.0, 1.0]], [[3.0, 3.0, 3.0]])
    """
    return (
        image[..., stride:, :] - image[..., :-stride, :],
        image[..., stride:, :, :] - image[..., :-stride, :, :],
    )


def resize(image: jax.Array, size: tuple[int, int], *, method: str = "bilinear") -> jax.Array:
    """Resizes so that the outer edges of the image stay where they are.

    Pixel `x` of the result lies at `(x + 1/2) W / w - 1/2` of the image, so intrinsics follow by
    `c -> (c + 1/2) w / W - 1/2`. 'bilinear' interpolates there (no smoothing: alias when it
    shrinks an image); 'area' averages the image over the pixel's footprint.

    Args:
        image: `[..., H, W, C]`, floating. Flow and disparity are in pixels: multiply them by the
            scale yourself.
        size: `(h, w)` of the result.
        method: 'bilinear' or 'area'.

    Returns:
        `[..., h, w, C]` in the image's dtype.

    Raises:
        ValueError: an unknown method.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> image = jnp.array([[0.0, 1.0, 2.0, 3.0]] * 2)[..., None]
        >>> ops.resize(image, (1, 2), method="area")[..., 0].tolist()
        [[0.5, 2.5]]
    """
    if method not in ("bilinear", "area"):
        raise ValueError(f"method is {method!r}; choose 'bilinear' or 'area'.")
    out = _at_least_float32(image)
    out = _resize_axis(out, size[0], out.ndim - 3, method)
    out = _resize_axis(out, size[1], out.ndim - 2, method)
    return out.astype(image.dtype)


def image_pyramid(image: jax.Array, levels: int, *, method: str = "area") -> list[jax.Array]:
    """The image at full, half, quarter, ... resolution.

    Args:
        image: `[..., H, W, C]`.
        levels: how many images, the first one included; level `i` is `[H // 2^i, W // 2^i]`.
        method: as in `resize`.

    Returns:
        A list of `levels` images, finest first.

    Raises:
        ValueError: the image is too small for so many levels.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> [level.shape for level in ops.image_pyramid(jnp.zeros((8, 12, 3)), 3)]
        [(8, 12, 3), (4, 6, 3), (2, 3, 3)]
    """
    height, width = image.shape[-3:-1]
    if min(height, width) >> (levels - 1) == 0:
        raise ValueError(f"a {height} x {width} image has no {levels} levels; ask for fewer.")
    pyramid = [image]
    for _ in range(levels - 1):
        height, width = height // 2, width // 2
        pyramid.append(resize(pyramid[-1], (height, width), method=method))
    return pyramid


def ssim(
    a: jax.Array,
    b: jax.Array,
    *,
    window: str = "box3",
    padding: str = "reflect",
    c1: float = 0.01**2,
    c2: float = 0.03**2,
) -> jax.Array:
    """Structural similarity of two images, per pixel and channel; 1 where they are equal.

    ```
    ssim = (2 μa μb + c1)(2 σab + c2) / ((μa² + μb² + c1)(σa² + σb² + c2))
    ```
    with means and (biased) covariances over a window around each pixel.

    Args:
        a: `[..., H, W, C]` in [0, 1].
        b: the same shape; leading axes broadcast, so that one target meets many reconstructions
            and its own moments are computed once.
        window: 'box3' averages 3 x 3 pixels, as monodepth does; 'gaussian' is the original window
            of 11 x 11 with standard deviation 1.5.
        padding: 'reflect' keeps H and W; 'valid' returns only windows inside the image.
        c1: constant of the means' ratio, `(0.01 L)²` for a range L of 1.
        c2: constant of the covariances' ratio, `(0.03 L)²`.

    Returns:
        `[..., H, W, C]` in [-1, 1], float32 (float64 for float64 images). Differentiable in
        reverse mode.

    Raises:
        ValueError: an unknown window or padding, or an image smaller than the window needs.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> image = jnp.linspace(0, 1, 48).reshape(4, 4, 3)
        >>> float(ops.ssim(image, image).min().round(4))
        1.0

    Wang et al., Image quality assessment: from error visibility to structural similarity, 2004.
    """
    checks.assert_equal_shape_suffix([a, b], 3)
    windows = {"box3": _BOX3, "gaussian": gaussian_taps(1.5, 11)}
    if window not in windows:
        raise ValueError(f"window is {window!r}; choose 'box3' or 'gaussian'.")
    taps, channels = windows[window], a.shape[-1]
    mean = partial(_correlate, taps, channels)
    rows_a, rows_b = (_padded(len(taps), padding, channels, _to_rows(x)) for x in (a, b))
    mean_a, mean_b = mean(rows_a), mean(rows_b)
    product = mean_a * mean_b
    energy = mean_a * mean_a + mean_b * mean_b
    covariance = mean(rows_a * rows_b) - product
    variances = mean(rows_a * rows_a) + mean(rows_b * rows_b) - energy
    similarity = ((2 * product + c1) * (2 * covariance + c2)) / ((energy + c1) * (variances + c2))
    return _from_rows(similarity, a)


def census(image: jax.Array, *, radius: int = 3, softness: float = 0.81) -> jax.Array:
    """Soft census (ternary) transform: each pixel's neighborhood relative to its center.

    ```
    t_o(p) = Δ / sqrt(softness + Δ²),   Δ = 255 (gray(p + o) - gray(p))
    ```
    It does not change when a constant is added to the image, and little when its contrast does.

    Args:
        image: `[..., H, W, C]` in [0, 1], C = 1 or 3.
        radius: the neighborhood is `2 radius + 1` pixels wide.
        softness: in gray levels squared; below its root a difference counts in proportion.

    Returns:
        `[..., H, W, (2 radius + 1)²]` in (-1, 1), rows of offsets first; 0 for neighbors outside
        the image. To compare two images use `losses.census_error`, which never holds this array.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> image = jnp.linspace(0, 1, 25).reshape(5, 5, 1)
        >>> bool(jnp.allclose(ops.census(image), ops.census(image + 0.1), atol=1e-3))
        True

    Zabih and Woodfill, Non-parametric local transforms, ECCV 1994; soft form of Meister et al.,
    UnFlow, AAAI 2018.
    """
    checks.assert_axis_dimension_gt(image, -3, 0)
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


def _at_least_float32(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


# Filters work on rows of W * C values: neighbors are C apart and the inner loop is long, which
# compiles to three times faster code on a CPU than an inner axis of three channels.


def _to_rows(image: jax.Array) -> jax.Array:
    """`[..., H, W, C]` to `[..., H, W * C]`."""
    return _at_least_float32(image).reshape(*image.shape[:-2], -1)


def _from_rows(rows: jax.Array, image: jax.Array) -> jax.Array:
    """The inverse of `_to_rows`, with the number of channels of `image`."""
    return rows.reshape(*rows.shape[:-1], -1, image.shape[-1])


def _filter_rows(taps: tuple[float, ...], padding: str, channels: int, x: jax.Array) -> jax.Array:
    """Filters `[..., H, W * C]` along both axes with symmetric taps."""
    return _correlate(taps, channels, _padded(len(taps), padding, channels, x))


def _padded(size: int, padding: str, channels: int, x: jax.Array) -> jax.Array:
    """What a window of `size` pixels a side is moved over: `x`, with 'reflect' and its borders."""
    radius = size // 2
    if padding not in ("reflect", "valid"):
        raise ValueError(f"padding is {padding!r}; choose 'reflect' or 'valid'.")
    height, width = x.shape[-2], x.shape[-1] // channels
    least = radius + 1 if padding == "reflect" else size
    if min(height, width) < least:
        raise ValueError(f"the image is {height} x {width}; this window needs at least {least}.")
    return _reflect(radius, channels, x) if padding == "reflect" else x


# The transposes that JAX would derive, sums of padded slices, cost several times more than these.


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _correlate(taps: tuple[float, ...], channels: int, x: jax.Array) -> jax.Array:
    height = x.shape[-2] - len(taps) + 1
    width = x.shape[-1] - (len(taps) - 1) * channels
    x = sum(tap * x[..., i : i + height, :] for i, tap in enumerate(taps))
    return sum(tap * x[..., i * channels : i * channels + width] for i, tap in enumerate(taps))


def _correlate_backward(
    taps: tuple[float, ...], channels: int, _: None, g: jax.Array
) -> tuple[jax.Array]:
    reach = len(taps) - 1
    return (_correlate(taps, channels, _zero_borders(g, rows=reach, columns=reach * channels)),)


@partial(computed_once, static_argnames=("rows", "columns"))
def _zero_borders(x: jax.Array, *, rows: int, columns: int) -> jax.Array:
    return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(rows, rows), (columns, columns)])


_correlate.defvjp(
    lambda taps, channels, x: (_correlate(taps, channels, x), None), _correlate_backward
)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _reflect(radius: int, channels: int, x: jax.Array) -> jax.Array:
    """`[..., H, W * C]` with `radius` pixels at every border that mirror the pixels inside."""
    top = [x[..., i : i + 1, :] for i in range(radius, 0, -1)]
    bottom = [x[..., -1 - i : x.shape[-2] - i, :] for i in range(1, radius + 1)]
    x = jnp.concatenate([*top, x, *bottom], axis=-2)
    n = x.shape[-1] // channels
    pixel = lambda i: x[..., i * channels : (i + 1) * channels]  # noqa: E731
    left = [pixel(i) for i in range(radius, 0, -1)]
    right = [pixel(n - 1 - i) for i in range(1, radius + 1)]
    return jnp.concatenate([*left, x, *right], axis=-1)


def _reflect_backward(radius: int, channels: int, _: None, g: jax.Array) -> tuple[jax.Array]:
    def fold(x: jax.Array, step: int, axis: int) -> jax.Array:
        return _add_mirrored(*_split_borders(x, radius * step, axis), step, axis)

    # Borders first, which are small: the inside is then copied once, not for each axis.
    parts = _split_borders(g, radius, g.ndim - 2)
    return (_add_mirrored(*(fold(x, channels, g.ndim - 1) for x in parts), 1, g.ndim - 2),)


def _split_borders(x: jax.Array, border: int, axis: int) -> tuple[jax.Array, ...]:
    size = x.shape[axis]
    cuts = (0, border, size - border, size)
    return tuple(jax.lax.slice_in_dim(x, i, j, axis=axis) for i, j in itertools.pairwise(cuts))


def _add_mirrored(
    first: jax.Array, inside: jax.Array, last: jax.Array, step: int, axis: int
) -> jax.Array:
    """Adds borders to the pixels that they mirror, of `step` entries of the axis each."""
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


def _resize_axis(x: jax.Array, size: int, axis: int, method: str) -> jax.Array:
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


def _upsample_axis(x: jax.Array, factor: int, axis: int) -> jax.Array:
    """Bilinear interpolation by a whole factor: every phase mixes a pixel and one neighbor."""
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
    """`[size, length]`: the share of each output pixel's footprint that an input pixel covers."""
    edges = np.arange(size + 1) * (length / size)
    start, stop = edges[:-1, None], edges[1:, None]
    pixel = np.arange(length)
    overlap = np.minimum(stop, pixel + 1) - np.maximum(start, pixel)
    return np.maximum(overlap, 0) * (size / length)


def _bilinear_weights(length: int, size: int) -> np.ndarray:
    """`[size, length]`: hat functions around the output pixels' positions, clamped to the image."""
    position = (np.arange(size) + 0.5) * (length / size) - 0.5
    position = np.clip(position, 0, length - 1)[:, None]
    return np.maximum(0, 1 - abs(position - np.arange(length)))
