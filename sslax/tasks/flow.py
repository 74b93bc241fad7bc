"""The task of learning optical flow: maps, measured against ground truth."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sslax import figures
from sslax.errors import UserError
from sslax.inference import outputs
from sslax.inference.estimator import FlowEstimator
from sslax.inference.inputs import Files, Film, Frame
from sslax.measures import geometry
from sslax.report import flow as report
from sslax.tasks import maps, tables
from sslax.tasks.base import Evaluated, Parts, Subject, Task, predict_as_is
from sslax.tasks.batches import parts_of, stack_images, video_rows
from sslax.types import FlowField, FlowMaps, FlowTruth, Pictures, Variables

_DRAWN = 8  # examples


def measure(subject: Subject, variables: Variables | None, parts: Parts) -> dict[str, float]:
    """`measures.geometry.measure_flow`."""
    return geometry.measure_flow(*parts["test"])


def baselines(subject: Subject, parts: Parts) -> dict[str, Parts]:
    """Zero flow."""
    prediction, truth = parts["test"]
    trivial = geometry.trivial_flow(prediction, truth)
    return {tables.TRIVIAL: {"test": Evaluated(trivial, truth)}}


def draw(subject: Subject, predicted: dict[str, Parts], folder: Path) -> report.Shown:
    """`predictions.png`: flow and visibility, predicted and true, with one radius a row."""
    prediction, truth = predicted[""]["test"]
    count = len(prediction.flow)
    rows = np.linspace(0, count - 1, min(_DRAWN, count)).astype(int)
    source = parts_of(subject.dataset).get("test", subject.dataset.train)
    frames = stack_images(source, rows)
    first = (frames.shape[1] - 1) // 2  # of two frames; of three the one in the middle
    columns: Pictures = {"image": frames[:, first]}
    columns |= _pictures(_rows(prediction, rows), _rows(truth, rows))
    figures.task_grid(columns, folder / "predictions.png", title="Predictions on the test set")
    film = video_rows(source)
    speed = np.linalg.norm(prediction.flow[film], axis=-1)
    radius = np.percentile(speed, 99) if len(film) else None  # one, so as not to flicker
    return report.Shown(
        columns=columns | {"next image": frames[:, first + 1]},
        flow=prediction.flow[rows],
        film_images=stack_images(source, film)[:, first] if len(film) else frames[:0, first],
        film_colors=figures.flow_colors(prediction.flow[film], max_radius=radius),
    )


def _rows(record: Any, rows: np.ndarray) -> Any:
    """Some rows of a record of arrays."""
    return type(record)(*(None if leaf is None else leaf[rows] for leaf in record))


def _pictures(prediction: FlowMaps, truth: FlowTruth) -> Pictures:
    flow = prediction.flow if truth.flow is None else truth.flow
    known = np.ones(flow.shape[:3], bool) if truth.known is None else truth.known.astype(bool)
    speed = np.linalg.norm(np.where(known[..., None], flow, 0.0), axis=-1)
    radius = np.maximum(np.percentile(speed, 99, axis=(1, 2), keepdims=True), 0.5)
    columns: Pictures = {"flow": FlowField(prediction.flow, radius)}
    if truth.flow is not None:
        columns["ground truth"] = FlowField(np.where(known[..., None], flow, np.nan), radius)
    for title, visible in (("visible", prediction.visible), ("truly visible", truth.visible)):
        if visible is not None:
            columns[title] = np.asarray(visible, np.float32)[..., None]
    return columns


def write(estimator: FlowEstimator, given: str, folder: Path, options: Mapping[str, Any]) -> None:
    """Writes the flow from each image to the next as files, and a video; see docs/predict.md.

    Args:
        estimator: of the run.
        given: as `inputs.open_frames` takes it.
        folder: of the output.
        options: flags of `sslax.predict` by name.

    Raises:
        UserError: no such input, a single image, or the folder is none or holds the images.
    """
    frames = maps.open_input(estimator, given, folder)
    if maps.is_single(frames):
        raise UserError(
            f"Flow takes two images, and --input={frames.paths[0]} is one: give --input=A,B, "
            "or a folder or video of frames."
        )
    video = isinstance(frames, Film) or len(frames.paths) > 2
    maps.warn_of_gaps(frames)
    folder.mkdir(parents=True, exist_ok=True)
    writer = outputs.FlowFiles(folder)
    batch_size = maps.limit_batch(frames, options.get("batch_size", 8))
    maps.write_files(_predicted(estimator, frames, batch_size), writer, video=video)
    if not writer.written:
        raise UserError(f"--input={given} has too few images: flow takes two.")
    extras = [maps.write_video(frames, writer, fps=options.get("fps", 10.0))] if video else []
    maps.finish(estimator, writer, unit="pixels", scale="in pixels", extras=extras)


def _predicted(
    estimator: FlowEstimator, frames: Files | Film, batch_size: int
) -> Iterator[tuple[Frame, FlowMaps]]:
    """Each frame but the last with its flow to the next."""
    examples = maps.windows(frames, 2, 0, [])
    for example, prediction in estimator.over(examples, batch_size=batch_size):
        yield example["frame"], prediction


TASK = Task(
    name="flow",
    prediction=FlowMaps,
    truth=FlowTruth,
    parts=("test",),
    predict=predict_as_is,
    measure=measure,
    baselines=baselines,
    draw=draw,
    load=FlowEstimator,
    resizable=True,
    options=frozenset(("fps", "batch_size", "size")),
    write=write,
    report=report.sections,
)
