"""The task of learning depth and ego-motion: maps and poses, measured against ground truth."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sslax import figures
from sslax.data.files.cameras import read_intrinsics
from sslax.errors import UserError
from sslax.inference import outputs
from sslax.inference.estimator import DepthEstimator, predict_depth
from sslax.inference.inputs import Files, Film, Frame
from sslax.inference.predictor import Predictor
from sslax.measures import geometry
from sslax.report import depth as report
from sslax.tasks import maps, tables
from sslax.tasks.base import Evaluated, Parts, Subject, Task
from sslax.tasks.batches import parts_of, stack_images, video_rows
from sslax.types import Batch, DepthMaps, DepthTruth, InverseDepth, Pictures, Variables

_DRAWN = 8  # examples


def predict(
    subject: Subject, predictor: Predictor, batch: Batch
) -> tuple[DepthMaps, dict[str, np.ndarray]]:
    """The prediction, averaged with that of the mirror images where the config asks for it."""
    post_process = subject.run.config.evaluate.depth.post_process
    return predict_depth(predictor, batch, post_process=post_process)


def measure(subject: Subject, variables: Variables | None, parts: Parts) -> dict[str, float]:
    """`measures.geometry.measure_depth` with the config's settings."""
    knobs = dict(subject.run.config.evaluate.depth)
    knobs.pop("post_process")
    return geometry.measure_depth(*parts["test"], **knobs)


def baselines(subject: Subject, parts: Parts) -> dict[str, Parts]:
    """Constant depth or disparity, a static camera, and the usual guess of its intrinsics."""
    prediction, truth = parts["test"]
    trivial = geometry.trivial_depth(prediction, truth)
    return {tables.TRIVIAL: {"test": Evaluated(trivial, truth)}}


def draw(subject: Subject, predicted: dict[str, Parts], folder: Path) -> report.Shown:
    """`predictions.png` and, for consecutive frames, `trajectory.png`."""
    prediction, truth = predicted[""]["test"]
    values = prediction.disparity if prediction.depth is None else prediction.depth
    inverse = values if prediction.depth is None else _inverse(values)
    rows = np.linspace(0, len(values) - 1, min(_DRAWN, len(values))).astype(int)
    source = parts_of(subject.dataset).get("test", subject.dataset.train)
    target_index = 0 if prediction.pose is None else prediction.pose.shape[1] // 2
    frames = stack_images(source, rows)[:, target_index]
    columns: Pictures = {"image": frames}
    columns |= _pictures(_rows(prediction, rows), _rows(truth, rows))
    figures.task_grid(columns, folder / "predictions.png", title="Predictions on the test set")
    paths = geometry.trajectories(prediction, truth)
    if paths:
        figures.trajectories(paths, folder / "trajectory.png")
    film = video_rows(source)
    # Depths that were learned with a camera go with that one.
    known = truth if prediction.intrinsics is None else prediction
    return report.Shown(
        columns=columns,
        depth=_inverse(values[rows]) if prediction.depth is None else values[rows],
        unit="m" if prediction.depth is not None and subject.run.plan.method.task.metric else "",
        intrinsics=None if known.intrinsics is None else known.intrinsics[rows],
        trajectories=paths,
        film_images=stack_images(source, film)[:, target_index] if len(film) else frames[:0],
        film_colors=figures.disparity_colors(inverse[film]),  # one range, so as not to flicker
        alpha=None if known.alpha is None else known.alpha[rows],
    )


def _rows(record: Any, rows: np.ndarray) -> Any:
    """Some rows of a record of arrays."""
    return type(record)(*(None if leaf is None else leaf[rows] for leaf in record))


def _pictures(prediction: DepthMaps, truth: DepthTruth) -> Pictures:
    """Inverse depth, predicted and true, and the relative error after median scaling."""
    if prediction.depth is None:
        return {"inverse depth": InverseDepth(prediction.disparity)}
    columns: Pictures = {"inverse depth": InverseDepth(_inverse(prediction.depth))}
    if truth.depth is None:
        return columns
    columns["ground truth"] = InverseDepth(_inverse(truth.depth))
    known = truth.depth > 0
    ratios = [
        np.median(t[k] / p[k]) if k.any() else 1.0
        for p, t, k in zip(prediction.depth, truth.depth, known)
    ]
    scaled = prediction.depth * np.reshape(ratios, (-1, 1, 1))
    error = np.abs(scaled - truth.depth) / np.where(known, truth.depth, 1.0)
    gray = [
        figures.disparity_colors(e, mask=k, lowest=0.0, highest=0.5, colormap="gray")
        for e, k in zip(error, known)
    ]
    return columns | {"relative error, black 0 to white 0.5": np.stack(gray)}


def _inverse(depth: np.ndarray) -> np.ndarray:
    """`1 / depth`, NaN where unknown."""
    return np.where(depth > 0, 1 / np.where(depth > 0, depth, 1.0), np.nan)


def write(estimator: DepthEstimator, given: str, folder: Path, options: Mapping[str, Any]) -> None:
    """Writes depth maps, and of a video trajectory and film, as files; see docs/predict.md.

    Args:
        estimator: of the run.
        given: as `inputs.open_frames` takes it.
        folder: of the output.
        options: flags of `sslax.predict` by name.

    Raises:
        UserError: no such input, the camera is missing or wrong, or the folder is none or holds
            the images.
    """
    frames = maps.open_input(estimator, given, folder)
    camera = _camera(estimator, options.get("intrinsics"), options.get("baseline"))
    video = _is_video(estimator, frames, options.get("video"))
    if video:
        maps.warn_of_gaps(frames)
    folder.mkdir(parents=True, exist_ok=True)
    reach, fps = options.get("reach", 5.0), options.get("fps", 10.0)
    writer = outputs.DepthFiles(folder, intrinsics=camera.get("intrinsics"), reach=reach)
    poses: list[np.ndarray] = []
    predicted = _predicted(
        estimator,
        frames,
        camera,
        poses,
        video=video,
        batch_size=maps.limit_batch(frames, options.get("batch_size", 8)),
        post_process=bool(options.get("post_process")),
    )
    maps.write_files(predicted, writer, video=video)
    if not writer.written:
        raise UserError(f"--input={given} has too few images: there is no frame.")
    extras = []
    if poses:
        outputs.write_trajectory(folder, np.stack(poses), rate=fps)
        extras.append("trajectory.txt")
    elif video and "pose" in estimator.predicts:
        print(f"There is no trajectory: poses need {estimator.frames} frames.")
    if writer.cameras:
        print(outputs.write_camera(folder, writer.cameras))
    if video:
        extras.append(maps.write_video(frames, writer, fps=fps))
    unit = writer.unit(metric=estimator.metric)
    scale = "of unknown scale: learned from video alone" if unit == "unknown" else f"in {unit}"
    if writer.kind == "disparity":
        scale += "; --intrinsics and --baseline turn it into depth in meters"
    maps.finish(estimator, writer, unit=unit, scale=scale, extras=extras)


def _predicted(
    estimator: DepthEstimator,
    frames: Files | Film,
    camera: dict[str, Any],
    poses: list[np.ndarray],
    *,
    video: bool,
    **knobs: Any,
) -> Iterator[tuple[Frame, DepthMaps]]:
    """Each frame with its maps, from its own image or, of a video, with poses from its window.

    Frames at a video's ends, which are the target of no window, come last, with depth alone. Poses
    are appended to `poses`.
    """
    ends: list[Frame] = []
    count = estimator.frames if video else 1
    examples = maps.windows(frames, count, count // 2, ends)
    for example, prediction in estimator.over((e | camera for e in examples), **knobs):
        if prediction.pose is not None:
            poses.append(prediction.pose)
        yield example["frame"], prediction
    if ends:
        examples = ({"frame": frame, "image": frame.image[None], **camera} for frame in ends)
        for example, prediction in estimator.over(examples, **knobs | {"batch_size": len(ends)}):
            yield example["frame"], prediction


def _is_video(estimator: DepthEstimator, frames: Files | Film, wanted: bool | None) -> bool:
    """Whether the images are frames of one video: poses, a common range of colors, and a film."""
    if wanted and maps.is_single(frames):
        raise UserError(f"--video, but --input={frames.paths[0]} is one image: give a folder.")
    if wanted is not None or isinstance(frames, Film):
        return wanted is not False
    return 1 < estimator.frames <= len(frames.paths) and frames.of_one_size()


def _camera(
    estimator: DepthEstimator, intrinsics: str | None, baseline: float | None
) -> dict[str, Any]:
    """What is known of the camera, as examples have it."""
    camera: dict[str, Any] = {}
    if "disparity" in estimator.predicts:
        if (intrinsics is None) != (baseline is None):
            raise UserError("Depth from disparity needs both: give --intrinsics and --baseline.")
        if baseline is not None and not baseline > 0:
            raise UserError(f"--baseline={baseline:g} must be a distance in meters, above 0.")
    elif baseline is not None:
        raise UserError(
            "--baseline turns disparity into depth; this run predicts depth itself: leave it out."
        )
    if intrinsics is not None:
        file = Path(intrinsics)
        if not file.is_file():
            raise UserError(f"--intrinsics={intrinsics} does not exist.")
        camera["intrinsics"] = read_intrinsics(file)
    if baseline is not None:
        camera["baseline"] = baseline
    return camera


TASK = Task(
    name="depth",
    prediction=DepthMaps,
    truth=DepthTruth,
    parts=("test",),
    predict=predict,
    measure=measure,
    baselines=baselines,
    draw=draw,
    load=DepthEstimator,
    resizable=True,
    options=frozenset(
        ("intrinsics", "baseline", "post_process", "video", "reach", "fps", "batch_size", "size")
    ),
    write=write,
    report=report.sections,
)
