"""Optical flow and occlusion against ground truth.

Every measure is taken per image, over its valid pixels: `[B, H, W, 2]` in, `[B]` out, in float32 on
the device, also under `jit`. `sslax.measures.totals` averages them over a set. Flow is `(x, y)` in
pixels at the truth's resolution. Masks are 1 where a pixel is evaluated; visibility is 1 where a
pixel is visible in the other frame, as everywhere in this library.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sslax import checks, ops
from sslax.measures.totals import Score, indicator, masked_score
from sslax.ops.dtypes import accumulation_dtype
from sslax.types import Array

# Ranges of the true speed in pixels, [low, high).
SPEEDS = {"s0_10": (0.0, 10.0), "s10_40": (10.0, 40.0), "s40": (40.0, float("inf"))}


def endpoint_error(flow: ArrayLike, truth: ArrayLike) -> Array:
    """Endpoint error of each flow vector: `|flow - truth|`.

    Args:
        flow: `[..., 2]`, in pixels.
        truth: `[..., 2]`.

    Returns:
        `[...]`, in pixels, at least float32.

    Example:
        >>> endpoint_error(jnp.array([3.0, 4.0]), jnp.zeros(2)).item()
        5.0

    Baker et al., A Database and Evaluation Methodology for Optical Flow, IJCV 2011.
    """
    checks.assert_equal_shape([flow, truth])
    checks.assert_axis_dimension(flow, -1, 2)
    dtype = accumulation_dtype(flow, truth)
    difference = jnp.asarray(flow, dtype) - jnp.asarray(truth, dtype)
    return jnp.sqrt(jnp.sum(difference**2, -1))


def flow_errors(
    flow: ArrayLike,
    truth: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    visible: ArrayLike | None = None,
) -> dict[str, Score]:
    """The standard flow measures, per image.

    With `e` the endpoint error, `v = |truth|` the true speed and means over valid pixels,

    ```
    epe       = mean e                         fl = mean [e > 3 and e > 0.05 v]
    above_kpx = mean [e > k],  k = 1, 3, 5
    epe_s0_10, epe_s10_40, epe_s40 = mean e where v < 10, 10 <= v < 40, 40 <= v
    ```
    and, given `visible`, also `epe_visible`, `epe_occluded`, `fl_visible`, `fl_occluded` (Sintel's
    'matched' and 'unmatched').

    KITTI's Fl-all is the mean over all pixels of the set (`totals.pixel_means`), and so are the
    EPEs by speed and visibility. The EPE on Sintel and Chairs, without a mask, is the same either
    way; KITTI's is usually published as the mean over images (`totals.image_means`).

    Args:
        flow: `[B, H, W, 2]`, predicted, dense.
        truth: `[B, H, W, 2]`.
        mask: `[B, H, W]`, 1 where the truth is known; by default where it is finite and below 1e9,
            Middlebury's marker for unknown.
        visible: `[B, H, W]`, ground-truth visibility, 1 where the other frame shows the pixel.

    Returns:
        Scores by name; shares in [0, 1]. A measure over no pixels has `pixels` 0. A NaN prediction
        at a valid pixel makes the measures of its image NaN.

    Example:
        >>> truth = jnp.array([[[[3.0, 0.0], [100.0, 0.0]]]])
        >>> errors = flow_errors(truth + jnp.array([4.0, 0.0]), truth)
        >>> errors["epe"].value.item(), errors["fl"].value.item(), errors["epe_s40"].pixels.item()
        (4.0, 0.5, 1)

    Butler et al., A Naturalistic Open Source Movie for Optical Flow Evaluation, ECCV 2012; Menze
    and Geiger, Object Scene Flow for Autonomous Vehicles, CVPR 2015.
    """
    flow, truth = jnp.asarray(flow), jnp.asarray(truth)
    checks.assert_rank([flow, truth], 4)
    if mask is None:
        mask = jnp.all(jnp.abs(truth) < 1e9, -1)  # False for NaN
    valid = jnp.asarray(mask).astype(bool)
    checks.assert_shape(valid, truth.shape[:3])
    if visible is not None:
        checks.assert_shape(visible, truth.shape[:3])
        visible = jnp.asarray(visible).astype(bool)
    return _flow_errors(flow, truth, valid, visible)


def resize_flow(flow: ArrayLike, size: tuple[int, int]) -> Array:
    """Resizes flow bilinearly and scales x and y by the ratios of widths and heights.

    Args:
        flow: `[..., H, W, 2]`, in pixels at its own resolution.
        size: target `(h, w)`, usually that of the ground truth.

    Returns:
        `[..., h, w, 2]`, in pixels at the new resolution.

    Example:
        >>> resize_flow(jnp.ones((2, 4, 2)), (6, 8))[0, 0].tolist()
        [2.0, 3.0]
    """
    flow = jnp.asarray(flow)
    ratio = jnp.array([size[1] / flow.shape[-2], size[0] / flow.shape[-3]], flow.dtype)
    return ops.resize(flow, size) * ratio


class OcclusionCounts(NamedTuple):
    """Confusion counts of occlusion, in pixels of each image; they add up over images.

    Attributes:
        hits: `[B]`, occluded and predicted occluded.
        false_alarms: `[B]`, visible but predicted occluded.
        misses: `[B]`, occluded but predicted visible.
    """

    hits: Array
    false_alarms: Array
    misses: Array


def occlusion_counts(
    visible: ArrayLike, truth: ArrayLike, mask: ArrayLike | None = None, *, threshold: float = 0.5
) -> OcclusionCounts:
    """Counts hits, false alarms and misses of predicted occlusion.

    Args:
        visible: `[B, H, W]`, predicted visibility, bool or in [0, 1], as from
            `ops.forward_backward_mask` or `ops.range_map_mask`.
        truth: `[B, H, W]`, 1 where visible.
        mask: `[B, H, W]`, 1 where the truth is known; by default everywhere.
        threshold: a prediction below it means occluded. For the best F1 over thresholds, which some
            papers quote, sum the counts over the set for each threshold and take the maximum.

    Returns:
        The counts, int32.

    Example:
        >>> counts = occlusion_counts(jnp.array([[[1.0, 0.2, 0.3]]]), jnp.array([[[0, 0, 1]]]))
        >>> [count.item() for count in counts]
        [1, 1, 1]
    """
    checks.assert_rank([visible, truth], 3)
    checks.assert_equal_shape([visible, truth])
    predicted = jnp.asarray(visible).astype(jnp.float32) < threshold
    occluded = ~jnp.asarray(truth).astype(bool)
    valid = jnp.ones_like(occluded) if mask is None else jnp.asarray(mask).astype(bool)
    checks.assert_equal_shape([valid, occluded])
    cases = (predicted & occluded, predicted & ~occluded, ~predicted & occluded)
    return OcclusionCounts(*(jnp.sum(c & valid, axis=(1, 2), dtype=jnp.int32) for c in cases))


def occlusion_scores(counts: OcclusionCounts) -> dict[str, float]:
    """Precision, recall and F1 of occlusion, over all images pooled.

    ```
    precision = hits / (hits + false alarms)      recall = hits / (hits + misses)
    f1 = 2 hits / (2 hits + false alarms + misses)
    ```

    Args:
        counts: of a whole set; concatenate or sum those of its batches.

    Returns:
        'precision', 'recall' and 'f1' in [0, 1]. Undefined ones are left out: precision if nothing
        is predicted occluded, recall if nothing is occluded, F1 if both.

    Example:
        >>> occlusion_scores(OcclusionCounts(jnp.array([3]), jnp.array([1]), jnp.array([0])))
        {'precision': 0.75, 'recall': 1.0, 'f1': 0.8571428571428571}
    """
    hits, false_alarms, misses = (float(np.asarray(c, np.float64).sum()) for c in counts)
    ratios = {
        "precision": (hits, hits + false_alarms),
        "recall": (hits, hits + misses),
        "f1": (2 * hits, 2 * hits + false_alarms + misses),
    }
    return {name: top / bottom for name, (top, bottom) in ratios.items() if bottom > 0}


@jax.jit
def _flow_errors(flow: Array, truth: Array, mask: Array, visible: Array | None) -> dict[str, Score]:
    truth = jnp.where(mask[..., None], truth, 0)
    error = endpoint_error(flow, truth)
    speed = endpoint_error(truth, jnp.zeros_like(truth))
    outlier = indicator((error > 3) & (error > 0.05 * speed), error)
    scores = {"epe": masked_score(error, mask), "fl": masked_score(outlier, mask)}
    for pixels in (1, 3, 5):
        scores[f"above_{pixels}px"] = masked_score(indicator(error > pixels, error), mask)
    for name, (low, high) in SPEEDS.items():
        scores[f"epe_{name}"] = masked_score(error, mask & (speed >= low) & (speed < high))
    if visible is not None:
        for name, part in (("visible", visible), ("occluded", ~visible)):
            scores[f"epe_{name}"] = masked_score(error, mask & part)
            scores[f"fl_{name}"] = masked_score(outlier, mask & part)
    return scores
