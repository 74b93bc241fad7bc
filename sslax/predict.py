"""`python -m sslax.predict --workdir=RUN --input=IMAGES --output=WHERE`: a run put to use.

Of a run that learned features an .npz of them; of one that learned depth, ego-motion or flow a folder
of maps, pictures, trajectory and video. See docs/predict.md.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from sslax import command
from sslax.data import Source
from sslax.errors import UserError

if TYPE_CHECKING:
    from sslax.inference import use
    from sslax.inference.inputs import Files, Film, Frame
    from sslax.inference.outputs import DepthFiles, FlowFiles
    from sslax.training import train

_INPUT = flags.DEFINE_string(
    "input", None, "An image, a folder of images; of depth and flow also a video, or images A,B."
)
_OUTPUT = flags.DEFINE_string("output", None, "Features: the .npz to write; else the folder.")
_STAGES = flags.DEFINE_bool("stages", False, "Also the pooled activations of every stage.")
_INTRINSICS = flags.DEFINE_string(
    "intrinsics", None, "A file of fx fy cx cy, or 3 x 3 numbers, in pixels: for point clouds."
)
_BASELINE = flags.DEFINE_float(
    "baseline", None, "Meters between the stereo cameras: with --intrinsics, depth of disparity."
)
_POST_PROCESS = flags.DEFINE_bool(
    "post_process", False, "Average depth with the mirror image's, at twice the cost."
)
_VIDEO = flags.DEFINE_bool(
    "video",
    None,
    "Whether the images of a folder are frames of a video; by default where the run predicts poses "
    "and they have one size.",
)
_FPS = flags.DEFINE_float("fps", 10.0, "Frames a second of video and trajectory.", lower_bound=0.1)
_SIZE = flags.DEFINE_list(
    "size", None, "Height,width that the network works at; by default those of the run."
)
_REACH = flags.DEFINE_float(
    "reach", 5.0, "Leave points out that are farther than so many median depths.", lower_bound=0.0
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images or pairs at a time.", lower_bound=1)

# What a flag is for.
_USES = {
    "stages": ("features",),
    **dict.fromkeys(("intrinsics", "baseline", "post_process", "video", "reach"), ("depth",)),
    **dict.fromkeys(("fps", "batch_size", "size"), ("depth", "flow")),
}


def main(_: list[str]) -> None:
    """Writes what the run says of the images."""
    import jax

    from sslax.inference import use
    from sslax.tasks import geometry
    from sslax.training import sharding

    config, plan = use.read_plan(command.WORKDIR.value)
    shapes = plan.predictions()
    kind = "features"
    if geometry.geometric(shapes):
        kind = "flow" if "flow" in shapes else "depth"
    for name, uses in _USES.items():
        if flags.FLAGS[name].present and kind not in uses:
            raise UserError(
                f"--{name} is for runs that predict {' or '.join(uses)}; this one predicts {kind}."
            )
    output = Path(_OUTPUT.value).expanduser()
    if kind == "features" and output.suffix != ".npz":
        raise UserError(f"--output={output} must end in .npz.")
    mesh = sharding.make_mesh(jax.local_devices()[:1])
    state = use.read_state(command.WORKDIR.value, plan, mesh, which=command.CHECKPOINT.value)
    if kind == "features":
        write_features(use.Predictor(plan, state, mesh), config, plan, output)
        return
    if _SIZE.value:
        _, plan = use.read_plan(command.WORKDIR.value, size=_height_width(_SIZE.value))
        shapes = plan.predictions()
    write_maps(
        use.Estimator(config, plan, state, shapes),
        _INPUT.value,
        output,
        intrinsics=_INTRINSICS.value,
        baseline=_BASELINE.value,
        post_process=_POST_PROCESS.value,
        video=_VIDEO.value,
        fps=_FPS.value,
        reach=_REACH.value,
        batch_size=_BATCH_SIZE.value,
    )


def _height_width(given: list[str]) -> tuple[int, int]:
    if len(given) != 2 or not all(side.strip().isdigit() and int(side) for side in given):
        raise UserError(f"--size={','.join(given)} is not a height and a width, as --size=192,640.")
    height, width = map(int, given)
    return height, width


def write_features(
    predictor: "use.Predictor", config: ConfigDict, plan: "train.Plan", output: Path
) -> None:
    """Writes `features` [N, D] and `files` [N] (relative to the input), with `stage_*` if asked."""
    from sslax import data

    source, files = _images(Path(_INPUT.value), config.data, plan.batch["image"].shape[1:])
    size = min(config.evaluate.batch_size, len(source))
    batches = data.evaluation_batches(source, batch_size=size, mesh=predictor.mesh)
    found = predictor.over(batches)
    stages = found["stages"] if _STAGES.value else {}
    output.parent.mkdir(parents=True, exist_ok=True)
    np.savez(output, features=found["features"], files=np.asarray(files), **stages)
    print(f"Wrote {output}: features {list(found['features'].shape)} of {len(source)} images.")


def write_maps(
    estimator: "use.Estimator",
    given: str,
    folder: Path,
    *,
    intrinsics: str | None = None,
    baseline: float | None = None,
    post_process: bool = False,
    video: bool | None = None,
    fps: float = 10.0,
    reach: float = 5.0,
    batch_size: int = 8,
) -> None:
    """Writes depth or flow of images as files and pictures; says what it wrote and at which scale.

    Args:
        estimator: of the run.
        given: as `inputs.open_frames` takes it.
        folder: where to.
        intrinsics: a file, of the images' camera.
        baseline: meters between the stereo cameras that a run of disparity was trained with.
        post_process: as `use.Estimator` takes it.
        video: whether a folder's images are a video; None for where they have one size and the run
            predicts poses.
        fps: frames a second.
        reach: as `outputs.point_cloud` takes it.
        batch_size: images or pairs at a time.

    Raises:
        UserError: no such input, too few images, the camera is missing or wrong, or the folder is
            none or holds the images.
    """
    from sslax.inference import inputs, outputs

    frames = inputs.open_frames(given, channels=estimator.channels)
    camera = _camera(estimator, intrinsics, baseline)
    _check_folder(folder, frames)
    flow = "flow" in estimator.predicts
    moving = _is_video(estimator, frames, video)
    folder.mkdir(parents=True, exist_ok=True)
    writer = outputs.DepthFiles(folder, intrinsics=camera.get("intrinsics"), reach=reach)
    writer = outputs.FlowFiles(folder) if flow else writer

    poses = []
    if isinstance(frames, inputs.Files):
        batch_size = min(batch_size, len(frames.paths))
    knobs = {"batch_size": batch_size, "post_process": post_process}
    for frame, found in _predicted(estimator, frames, camera, together=moving or flow, **knobs):
        writer.write(frame, found)
        if "pose" in found:
            poses.append(found["pose"])
        if not moving:  # of a video, colors wait for their common range
            _write_colors(writer, frame.name)
    if not writer.written:
        wanted = "flow takes two" if flow else "there is no frame"
        raise UserError(f"--input={given} has too few images: {wanted}.")

    extras = []
    if poses:
        outputs.write_trajectory(folder, np.stack(poses), rate=fps)
        extras.append("trajectory.txt")
    elif moving and "pose" in estimator.predicts:
        print(f"There is no trajectory: poses take {estimator.frames} frames.")
    if moving:
        pictures = _side_by_side(frames, writer)
        extras.append(outputs.write_animation(folder, pictures, rate=fps).name)
    _tell(estimator, writer, folder, extras)


def _predicted(
    estimator: "use.Estimator",
    frames: "Iterable[Frame]",
    camera: dict[str, Any],
    *,
    together: bool,
    batch_size: int,
    post_process: bool,
) -> "Iterator[tuple[Frame, dict[str, np.ndarray]]]":
    """Each frame with what is predicted of it alone, or of it and those about it.

    Frames at a video's ends, which have not all the others about them, come last, with a depth of
    their own.
    """
    ends: list[Frame] = []
    knobs = {"batch_size": batch_size, "post_process": post_process}
    flow = "flow" in estimator.predicts
    if together:
        target = 0 if flow else estimator.frames // 2
        samples = _samples(frames, estimator.frames, target, ends)
    else:
        samples = _samples(frames, 1, 0, ends)
    for sample, found in estimator.over((s | camera for s in samples), **knobs):
        yield sample["frame"], found
    if ends and not flow:
        samples = ({"frame": frame, "image": frame.image[None], **camera} for frame in ends)
        for sample, found in estimator.over(samples, **knobs | {"batch_size": len(ends)}):
            yield sample["frame"], found


def _write_colors(writer: "DepthFiles | FlowFiles", name: str, **knobs: float) -> np.ndarray:
    from sslax.data.files.png import write_png

    colors = writer.colors(name, **knobs)
    write_png(writer.folder / f"{name}_color.png", colors)
    return colors


def _side_by_side(
    frames: "Iterable[Frame]", writer: "DepthFiles | FlowFiles"
) -> Iterator[np.ndarray]:
    """Each frame beside its map in colors, which are written on the way."""
    written, common = {*writer.written}, writer.common_colors()
    for frame in frames:
        if frame.name in written:
            colors = _write_colors(writer, frame.name, **common)
            yield np.concatenate([np.broadcast_to(frame.image, colors.shape), colors], axis=1)


def _samples(
    frames: "Iterable[Frame]", count: int, target: int, ends: "list[Frame]"
) -> Iterator[dict[str, Any]]:
    """Samples of `count` consecutive frames; the targets of none are put into `ends`."""
    recent: deque[Frame] = deque(maxlen=count)
    for number, frame in enumerate(frames):
        if count > 1 and recent and frame.image.shape != recent[-1].image.shape:
            (height, width), (h, w) = recent[-1].image.shape[:2], frame.image.shape[:2]
            raise UserError(
                f"{frame.name} has {w} x {h} pixels and the image before it {width} x {height}: "
                "consecutive frames have one size."
            )
        recent.append(frame)
        if number < target:
            ends.append(frame)
        if len(recent) == count:
            images = np.stack([each.image for each in recent])
            yield {"frame": recent[target], "image": images}
    whole = len(recent) == count  # and its target is that of the last sample
    ends += [*recent][target + whole :]


def _is_video(estimator: "use.Estimator", frames: "Files | Film", wanted: bool | None) -> bool:
    """Whether colors are to have one range, and pictures are to be put into a video."""
    from sslax.inference import inputs

    single = isinstance(frames, inputs.Files) and len(frames.paths) == 1
    if "flow" in estimator.predicts:
        if single:
            raise UserError(
                f"Flow takes two images, and --input={frames.paths[0]} is one: give --input=A,B, "
                "or a folder or video of frames."
            )
        return isinstance(frames, inputs.Film) or len(frames.paths) > 2
    if wanted and single:
        raise UserError(f"--video, but --input={frames.paths[0]} is one image: give a folder.")
    if wanted is not None or isinstance(frames, inputs.Film):
        return wanted is not False
    return 1 < estimator.frames <= len(frames.paths) and frames.of_one_size()


def _camera(
    estimator: "use.Estimator", intrinsics: str | None, baseline: float | None
) -> dict[str, Any]:
    """What is known of the camera, as examples have it."""
    from sslax.data.files import cameras

    found = {}
    if "disparity" in estimator.predicts:
        if (intrinsics is None) != (baseline is None):
            raise UserError("Depth of disparity takes both: give --intrinsics and --baseline.")
        if baseline is not None and not baseline > 0:
            raise UserError(f"--baseline={baseline:g} must be a distance in meters, above 0.")
    elif baseline is not None:
        raise UserError(
            "--baseline makes depth of disparity; this run predicts depth itself: leave it out."
        )
    if intrinsics is not None:
        file = Path(intrinsics).expanduser()
        if not file.is_file():
            raise UserError(f"--intrinsics={intrinsics} does not exist.")
        found["intrinsics"] = cameras.read_intrinsics(file)
    if baseline is not None:
        found["baseline"] = baseline
    return found


def _check_folder(folder: Path, frames: "Files | Film") -> None:
    from sslax.inference import inputs

    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output={folder} is a file; name a folder.")
    if folder.suffix == ".npz":
        raise UserError(f"--output={folder}: maps are written to a folder; name one.")
    if isinstance(frames, inputs.Files):
        places = {path.parent.resolve() for path in frames.paths}
        if folder.resolve() in places:
            raise UserError(
                f"--output={folder} has the images, and files written there would mix with them or "
                "replace them: name another folder."
            )


def _tell(
    estimator: "use.Estimator",
    writer: "DepthFiles | FlowFiles",
    folder: Path,
    extras: list[str],
) -> None:
    """Writes `predictions.json` and prints what there is, and at which scale."""
    from sslax.inference import outputs

    count = len(writer.written)
    unit = writer.unit(metric=estimator.metric)
    outputs.write_summary(
        folder,
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
            f"unknown there; {writer.exact} files have them."
        )
    scale = "of unknown scale: learned from video alone" if unit == "unknown" else f"in {unit}"
    if writer.kind == "disparity":
        scale += ", of which --intrinsics and --baseline make depth in meters"
    besides = f", with {' and '.join(extras)}" if extras else ""
    things = f"{count} {writer.of}" + "s" * (count > 1)
    print(f"Wrote {folder}: {writer.kind} of {things}{besides}; {scale}.")


def _images(
    path: Path, trained: ConfigDict, image_shape: tuple[int, ...]
) -> tuple[Source, list[str]]:
    """The images at `path`, of the size and channels that the encoder was trained with."""
    from sslax import data
    from sslax.data import records
    from sslax.data.sources import folder

    height, width, channels = image_shape
    shape = {"size": min(height, width), "channels": channels}
    if path.is_file():
        return folder.FolderSource([str(path)], None, **shape), [path.name]
    section = data.defaults()
    section.update(path=str(path), labels=False, channels=channels, image_size=shape["size"])
    try:
        found = folder.load(section).train
    except data.DataError as error:
        raise UserError(str(error).replace("data.path", "--input")) from error
    kept, failures = found, []
    if trained.bad_images == "skip":
        kept, failures = records.skip_unreadable(found, workers=trained.workers)
    for failure in failures:
        print(f"skipped: {failure}")
    indices = kept.indices if failures else range(len(found))
    return kept, [str(Path(found.paths[i]).relative_to(path)) for i in indices]


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir", "input", "output"])
    command.entry(main)
