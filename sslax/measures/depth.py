"""Depth and disparity against ground truth.

Measures are of each image, over its valid pixels, in float32 on the device (`[B, H, W]` in, `[B]`
out), and work under `jit`; `sslax.measures.totals` makes means of them. What is measured where,
and at which scale, is up to the caller: `valid_depth`, `crop_mask` and `median_ratio` are the
pieces that papers combine, `evaluate_depths` their usual combination.
"""

from collections.abc import Iterable, Iterator

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sslax import ops
from sslax.measures.totals import Score, image_means, masked_score, merge, totals
from sslax.types import Array

# First and last row, first and last column, as fractions of height and width.
CROPS = {
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
}
MEASURES = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta_1", "delta_2", "delta_3")
# Depth of a network trained on stereo pairs with Monodepth2's nominal baseline 0.1, to meters.
MONODEPTH2_STEREO_SCALE = 5.4


def valid_depth(truth: Array, *, min_depth: float = 1e-3, max_depth: float = 80.0) -> Array:
    """Where the ground truth is known and in range: `min_depth < truth < max_depth`.

    Args:
        truth: `[...]`; zero, not finite or negative where unknown.
        min_depth: in the unit of the truth; the bound itself is out.
        max_depth: likewise.

    Returns:
        `[...]`, bool.

    Example:
        >>> valid_depth(jnp.array([0.0, 5.0, 80.0, jnp.nan, jnp.inf])).tolist()
        [False, True, False, False, False]
    """
    truth = jnp.asarray(truth)
    return jnp.isfinite(truth) & (truth > min_depth) & (truth < max_depth)


def crop_mask(height: int, width: int, crop: str) -> np.ndarray:
    """The part of a KITTI image that is evaluated, as a mask.

    Rows `int(r0 H)` to `int(r1 H)`, columns `int(c0 W)` to `int(c1 W)`, the last ones out. Bounds
    are truncated as in the code that published numbers come from: of 370 rows Garg's crop takes
    151 to 365, where its comment says 152 to 366.

    Args:
        height: of the ground truth.
        width: of the ground truth.
        crop: 'garg' (most papers) or 'eigen' (Eigen et al., found by trial by the authors of
            monodepth).

    Returns:
        `[H, W]`, bool.

    Raises:
        ValueError: for an unknown crop.

    Example:
        >>> rows, columns = np.nonzero(crop_mask(375, 1242, "garg"))
        >>> (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (153, 371, 44, 1197)
        True

    Garg et al., Unsupervised CNN for Single View Depth Estimation, https://arxiv.org/abs/1603.04992
    """
    if crop not in CROPS:
        raise ValueError(f"crop is {crop!r}; choose 'garg' or 'eigen', or leave the mask out.")
    top, bottom, left, right = CROPS[crop]
    mask = np.zeros((height, width), bool)
    mask[int(top * height) : int(bottom * height), int(left * width) : int(right * width)] = True
    return mask


def median_ratio(depth: Array, truth: Array, mask: Array) -> Array:
    """The factor that brings a prediction to the scale of the truth: `med(truth) / med(depth)`.

    Medians are over the valid pixels, the mean of the middle two where their number is even.

    Args:
        depth: `[B, H, W]`, predicted, of unknown scale.
        truth: `[B, H, W]`.
        mask: `[B, H, W]`, 1 where the truth counts.

    Returns:
        `[B]`; 0 where nothing is valid or the median of the prediction is 0.

    Example:
        >>> truth = jnp.array([[[2.0, 4.0, 6.0, 0.0]]])
        >>> median_ratio(truth / 4, truth, truth > 0).tolist()
        [4.0]

    Zhou et al., Unsupervised Learning of Depth and Ego-Motion from Video,
    https://arxiv.org/abs/1704.07813
    """
    mask = _check_maps(depth, truth, mask)
    predicted = _median(depth, mask)
    usable = predicted > 0
    return jnp.where(usable, _median(truth, mask) / jnp.where(usable, predicted, 1.0), 0.0)


def depth_errors(
    depth: Array,
    truth: Array,
    mask: Array,
    *,
    scale: float | Array = 1.0,
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
) -> dict[str, Score]:
    """The seven measures of depth papers, of each image.

    With `z` the truth, `ẑ = clip(scale · depth, min, max)`, and means over valid pixels,

    ```
    abs_rel = mean |ẑ - z| / z            sq_rel   = mean (ẑ - z)² / z
    rmse    = sqrt(mean (ẑ - z)²)         rmse_log = sqrt(mean (ln ẑ - ln z)²)
    delta_k = mean [max(ẑ / z, z / ẑ) < 1.25^k],   k = 1, 2, 3
    ```

    Args:
        depth: `[B, H, W]`, predicted.
        truth: `[B, H, W]`, in meters where numbers shall be comparable: sq_rel and rmse have its
            unit.
        mask: `[B, H, W]`, 1 where the truth is known and counts; `valid_depth`, `crop_mask`.
        scale: factor on the prediction, a number or `[B]`; see `median_ratio`.
        min_depth: the prediction is raised to it, after scaling.
        max_depth: the prediction is lowered to it.

    Returns:
        By name, in the order of `MEASURES`. What lies outside the mask never counts; a prediction
        of NaN inside makes its image's numbers NaN rather than go unseen.

    Example:
        >>> truth = jnp.full((1, 2, 2), 10.0)
        >>> errors = depth_errors(jnp.full((1, 2, 2), 11.0), truth, truth > 0)
        >>> {name: round(float(score.value[0]), 4) for name, score in errors.items()}
        {'abs_rel': 0.1, 'sq_rel': 0.1, 'rmse': 1.0, 'rmse_log': 0.0953, 'delta_1': 1.0, \
'delta_2': 1.0, 'delta_3': 1.0}

    Eigen et al., Depth Map Prediction from a Single Image using a Multi-Scale Deep Network,
    https://arxiv.org/abs/1406.2283
    """
    mask = _check_maps(depth, truth, mask)
    errors = _depth_errors(depth, truth, mask, scale, min_depth, max_depth)
    return {name: errors[name] for name in MEASURES}  # jit has sorted them


def disparity_errors(disparity: Array, truth: Array, mask: Array | None = None) -> dict[str, Score]:
    """Errors of disparity in pixels, of each image.

    With `e = |disparity - truth|` and means over valid pixels: `mean_error = mean e`,
    `above_3px = mean [e > 3]`, `d1 = mean [e > 3 and e > 0.05 |truth|]`.

    KITTI's D1 is the mean over pixels of the set (`totals.pixel_means`). Its two bounds are strict,
    as in the benchmark's code; monodepth's evaluation has `>=`, which differs in ties only.

    Args:
        disparity: `[B, H, W]`, predicted, dense, in pixels of the truth's resolution.
        truth: `[B, H, W]`.
        mask: `[B, H, W]`, 1 where the truth counts; by default where it is finite and positive.

    Returns:
        By name, 'mean_error', 'above_3px', 'd1'; shares in [0, 1].

    Example:
        >>> truth = jnp.array([[[10.0, 100.0, 0.0, jnp.inf]]])
        >>> errors = disparity_errors(truth + 4, truth)
        >>> {name: (score.value.item(), score.count.item()) for name, score in errors.items()}
        {'mean_error': (4.0, 2), 'above_3px': (1.0, 2), 'd1': (0.5, 2)}

    Menze and Geiger, Object Scene Flow for Autonomous Vehicles, CVPR 2015.
    """
    truth = jnp.asarray(truth)
    mask = _check_maps(
        disparity, truth, jnp.isfinite(truth) & (truth > 0) if mask is None else mask
    )
    truth = jnp.where(mask, truth, 0.0)
    error = jnp.abs(jnp.asarray(disparity, truth.dtype) - truth)
    wrong = error > 3
    values = {
        "mean_error": error,
        "above_3px": _flag(wrong, error),
        "d1": _flag(wrong & (error > 0.05 * jnp.abs(truth)), error),
    }
    return {name: masked_score(value, mask) for name, value in values.items()}


def flip_average(disparity: Array, mirrored: Array, *, margin: float = 0.05) -> Array:
    """Disparity from an image and its mirror image, without the shadow that stereo training leaves.

    With `d'` the second prediction mirrored back and `l` the column from 0 (left) to 1 (right),

    ```
    out = r d + s d' + (1 - r - s) (d + d') / 2,   s = 1 - clip((l - m) / m, 0, 1),  r = s mirrored
    ```
    The left m of the image is d', the right m is d, the middle from 2 m inwards their mean, and in
    between it fades. A network trained on left images of stereo pairs has not seen what its left
    border shows; the mirrored prediction has its trouble at the right one. Monodepth and Monodepth2
    use the same weights; for a network trained on video only there is no such shadow, and it is an
    average of two predictions.

    Args:
        disparity: `[..., H, W]`, of the image.
        mirrored: `[..., H, W]`, of the image mirrored left to right, as predicted: not mirrored
            back.
        margin: m, as a fraction of the width.

    Returns:
        `[..., H, W]`. It costs a second prediction; say so beside numbers.

    Example:
        >>> disparity = jnp.broadcast_to(jnp.linspace(1.0, 2.0, 5), (3, 5))
        >>> bool(jnp.allclose(flip_average(disparity, disparity[:, ::-1]), disparity))
        True

    Godard et al., Unsupervised Monocular Depth Estimation with Left-Right Consistency,
    https://arxiv.org/abs/1609.03677
    """
    chex.assert_equal_shape([disparity, mirrored])
    back = jnp.flip(mirrored, -1)
    column = jnp.linspace(0.0, 1.0, disparity.shape[-1])
    left = 1 - jnp.clip((column - margin) / margin, 0, 1)
    right = left[::-1]
    return right * disparity + left * back + (1 - left - right) * 0.5 * (disparity + back)


def resize_disparity(disparity: Array, size: tuple[int, int]) -> Array:
    """Disparity at another resolution: bilinear, and its values times the ratio of the widths.

    Args:
        disparity: `[..., H, W]`, in pixels of its own resolution.
        size: `(h, w)` wanted, that of the ground truth.

    Returns:
        `[..., h, w]`, in pixels of the new resolution.

    Example:
        >>> resize_disparity(jnp.full((2, 4), 3.0), (4, 8))[0, 0].item()
        6.0
    """
    disparity = jnp.asarray(disparity)
    return _resize(disparity, size) * (size[1] / disparity.shape[-1])


def resize_depth(depth: Array, size: tuple[int, int]) -> Array:
    """Depth at another resolution: its inverse is interpolated, bilinearly.

    So does Monodepth2, whose network's inverse depth is what is resized; interpolating depth itself
    puts points far behind every edge.

    Args:
        depth: `[..., H, W]`, positive.
        size: `(h, w)` wanted, that of the ground truth.

    Returns:
        `[..., h, w]`.

    Example:
        >>> resize_depth(jnp.array([[1.0, 3.0]]), (1, 1)).round(4).item()
        1.5
    """
    return 1 / _resize(1 / jnp.asarray(depth), size)


def evaluate_depths(
    pairs: Iterable[tuple[Array, Array]],
    *,
    crop: str | None = None,
    scaling: str | float = "median",
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
    cap_truth: bool = True,
) -> dict[str, float]:
    """The numbers of a depth paper's table: means over the images of a set.

    KITTI, split of Eigen, raw LiDAR: `crop="garg"`. The same with improved ground truth (652
    images): no crop and `cap_truth=False`, as Monodepth2 has it. Which of the two is evaluated
    depends on the truth alone.

    Args:
        pairs: predicted depth `[H, W]` and truth `[H', W']` (0 where unknown) of each image; the
            prediction is brought to the truth's resolution by `resize_depth`.
        crop: 'garg', 'eigen' or None.
        scaling: 'median' for `median_ratio` of each image; 'global' for one factor, the median of
            these ratios over the set; 'none'; or a number, such as `MONODEPTH2_STEREO_SCALE`.
        min_depth: of truth and prediction.
        max_depth: of truth and prediction.
        cap_truth: False measures all known pixels, however far; predictions are clipped still.

    Returns:
        Means over images of `depth_errors` by name; 'images', how many had a valid pixel; and with
        'median' or 'global' the median ratio as 'scale' and the standard deviation of ratio /
        scale over the set as 'scale_deviation', which tells how far a network's scale can be
        trusted from one image to the next. Without a valid pixel anywhere only 'images' remains.

    Raises:
        ValueError: for an unknown scaling or crop, or if 'global' is asked of a generator, which
            cannot be read twice.

    Example:
        >>> truth = np.linspace(2.0, 20.0, 12).reshape(3, 4)
        >>> numbers = evaluate_depths([(truth / 7, truth), (truth / 9, truth)])
        >>> round(numbers["abs_rel"], 4), round(numbers["scale"], 4), numbers["images"]
        (0.0, 8.0, 2)

    Godard et al., Digging Into Self-Supervised Monocular Depth Estimation,
    https://arxiv.org/abs/1806.01260
    """
    if isinstance(scaling, str) and scaling not in ("median", "global", "none"):
        raise ValueError(f"scaling is {scaling!r}; choose 'median', 'global', 'none' or a number.")
    if scaling == "global" and iter(pairs) is pairs:
        raise ValueError("'global' scaling reads the pairs twice; pass a list, not a generator.")
    known = (min_depth, max_depth) if cap_truth else (0.0, np.inf)

    def examples() -> Iterator[tuple[Array, Array, Array]]:
        for depth, truth in pairs:
            yield _example(jnp.asarray(depth), jnp.asarray(truth), known, crop)

    ratios = [float(_ratio(*example)[0]) for example in examples()] if scaling == "global" else []
    common = {"none": 1.0, "global": _middle(ratios)}.get(scaling, scaling)
    parts = []
    for depth, truth, mask in examples():
        scale = common
        if scaling == "median":
            scale = _ratio(depth, truth, mask)
            ratios.append(float(scale[0]))
        errors = depth_errors(
            depth, truth, mask, scale=scale, min_depth=min_depth, max_depth=max_depth
        )
        parts.append(totals(errors))
    summed = merge(*parts)
    numbers = image_means(summed)
    numbers["images"] = int(summed["abs_rel"].images) if summed else 0
    if scaling in ("median", "global") and numbers["images"]:
        numbers["scale"] = _middle(ratios)
        numbers["scale_deviation"] = float(np.std([r / _middle(ratios) for r in ratios if r > 0]))
    return numbers


def _example(
    depth: Array, truth: Array, known: tuple[float, float], crop: str | None
) -> tuple[Array, Array, Array]:
    """Prediction, truth and mask, `[1, H, W]`, at the truth's resolution."""
    chex.assert_rank([depth, truth], 2)
    if depth.shape != truth.shape:
        depth = resize_depth(depth, truth.shape)
    mask = valid_depth(truth, min_depth=known[0], max_depth=known[1])
    if crop is not None:
        mask &= crop_mask(*truth.shape, crop)
    return depth[None], truth[None], mask[None]


def _middle(ratios: list[float]) -> float:
    """The median of the images' ratios, without those that have none; 1 if none has."""
    return float(np.median([r for r in ratios if r > 0])) if any(r > 0 for r in ratios) else 1.0


def _check_maps(prediction: Array, truth: Array, mask: Array) -> Array:
    chex.assert_rank([prediction, truth, mask], 3)
    chex.assert_equal_shape([prediction, truth, mask])
    return jnp.asarray(mask).astype(bool)


def _median(values: Array, mask: Array) -> Array:
    """Median of the valid values of each image, `[B]`; 0 where there is none."""
    values = jnp.where(mask, values, jnp.inf).reshape(len(values), -1)
    ordered = jnp.sort(values, axis=1)
    count = jnp.sum(mask, axis=(1, 2), dtype=jnp.int32)
    middle = jnp.stack([jnp.maximum(count - 1, 0) // 2, count // 2], 1)
    middle = jnp.minimum(middle, values.shape[1] - 1)
    return jnp.where(count > 0, jnp.take_along_axis(ordered, middle, 1).mean(1), 0.0)


@jax.jit
def _depth_errors(
    depth: Array,
    truth: Array,
    mask: Array,
    scale: float | Array,
    min_depth: float,
    max_depth: float,
) -> dict[str, Score]:
    dtype = jnp.promote_types(jnp.result_type(depth, truth), jnp.float32)
    scale = jnp.broadcast_to(jnp.asarray(scale, dtype), (len(depth),))[:, None, None]
    # One under the mask's zeros, so that no value of theirs can turn up as NaN.
    depth = jnp.where(mask, depth.astype(dtype) * scale, 1.0)
    depth = jnp.clip(depth, min_depth, max_depth)
    truth = jnp.where(mask, truth.astype(dtype), 1.0)
    difference = depth - truth
    ratio = jnp.maximum(depth / truth, truth / depth)

    def root(values: Array) -> Score:
        mean, count = masked_score(values, mask)
        return Score(jnp.sqrt(mean), count)

    scores = {
        "abs_rel": masked_score(jnp.abs(difference) / truth, mask),
        "sq_rel": masked_score(difference**2 / truth, mask),
        "rmse": root(difference**2),
        "rmse_log": root((jnp.log(depth) - jnp.log(truth)) ** 2),
    }
    for power in (1, 2, 3):
        within = _flag(ratio < 1.25**power, ratio)
        scores[f"delta_{power}"] = masked_score(within, mask)
    return scores


_ratio = jax.jit(median_ratio)


def _flag(condition: Array, of: Array) -> Array:
    """1 where the condition holds, 0 where not, NaN where what it was asked of is NaN."""
    return jnp.where(jnp.isnan(of), jnp.nan, condition.astype(of.dtype))


def _resize(values: Array, size: tuple[int, int]) -> Array:
    return ops.resize(values[..., None], size)[..., 0]
