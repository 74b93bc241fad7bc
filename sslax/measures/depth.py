"""Depth and disparity against ground truth.

Every measure is taken per image, over its valid pixels: `[B, H, W]` in, `[B]` out, in float32 on
the device, also under `jit`. `sslax.measures.totals` averages them over a set. Papers differ in
which pixels they evaluate and how they scale predictions: `valid_depth`, `crop_mask` and
`median_ratio` are the pieces, `evaluate_depths` is the usual protocol.
"""

from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sslax import checks, ops
from sslax.errors import check_choice
from sslax.measures.totals import Score, image_means, indicator, masked_score, merge, totals
from sslax.ops.dtypes import accumulated, accumulation_dtype
from sslax.types import Array

# First and last row, first and last column, as fractions of height and width.
CROPS = {
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
}
MEASURES = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta_1", "delta_2", "delta_3")
# Turns the depth of a network trained with Monodepth2's nominal stereo baseline of 0.1 into meters.
MONODEPTH2_STEREO_SCALE = 5.4


def valid_depth(truth: ArrayLike, *, min_depth: float = 1e-3, max_depth: float = 80.0) -> Array:
    """Mask of pixels whose ground truth is known and in range: `min_depth < truth < max_depth`.

    Args:
        truth: `[...]`; zero, negative or not finite where unknown.
        min_depth: exclusive bound, in the unit of the truth.
        max_depth: exclusive bound.

    Returns:
        `[...]`, bool.

    Example:
        >>> valid_depth(jnp.array([0.0, 5.0, 80.0, jnp.nan, jnp.inf])).tolist()
        [False, True, False, False, False]
    """
    truth = jnp.asarray(truth)
    return jnp.isfinite(truth) & (truth > min_depth) & (truth < max_depth)


def crop_mask(height: int, width: int, crop: str) -> np.ndarray:
    """Mask of the region of a KITTI image that is evaluated.

    Rows `int(r0 H)` to `int(r1 H)` and columns `int(c0 W)` to `int(c1 W)`, exclusive at the end.
    Bounds are truncated, as in the code behind the published numbers: of 370 rows Garg's crop keeps
    151 to 365, although its comment says 152 to 366.

    Args:
        height: of the ground truth.
        width: of the ground truth.
        crop: 'garg' (most papers) or 'eigen' (Eigen et al., as the authors of monodepth
            reconstructed it).

    Returns:
        `[H, W]`, bool.

    Raises:
        UserError: if the crop is unknown.

    Example:
        >>> rows, columns = np.nonzero(crop_mask(375, 1242, "garg"))
        >>> (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (153, 371, 44, 1197)
        True

    Garg et al., Unsupervised CNN for Single View Depth Estimation, https://arxiv.org/abs/1603.04992
    """
    check_choice("crop", crop, CROPS)
    top, bottom, left, right = CROPS[crop]
    mask = np.zeros((height, width), bool)
    mask[int(top * height) : int(bottom * height), int(left * width) : int(right * width)] = True
    return mask


def median_ratio(depth: Array, truth: Array, mask: Array) -> Array:
    """Median scaling: the factor `med(truth) / med(depth)` that fixes a prediction's scale.

    Medians are over the valid pixels; for an even number of pixels, the mean of the middle two.

    Args:
        depth: `[B, H, W]`, predicted, up to scale.
        truth: `[B, H, W]`.
        mask: `[B, H, W]`, 1 where the pixel is evaluated.

    Returns:
        `[B]`; 0 if no pixel is valid or the prediction's median is 0.

    Example:
        >>> truth = jnp.array([[[2.0, 4.0, 6.0, 0.0]]])
        >>> median_ratio(truth / 4, truth, truth > 0).tolist()
        [4.0]

    Zhou et al., Unsupervised Learning of Depth and Ego-Motion from Video,
    https://arxiv.org/abs/1704.07813
    """
    checks.assert_rank([depth, truth, mask], 3)
    checks.assert_equal_shape([depth, truth, mask])
    mask = jnp.asarray(mask).astype(bool)
    median = _median(depth, mask)
    usable = median > 0
    return jnp.where(usable, _median(truth, mask) / jnp.where(usable, median, 1.0), 0.0)


def depth_errors(
    depth: Array,
    truth: Array,
    mask: Array,
    *,
    scale: float | Array = 1.0,
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
) -> dict[str, Score]:
    """The seven standard depth measures, per image.

    With `z` the truth, `ẑ = clip(scale · depth, min_depth, max_depth)` and means over valid pixels,

    ```
    abs_rel = mean |ẑ - z| / z            sq_rel   = mean (ẑ - z)² / z
    rmse    = sqrt(mean (ẑ - z)²)         rmse_log = sqrt(mean (ln ẑ - ln z)²)
    delta_k = mean [max(ẑ / z, z / ẑ) < 1.25^k],   k = 1, 2, 3
    ```

    Args:
        depth: `[B, H, W]`, predicted.
        truth: `[B, H, W]`; sq_rel and rmse are in its unit, meters in papers.
        mask: `[B, H, W]`, 1 where the pixel is evaluated; see `valid_depth` and `crop_mask`.
        scale: factor on the prediction, a number or `[B]`; see `median_ratio`.
        min_depth: lower clip of the scaled prediction.
        max_depth: upper clip of the scaled prediction.

    Returns:
        Scores by name, in the order of `MEASURES`. Pixels outside the mask have no effect; a NaN
        prediction inside it makes all measures of its image NaN.

    Example:
        >>> truth = jnp.full((1, 2, 2), 10.0)
        >>> errors = depth_errors(jnp.full((1, 2, 2), 11.0), truth, truth > 0)
        >>> {name: round(float(score.value[0]), 4) for name, score in errors.items()}
        {'abs_rel': 0.1, 'sq_rel': 0.1, 'rmse': 1.0, 'rmse_log': 0.0953, 'delta_1': 1.0, \
'delta_2': 1.0, 'delta_3': 1.0}

    Eigen et al., Depth Map Prediction from a Single Image using a Multi-Scale Deep Network,
    https://arxiv.org/abs/1406.2283
    """
    checks.assert_rank([depth, truth, mask], 3)
    checks.assert_equal_shape([depth, truth, mask])
    mask = jnp.asarray(mask).astype(bool)
    errors = _depth_errors(depth, truth, mask, scale, min_depth, max_depth)
    return {name: errors[name] for name in MEASURES}  # jit sorts dictionaries


def disparity_errors(
    disparity: ArrayLike, truth: ArrayLike, mask: ArrayLike | None = None
) -> dict[str, Score]:
    """Disparity errors, per image.

    With `e = |disparity - truth|` and means over valid pixels: `mean_error = mean e`,
    `above_3px = mean [e > 3]`, `d1 = mean [e > 3 and e > 0.05 |truth|]`.

    KITTI's D1 is the mean over all pixels of the set (`totals.pixel_means`). Both thresholds are
    strict, as in the benchmark's code; monodepth's evaluation uses `>=`, which differs in ties
    only.

    Args:
        disparity: `[B, H, W]`, predicted, dense, in pixels at the truth's resolution.
        truth: `[B, H, W]`.
        mask: `[B, H, W]`, 1 where the pixel is evaluated; by default where the truth is finite and
            positive.

    Returns:
        Scores by name: 'mean_error' in pixels, 'above_3px' and 'd1' as shares in [0, 1].

    Example:
        >>> truth = jnp.array([[[10.0, 100.0, 0.0, jnp.inf]]])
        >>> errors = disparity_errors(truth + 4, truth)
        >>> {name: (score.value.item(), score.pixels.item()) for name, score in errors.items()}
        {'mean_error': (4.0, 2), 'above_3px': (1.0, 2), 'd1': (0.5, 2)}

    Menze and Geiger, Object Scene Flow for Autonomous Vehicles, CVPR 2015.
    """
    truth = jnp.asarray(truth)
    valid = jnp.isfinite(truth) & (truth > 0) if mask is None else jnp.asarray(mask).astype(bool)
    checks.assert_rank([disparity, truth, valid], 3)
    checks.assert_equal_shape([disparity, truth, valid])
    truth = jnp.where(valid, truth, 0.0)
    error = jnp.abs(jnp.asarray(disparity, truth.dtype) - truth)
    values = {
        "mean_error": error,
        "above_3px": indicator(error > 3, error),
        "d1": indicator((error > 3) & (error > 0.05 * jnp.abs(truth)), error),
    }
    return {name: masked_score(value, valid) for name, value in values.items()}


def near_boundary(depth: ArrayLike, *, ratio: float = 1.1, radius: int = 3) -> Array:
    """Mask of pixels near an occlusion boundary, where depth jumps from one surface to another.

    A pixel q is on a boundary if the depth of one of its four neighbors r differs by a factor, and
    p is near it if it is closer than `radius` rows and columns, so that the mask is a band of
    `radius` pixels on each side:

    ```
    boundary(q) = any_r [max(z_q / z_r, z_r / z_q) > ratio],   |q - r|₁ = 1
    near(p)     = any_q [boundary(q) and |p - q|_∞ < radius]
    ```
    Combined with the mask of valid pixels it restricts any measure to boundaries, such as
    `depth_errors` or `disparity_errors`. Scale the prediction over the whole image before.

    Args:
        depth: `[B, H, W]`, ground truth: depth, or disparity, whose ratios are the same. Pixels
            that are zero, negative or not finite are unknown and make no boundary.
        ratio: above 1. A surface seen at a very small angle can exceed it from pixel to pixel.
        radius: width of the band on each side, in pixels.

    Returns:
        `[B, H, W]`, bool.

    Raises:
        ValueError: the ratio is not above 1 or the radius not positive.

    Example:
        >>> depth = jnp.array([[[2.0, 2.0, 2.0, 2.0, 2.0, 4.0, 4.0]]])
        >>> near_boundary(depth, radius=2).astype(int).tolist()
        [[[0, 0, 0, 1, 1, 1, 1]]]

    Scharstein and Szeliski, A Taxonomy and Evaluation of Dense Two-Frame Stereo Correspondence
    Algorithms, IJCV 2002, measure disparity near discontinuities, by a difference instead of a
    ratio.
    """
    depth = jnp.asarray(depth)
    checks.assert_rank(depth, 3)
    checks.assert_positive(radius=radius)
    if not ratio > 1:
        raise checks.value_error(f"ratio must be above 1; got {ratio}.")
    known = jnp.isfinite(depth) & (depth > 0)
    logarithm = jnp.log(jnp.where(known, depth, 1))
    boundary = jnp.zeros(depth.shape, bool)
    for axis in (1, 2):
        jump = jnp.abs(jnp.diff(logarithm, axis=axis)) > np.log(ratio).item()
        pairs = jnp.delete(known, 0, axis) & jnp.delete(known, -1, axis)
        for side in ((0, 1), (1, 0)):
            padding = [side if i == axis else (0, 0) for i in range(3)]
            boundary |= jnp.pad(jump & pairs, padding)
    window = (1, 2 * radius - 1, 2 * radius - 1)
    return jax.lax.reduce_window(boundary, False, jax.lax.bitwise_or, window, (1, 1, 1), "SAME")


def flip_average(disparity: Array, flipped: Array, *, margin: float = 0.05) -> Array:
    """Post-processing: blends the disparities of an image and of its horizontal flip.

    With `d'` the second prediction, flipped back, `m` the margin and `x` the column from 0 to 1,

    ```
    out = r d + l d' + (1 - l - r) (d + d') / 2,   l = 1 - clip((x - m) / m, 0, 1),  r = flip(l)
    ```
    that is d' up to m from the left border, d up to m from the right one, their mean from 2 m
    inwards, and a linear blend in between. A network trained on the left images of stereo pairs is
    unreliable at its left border, and the flipped prediction at its right one. Monodepth and
    Monodepth2 use these weights. After training on video alone there is no such border, and the
    result is an average of two predictions.

    Args:
        disparity: `[..., H, W]`, predicted from the image.
        flipped: `[..., H, W]`, predicted from the horizontally flipped image, not flipped back.
        margin: m, as a fraction of the width.

    Returns:
        `[..., H, W]`. It costs a second forward pass; report it with the numbers.

    Example:
        >>> disparity = jnp.broadcast_to(jnp.linspace(1.0, 2.0, 5), (3, 5))
        >>> bool(jnp.allclose(flip_average(disparity, disparity[:, ::-1]), disparity))
        True

    Godard et al., Unsupervised Monocular Depth Estimation with Left-Right Consistency,
    https://arxiv.org/abs/1609.03677
    """
    checks.assert_equal_shape([disparity, flipped])
    checks.assert_positive(margin=margin)
    disparity, flipped = accumulated(disparity, flipped)
    back = jnp.flip(flipped, -1)
    column = jnp.linspace(0.0, 1.0, disparity.shape[-1], dtype=disparity.dtype)
    left = 1 - jnp.clip((column - margin) / margin, 0, 1)
    right = left[::-1]
    return right * disparity + left * back + (1 - left - right) * 0.5 * (disparity + back)


def resize_disparity(disparity: ArrayLike, size: tuple[int, int]) -> Array:
    """Resizes disparity bilinearly and scales its values by the ratio of the widths.

    Args:
        disparity: `[..., H, W]`, in pixels at its own resolution.
        size: target `(h, w)`, usually that of the ground truth.

    Returns:
        `[..., h, w]`, in pixels at the new resolution.

    Example:
        >>> resize_disparity(jnp.full((2, 4), 3.0), (4, 8))[0, 0].item()
        6.0
    """
    disparity = jnp.asarray(disparity)
    return _resize(disparity, size) * (size[1] / disparity.shape[-1])


def resize_depth(depth: ArrayLike, size: tuple[int, int]) -> Array:
    """Resizes depth by bilinear interpolation of its inverse.

    Monodepth2 does the same, as its network predicts inverse depth. Interpolating depth itself puts
    points far behind every occlusion edge.

    Args:
        depth: `[..., H, W]`, positive.
        size: target `(h, w)`, usually that of the ground truth.

    Returns:
        `[..., h, w]`.

    Example:
        >>> resize_depth(jnp.array([[1.0, 3.0]]), (1, 1)).round(4).item()
        1.5
    """
    return 1 / _resize(1 / jnp.asarray(depth), size)


def evaluate_depths(
    pairs: Iterable[tuple[ArrayLike, ArrayLike]],
    *,
    crop: str | None = None,
    scaling: str | float = "median",
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
    cap_truth: bool = True,
) -> dict[str, float]:
    """The depth table of a paper: means over the images of a set.

    For KITTI's Eigen split with raw LiDAR pass `crop="garg"`; with the improved ground truth (652
    images) pass no crop and `cap_truth=False`, as Monodepth2 does.

    Args:
        pairs: of each image, predicted depth `[H, W]` and truth `[H', W']` (0 where unknown);
            `resize_depth` brings the prediction to the truth's resolution.
        crop: 'garg', 'eigen' or None.
        scaling: 'median' for per-image median scaling (`median_ratio`); 'global' for one factor,
            the median of these ratios over the set; 'none'; or a number, such as
            `MONODEPTH2_STEREO_SCALE`.
        min_depth: of truth and prediction.
        max_depth: of truth and prediction.
        cap_truth: False evaluates every known pixel, however far; predictions are clipped all the
            same.

    Returns:
        Means over images of `depth_errors` by name; 'images', the number of images with a valid
        pixel; and with 'median' or 'global' the median ratio as 'scale' and the standard deviation
        of ratio / scale over the set as 'scale_deviation', which says how consistent the network's
        scale is across images. If no image has a valid pixel, only 'images'.

    Raises:
        UserError: if scaling or crop is unknown.
        ValueError: if 'global' is given a generator, which cannot be read twice.

    Example:
        >>> truth = np.linspace(2.0, 20.0, 12).reshape(3, 4)
        >>> numbers = evaluate_depths([(truth / 7, truth), (truth / 9, truth)])
        >>> round(numbers["abs_rel"], 4), round(numbers["scale"], 4), numbers["images"]
        (0.0, 8.0, 2)

    Godard et al., Digging Into Self-Supervised Monocular Depth Estimation,
    https://arxiv.org/abs/1806.01260
    """
    if isinstance(scaling, str):
        check_choice("scaling", scaling, ("median", "global", "none"))
    if scaling == "global" and iter(pairs) is pairs:
        raise checks.value_error(
            "'global' scaling reads the pairs twice; pass a list, not a generator."
        )
    bounds = (min_depth, max_depth) if cap_truth else (0.0, np.inf)

    def examples() -> Iterator[tuple[Array, Array, Array]]:
        for depth, truth in pairs:
            yield _example(jnp.asarray(depth), jnp.asarray(truth), bounds, crop)

    ratios = [float(_ratio(*example)[0]) for example in examples()] if scaling == "global" else []
    common = 1.0 if isinstance(scaling, str) else scaling
    if scaling == "global":
        common = _median_ratio(ratios)
    parts = []
    for depth, truth, mask in examples():
        scale: float | Array = common
        if scaling == "median":
            scale = ratio = _ratio(depth, truth, mask)
            ratios.append(float(ratio[0]))
        errors = depth_errors(
            depth, truth, mask, scale=scale, min_depth=min_depth, max_depth=max_depth
        )
        parts.append(totals(errors))
    summed = merge(*parts)
    numbers = image_means(summed)
    numbers["images"] = int(summed["abs_rel"].images) if summed else 0
    if ratios and numbers["images"]:
        numbers["scale"] = median = _median_ratio(ratios)
        numbers["scale_deviation"] = float(np.std([r / median for r in ratios if r > 0]))
    return numbers


def _example(
    depth: Array, truth: Array, bounds: tuple[float, float], crop: str | None
) -> tuple[Array, Array, Array]:
    """Prediction, truth and mask `[1, H, W]`, at the truth's resolution."""
    checks.assert_rank([depth, truth], 2)
    height, width = truth.shape
    if depth.shape != truth.shape:
        depth = resize_depth(depth, (height, width))
    mask = valid_depth(truth, min_depth=bounds[0], max_depth=bounds[1])
    if crop is not None:
        mask &= crop_mask(height, width, crop)
    return depth[None], truth[None], mask[None]


def _median_ratio(ratios: list[float]) -> float:
    """Median over the images that have a ratio; 1 if none has."""
    return float(np.median([r for r in ratios if r > 0])) if any(r > 0 for r in ratios) else 1.0


def _median(values: Array, mask: Array) -> Array:
    """Median of the valid values of each image, `[B]`; 0 if none is valid."""
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
    dtype = accumulation_dtype(depth, truth)
    scale = jnp.broadcast_to(jnp.asarray(scale, dtype), (len(depth),))[:, None, None]
    # Masked pixels are set to 1, so that none of their values can turn into NaN.
    depth = jnp.where(mask, depth.astype(dtype) * scale, 1.0)
    depth = jnp.clip(depth, min_depth, max_depth)
    truth = jnp.where(mask, truth.astype(dtype), 1.0)
    difference = depth - truth
    ratio = jnp.maximum(depth / truth, truth / depth)

    def root(values: Array) -> Score:
        mean, pixels = masked_score(values, mask)
        return Score(jnp.sqrt(mean), pixels)

    scores = {
        "abs_rel": masked_score(jnp.abs(difference) / truth, mask),
        "sq_rel": masked_score(difference**2 / truth, mask),
        "rmse": root(difference**2),
        "rmse_log": root((jnp.log(depth) - jnp.log(truth)) ** 2),
    }
    for power in (1, 2, 3):
        scores[f"delta_{power}"] = masked_score(indicator(ratio < 1.25**power, ratio), mask)
    return scores


_ratio = jax.jit(median_ratio)


def _resize(values: Array, size: tuple[int, int]) -> Array:
    return ops.resize(values[..., None], size)[..., 0]
