"""Optical flow and occlusion against ground truth.

Measures are of each image, over its valid pixels, in float32 on the device (`[B, H, W, 2]` in,
`[B]` out), and work under `jit`; `sslax.measures.totals` makes means of them. Flow is `(x, y)` in
pixels of the truth's resolution. Masks are 1 where a pixel counts, and visibility is 1 where a
pixel is seen in the other frame, as everywhere in this library.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sslax import ops
from sslax.measures.totals import Score, masked_score
from sslax.types import Array

# Ranges of the true speed in pixels, the lower bound in and the upper out.
SPEEDS = {"s0_10": (0.0, 10.0), "s10_40": (10.0, 40.0), "s40": (40.0, float("inf"))}


def end_point_error(flow: Array, truth: Array) -> Array:
    """Distance of flow vectors: `|flow - truth|`.

    Args:
        flow: `[..., 2]`, in pixels.
        truth: `[..., 2]`.

    Returns:
        `[...]`, in pixels, float32 at least.

    Example:
        >>> end_point_error(jnp.array([3.0, 4.0]), jnp.zeros(2)).item()
        5.0

    Baker et al., A Database and Evaluation Methodology for Optical Flow, IJCV 2011.
    """
    chex.assert_equal_shape([flow, truth])
    chex.assert_axis_dimension(flow, -1, 2)
    dtype = jnp.promote_types(jnp.result_type(flow, truth), jnp.float32)
    difference = jnp.asarray(flow, dtype) - jnp.asarray(truth, dtype)
    return jnp.sqrt(jnp.sum(difference**2, -1))


def flow_errors(
    flow: Array, truth: Array, mask: Array | None = None, *, visible: Array | None = None
) -> dict[str, Score]:
    """The measures of flow papers, of each image.

    With `e` the end-point error, `v = |truth|` the true speed and means over valid pixels,

    ```
    epe       = mean e                         fl = mean [e > 3 and e > 0.05 v]
    above_kpx = mean [e > k],  k = 1, 3, 5
    epe_s0_10, epe_s10_40, epe_s40 = mean e where v < 10, 10 <= v < 40, 40 <= v
    ```
    and with `visible` also `epe_visible`, `epe_occluded`, `fl_visible`, `fl_occluded` (Sintel's
    'matched' and 'unmatched').

    KITTI's Fl-all is the mean over pixels of the set (`totals.pixel_means`), as are the EPEs by
    speed and visibility; the EPE of Sintel and Chairs is the same either way without a mask, that
    of KITTI is usually published as the mean over images (`totals.image_means`).

    Args:
        flow: `[B, H, W, 2]`, predicted, dense.
        truth: `[B, H, W, 2]`.
        mask: `[B, H, W]`, 1 where the truth is known; by default where it is finite and below 1e9,
            which is Middlebury's sign for unknown.
        visible: `[B, H, W]`, 1 where the pixel is seen in the other frame, of the ground truth.

    Returns:
        Measures by name; shares in [0, 1]. A measure over no pixel has count 0. A prediction of
        NaN at a valid pixel makes its image's numbers NaN rather than go unseen.

    Example:
        >>> truth = jnp.array([[[[3.0, 0.0], [100.0, 0.0]]]])
        >>> errors = flow_errors(truth + jnp.array([4.0, 0.0]), truth)
        >>> errors["epe"].value.item(), errors["fl"].value.item(), errors["epe_s40"].count.item()
        (4.0, 0.5, 1)

    Butler et al., A Naturalistic Open Source Movie for Optical Flow Evaluation, ECCV 2012; Menze
    and Geiger, Object Scene Flow for Autonomous Vehicles, CVPR 2015.
    """
    flow, truth = jnp.asarray(flow), jnp.asarray(truth)
    chex.assert_rank([flow, truth], 4)
    if mask is None:
        mask = jnp.all(jnp.abs(truth) < 1e9, -1)  # False for NaN
    mask = jnp.asarray(mask).astype(bool)
    chex.assert_shape([mask, *([] if visible is None else [visible])], truth.shape[:3])
    if visible is not None:
        visible = jnp.asarray(visible).astype(bool)
    return _flow_errors(flow, truth, mask, visible)


def resize_flow(flow: Array, size: tuple[int, int]) -> Array:
    """Flow at another resolution: bilinear, and its x and y times the ratios of widths and heights.

    Args:
        flow: `[..., H, W, 2]`, in pixels of its own resolution.
        size: `(h, w)` wanted, that of the ground truth.

    Returns:
        `[..., h, w, 2]`, in pixels of the new resolution.

    Example:
        >>> resize_flow(jnp.ones((2, 4, 2)), (6, 8))[0, 0].tolist()
        [2.0, 3.0]
    """
    flow = jnp.asarray(flow)
    ratio = jnp.array([size[1] / flow.shape[-2], size[0] / flow.shape[-3]], flow.dtype)
    return ops.resize(flow, size) * ratio


class OcclusionCounts(NamedTuple):
    """How an estimated occlusion agrees with the truth, in pixels of each image; they add up.

    Attributes:
        hits: `[B]`, occluded and said to be.
        false_alarms: `[B]`, visible and said to be occluded.
        misses: `[B]`, occluded and said to be visible.
    """

    hits: Array
    false_alarms: Array
    misses: Array


def occlusion_counts(
    visible: Array, truth: Array, mask: Array | None = None, *, threshold: float = 0.5
) -> OcclusionCounts:
    """Counts occluded pixels found, wrongly found and missed.

    Args:
        visible: `[B, H, W]`, estimated, bool or in [0, 1]; `ops.forward_backward_mask`,
            `ops.range_map_mask`.
        truth: `[B, H, W]`, 1 where visible.
        mask: `[B, H, W]`, 1 where the truth is known; by default everywhere.
        threshold: below it an estimate means occluded. The best F1 over thresholds, which some
            papers quote, is the largest over several calls, each summed over the set.

    Returns:
        The counts, int32.

    Example:
        >>> counts = occlusion_counts(jnp.array([[[1.0, 0.2, 0.3]]]), jnp.array([[[0, 0, 1]]]))
        >>> [count.item() for count in counts]
        [1, 1, 1]
    """
    chex.assert_rank([visible, truth], 3)
    chex.assert_equal_shape([visible, truth])
    found = jnp.asarray(visible).astype(jnp.float32) < threshold
    occluded = ~jnp.asarray(truth).astype(bool)
    valid = jnp.ones_like(occluded) if mask is None else jnp.asarray(mask).astype(bool)
    chex.assert_equal_shape([valid, occluded])
    cases = (found & occluded, found & ~occluded, ~found & occluded)
    return OcclusionCounts(*(jnp.sum(c & valid, axis=(1, 2), dtype=jnp.int32) for c in cases))


def occlusion_scores(counts: OcclusionCounts) -> dict[str, float]:
    """Precision, recall and F1 of occlusion, over all images together.

    ```
    precision = hits / (hits + false alarms)      recall = hits / (hits + misses)
    f1 = 2 hits / (2 hits + false alarms + misses)
    ```

    Args:
        counts: of a set; those of batches are concatenated or summed first.

    Returns:
        'precision', 'recall', 'f1', in [0, 1]; without what is undefined: precision where nothing
        was said to be occluded, recall where nothing is, F1 where neither.

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
    return {name: part / whole for name, (part, whole) in ratios.items() if whole > 0}


@jax.jit
def _flow_errors(flow: Array, truth: Array, mask: Array, visible: Array | None) -> dict[str, Score]:
    truth = jnp.where(mask[..., None], truth, 0)
    error = end_point_error(flow, truth)
    speed = end_point_error(truth, jnp.zeros_like(truth))

    def share(condition: Array) -> Array:
        return jnp.where(jnp.isnan(error), jnp.nan, condition.astype(error.dtype))

    outlier = share((error > 3) & (error > 0.05 * speed))
    scores = {"epe": masked_score(error, mask), "fl": masked_score(outlier, mask)}
    for pixels in (1, 3, 5):
        scores[f"above_{pixels}px"] = masked_score(share(error > pixels), mask)
    for name, (low, high) in SPEEDS.items():
        scores[f"epe_{name}"] = masked_score(error, mask & (speed >= low) & (speed < high))
    if visible is not None:
        for name, part in (("visible", visible), ("occluded", ~visible)):
            scores[f"epe_{name}"] = masked_score(error, mask & part)
            scores[f"fl_{name}"] = masked_score(outlier, mask & part)
    return scores
