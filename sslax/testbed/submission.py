"""Predictions of a trained run for a test bed, in the files that a program writes for it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sslax import paths
from sslax.data.files.cameras import write_kitti_poses
from sslax.data.files.flow_files import write_flow
from sslax.data.files.images import read_image
from sslax.data.files.maps import write_pfm
from sslax.data.files.png import write_png
from sslax.errors import UserError
from sslax.inference.estimator import DepthEstimator, Estimator, FlowEstimator
from sslax.measures import pose
from sslax.testbed.layout import TASKS, read_manifest, sample_names

OPTIONS = ("batch_size", "post_process", "size")  # flags of `sslax.predict` that apply

Place = tuple[Path, Path]  # of a sample's images, and of its predictions


def write(estimator: Estimator, bed: Path, folder: Path, options: Mapping[str, Any]) -> None:
    """Predicts all conditions of a test bed: flow, disparity of the left image, or depth and poses.

    Args:
        estimator: of the run.
        bed: folder of the test bed.
        folder: of the predictions.
        options: flags of `sslax.predict` by name.

    Raises:
        UserError: the run predicts nothing that the test bed asks for, or the folder cannot be
            written to, or is the test bed.
    """
    found = read_manifest(bed)
    paths.check_output(folder, "--output", folder=True)
    if folder.resolve() == bed.resolve():
        raise UserError(f"--output={folder} is the test bed itself: name another folder.")
    batch_size = options.get("batch_size", 8)
    if isinstance(estimator, FlowEstimator):
        task, predict = "flow", _write_flow
        knobs = {"batch_size": batch_size}
    elif isinstance(estimator, DepthEstimator):
        task = "stereo" if "disparity" in estimator.predicts else "video"
        predict = _write_disparity if task == "stereo" else _write_video
        knobs = {"batch_size": batch_size, "post_process": bool(options.get("post_process"))}
    else:
        raise UserError("A test bed asks for depth, motion and flow; this run predicts features.")
    names = sample_names(found["tasks"][task]["samples"])
    for condition in found["conditions"]:
        places = [(bed / condition / task / n, folder / condition / task / n) for n in names]
        for _, place in places:
            place.mkdir(parents=True, exist_ok=True)
        predict(estimator, places, knobs)
    print(
        f"Wrote {folder}: {task}, {len(names)} samples in {len(found['conditions'])} condition(s); "
        f"python -m sslax.testbed --predictions={folder} --truth={bed} scores them."
    )


def _write_flow(estimator: FlowEstimator, places: list[Place], knobs: dict[str, Any]) -> None:
    name = TASKS["flow"].target
    examples = _examples(estimator, places, TASKS["flow"].images)
    for example, maps in estimator.over(examples, **knobs):
        write_flow(example["place"] / f"{name}.flo", maps.flow)
        if maps.visible is not None:
            mask = np.rint(255 * np.clip(maps.visible, 0, 1)).astype(np.uint8)
            write_png(example["place"] / f"{name}_visible.png", mask)


def _write_disparity(estimator: DepthEstimator, places: list[Place], knobs: dict[str, Any]) -> None:
    name = TASKS["stereo"].target
    for example, maps in estimator.over(_examples(estimator, places, (name,)), **knobs):
        write_pfm(example["place"] / f"{name}.pfm", maps.disparity)


def _write_video(estimator: DepthEstimator, places: list[Place], knobs: dict[str, Any]) -> None:
    """Depth from the window around the middle, and poses from all windows of a snippet."""
    frames, count = TASKS["video"].images, estimator.frames
    if count > len(frames):
        raise UserError(f"The run takes {count} frames, and a snippet has {len(frames)}.")
    middle = (len(frames) - count + 1) // 2  # the window whose target is the middle frame
    windows = [frames[i : i + count] for i in range(len(frames) - count + 1)]
    poses: list[np.ndarray] = []
    for start, window in enumerate(windows):
        examples = _examples(estimator, places, window)
        predicted = []
        for example, maps in estimator.over(examples, **knobs):
            predicted.append(maps.pose)
            if start == middle:
                write_pfm(example["place"] / f"{TASKS['video'].target}.pfm", maps.depth)
        if predicted[0] is not None:
            poses.append(np.stack(predicted))
    for (_, place), snippet in zip(places, zip(*poses)):
        trajectory = pose.compose_poses(pose.consecutive_motions(np.stack(snippet)))
        write_kitti_poses(place / "trajectory.txt", trajectory)


def _examples(
    estimator: Estimator, places: list[Place], names: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """Images of each sample, with the folder of its predictions under 'place'."""
    for source, place in places:
        images = [read_image(source / f"{n}.png", channels=estimator.channels) for n in names]
        yield {"image": np.stack(images), "place": place}
