"""The evaluation protocol of depth, ego-motion and flow, with trivial baselines.

Predictions and ground truth of a whole test set in, named numbers out. A measure is taken if both
the prediction and the truth have what it needs. A number means something only next to that of a
trivial baseline: constant depth or disparity, a static camera, zero flow.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sslax import checks, ops
from sslax.measures import depth, flow, pose, totals
from sslax.types import DepthMaps, DepthTruth, FlowMaps, FlowTruth

_SNIPPET = 5  # frames


def measure_depth(
    predicted: DepthMaps,
    truth: DepthTruth,
    *,
    scaling: str | float = "median",
    crop: str = "",
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
    cap_truth: bool = True,
) -> dict[str, float]:
    """Measures depth, disparity and ego-motion on a test set.

    Args:
        predicted: depth and disparity `[N, H, W]` at the truth's resolution, poses
            `[N, S, 4, 4]` from the target's camera (frame S // 2) to each frame's, and learned
            intrinsics `[N, 3, 3]`, and `alpha` `[N]` of a wide lens.
        truth: the same; depth together with intrinsics and baseline is also the truth of
            disparity. Poses of records with the same `sequence` are those of consecutive frames.
        scaling: as in `depth.evaluate_depths`. With 'median', poses are measured after one
            least-squares scale for the whole set.
        crop: as in `depth.evaluate_depths`; '' for none.
        min_depth: likewise.
        max_depth: likewise.
        cap_truth: likewise.

    Returns:
        For depth, the numbers of `depth.evaluate_depths`. For disparity, `disparity_error` in
        pixels, `disparity_above_3px` and `d1`. For poses, mean `rotation` and `direction` errors in
        degrees and mean `translation` error; with at least five consecutive frames also `ate` and
        `ate_legacy` of five-frame snippets. For cameras, `focal_error` in % and `center_error` in
        pixels (`camera_errors`); of a wide lens, `alpha_error`, the mean of |α - α*|.

    Raises:
        UserError: if scaling or crop is unknown.

    Example:
        >>> truth = np.linspace(1.0, 4.0, 24).reshape(1, 4, 6)
        >>> measure_depth(DepthMaps(depth=truth / 3), DepthTruth(depth=truth))["scale"]
        3.0
    """
    numbers: dict[str, float] = {}
    if predicted.depth is not None and truth.depth is not None:
        numbers |= depth.evaluate_depths(
            list(zip(np.asarray(predicted.depth), np.asarray(truth.depth))),
            scaling=scaling,
            crop=crop or None,
            min_depth=min_depth,
            max_depth=max_depth,
            cap_truth=cap_truth,
        )
        numbers.pop("images")
    disparity = true_disparity(truth)
    if predicted.disparity is not None and disparity is not None:
        summed = totals.totals(depth.disparity_errors(predicted.disparity, *disparity))
        pixel_means = totals.pixel_means(summed)
        numbers["disparity_error"] = totals.image_means(summed)["mean_error"]
        numbers["disparity_above_3px"] = pixel_means["above_3px"]
        numbers["d1"] = pixel_means["d1"]
    if predicted.pose is not None and truth.pose is not None:
        numbers |= _measure_poses(predicted, truth, fit_scale=scaling == "median")
    if predicted.intrinsics is not None and truth.intrinsics is not None:
        numbers |= camera_errors(predicted.intrinsics, truth.intrinsics)
    if predicted.alpha is not None and predicted.depth is not None:
        true = 0.0 if truth.alpha is None else np.asarray(truth.alpha, np.float64)
        numbers["alpha_error"] = float(np.mean(np.abs(np.asarray(predicted.alpha) - true)))
    return numbers


def camera_errors(predicted: ArrayLike, truth: ArrayLike) -> dict[str, float]:
    """Errors of learned cameras, means over a set.

    ```
    focal_error  = 100 mean of |f - f*| / f*, over fx and fy     center_error = mean |c - c*|₂
    ```

    Args:
        predicted: intrinsics `[N, 3, 3]`, in pixels.
        truth: the same.

    Returns:
        `focal_error` in % and `center_error` in pixels.

    Example:
        >>> true = np.array([[[50.0, 0, 4], [0, 50, 3], [0, 0, 1]]])
        >>> ours = np.array([[[100.0, 0, 7], [0, 50, 7], [0, 0, 1]]])
        >>> camera_errors(ours, true)
        {'focal_error': 50.0, 'center_error': 5.0}
    """
    ours, true = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    checks.assert_rank([ours, true], 3)
    checks.assert_equal_shape([ours, true])
    focal, true_focal = (np.diagonal(k, axis1=1, axis2=2)[:, :2] for k in (ours, true))
    center = np.linalg.norm(ours[:, :2, 2] - true[:, :2, 2], axis=-1)
    return {
        "focal_error": float(100 * np.mean(np.abs(focal - true_focal) / true_focal)),
        "center_error": float(np.mean(center)),
    }


def measure_flow(predicted: FlowMaps, truth: FlowTruth) -> dict[str, float]:
    """Measures flow and occlusion on a test set.

    Args:
        predicted: flow `[N, H, W, 2]` at the truth's resolution, and visibility `[N, H, W]`.
        truth: the same, and where flow is known.

    Returns:
        The pixel means of `flow.flow_errors`, except `epe`, which is the mean over images; and
        `occlusion_precision`, `occlusion_recall` and `occlusion_f1`. Empty if there is no truth.

    Example:
        >>> truth = np.zeros((1, 4, 6, 2))
        >>> measure_flow(FlowMaps(flow=truth + [3.0, 4.0]), FlowTruth(flow=truth))["epe"]
        5.0
    """
    if truth.flow is None:
        return {}
    ours, true = predicted.flow, truth.flow
    if truth.pixel is not None:
        pixel = truth.pixel[:, None, None]
        ours, true = ours * pixel, true * pixel
    errors = flow.flow_errors(ours, true, truth.known, visible=truth.visible)
    summed = totals.totals(errors)
    numbers = totals.pixel_means(summed) | {"epe": totals.image_means(summed)["epe"]}
    if predicted.visible is not None and truth.visible is not None:
        counts = flow.occlusion_counts(predicted.visible, truth.visible, truth.known)
        scores = flow.occlusion_scores(counts)
        numbers |= {f"occlusion_{name}": value for name, value in scores.items()}
    return numbers


def true_disparity(truth: DepthTruth) -> tuple[np.ndarray, np.ndarray] | None:
    """Ground-truth disparity of the stereo pair: `d = f b / z`.

    Args:
        truth: depth, intrinsics and baseline.

    Returns:
        Disparity `[N, H, W]` in pixels, 0 where unknown, and a mask of where it is known; None if
        one of the three is missing.

    Example:
        >>> truth = DepthTruth(
        ...     depth=np.array([[[2.0, 0.0]]]),
        ...     intrinsics=np.diag([4.0, 4.0, 1.0])[None],
        ...     baseline=np.array([0.5]),
        ... )
        >>> [array.tolist() for array in true_disparity(truth)]
        [[[[1.0, 0.0]]], [[[True, False]]]]
    """
    if truth.depth is None or truth.intrinsics is None or truth.baseline is None:
        return None
    meters = np.asarray(truth.depth)
    known = meters > 0
    focal = jnp.asarray(truth.intrinsics)[:, 0, 0, None, None]
    baseline = jnp.abs(jnp.asarray(truth.baseline))[:, None, None]
    disparity = ops.depth_to_disparity(jnp.asarray(np.where(known, meters, 1.0)), focal, baseline)
    return np.where(known, disparity, 0.0), known


def trivial_depth(predicted: DepthMaps, truth: DepthTruth) -> DepthMaps:
    """Trivial baseline of depth: constant depth or disparity, a static camera, a guess of it.

    Of a camera that is not known, the usual guess is a focal length of one width and a principal
    point in the middle.

    Args:
        predicted: what is predicted decides what the baseline has.
        truth: depth and disparity are constant at their mean over the known pixels of the set.

    Returns:
        The baseline, in the shapes of the truth; None for what has no truth.

    Example:
        >>> truth = DepthTruth(depth=np.array([[[1.0, 3.0, 0.0]]]))
        >>> trivial_depth(DepthMaps(depth=truth.depth), truth).depth.tolist()
        [[[2.0, 2.0, 2.0]]]
    """
    maps = DepthMaps()
    if predicted.depth is not None and truth.depth is not None:
        meters = np.asarray(truth.depth)
        known = meters > 0
        mean = meters[known].mean() if known.any() else 1.0
        maps = maps._replace(depth=_constant(mean, meters.shape))
    disparity = true_disparity(truth)
    if predicted.disparity is not None and disparity is not None:
        values, known = disparity
        mean = values[known].mean() if known.any() else 0.0
        maps = maps._replace(disparity=_constant(mean, values.shape))
    if predicted.pose is not None and truth.pose is not None:
        maps = maps._replace(pose=_constant(np.eye(4), np.shape(truth.pose)))
    if predicted.intrinsics is not None and truth.intrinsics is not None:
        height, width = np.asarray(predicted.depth).shape[1:]  # a learned camera goes with a map
        guess = _usual_camera(height, width)
        maps = maps._replace(intrinsics=_constant(guess, np.shape(truth.intrinsics)))
        if predicted.alpha is not None:
            maps = maps._replace(alpha=_constant(0.0, np.shape(predicted.alpha)))
    return maps


def _usual_camera(height: int, width: int) -> np.ndarray:
    """A focal length of one width, and a principal point in the middle."""
    center = (width - 1) / 2, (height - 1) / 2
    return np.array([[width, 0.0, center[0]], [0.0, width, center[1]], [0.0, 0.0, 1.0]])


def trivial_flow(predicted: FlowMaps, truth: FlowTruth) -> FlowMaps:
    """Trivial baseline of flow: zero flow, and nothing said of visibility.

    Args:
        predicted: flow `[N, H, W, 2]`.
        truth: not used; the signature is that of `trivial_depth`.

    Returns:
        Zero flow `[N, H, W, 2]`.

    Example:
        >>> trivial_flow(FlowMaps(flow=np.ones((1, 2, 3, 2))), FlowTruth()).flow.max().item()
        0.0
    """
    return FlowMaps(_constant(np.float32(0.0), np.shape(predicted.flow)))


def trajectories(predicted: DepthMaps, truth: DepthTruth) -> dict[str, np.ndarray]:
    """Camera trajectories of the longest sequence, predicted and true.

    Args:
        predicted: poses `[N, S, 4, 4]`.
        truth: poses `[N, S, 4, 4]` and `sequence` `[N]`.

    Returns:
        Camera-to-world poses `[n, 4, 4]` by name: 'ground truth', and 'predicted', aligned to it by
        a similarity. Without true poses only 'predicted'; empty without predicted poses or without
        consecutive frames.

    Example:
        >>> poses = np.tile(np.eye(4), (4, 3, 1, 1))
        >>> trajectories(DepthMaps(pose=poses), DepthTruth(sequence=np.zeros(4)))["predicted"].shape
        (6, 4, 4)
    """
    if predicted.pose is None or truth.sequence is None:
        return {}
    names, counts = np.unique(np.asarray(truth.sequence), return_counts=True)
    if counts.max() < 2:
        return {}
    rows = np.asarray(truth.sequence) == names[counts.argmax()]
    trajectory = _trajectory(np.asarray(predicted.pose)[rows])
    if truth.pose is None:
        return {"predicted": trajectory}
    reference = _trajectory(np.asarray(truth.pose)[rows])
    aligned = pose.align_trajectory(trajectory, reference, align="sim3")
    return {"ground truth": reference, "predicted": aligned}


def _measure_poses(predicted: DepthMaps, truth: DepthTruth, *, fit_scale: bool) -> dict[str, float]:
    poses, true_poses = np.asarray(predicted.pose), np.asarray(truth.pose)
    sources = np.delete(np.arange(poses.shape[1]), poses.shape[1] // 2)  # all but the target
    motions, true_motions = (p[:, sources].reshape(-1, 4, 4) for p in (poses, true_poses))
    translation, true_translation = motions[:, :3, 3], true_motions[:, :3, 3]
    scale = pose.translation_scale(translation, true_translation) if fit_scale else 1.0
    errors = pose.relative_pose_errors(motions, true_motions, scale=scale)
    numbers = {name: float(np.mean(error)) for name, error in errors.items() if len(error)}
    snippets = []
    sequence = np.asarray([] if truth.sequence is None else truth.sequence)
    for name in np.unique(sequence):
        rows = sequence == name
        pair = _trajectory(poses[rows]), _trajectory(true_poses[rows])
        if len(pair[0]) >= _SNIPPET:
            snippets.append(pose.snippet_errors(*(pose.snippets(t, length=_SNIPPET) for t in pair)))
    for name in ("ate", "ate_legacy") if snippets else ():
        numbers[name] = float(np.mean(np.concatenate([errors[name] for errors in snippets])))
    return numbers


def _trajectory(poses: np.ndarray) -> np.ndarray:
    """Camera-to-world `[N, 4, 4]` from the poses `[N - S + 1, S, 4, 4]` of consecutive records."""
    return pose.compose_poses(pose.consecutive_motions(poses))


def _constant(value: Any, shape: tuple[int, ...]) -> Any:
    """An array that takes no memory, as test sets can be large."""
    return np.broadcast_to(value, shape)
