"""CIE Lab colors, and the quantized ab plane that colorization predicts."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sslax import checks
from sslax.ops import platforms
from sslax.ops.dtypes import at_least_float32
from sslax.types import Array

# Linear sRGB to CIE XYZ with ITU-R BT.709 primaries, and the D65 white point of the 2° observer.
_RGB_TO_XYZ = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
_XYZ_TO_RGB = np.linalg.inv(_RGB_TO_XYZ)
_WHITE = (0.95047, 1.0, 1.08883)
_SRGB_KINK = 0.04045  # sRGB is linear below it
_LAB_KINK = 6 / 29  # Lab is linear below the cube of it
_LAB_SLOPE = (29 / 6) ** 2 / 3


def _to_float(array: Array) -> Array:
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise checks.type_error(f"expected floats, got {array.dtype}; divide uint8 images by 255.")
    return at_least_float32(array)


def _transform_channels(matrix: np.ndarray, channels: list[Any]) -> list[Any]:
    # Sums rather than a matrix product, which some accelerators round to bfloat16.
    return [sum(float(m) * c for m, c in zip(row, channels)) for row in matrix]


def _to_lab(rgb: Any, xp: ModuleType) -> Any:
    """`rgb_to_lab` in NumPy or `jax.numpy`."""
    # Below the kinks, powers and roots are evaluated at the kink: their values are not used there,
    # but an infinite slope would still make the gradient NaN.
    curve = ((xp.maximum(rgb, _SRGB_KINK) + 0.055) / 1.055) ** 2.4
    linear = xp.where(rgb > _SRGB_KINK, curve, rgb / 12.92)
    xyz = _transform_channels(_RGB_TO_XYZ, [linear[..., c] for c in range(3)])

    def response(value: Any, white: float) -> Any:
        ratio = value / white
        root = xp.cbrt(xp.maximum(ratio, _LAB_KINK**3))
        return xp.where(ratio > _LAB_KINK**3, root, _LAB_SLOPE * ratio + 4 / 29)

    x, y, z = (response(value, white) for value, white in zip(xyz, _WHITE))
    return xp.stack([116 * (y - 4 / 29), 500 * (x - y), 200 * (y - z)], -1)


def rgb_to_lab(image: Array) -> Array:
    """Converts sRGB to CIE 1976 L*a*b* with the D65 white point.

    ```
    L = 116 f(Y/Yn) - 16,   a = 500 (f(X/Xn) - f(Y/Yn)),   b = 200 (f(Y/Yn) - f(Z/Zn))
    f(t) = t^(1/3), linear below (6/29)^3
    ```
    where X, Y, Z are the linear XYZ values of the image. Gradients are finite everywhere, including
    at black.

    Args:
        image: `[..., 3]`, floating, sRGB in [0, 1].

    Returns:
        `[..., 3]`, float32 or wider: lightness L in [0, 100]; a (green to magenta) and b (blue to
        yellow), about -108 to 99. Grays are within 0.01 of a = b = 0.

    Raises:
        TypeError: the image has an integer dtype.
        ValueError: the image has another range, such as 0 to 255.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> print(ops.rgb_to_lab(jnp.array([1.0, 0.0, 0.0])).astype(int))
        [53 80 67]
    """
    checks.assert_axis_dimension(image, -1, 3)
    checks.assert_unit_range(image)
    return _to_lab(_to_float(image), jnp)


def lab_to_rgb(lab: Array) -> Array:
    """Converts CIE 1976 L*a*b* to sRGB, the inverse of `rgb_to_lab`.

    Args:
        lab: `[..., 3]`, floating.

    Returns:
        `[..., 3]`, float32 or wider, in [0, 1]. Out-of-gamut channels are clipped and have zero
        gradient.

    Raises:
        TypeError: the array has an integer dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> print(ops.lab_to_rgb(jnp.array([50.0, 0.0, 0.0])).round(2))
        [0.47 0.47 0.47]
    """
    checks.assert_axis_dimension(lab, -1, 3)
    lab = _to_float(lab)
    y = (lab[..., 0] + 16) / 116
    responses = [y + lab[..., 1] / 500, y, y - lab[..., 2] / 200]
    xyz = [
        white * jnp.where(f > _LAB_KINK, f**3, (f - 4 / 29) / _LAB_SLOPE)
        for f, white in zip(responses, _WHITE)
    ]
    linear = jnp.stack(_transform_channels(_XYZ_TO_RGB, xyz), -1)
    kink = _SRGB_KINK / 12.92
    curve = 1.055 * jnp.maximum(linear, kink) ** (1 / 2.4) - 0.055
    return jnp.clip(jnp.where(linear > kink, curve, 12.92 * linear), 0, 1)


def in_gamut_ab_bins(*, step: float = 10.0) -> np.ndarray:
    """Centers of the bins of the ab plane that contain an 8-bit sRGB color.

    The bins are squares centered at the multiples of `step`, so every sRGB color falls into one of
    them, at most `step / 2` from its center along a and along b.

    A step of 10 gives 261 bins, 229 of which have an sRGB color at their center. Zhang et al. use
    313 bins: their published list, whose rule they do not state, reaches beyond the gamut (303 bins
    have a color within a full step of the center). The extra bins are almost never a target, so
    the tasks differ only in unused outputs.

    Args:
        step: side of a bin, in Lab units.

    Returns:
        `[Q, 2]` float32, a NumPy array: (a, b) of the Q centers, sorted by a, then b.

    Raises:
        ValueError: `step` is not positive.

    Example:
        >>> from sslax import ops
        >>> ops.in_gamut_ab_bins(step=10).shape
        (261, 2)

    Zhang et al., "Colorful Image Colorization", ECCV 2016.
    """
    checks.assert_positive(step=step)
    # RGB to Lab is continuous and invertible, so the six faces of the RGB cube cover the same part
    # of the ab plane as the whole cube.
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
    """`[..., Q]` squared distances between `[..., 2]` colors and `[Q, 2]` bins."""
    ab = _to_float(ab)
    bins = jnp.asarray(bins, ab.dtype)
    # Differences first: |x|^2 - 2 x y + |y|^2 would cancel.
    da, db = (ab[..., c, None] - bins[:, c] for c in range(2))
    return da**2 + db**2


def soft_encode_ab(ab: Array, bins: Array, *, neighbors: int = 10, sigma: float = 5.0) -> Array:
    """Soft targets: distributes each color over its nearest bins.

    ```
    p_q ∝ exp(-|ab - bins_q|^2 / (2 σ^2))   for the k nearest bins, 0 elsewhere;   Σ_q p_q = 1
    ```
    The result takes Q floats per color: about 1 GB for 256 images of 56 x 56.

    Args:
        ab: `[..., 2]`, floating, (a, b) of each color.
        bins: `[Q, 2]`, from `in_gamut_ab_bins`.
        neighbors: k; 5 in the paper, 10 in its released code. Ties go to the bin that comes first.
        sigma: σ, standard deviation of the Gaussian, in Lab units.

    Returns:
        `[..., Q]`, float32 or wider.

    Raises:
        ValueError: `neighbors` is not in 1, ..., Q, or `sigma` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> bins = jnp.array([[0.0, 0.0], [10.0, 0.0], [50.0, 0.0]])
        >>> print(ops.soft_encode_ab(jnp.array([5.0, 0.0]), bins, neighbors=2))
        [0.5 0.5 0. ]

    Zhang et al., "Colorful Image Colorization", ECCV 2016.
    """
    checks.assert_axis_dimension(ab, -1, 2)
    checks.assert_shape(bins, (None, 2))
    if not 1 <= neighbors <= len(bins):
        raise checks.value_error(
            f"neighbors must be in 1, ..., {len(bins)} (bins); got {neighbors}."
        )
    checks.assert_positive(sigma=sigma)
    logits = -_squared_distances(ab, bins) / (2 * sigma**2)

    def by_sorting(logits: Array) -> Array:
        largest, at = jax.lax.top_k(logits, neighbors)
        zeros, weights = jnp.zeros_like(logits), jax.nn.softmax(largest, axis=-1)
        return jnp.put_along_axis(zeros, at, weights, axis=-1, inplace=False)

    def one_by_one(logits: Array) -> Array:
        """On GPUs, where each device would sort the colors of all."""
        left, chosen = logits, jnp.zeros(logits.shape, bool)
        for _ in range(neighbors):
            largest = jnp.arange(len(bins)) == jnp.argmax(left, axis=-1, keepdims=True)
            left, chosen = jnp.where(largest, -jnp.inf, left), chosen | largest
        return jax.nn.softmax(jnp.where(chosen, logits, -jnp.inf), axis=-1)

    return platforms.choose(logits, cpu=by_sorting, default=one_by_one)


def annealed_mean(logits: Array, bins: Array, *, temperature: float | Array = 0.38) -> Array:
    """Color of a predicted distribution: its mean after sharpening.

    `ab = Σ_q softmax(logits / T)_q bins_q`. T = 1 gives the mean, which looks desaturated; T → 0
    gives the most likely bin, which looks patchy.

    Args:
        logits: `[..., Q]`, floating.
        bins: `[Q, 2]`, from `in_gamut_ab_bins`.
        temperature: T, positive; a number or a scalar array.

    Returns:
        `[..., 2]`, float32 or wider, (a, b) of each color.

    Raises:
        ValueError: `temperature` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> bins = jnp.array([[0.0, 0.0], [10.0, -20.0]])
        >>> print(ops.annealed_mean(jnp.array([1.0, 1.0]), bins))
        [  5. -10.]

    Zhang et al., "Colorful Image Colorization", ECCV 2016.
    """
    checks.assert_shape(bins, (None, 2))
    checks.assert_axis_dimension(logits, -1, len(bins))
    logits = _to_float(logits)
    divisor = jnp.asarray(checks.positive("temperature", temperature), logits.dtype)
    probabilities = jax.nn.softmax(logits / divisor, axis=-1)
    bins = jnp.asarray(bins, probabilities.dtype)
    return jnp.matmul(probabilities, bins, precision=jax.lax.Precision.HIGHEST)


def ab_histogram(ab: Array, bins: Array) -> Array:
    """Counts the colors whose nearest bin is each bin.

    Summed over a data set, the counts are the prior of `losses.class_rebalancing_weights`.

    Args:
        ab: `[..., 2]`, floating, (a, b) of each color.
        bins: `[Q, 2]`, from `in_gamut_ab_bins`.

    Returns:
        `[Q]` int32.

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
