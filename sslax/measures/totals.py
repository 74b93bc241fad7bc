"""Means over a set of images, from measures of each image, as sums that can be merged.

Two means are in use, and papers do not always say which. The image mean weights every image alike
(depth; EPE on Sintel and Chairs); the pixel mean weights every measured pixel alike (KITTI's D1 and
Fl). They agree when all images have equally many measured pixels. Both follow from the sums kept
here, which merge over batches and processes in any order.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from sslax import checks
from sslax.ops.dtypes import accumulation_dtype
from sslax.types import Array


class Score(NamedTuple):
    """One measure of each image of a batch.

    Attributes:
        value: `[B]`, the measure; 0 where no pixel was measured.
        pixels: `[B]`, the number of pixels it is a mean of.
    """

    value: Array
    pixels: Array


class Total(NamedTuple):
    """Sums of one measure over the images seen so far, in float64.

    Attributes:
        images: number of images with at least one measured pixel.
        image_sum: sum of their values.
        pixels: number of measured pixels.
        pixel_sum: sum of value times number of pixels.
    """

    images: np.float64
    image_sum: np.float64
    pixels: np.float64
    pixel_sum: np.float64


def masked_score(values: Array, mask: Array) -> Score:
    """Mean over the valid pixels of each image.

    `value_b = Σ_p m_bp v_bp / Σ_p m_bp`. Works under `jit` and on arrays sharded over the batch.

    Args:
        values: `[B, ...]`; anything where the mask is False, even NaN.
        mask: `[B, ...]` of the same shape, bool.

    Returns:
        The means in float32 (float64 for float64 values), and the pixel counts in int32.

    Example:
        >>> values = jnp.array([[1.0, 3.0, jnp.nan], [5.0, 5.0, 5.0]])
        >>> score = masked_score(values, jnp.array([[True, True, False], [False] * 3]))
        >>> score.value.tolist(), score.pixels.tolist()
        ([2.0, 0.0], [2, 0])
    """
    checks.assert_equal_shape([values, mask])
    axes = tuple(range(1, values.ndim))
    dtype = accumulation_dtype(values)
    pixels = jnp.sum(mask, axes, dtype=jnp.int32)
    total = jnp.sum(jnp.where(mask, values, 0), axes, dtype=dtype)
    return Score(total / jnp.maximum(pixels, 1).astype(dtype), pixels)


def indicator(condition: Array, values: Array) -> Array:
    """1 where a condition on `values` holds, 0 where it fails, NaN where the value is NaN.

    Its masked mean is the share of pixels that satisfy the condition, or NaN: a NaN prediction is
    never counted as merely wrong.

    Args:
        condition: `[...]`, bool.
        values: `[...]`, what the condition was asked of.

    Returns:
        `[...]`, in the dtype of the values.

    Example:
        >>> error = jnp.array([1.0, 5.0, jnp.nan])
        >>> indicator(error > 3, error).tolist()
        [0.0, 1.0, nan]
    """
    return jnp.where(jnp.isnan(values), jnp.nan, condition.astype(values.dtype))


def totals(scores: Mapping[str, Score]) -> dict[str, Total]:
    """Sums a batch's measures, on the host. Images without a measured pixel are left out.

    Args:
        scores: measures by name.

    Returns:
        Their sums by the same names.

    Example:
        >>> totals({"epe": Score(jnp.array([2.0, 0.0]), jnp.array([3, 0]))})["epe"].pixel_sum.item()
        6.0
    """
    summed = {}
    for name, score in scores.items():
        value = np.asarray(score.value, np.float64)
        pixels = np.asarray(score.pixels, np.float64)
        value = np.where(pixels > 0, value, 0.0)
        summed[name] = Total(
            np.float64((pixels > 0).sum()), value.sum(), pixels.sum(), (value * pixels).sum()
        )
    return summed


def merge(*parts: Mapping[str, Total]) -> dict[str, Total]:
    """Adds up the sums of several batches; a part may lack any name.

    Args:
        parts: results of `totals`, one per batch.

    Returns:
        Sums by name.

    Example:
        >>> part = totals({"epe": Score(jnp.array([2.0]), jnp.array([3]))})
        >>> merge(part, {}, part)["epe"].images.item()
        2.0
    """
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: Total(*(sum(column) for column in zip(*(p[name] for p in parts if name in p))))
        for name in names
    }


def image_means(summed: Mapping[str, Total]) -> dict[str, float]:
    """Means over images: every image has the same weight.

    Args:
        summed: sums by name.

    Returns:
        Means by name. Names with nothing measured are left out: 0 would be a perfect score, and NaN
        would spread.

    Example:
        >>> scores = {"epe": Score(jnp.array([1.0, 4.0]), jnp.array([30, 10]))}
        >>> image_means(totals(scores)), pixel_means(totals(scores))
        ({'epe': 2.5}, {'epe': 1.75})
    """
    return {n: float(t.image_sum / t.images) for n, t in summed.items() if t.images > 0}


def pixel_means(summed: Mapping[str, Total]) -> dict[str, float]:
    """Means over pixels: every measured pixel has the same weight.

    Only for measures that are themselves means over pixels; a root mean square is not.

    Args:
        summed: sums by name.

    Returns:
        Means by name, without the names of which nothing was measured.

    Example:
        >>> pixel_means(totals({"epe": Score(jnp.array([0.0]), jnp.array([0]))}))
        {}
    """
    return {n: float(t.pixel_sum / t.pixels) for n, t in summed.items() if t.pixels > 0}
