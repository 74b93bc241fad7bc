"""CIE Lab, and its ab plane as a set of classes: what colorisation predicts."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sslax import checks

Array = jax.Array

# Linear sRGB to CIE XYZ, D65 and 2 degrees: ITU-R BT.709's primaries, and the white point.
_XYZ_OF_RGB = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
_RGB_OF_XYZ = np.linalg.inv(_XYZ_OF_RGB)
_WHITE = (0.95047, 1.0, 1.08883)
_SRGB_KINK = 0.04045  # below it, sRGB is linear
_LAB_KINK = 6 / 29  # cube root of the ratio below which Lab is linear
_LAB_SLOPE = (29 / 6) ** 2 / 3


def _floating(array: Array) -> Array:
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"Expected floats, got {array.dtype}; bytes are images in [0, 1] times 255."
        )
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def _mix(matrix: np.ndarray, channels: list[Any]) -> list[Any]:
    # Sums rather than a matrix product, which some accelerators round to bfloat16.
    return [sum(float(m) * c for m, c in zip(row, channels)) for row in matrix]


def _to_lab(rgb: Any, xp: ModuleType) -> Any:
    """`rgb_to_lab` in NumPy or `jax.numpy`."""
    # Powers and roots are taken of the kink below it: there their slopes are not used, but one that
    # is infinite, or NaN, would make the gradient NaN all the same.
    curve = ((xp.maximum(rgb, _SRGB_KINK) + 0.055) / 1.055) ** 2.4
    linear = xp.where(rgb > _SRGB_KINK, curve, rgb / 12.92)
    xyz = _mix(_XYZ_OF_RGB, [linear[..., c] for c in range(3)])

    def respond(value: Any, white: float) -> Any:
        ratio = value / white
        root = xp.cbrt(xp.maximum(ratio, _LAB_KINK**3))
        return xp.where(ratio > _LAB_KINK**3, root, _LAB_SLOPE * ratio + 4 / 29)

    x, y, z = (respond(value, white) for value, white in zip(xyz, _WHITE))
    return xp.stack([116 * (y - 4 / 29), 500 * (x - y), 200 * (y - z)], -1)


def rgb_to_lab(image: Array) -> Array:
    """CIE 1976 L*a*b* of sRGB, with the D65 white point.

    ```
    L = 116 f(Y/Yn) - 16,   a = 500 (f(X/Xn) - f(Y/Yn)),   b = 200 (f(Y/Yn) - f(Z/Zn))
    f(t) = t^(1/3), linear below (6/29)^3
    ```
    of the linear XYZ of the image. Gradients are finite everywhere, at black too.

    Args:
        image: `[..., 3]`, floating, sRGB in [0, 1].

    Returns:
        `[..., 3]`, float32 (float64 for float64 images): lightness L in [0, 100]; a (green to
        magenta) and b (blue to yellow), about -108 to 99. Grays lie within 0.01 of a = b = 0.

    Raises:
        TypeError: the image holds integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> print(ops.rgb_to_lab(jnp.array([1.0, 0.0, 0.0])).astype(int))
        [53 80 67]
    """
    checks.assert_axis_dimension(image, -1, 3)
    return _to_lab(_floating(image), jnp)


def lab_to_rgb(lab: Array) -> Array:
    """sRGB of CIE 1976 L*a*b*, the inverse of `rgb_to_lab`.

    Args:
        lab: `[..., 3]`, floating.

    Returns:
        `[..., 3]`, float32 (float64 for float64 arrays) in [0, 1]. Channels of colors that sRGB
        does not have are clipped, and have no gradient there.

    Raises:
        TypeError: the array holds integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> print(ops.lab_to_rgb(jnp.array([50.0, 0.0, 0.0])).round(2))
        [0.47 0.47 0.47]
    """
    checks.assert_axis_dimension(lab, -1, 3)
    lab = _floating(lab)
    y = (lab[..., 0] + 16) / 116
    responses = [y + lab[..., 1] / 500, y, y - lab[..., 2] / 200]
    xyz = [
        white * jnp.where(f > _LAB_KINK, f**3, (f - 4 / 29) / _LAB_SLOPE)
        for f, white in zip(responses, _WHITE)
    ]
    linear = jnp.stack(_mix(_RGB_OF_XYZ, xyz), -1)
    kink = _SRGB_KINK / 12.92
    curve = 1.055 * jnp.maximum(linear, kink) ** (1 / 2.4) - 0.055
    return jnp.clip(jnp.where(linear > kink, curve, 12.92 * linear), 0, 1)


def in_gamut_ab_bins(*, step: float = 10.0) -> np.ndarray:
    """Centers of the bins of the ab plane into which some 8-bit sRGB color falls.

    The bins are squares with centers at the multiples of `step`, so every color of an image lies
    in a bin of the table, at most ``step / 2`` from its center along a and along b.

    A step of 10 gives 261 bins (229 of them have an sRGB color at the very center). Zhang et al.
    count 313: their published list, whose rule they do not state, must reach beyond the gamut
    (there are 303 bins with a color within a whole step of the center). Bins without a color are
    next to never a target, so the tasks differ in outputs that stay unused.

    Args:
        step: side of a bin, in units of Lab.

    Returns:
        `[Q, 2]` float32, on the host: (a, b) of each center, in increasing order of a, then b.

    Raises:
        ValueError: `step` is not positive.

    Example:
        >>> from sslax import ops
        >>> ops.in_gamut_ab_bins(step=10).shape
        (261, 2)

    Zhang, Isola and Efros, Colorful image colorization, ECCV 2016.
    """
    if step <= 0:
        raise ValueError(f"step is the side of a bin, positive; got {step}.")
    # The map from RGB to Lab is continuous and invertible, so whatever the cube of colors covers
    # of the ab plane, its six faces cover.
    levels = np.linspace(0, 1, 256)
    first, second = (x.ravel() for x in np.meshgrid(levels, levels))
    faces = [
        np.insert(np.stack([first, second], -1), axis, level, axis=-1)
        for axis in range(3)
        for level in (0.0, 1.0)
    ]
    ab = _to_lab(np.concatenate(faces), np)[:, 1:]
    return (step * np.unique(np.floor(ab / step + 0.5), axis=0)).astype(np.float32)


def _squared_distances(ab: Array, bins: Array) -> Array:
    """`[..., Q]` squared distances of `[..., 2]` colors to `[Q, 2]` bins."""
    ab = _floating(ab)
    bins = jnp.asarray(bins, ab.dtype)
    # One coordinate at a time, in which the differences are exact, unlike |x|^2 - 2 x y + |y|^2.
    return sum((ab[..., c, None] - bins[:, c]) ** 2 for c in range(2))


def soft_encode_ab(ab: Array, bins: Array, *, neighbors: int = 10, sigma: float = 5.0) -> Array:
    """Soft targets of colors: shares of their nearest bins.

    ```
    p_q ∝ exp(-|ab - bins_q|^2 / (2 σ^2))   for the K nearest bins, 0 elsewhere;   Σ_q p_q = 1
    ```
    Takes `[..., Q]` floats: 1 GB for the colors of 256 images of 56 x 56, a quarter of 224.

    Args:
        ab: `[..., 2]`, floating, (a, b) of each color.
        bins: `[Q, 2]`, as `in_gamut_ab_bins` gives them.
        neighbors: K; the paper says 5, its released code takes 10. Of equally near ones those that
            come first.
        sigma: of the Gaussian, in units of Lab.

    Returns:
        `[..., Q]`, float32 (float64 for float64 colors).

    Raises:
        ValueError: `neighbors` is not in 1, ..., Q, or `sigma` not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> bins = jnp.array([[0.0, 0.0], [10.0, 0.0], [50.0, 0.0]])
        >>> print(ops.soft_encode_ab(jnp.array([5.0, 0.0]), bins, neighbors=2))
        [0.5 0.5 0. ]

    Zhang, Isola and Efros, Colorful image colorization, ECCV 2016.
    """
    checks.assert_axis_dimension(ab, -1, 2)
    checks.assert_shape(bins, (None, 2))
    if not 1 <= neighbors <= len(bins):
        raise ValueError(f"neighbors must be in 1, ..., {len(bins)}, the bins; got {neighbors}.")
    if sigma <= 0:
        raise ValueError(f"sigma must be positive, got {sigma}.")
    closeness, nearest = jax.lax.top_k(-_squared_distances(ab, bins), neighbors)
    shares = jax.nn.softmax(closeness / (2 * sigma**2), axis=-1)
    empty = jnp.zeros((*ab.shape[:-1], len(bins)), shares.dtype)
    return jnp.put_along_axis(empty, nearest, shares, axis=-1, inplace=False)


def annealed_mean(logits: Array, bins: Array, *, temperature: float = 0.38) -> Array:
    """Color of a predicted distribution: the mean under its sharpened version.

    `ab = Σ_q softmax(logits / T)_q bins_q`; T = 1 is the mean, which is dull, and T towards 0 the
    most likely bin, which is spotty.

    Args:
        logits: `[..., Q]`, floating.
        bins: `[Q, 2]`, as `in_gamut_ab_bins` gives them.
        temperature: T, positive.

    Returns:
        `[..., 2]`, float32 (float64 for float64 logits), (a, b) of each color.

    Raises:
        ValueError: `temperature` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> bins = jnp.array([[0.0, 0.0], [10.0, -20.0]])
        >>> print(ops.annealed_mean(jnp.array([1.0, 1.0]), bins))
        [  5. -10.]

    Zhang, Isola and Efros, Colorful image colorization, ECCV 2016.
    """
    checks.assert_shape(bins, (None, 2))
    checks.assert_axis_dimension(logits, -1, len(bins))
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}.")
    shares = jax.nn.softmax(_floating(logits) / temperature, axis=-1)
    bins = jnp.asarray(bins, shares.dtype)
    return jnp.matmul(shares, bins, precision=jax.lax.Precision.HIGHEST)


def ab_histogram(ab: Array, bins: Array) -> Array:
    """How many colors fall to each bin, the nearest one.

    Summed over the images of a set it is the prior of `losses.color_class_balance`.

    Args:
        ab: `[..., 2]`, floating, (a, b) of each color.
        bins: `[Q, 2]`, as `in_gamut_ab_bins` gives them.

    Returns:
        `[Q]` int32 counts.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> bins = jnp.array([[0.0, 0.0], [10.0, 0.0]])
        >>> print(ops.ab_histogram(jnp.array([[2.0, 1.0], [9.0, -3.0], [50.0, 0.0]]), bins))
        [1 2]
    """
    checks.assert_axis_dimension(ab, -1, 2)
    checks.assert_shape(bins, (None, 2))
    nearest = jnp.argmin(_squared_distances(ab, bins), axis=-1)
    return jnp.zeros(len(bins), jnp.int32).at[nearest.ravel()].add(1)
