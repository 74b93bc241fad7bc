"""Shared by the depth and flow tasks: predictions of frames as a folder of files."""

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sslax import paths
from sslax.data.files import images
from sslax.data.files.png import write_png
from sslax.errors import UserError
from sslax.inference import inputs, outputs
from sslax.inference.estimator import Estimator, Maps
from sslax.inference.inputs import Files, Film, Frame
from sslax.inference.outputs import DepthFiles, FlowFiles


def check_folder(folder: Path, frames: Files | Film) -> None:
    """The output is a folder, and not that of the images.

    Raises:
        UserError: it is not.
    """
    if folder.suffix == ".npz":
        raise UserError(f"--output={folder}: maps are written to a folder; name one.")
    if (
        isinstance(frames, Film)
        and frames.path.resolve().with_suffix("") == folder.resolve() / "video"
    ):
        raise UserError(
            f"--output={folder} has the video {frames.path.name}, which one written there may "
            "replace: name another folder."
        )
    paths.check_output(folder, "--output", folder=True)
    if isinstance(frames, Files):
        folders = {path.parent.resolve() for path in frames.paths}
        if folder.resolve() in folders:
            raise UserError(
                f"--output={folder} has the images, and files written there would mix with them or "
                "replace them: name another folder."
            )


def is_single(frames: Files | Film) -> bool:
    """Whether the input is one image."""
    return isinstance(frames, Files) and len(frames.paths) == 1


def limit_batch(frames: Files | Film, batch_size: int) -> int:
    """The batch size, but no larger than the number of images, where that is known."""
    return min(batch_size, len(frames.paths)) if isinstance(frames, Files) else batch_size


def windows(
    frames: Iterable[Frame], count: int, target_index: int, ends: list[Frame]
) -> Iterator[dict[str, Any]]:
    """Examples of `count` consecutive frames, with their target under 'frame'.

    Args:
        frames: in order.
        count: of an example's frames.
        target_index: of the frame that the maps belong to.
        ends: is given the frames that are the target of no example.

    Raises:
        UserError: consecutive frames differ in size.
    """
    recent: deque[Frame] = deque(maxlen=count)
    for number, frame in enumerate(frames):
        if count > 1 and recent and frame.image.shape != recent[-1].image.shape:
            (height, width), (h, w) = recent[-1].image.shape[:2], frame.image.shape[:2]
            raise UserError(
                f"{frame.name} has {w} x {h} pixels and the image before it {width} x {height}: "
                "consecutive frames must have the same size."
            )
        recent.append(frame)
        if number < target_index:
            ends.append(frame)
        if len(recent) == count:
            images = np.stack([each.image for each in recent])
            yield {"frame": recent[target_index], "image": images}
    complete = len(recent) == count  # then its target is that of the last example
    ends += [*recent][target_index + complete :]


def write_files(
    predicted: Iterable[tuple[Frame, Maps]], writer: DepthFiles | FlowFiles, *, video: bool
) -> None:
    """The files of each frame's maps; the colors of a video wait for their common range."""
    for frame, maps in predicted:
        writer.write(frame, maps)
        if not video:
            _write_colors(writer, frame.name)


def warn_of_gaps(frames: Files | Film) -> None:
    """Says where consecutive frames of a folder do not follow each other, by their numbers."""
    if isinstance(frames, Files) and (gap := frames.gap()):
        print(
            f"warning: frames are missing between {gap[0]} and {gap[1]}, or elsewhere, by the "
            "numbers in their names; motion is predicted across the gap."
        )


def write_video(frames: Iterable[Frame], writer: DepthFiles | FlowFiles, *, fps: float) -> str:
    """Colors with one range for all frames, and a video of frames beside them; its name."""
    return outputs.write_animation(writer.folder, _side_by_side(frames, writer), rate=fps).name


def _write_colors(writer: DepthFiles | FlowFiles, name: str, **knobs: float) -> np.ndarray:
    colors = writer.colors(name, **knobs)
    write_png(writer.folder / f"{name}_color.png", colors)
    return colors


def _side_by_side(frames: Iterable[Frame], writer: DepthFiles | FlowFiles) -> Iterator[np.ndarray]:
    written, common = {*writer.written}, writer.common_colors()
    for frame in frames:
        if frame.name in written:
            colors = _write_colors(writer, frame.name, **common)
            yield np.concatenate([np.broadcast_to(frame.image, colors.shape), colors], axis=1)


def finish(
    estimator: Estimator,
    writer: DepthFiles | FlowFiles,
    *,
    unit: str,
    scale: str,
    extras: list[str],
) -> None:
    """Writes `predictions.json`, and prints what there is and at which scale."""
    count = len(writer.written)
    outputs.write_summary(
        writer.folder,
        method=estimator.config.method,
        step=estimator.step,
        predicts=writer.kind,
        unit=unit,
        count=count,
        png=writer.png,
    )
    if writer.unfit:
        print(
            f"warning: {writer.unfit} values do not fit the 16-bit PNGs ({writer.png}) and are "
            f"unknown there; the {writer.exact} files have them."
        )
    extra = f", with {' and '.join(extras)}" if extras else ""
    items = f"{count} {writer.item}" + "s" * (count > 1)
    print(f"Wrote {writer.folder}: {writer.kind} of {items}{extra}; {scale}.")


def open_input(estimator: Estimator, given: str, folder: Path) -> Files | Film:
    """The frames that `--input` names, after a look at the output folder.

    Raises:
        UserError: there are none, or the folder cannot be written to.
    """
    frames = inputs.open_frames(
        given,
        channels=estimator.channels,
        value_range=images.value_range(estimator.config.data),
    )
    check_folder(folder, frames)
    return frames
