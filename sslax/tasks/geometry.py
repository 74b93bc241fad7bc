"""What a run that predicts depth, ego-motion or flow is worth, against the truth of a test set.

Beside each number stands that of a prediction without any thought: one depth, or one disparity,
for all pixels; a camera that stands still; flow of zero.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sslax import figures, ops
from sslax.measures import depth, flow, pose, totals
from sslax.types import Array, Batch

Arrays = Mapping[str, np.ndarray]

TRUTH = ("depth", "pose", "flow", "known", "visible", "intrinsics", "baseline", "sequence")
PREDICTIONS = ("depth", "disparity", "pose", "flow")
TRIVIAL = "_trivial"
_SNIPPET = 5  # frames


def measure(
    predicted: Arrays,
    truth: Arrays,
    *,
    scaling: str | float = "median",
    crop: str = "",
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
    cap_truth: bool = True,
) -> dict[str, float]:
    """All numbers that predictions `[N, ...]` and a truth allow.

    Args:
        predicted: 'depth' `[N, H, W]`, 'disparity' `[N, H, W]` in pixels, 'pose' `[N, S, 4, 4]`
            from the target's camera, in the middle, to each of S frames', 'flow' `[N, H, W, 2]`,
            'visible' `[N, H, W]`; whichever there are.
        truth: the same; 'depth' is 0 where unknown, and with 'intrinsics' `[N, 3, 3]` and
            'baseline' `[N]` it is also the truth of disparity; 'known' `[N, H, W]` says where flow
            is known; 'sequence' `[N]`, equal where records are consecutive frames of one video.
        scaling, crop, min_depth, max_depth, cap_truth: as in `depth.evaluate_depths`; '' for no
            crop.

    Returns:
        Of depth the numbers of `depth.evaluate_depths`; of disparity `disparity_error`,
        `disparity_above_3px`, `d1`; of poses mean `rotation`, `direction` in degrees and
        `translation`, after one scale for the set with median scaling, and where records are
        consecutive `ate` and `ate_legacy` of five frames; of flow those of `flow.flow_errors`, and
        `occlusion_precision`, `occlusion_recall`, `occlusion_f1`.

    Example:
        >>> truth = {"depth": np.linspace(1.0, 4.0, 24).reshape(1, 4, 6)}
        >>> measure({"depth": truth["depth"] / 3}, truth)["scale"]
        3.0
    """
    numbers: dict[str, float] = {}
    if "depth" in truth and "depth" in predicted:
        numbers |= depth.evaluate_depths(
            list(zip(predicted["depth"], truth["depth"])),
            scaling=scaling,
            crop=crop or None,
            min_depth=min_depth,
            max_depth=max_depth,
            cap_truth=cap_truth,
        )
        numbers.pop("images")
    if "disparity" in predicted and (found := true_disparity(truth)) is not None:
        errors = depth.disparity_errors(predicted["disparity"], *found)
        summed = totals.totals(errors)
        numbers["disparity_error"] = totals.image_means(summed)["mean_error"]
        for name, column in (("above_3px", "disparity_above_3px"), ("d1", "d1")):
            numbers[column] = totals.pixel_means(summed)[name]
    if "pose" in truth and "pose" in predicted:
        numbers |= _poses(predicted["pose"], truth, scaled=scaling == "median")
    if "flow" in truth and "flow" in predicted:
        numbers |= _flow(predicted, truth)
    return numbers


def true_disparity(truth: Arrays) -> tuple[np.ndarray, np.ndarray] | None:
    """Disparity `[N, H, W]` in pixels, and where it is known, from depth and the cameras."""
    if not {"depth", "intrinsics", "baseline"} <= truth.keys():
        return None
    known = truth["depth"] > 0
    focal, baseline = truth["intrinsics"][:, 0, 0], np.abs(truth["baseline"])
    meters = np.where(known, truth["depth"], 1.0)
    disparity = ops.depth_to_disparity(meters, focal[:, None, None], baseline[:, None, None])
    return np.where(known, disparity, 0.0), known


def trivial(predicted: Arrays, truth: Arrays) -> dict[str, np.ndarray]:
    """What is predicted without thinking, of everything that was predicted and is known.

    One depth for all, the mean of the set's; likewise one disparity; identity poses; zero flow,
    all of it visible.

    Example:
        >>> truth = {"depth": np.array([[[1.0, 3.0, 0.0]]])}
        >>> trivial(truth, truth)["depth"].tolist()
        [[[2.0, 2.0, 2.0]]]
    """
    made = {}
    if "depth" in predicted and "depth" in truth:
        found = truth["depth"]
        made["depth"] = np.full(found.shape, found[found > 0].mean() if (found > 0).any() else 1.0)
    if "disparity" in predicted and (found := true_disparity(truth)) is not None:
        values, known = found
        made["disparity"] = np.full(values.shape, values[known].mean() if known.any() else 0.0)
    if "pose" in predicted and "pose" in truth:
        made["pose"] = np.broadcast_to(np.eye(4), truth["pose"].shape)
    if "flow" in predicted and "flow" in truth:
        made["flow"] = np.zeros_like(truth["flow"])
    return made


def mirrored(batch: Batch) -> Batch:
    """The batch of mirror images, for post-processing; whatever else it holds is left alone."""
    changed = {"image": batch["image"][..., ::-1, :]}
    if "intrinsics" in batch:
        width = batch["image"].shape[-2]
        changed["intrinsics"] = ops.flip_intrinsics(batch["intrinsics"], width)
    return {**batch, **changed}


def post_processed(predicted: Mapping[str, Any], of_mirror_images: Arrays) -> dict[str, Any]:
    """Predictions whose disparity and depth are the flip averages (`depth.flip_average`)."""
    found = dict(predicted)
    if "disparity" in found:
        pair = found["disparity"], of_mirror_images["disparity"]
        found["disparity"] = np.asarray(depth.flip_average(*pair))
    if "depth" in found:
        pair = 1 / found["depth"], 1 / of_mirror_images["depth"]
        found["depth"] = 1 / np.asarray(depth.flip_average(*pair))
    return found


def table(results: Mapping[str, float], suffixes: Sequence[str]) -> str:
    """The numbers as aligned text: a row for each, a column for each suffix.

    Example:
        >>> print(table({"epe": 0.5, "epe_trivial": 2.25}, ("", "_trivial")))
              trained   trivial
        epe     0.500     2.250
    """
    names = [n for n in results if not any(s and n.endswith(s) for s in suffixes)]
    head = [suffix.removeprefix("_") or "trained" for suffix in suffixes]
    width = max((len(name) for name in names), default=0)
    lines = [" " * width + "".join(f"{column:>10}" for column in head)]
    for name in names:
        values = [results.get(name + suffix) for suffix in suffixes]
        cells = ["-" if value is None else f"{value:.3f}" for value in values]
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)


def draw(
    images: Callable[[np.ndarray], np.ndarray], predicted: Arrays, truth: Arrays, folder: Path
) -> None:
    """`predictions.png` and, of consecutive frames, `trajectory.png`, in `folder`.

    Args:
        images: of the numbers of some records, `[n]`, their images uint8 `[n, V, H, W, C]`.
        predicted, truth: as `measure` takes them.
        folder: of the run's pictures.
    """
    count = len(next(iter(predicted.values())))
    rows = np.linspace(0, count - 1, min(8, count)).astype(int)
    ours, theirs = ({n: v[rows] for n, v in found.items()} for found in (predicted, truth))
    if "flow" in predicted:
        frames = images(rows)
        first = (frames.shape[1] - 1) // 2  # of two frames; of three the one in the middle
        columns = {"image": frames[:, first]} | _flow_pictures(ours, theirs)
    else:
        image = images(rows)[:, target_of(predicted)]
        columns = {"image": image} | _depth_pictures(ours, theirs)
    figures.task_grid(columns, folder / "predictions.png", title="Predictions on the test set")
    paths = trajectories(predicted, truth)
    if paths:
        figures.trajectories(paths, folder / "trajectory.png")


def target_of(predicted: Arrays) -> int:
    """The place of the target among the images of a record."""
    return predicted["pose"].shape[1] // 2 if "pose" in predicted else 0


def trajectories(predicted: Arrays, truth: Arrays) -> dict[str, np.ndarray]:
    """Camera-to-world poses of the longest sequence, true and predicted, aligned to the truth.

    Nothing where there are no poses or no consecutive frames. Without true poses only the
    predicted ones.
    """
    if "pose" not in predicted or "sequence" not in truth:
        return {}
    numbers, counts = np.unique(truth["sequence"], return_counts=True)
    rows = truth["sequence"] == numbers[counts.argmax()]
    if counts.max() < 2:
        return {}
    ours = pose.compose_poses(pose.consecutive_motions(predicted["pose"][rows]))
    if "pose" not in truth:
        return {"predicted": ours}
    theirs = pose.compose_poses(pose.consecutive_motions(truth["pose"][rows]))
    return {"true": theirs, "predicted": pose.align_trajectory(ours, theirs, align="sim3")}


def _poses(predicted: np.ndarray, truth: Arrays, *, scaled: bool) -> dict[str, float]:
    target = predicted.shape[1] // 2
    sources = [frame for frame in range(predicted.shape[1]) if frame != target]
    ours = predicted[:, sources].reshape(-1, 4, 4)
    theirs = truth["pose"][:, sources].reshape(-1, 4, 4)
    scale = pose.translation_scale(ours[:, :3, 3], theirs[:, :3, 3]) if scaled else 1.0
    errors = pose.relative_pose_errors(ours, theirs, scale=scale)
    numbers = {name: float(np.mean(error)) for name, error in errors.items() if len(error)}
    snippets = []
    for number in np.unique(truth.get("sequence", [])):
        rows = truth["sequence"] == number
        motions = [pose.consecutive_motions(x[rows]) for x in (predicted, truth["pose"])]
        ways = [pose.compose_poses(motion) for motion in motions]
        if len(ways[0]) >= _SNIPPET:
            runs = [pose.snippets(way, length=_SNIPPET) for way in ways]
            snippets.append(pose.snippet_errors(*runs))
    for name in ("ate", "ate_legacy") if snippets else ():
        numbers[name] = float(np.mean(np.concatenate([found[name] for found in snippets])))
    return numbers


def _flow(predicted: Arrays, truth: Arrays) -> dict[str, float]:
    visible = truth.get("visible")
    known = truth.get("known")
    errors = flow.flow_errors(predicted["flow"], truth["flow"], known, visible=visible)
    summed = totals.totals(errors)
    numbers = totals.pixel_means(summed) | {"epe": totals.image_means(summed)["epe"]}
    if "visible" in predicted and visible is not None:
        counts = flow.occlusion_counts(predicted["visible"], visible, known)
        numbers |= {f"occlusion_{n}": v for n, v in flow.occlusion_scores(counts).items()}
    return numbers


def _depth_pictures(predicted: Arrays, truth: Arrays) -> dict[str, Array]:
    ours = np.asarray(predicted["depth"] if "depth" in predicted else 1 / predicted["disparity"])
    pictures = {"inverse depth": np.stack([figures.depth_colors(x) for x in ours])}
    if "depth" not in truth or "depth" not in predicted:
        return pictures
    theirs = truth["depth"]
    pictures["true"] = np.stack([figures.depth_colors(x) for x in theirs])
    known = theirs > 0
    ratio = [np.median(t[k] / o[k]) if k.any() else 1.0 for o, t, k in zip(ours, theirs, known)]
    scaled = ours * np.reshape(ratio, (-1, 1, 1))
    error = np.where(known, np.abs(scaled - theirs) / np.where(known, theirs, 1.0), np.nan)
    pictures["relative error, black 0 to white 0.5"] = np.stack(
        [figures.disparity_colors(x, lowest=0.0, highest=0.5, colors="gray") for x in error]
    )
    return pictures


def _flow_pictures(predicted: Arrays, truth: Arrays) -> dict[str, Array]:
    known = truth.get("known", np.ones(predicted["flow"].shape[:3], bool))
    reference = truth.get("flow", predicted["flow"])
    speed = np.linalg.norm(np.where(known[..., None], reference, 0.0), axis=-1)
    radius = [max(float(np.percentile(x, 99)), 0.5) for x in speed]

    def colored(fields: np.ndarray, masks: np.ndarray) -> np.ndarray:
        parts = zip(fields, masks, radius)
        return np.stack([figures.flow_colors(f, mask=m, max_radius=r) for f, m, r in parts])

    pictures = {"flow": colored(predicted["flow"], np.ones_like(known))}
    if "flow" in truth:
        pictures["true"] = colored(np.where(known[..., None], truth["flow"], 0.0), known)
    for name, found in (("visible", predicted), ("true visible", truth)):
        if "visible" in found:
            pictures[name] = np.asarray(found["visible"], np.float32)[..., None]
    return pictures


def geometric(shapes: Mapping[str, jax.ShapeDtypeStruct]) -> bool:
    """Whether a method's predictions, or their shapes, are of geometry rather than features."""
    return any(name in shapes for name in PREDICTIONS)
