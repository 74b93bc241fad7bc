"""Scores of predictions in files, next to those of a trivial baseline."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from sslax.data.files.text import write_text
from sslax.data.records import DataError
from sslax.measures import depth, flow, geometry, pose, totals
from sslax.tasks.tables import aligned
from sslax.testbed.layout import QUANTITIES, TASKS, TRUTH, read_manifest
from sslax.testbed.reading import conditions_in, read_mask, read_quantity
from sslax.types import DepthMaps, DepthTruth, FlowMaps, FlowTruth

TRIVIAL = "trivial"
SCORES = "scores.json"
SHOWN = {  # of each task, what the table has
    "stereo": (
        *("disparity_error", "d1", "disparity_error_visible", "disparity_error_occluded"),
        "disparity_error_edges",
    ),
    "flow": (
        *("epe", "fl", "epe_visible", "epe_occluded", "epe_s0_10", "epe_s10_40", "epe_s40"),
        *("epe_moving", "occlusion_f1"),
    ),
    "video": (
        *("abs_rel", "delta_1", "abs_rel_edges", "abs_rel_moving"),
        *("rotation", "direction", "ate"),
    ),
}

Arrays = dict[str, np.ndarray]
Scores = dict[str, dict[str, float]]  # by task and measure


def score(predictions: Path, bed: Path) -> dict[str, Any]:
    """Scores what a program predicted.

    Args:
        predictions: folder with `CONDITION/TASK/SAMPLE/FILE`, as the test bed's README says.
        bed: folder of the test bed, with its truth.

    Returns:
        'conditions': scores by condition, task and measure; 'trivial': those of the trivial
        baseline, by task and measure; 'missing': by condition, the quantities that it has no
        predictions of.

    Raises:
        DataError: the folders are not as they should be, or a file cannot be scored.
    """
    tasks = read_manifest(bed)["tasks"]
    samples = {name: tasks[name]["samples"] for name in TASKS}
    conditions = conditions_in(predictions, samples)
    truth = read_truth(bed / TRUTH, samples)
    scores: dict[str, Scores] = {}
    missing: dict[str, list[str]] = {}
    for condition in conditions:
        scores[condition] = {}
        found = read_predictions(predictions / condition, samples)
        for task in TASKS:
            of_task = {n: found[n] for n, q in QUANTITIES.items() if q.task == task and n in found}
            if of_task:
                scores[condition][task] = MEASURES[task](of_task, truth)
        missing[condition] = [name for name in QUANTITIES if name not in found]
        if not scores[condition]:
            raise DataError(
                f"{predictions / condition} has no predictions; README.md of the test bed says "
                "how files are named, such as stereo/000/left.pfm"
            )
    baseline = trivial(truth)
    scored = {task for of_condition in scores.values() for task in of_condition}
    simple = {task: MEASURES[task](baseline, truth) for task in TASKS if task in scored}
    return {"conditions": scores, TRIVIAL: simple, "missing": missing}


def read_truth(folder: Path, samples: dict[str, int]) -> Arrays:
    """All quantities of the truth, and masks by task and name, such as 'flow_moving'.

    Raises:
        DataError: the truth is not there, or not complete.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is missing, and scores need the truth; write the test bed again")
    truth = read_predictions(folder, samples)
    for task, mask in (("stereo", "visible"), ("flow", "moving"), ("video", "moving")):
        truth[f"{task}_{mask}"] = read_mask(folder, task, mask, samples[task])
    return truth


def read_predictions(folder: Path, samples: dict[str, int]) -> Arrays:
    """The quantities that a folder has."""
    read = {n: read_quantity(folder, n, samples[q.task]) for n, q in QUANTITIES.items()}
    return {name: values for name, values in read.items() if values is not None}


def trivial(truth: Arrays) -> Arrays:
    """Predictions that need no images: the mean disparity, zero flow, a constant depth, no motion.

    Args:
        truth: whose disparity is averaged; everything else is the shape.
    """
    maps = geometry.trivial_depth(
        DepthMaps(depth=truth["depth"], pose=truth["poses"]),
        DepthTruth(depth=truth["depth"], pose=truth["poses"]),
    )
    return {
        "disparity": np.full_like(truth["disparity"], truth["disparity"].mean()),
        "flow": geometry.trivial_flow(FlowMaps(truth["flow"]), FlowTruth()).flow,
        "depth": np.asarray(maps.depth),
        "poses": np.asarray(maps.pose),
    }


def measure_stereo(found: Arrays, truth: Arrays) -> dict[str, float]:
    """Disparity of the left image, everywhere and in parts of it.

    Args:
        found: 'disparity' `[N, H, W]`.
        truth: the same, and 'stereo_visible' `[N, H, W]`.

    Returns:
        Pixel means of `depth.disparity_errors`, as `disparity_error`, `disparity_above_3px` and
        `d1`; with `_visible` and `_occluded`, over the pixels that the right image shows or not,
        and with `_edges`, within 3 pixels of an occlusion boundary.
    """
    true, visible = truth["disparity"], truth["stereo_visible"]
    edges = np.asarray(depth.near_boundary(true))
    numbers = {}
    parts = {"": true > 0, "_visible": visible, "_occluded": ~visible, "_edges": edges}
    for part, mask in parts.items():
        errors = totals.totals(depth.disparity_errors(found["disparity"], true, mask))
        means = totals.pixel_means(errors)
        names = {"mean_error": "disparity_error", "above_3px": "disparity_above_3px", "d1": "d1"}
        numbers |= {f"{names[name]}{part}": value for name, value in means.items()}
    return numbers


def measure_flow(found: Arrays, truth: Arrays) -> dict[str, float]:
    """Flow from the first image to the second.

    Args:
        found: 'flow' `[N, H, W, 2]`, and 'visible' `[N, H, W]` if it was predicted.
        truth: the same, and 'flow_moving' `[N, H, W]`.

    Returns:
        The numbers of `geometry.measure_flow`, and `epe_moving`, over boxes that move on their own.
        Visibility without flow has its own three only.
    """
    known = FlowTruth(truth["flow"], visible=truth["visible"])
    visible = found.get("visible")
    if "flow" not in found:
        zero = FlowMaps(np.zeros_like(truth["flow"]), visible=visible)
        numbers = geometry.measure_flow(zero, known)
        return {name: value for name, value in numbers.items() if name.startswith("occlusion")}
    numbers = geometry.measure_flow(FlowMaps(found["flow"], visible=visible), known)
    moving = flow.flow_errors(found["flow"], truth["flow"], truth["flow_moving"])
    return numbers | _only(totals.pixel_means(totals.totals(moving)), "epe", "moving")


def measure_video(found: Arrays, truth: Arrays) -> dict[str, float]:
    """Depth of the frame in the middle, and the motion of the camera.

    Args:
        found: 'depth' `[N, H, W]`, up to a scale for each image; 'poses' `[N, 5, 4, 4]`,
            camera-to-world, up to a scale for each snippet; either may be missing.
        truth: the same, and 'video_moving' `[N, H, W]`.

    Returns:
        For depth the numbers of `geometry.measure_depth` after median scaling; with `_edges` those
        within 3 pixels of an occlusion boundary, `abs_rel_moving` over boxes that move on their
        own, at the same scales. For poses mean `rotation` and `direction` errors from frame to
        frame, in degrees, and `ate`, `ate_legacy` of `pose.snippet_errors`, in meters.
    """
    numbers: dict[str, float] = {}
    if "depth" in found:
        maps, true = found["depth"], truth["depth"]
        numbers |= geometry.measure_depth(DepthMaps(depth=maps), DepthTruth(depth=true))
        valid = depth.valid_depth(true)
        scale = depth.median_ratio(maps, true, valid)
        for part, mask in (
            ("edges", depth.near_boundary(true)),
            ("moving", truth["video_moving"]),
        ):
            errors = depth.depth_errors(maps, true, valid & mask, scale=scale)
            names = depth.MEASURES if part == "edges" else ("abs_rel",)
            means = totals.image_means(totals.totals(errors))
            numbers |= {f"{name}_{part}": means[name] for name in names if name in means}
    if "poses" in found:
        numbers |= _measure_poses(found["poses"], truth["poses"])
    return numbers


MEASURES = {"stereo": measure_stereo, "flow": measure_flow, "video": measure_video}


def _measure_poses(poses: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    motions, true = (
        np.concatenate([pose.relative_poses(snippet) for snippet in each])
        for each in (poses, truth)
    )
    errors = pose.relative_pose_errors(motions, true)
    snippets = pose.snippet_errors(poses, truth)
    measured = {name: errors[name] for name in ("rotation", "direction")}
    measured |= {name: snippets[name] for name in ("ate", "ate_legacy")}
    return {name: float(np.mean(values)) for name, values in measured.items()}


def _only(means: dict[str, float], name: str, part: str) -> dict[str, float]:
    return {f"{name}_{part}": means[name]} if name in means else {}


def table(results: dict[str, Any]) -> str:
    """The scores as text: of each task a row for each condition, and one for the trivial baseline.

    Args:
        results: as `score` returns them.
    """
    rows = {**results["conditions"], TRIVIAL: results[TRIVIAL]}
    blocks = []
    for task, columns in SHOWN.items():
        scored = {row: tasks[task] for row, tasks in rows.items() if task in tasks}
        columns = [c for c in columns if any(c in s for n, s in scored.items() if n != TRIVIAL)]
        if columns:
            cells = [[row, *(_text(s.get(c)) for c in columns)] for row, s in scored.items()]
            blocks.append("\n".join(aligned([[[task, *columns], *cells]])))
    absent: dict[str, list[str]] = {}  # conditions by what they lack
    for condition, names in results["missing"].items():
        absent.setdefault(", ".join(names), []).append(condition)
    notes = [f"{', '.join(where)}: no {what}" for what, where in absent.items() if what]
    return "\n\n".join([*blocks, *notes])


def write_scores(path: Path, results: dict[str, Any]) -> None:
    """Writes what `score` returned as JSON; numbers that are not finite become null."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: finite(each) for name, each in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    write_text(path, json.dumps(finite(results), indent=2) + "\n")


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
