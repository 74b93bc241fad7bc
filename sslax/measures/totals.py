"""Means over a set of images, from measures of each image: sums that add up.

Two means are in use, and papers do not always say which. The mean over images counts every image
alike (depth, EPE on Sintel and Chairs); the mean over pixels counts every measured pixel alike
(KITTI's D1 and Fl). They agree where all images have equally many measured pixels. Both are linear
in what is kept here, so batches and processes can be merged in any order.
"""

from collections.abc import Mapping
from typing import NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from sslax.types import Array


class Score(NamedTuple):
    """One measure of each image of a batch.

    Attributes:
        value: `[B]`; 0 where nothing was measured.
        count: `[B]`, how many pixels it is a mean of.
    """

    value: Array
    count: Array


class Total(NamedTuple):
    """One measure of the images seen so far, in float64.

    Attributes:
        images: how many had something to measure.
        image_sum: sum of their values.
        pixels: sum of their counts.
        pixel_sum: sum of value times count.
    """

    images: np.float64
    image_sum: np.float64
    pixels: np.float64
    pixel_sum: np.float64


def masked_score(values: Array, mask: Array) -> Score:
    """Mean over the valid pixels of each image.

    `value_b = Σ_p m_bp v_bp / Σ_p m_bp`. Works under `jit` and on arrays sharded over the batch.

    Args:
        values: `[B, ...]`; under a False, anything, NaN too.
        mask: `[B, ...]` of the same shape, bool.

    Returns:
        The means in float32 (float64 for float64 values), and the counts, int32.

    Example:
        >>> values = jnp.array([[1.0, 3.0, jnp.nan], [5.0, 5.0, 5.0]])
        >>> score = masked_score(values, jnp.array([[True, True, False], [False] * 3]))
        >>> score.value.tolist(), score.count.tolist()
        ([2.0, 0.0], [2, 0])
    """
    chex.assert_equal_shape([values, mask])
    axes = tuple(range(1, values.ndim))
    dtype = jnp.promote_types(values.dtype, jnp.float32)
    count = jnp.sum(mask, axes, dtype=jnp.int32)
    total = jnp.sum(jnp.where(mask, values, 0), axes, dtype=dtype)
    return Score(total / jnp.maximum(count, 1), count)


def totals(scores: Mapping[str, Score]) -> dict[str, Total]:
    """The sums of a batch's measures, fetched to the host. An image of which nothing was measured
    counts for nothing.

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
        count = np.asarray(score.count, np.float64)
        value = np.where(count > 0, value, 0.0)
        summed[name] = Total(
            np.float64((count > 0).sum()), value.sum(), count.sum(), (value * count).sum()
        )
    return summed


def merge(*parts: Mapping[str, Total]) -> dict[str, Total]:
    """The sums of several batches; a name that a part lacks adds nothing.

    Args:
        parts: what `totals` returned of each.

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
    """Means in which every image counts alike.

    Args:
        summed: sums by name.

    Returns:
        Means by name, without the names of which nothing was measured: no number is honest there,
        neither 0, which would be perfect, nor NaN.

    Example:
        >>> scores = {"epe": Score(jnp.array([1.0, 4.0]), jnp.array([30, 10]))}
        >>> image_means(totals(scores)), pixel_means(totals(scores))
        ({'epe': 2.5}, {'epe': 1.75})
    """
    return {n: float(t.image_sum / t.images) for n, t in summed.items() if t.images > 0}


def pixel_means(summed: Mapping[str, Total]) -> dict[str, float]:
    """Means in which every measured pixel counts alike.

    Right for measures that are themselves means over pixels, and so not for a root mean square.

    Args:
        summed: sums by name.

    Returns:
        Means by name, without the names of which nothing was measured.

    Example:
        >>> pixel_means(totals({"epe": Score(jnp.array([0.0]), jnp.array([0]))}))
        {}
    """
    return {n: float(t.pixel_sum / t.pixels) for n, t in summed.items() if t.pixels > 0}
