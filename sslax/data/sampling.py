"""Which samples a config asks for: frames around a target, from the clips of a source."""

import itertools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sslax.data import fitting
from sslax.data.clips import Clip, ClipSource
from sslax.data.files import archives, cameras
from sslax.data.records import DataError, Dataset, ImageError, apportion, threads
from sslax.ranges import NonNegative, ProperFraction

THUMBNAIL = (24, 48)  # height and width at which frames are compared


class CameraSection(NamedTuple):
    """The section `data.camera`, for every source that reads frames from files."""

    intrinsics: str = ""  # video and stereo: a file; '': intrinsics.txt beside the frames
    baseline: float = 0.0  # stereo: meters, where no file has it; negative: partner on the left
    check_intrinsics: bool = True  # refuse those that look like another size's
    check_pairs: bool = True  # stereo: refuse pairs that look swapped or not rectified
    cut_bottom: ProperFraction = 0.0  # of the rows, at the bottom, such as a car's hood
    min_motion: NonNegative = 0.0  # leave out frames that change less, in gray levels of 255


def check(config: ConfigDict) -> None:
    """Refuses a config that describes no sample of frames.

    Raises:
        DataError: naming the key and the remedy.
    """
    if config.image_size:
        raise DataError(
            f"data.image_size={config.image_size} is for square images: set data.size=(height, "
            f"width) for data.source={config.source!r}"
        )
    _check_frames(config)


def check_no_files(config: ConfigDict) -> None:
    """Refuses the keys that only sources of files read.

    Raises:
        DataError: naming the key and the remedy.
    """
    if config.path or config.test_path or config.test_fraction:
        raise DataError(
            f"data.source={config.source!r} reads no path and holds nothing out: set data.path, "
            "data.test_path and data.test_fraction to their defaults, or data.source to 'video' or "
            "'stereo'"
        )
    if config.channels == 1:
        raise DataError(f"data.source={config.source!r} is in color: set data.channels=3")
    if config.camera.cut_bottom or config.camera.min_motion:
        raise DataError(
            "data.camera.cut_bottom and data.camera.min_motion are for videos: set both to 0.0 "
            f"with data.source={config.source!r}"
        )


def frame_offsets(config: ConfigDict) -> tuple[int, ...]:
    """Indices of a sample's frames relative to its target frame."""
    target_index = 0 if config.target_frame == "first" else config.frames // 2
    return tuple((i - target_index) * config.interval for i in range(config.frames))


def dataset(config: ConfigDict, clips: Sequence[Clip], test: Sequence[Clip] | None) -> Dataset:
    """Training and test samples of clips, with every frame that has its neighbors as a target.

    Without test clips, `config.test_fraction` holds out the end of each clip. Consecutive frames
    are nearly equal, so a random part would be no test.

    Raises:
        DataError: a part has no sample, or intrinsics of some clips alone.
    """
    if test is not None and config.test_fraction:
        raise DataError("data.test_fraction is set but there is a test set: set it to 0.0")
    for part in filter(None, (clips, test)):
        _check_all_calibrated(part)
    _check_one_calibration([*clips, *(test or ())], config)
    lengths = np.array([len(clip.frames) for clip in clips])
    cuts = lengths - apportion(lengths, config.test_fraction)
    train = clip_source(clips, all_targets(clips, config, ends=cuts), config, "training")
    if test is not None:
        held_out = clip_source(test, all_targets(test, config), config, "test")
    elif config.test_fraction:
        held_out = clip_source(clips, all_targets(clips, config, starts=cuts), config, "test")
    else:
        held_out = None
    return Dataset(train, held_out, None)


def all_targets(
    clips: Sequence[Clip],
    config: ConfigDict,
    *,
    starts: Sequence[int] | np.ndarray | None = None,
    ends: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """All frames that have the other frames of their sample, `[N, 2]`: clip and frame.

    Where frames are missing, by the numbers in their names, no sample spans the gap.

    Args:
        clips: the clips.
        config: the `data` section.
        starts: first usable frame of each clip; by default 0.
        ends: one past the last usable frame of each clip; by default its length.
    """
    offsets = frame_offsets(config)
    targets, lost = [np.zeros((0, 2), int)], []
    for index, clip in enumerate(clips):
        start = 0 if starts is None else starts[index]
        end = len(clip.frames) if ends is None else ends[index]
        frames = np.arange(start - offsets[0], end - offsets[-1])
        runs = clip.frames.runs()
        whole = runs[frames + offsets[0]] == runs[frames + offsets[-1]]
        lost += [(clip, frame) for frame in frames[~whole]]
        frames = frames[whole]
        targets.append(np.stack([np.full_like(frames, index), frames], axis=1))
    found = np.concatenate(targets)
    if lost:
        logging.getLogger(__name__).warning(
            "left out %d of %d samples, in which frames are missing by the numbers in the files' "
            "names; the first: around frame %d of %s",
            len(lost),
            len(lost) + len(found),
            lost[0][1],
            lost[0][0].name,
        )
    return found


def clip_source(
    clips: Sequence[Clip], targets: np.ndarray, config: ConfigDict, part: str
) -> ClipSource:
    """The samples around the targets; for the training part without static ones.

    Args:
        clips: the clips.
        targets: `[N, 2]`, as `all_targets` returns them.
        config: the `data` section.
        part: 'training', or 'test', whose samples have ground truth.

    Raises:
        DataError: there is no sample, or a clip lacks what the config asks for.
    """
    if not len(targets):
        raise DataError(_too_short(clips, config, part))
    for clip in clips:
        _check_clip(clip, config)
    if part == "test":
        targets = _with_measured_depth(clips, targets)
    span = _span(config)
    if short := sum(len(clip.frames) < span for clip in clips):
        logging.getLogger(__name__).warning(
            "%d of %d sequences have fewer than the %d frames of a sample and are not used",
            short,
            len(clips),
            span,
        )
    source = ClipSource(
        clips,
        targets,
        offsets=frame_offsets(config),
        size=tuple(config.size),
        cut_bottom=config.camera.cut_bottom,
        fitting=config.fitting,
        stereo=config.stereo,
        distances=config.distances,
        ground_truth=part == "test",
    )
    if part == "training" and config.camera.min_motion and config.frames > 1:
        source.targets = _moving_targets(source, config)
    return source


def folder_intrinsics(folder: Path, config: ConfigDict) -> np.ndarray | None:
    """Intrinsics `[1, 3, 3]` of the images in a folder, or None.

    They are read from the file `config.camera.intrinsics`, or else from `intrinsics.txt` in the
    folder or its parent.

    Raises:
        DataError: the file does not exist, or has something else.
    """
    if config.camera.intrinsics:
        file = Path(config.camera.intrinsics)
        if not file.is_file():
            raise DataError(f"data.camera.intrinsics {config.camera.intrinsics} does not exist")
        return cameras.read_intrinsics(file)[None]
    for parent in (folder, folder.parent):
        if (file := parent / "intrinsics.txt").is_file():
            return cameras.read_intrinsics(file)[None]
    return None


def archive_intrinsics(
    arrays: archives.Arrays, count: int, path: str, config: ConfigDict
) -> np.ndarray | None:
    """Intrinsics `[1, 3, 3]` or `[N, 3, 3]` of an archive or, as for folders, of a file, or None.

    Raises:
        DataError: they have another shape, or the file does not exist.
    """
    if config.camera.intrinsics or "intrinsics" not in arrays:
        return folder_intrinsics(Path(path).parent, config)
    return archives.intrinsics(arrays, count, path)


def _check_frames(config: ConfigDict) -> None:
    if config.frames == 1 and not config.stereo:
        raise DataError(
            "data.frames=1 without data.stereo gives a sample a single image: set data.frames=3 "
            "(for flow 2), or data.stereo=True"
        )
    frames = {"first": 2, "second": 3}.get(config.target_frame)
    if frames and (config.frames != frames or config.stereo):
        pair = {2: "the first of two frames to the second", 3: "the second of three to the third"}
        raise DataError(
            f"data.target_frame={config.target_frame!r} is for flow, from {pair[frames]}: set "
            f"data.frames={frames} and data.stereo=False"
        )


def _span(config: ConfigDict) -> int:
    """Frames from a sample's first to its last."""
    offsets = frame_offsets(config)
    return offsets[-1] - offsets[0] + 1


def _too_short(clips: Sequence[Clip], config: ConfigDict, part: str) -> str:
    longest = max((len(clip.frames) for clip in clips), default=0)
    held_out = (
        f", of which data.test_fraction={config.test_fraction} is the test set"
        if config.test_fraction
        else ""
    )
    return (
        f"no sequence is long enough for a {part} sample: data.frames={config.frames} at "
        f"data.interval={config.interval} span {_span(config)} frames, and the longest sequence "
        f"has {longest}{held_out}"
    )


def _check_clip(clip: Clip, config: ConfigDict) -> None:
    if config.stereo and clip.partner is None:
        raise DataError(
            f"data.stereo=True but {clip.name} has no second camera: set data.stereo=False, or "
            "data.source='stereo' for directories left and right"
        )
    if config.stereo and len(clip.partner) != len(clip.frames):
        raise DataError(
            f"{clip.name} has {len(clip.frames)} images of one camera and {len(clip.partner)} of "
            "the other: they must be taken at the same moments"
        )
    if config.distances and clip.poses is None and clip.traveled is None:
        raise DataError(
            f"data.distances=True but no camera poses or speeds are known for {clip.name}: give "
            "them ('pose' in an .npz archive), or set data.distances=False"
        )
    if clip.intrinsics is not None and (stored := _stored_size(clip, config)):
        trusted = not _checks_intrinsics(config)
        fitting.check_intrinsics(clip.intrinsics, stored, clip.name, trusted=trusted)


def _checks_intrinsics(config: ConfigDict) -> bool:
    """`config.camera.check_intrinsics`; True where the config is from before there was one."""
    return bool(config.camera.get("check_intrinsics", True))


def _stored_size(clip: Clip, config: ConfigDict) -> tuple[int, int] | None:
    """Height and width of the clip's first frame; None where it is unreadable, to be skipped."""
    try:
        return clip.frames.shape(0) if len(clip.frames) else None
    except ImageError:
        if config.bad_images != "skip":
            raise
        return None


def _check_all_calibrated(clips: Sequence[Clip]) -> None:
    """Refuses clips of which some have intrinsics and some have not."""
    has = next((clip.name for clip in clips if clip.intrinsics is not None), None)
    lacks = next((clip.name for clip in clips if clip.intrinsics is None), None)
    if has and lacks:
        raise DataError(
            f"{lacks} has no intrinsics, but {has} has: give all of them intrinsics.txt, name one "
            "file for all in data.camera.intrinsics, or take the files away where the method "
            "learns the camera"
        )


def _check_one_calibration(clips: Sequence[Clip], config: ConfigDict) -> None:
    """Refuses equal intrinsics of clips whose images differ in size."""
    if not _checks_intrinsics(config):
        return
    first: dict[bytes, tuple[Clip, tuple[int, int]]] = {}
    for clip in clips:
        if clip.intrinsics is None or (stored := _stored_size(clip, config)) is None:
            continue
        other, size = first.setdefault(clip.intrinsics.tobytes(), (clip, stored))
        if size != stored:
            raise DataError(
                f"{other.name} has images of {size[1]} x {size[0]} pixels and {clip.name} of "
                f"{stored[1]} x {stored[0]}, but both have the same intrinsics: give each its own "
                "intrinsics.txt, in pixels of its images, or, where they are cropped at the right "
                f"or bottom, set {fitting.TRUST}"
            )


def _with_measured_depth(clips: Sequence[Clip], targets: np.ndarray) -> np.ndarray:
    """The targets whose depth was measured; all of them where a clip has no depth at all."""
    if any(clip.depth is None for clip in clips):
        return targets
    measured = np.array([clips[clip].depth.has(frame) for clip, frame in targets.tolist()])
    if not measured.any():
        raise DataError(
            f"there is no measured depth for any of the {len(targets)} test frames, such as frame "
            f"{targets[0, 1]} of {clips[targets[0, 0]].name}: is the ground truth complete?"
        )
    if not measured.all():
        logging.getLogger(__name__).warning(
            "left out %d of %d test frames, whose depth was not measured",
            (~measured).sum(),
            len(measured),
        )
    return targets[measured]


def _moving_targets(source: ClipSource, config: ConfigDict) -> np.ndarray:
    """The targets without static samples, from which networks learn infinite depth.

    A sample is static where no frame differs from the next by `config.camera.min_motion` gray
    levels (of 255) on average, compared as 24 x 48 gray thumbnails.
    """
    thumbnails = _thumbnails(source, config)

    def moves(i: int) -> bool:
        clip = int(source.targets[i, 0])
        seen = [thumbnails[clip, int(n)] for n in source.frame_indices(i)]
        return any(
            a is None or b is None or np.abs(a - b).mean() >= config.camera.min_motion
            for a, b in itertools.pairwise(seen)
        )

    moving = np.array([moves(i) for i in range(len(source))])
    if not moving.any():
        raise DataError(
            f"in all {len(moving)} training samples the frames differ by less than "
            f"data.camera.min_motion={config.camera.min_motion} gray levels: nothing moves. Lower "
            "it, raise data.interval, or give frames of a moving camera"
        )
    if not moving.all():
        clip, frame = source.targets[~moving][0]
        logging.getLogger(__name__).warning(
            "left out %d of %d training samples, whose frames differ by less than "
            "data.camera.min_motion=%g gray levels; the first: frame %d of %s",
            (~moving).sum(),
            len(moving),
            config.camera.min_motion,
            frame,
            source.clips[clip].name,
        )
    return source.targets[moving]


def _thumbnails(source: ClipSource, config: ConfigDict) -> dict[tuple[int, int], np.ndarray | None]:
    """Thumbnails of all frames of all samples, by clip and frame; None for unreadable ones.

    Those are kept here if `config.bad_images` is 'skip': their samples are skipped later.
    """
    frames = sorted(
        {
            (int(source.targets[i, 0]), int(n))
            for i in range(len(source))
            for n in source.frame_indices(i)
        }
    )

    def read(clip_and_frame: tuple[int, int]) -> np.ndarray | None:
        clip, frame = clip_and_frame
        try:
            return _thumbnail(source.clips[clip].frames[frame])
        except ImageError:
            if config.bad_images != "skip":
                raise
            return None

    with ThreadPoolExecutor(threads(config.workers)) as pool:
        return dict(zip(frames, pool.map(read, frames)))


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("L")
    small = image.resize(THUMBNAIL[::-1], Image.Resampling.BOX)
    return np.asarray(small, np.int16)
