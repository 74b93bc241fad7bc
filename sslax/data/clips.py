"""Samples of frames that belong together in time, as they are cut from clips.

A clip is what one camera saw, in the order of time, with what is known of it. A sample is S of its
frames about a target; everything that reads video or stereo is a list of clips and of targets.
"""

import itertools
import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from ml_collections import ConfigDict

from sslax.data import fitting
from sslax.data.files import formats, images
from sslax.data.records import DataError, Dataset, ImageError, Record, threads

THUMBNAIL = (24, 48)  # height and width at which frames are compared


class Frames(Protocol):
    """Images of a clip by number: uint8 `[h, w, C]`."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> np.ndarray: ...

    def shape(self, i: int) -> tuple[int, int]:
        """Height and width of image i, without decoding it."""
        ...


class Depth(Protocol):
    """Measured depths of a clip's frames."""

    def has(self, i: int) -> bool:
        """Whether there is a measurement of frame i."""
        ...

    def read(self, i: int, fit: fitting.Fit) -> np.ndarray:
        """float32 `[H, W]` of the fitted frame, in meters, 0 where unknown."""
        ...


class Clip(NamedTuple):
    """N frames of one camera in the order of time.

    Attributes:
        name: for messages.
        frames: N images of one size.
        intrinsics: `[N, 3, 3]` or `[1, 3, 3]`, in pixels of the stored images.
        partner: N images of a second camera, rectified, of the same size.
        baseline: meters to that camera, positive where it is to the right.
        poses: `[N, 4, 4]`, camera to world, meters.
        traveled: `[N]`, meters on the way since some place.
        depth: of the frames.
    """

    name: str
    frames: Frames
    intrinsics: np.ndarray | None = None
    partner: Frames | None = None
    baseline: float | None = None
    poses: np.ndarray | None = None
    traveled: np.ndarray | None = None
    depth: Depth | None = None


class FileFrames:
    """Image files, read when asked for."""

    def __init__(self, paths: Sequence[str], *, channels: int = 3) -> None:
        self.paths = list(paths)
        self.channels = channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        try:
            return images.decode(Path(self.paths[i]), channels=self.channels)
        except ImageError as error:
            raise ImageError(f"{self.paths[i]} cannot be read as an image: {error}") from error

    def shape(self, i: int) -> tuple[int, int]:
        """Height and width, from the file's header."""
        from PIL import Image

        try:
            with Image.open(self.paths[i]) as image:
                turned = image.getexif().get(0x0112, 1) > 4  # EXIF's orientation
                return image.size if turned else image.size[::-1]
        except Exception as error:  # decoders raise a dozen types for broken bytes
            raise ImageError(f"{self.paths[i]} cannot be read as an image: {error}") from error


class PixelFrames:
    """Images in memory, uint8 `[N, h, w, 1 or 3]`; `channels=0` keeps what they have."""

    def __init__(self, pixels: np.ndarray, *, channels: int = 0) -> None:
        self.pixels = pixels
        self.channels = channels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int) -> np.ndarray:
        pixels = self.pixels[i]
        if self.channels in (0, pixels.shape[-1]):
            return pixels
        return images.convert(pixels, channels=self.channels)

    def shape(self, i: int) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[1:3]


class DenseDepth:
    """Depths `[N, h, w]` in meters, in memory; 0 (or less, or not finite) is unknown."""

    def __init__(self, depth: np.ndarray) -> None:
        self.depth = depth

    def has(self, i: int) -> bool:
        """True."""
        return True

    def read(self, i: int, fit: fitting.Fit) -> np.ndarray:
        """The depths nearest to the fitted pixels' centers."""
        depth = fitting.fit_values(self.depth[i], fit)
        return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


class ClipSource:
    """Samples of clips, one about each target.

    Args:
        clips: what the samples are cut from.
        targets: `[N, 2]`, a clip's number and a frame's number in it.
        steps: where a sample's frames are, counted from the target; a frame beyond the clip's end
            is replaced by its last.
        size: height and width, or () for those stored.
        cut_bottom: fraction of the rows left out at the bottom.
        stereo: with the target's partner as the last image.
        distances: with 'distance', meters from the target's camera to each frame's.
        truth: with 'depth' and 'pose', as far as they are known of every clip, and with 'sequence',
            which is equal where the targets are consecutive frames.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        targets: np.ndarray,
        *,
        steps: Sequence[int],
        size: tuple[int, int] = (),
        cut_bottom: float = 0.0,
        stereo: bool = False,
        distances: bool = False,
        truth: bool = False,
    ) -> None:
        self.clips = list(clips)
        self.targets = targets
        self.steps = np.asarray(steps)
        self.size = size
        self.cut_bottom = cut_bottom
        self.stereo = stereo
        self.distances = distances
        self.with_sequence = truth and len(steps) > 1 and set(np.diff(steps)) == {1}
        self.sequences = np.cumsum(np.any(np.diff(targets, axis=0, prepend=0) != [0, 1], axis=1))
        self.with_depth = truth and all(clip.depth is not None for clip in clips)
        self.with_pose = truth and all(clip.poses is not None for clip in clips) and len(steps) > 1

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> Record:
        number, at = self.targets[i].tolist()
        clip = self.clips[number]
        others = self.numbers(i)
        views = [clip.frames[n] for n in others.tolist()]
        if self.stereo:
            views.append(clip.partner[at])
        stored = {view.shape[:2] for view in views}
        if len(stored) > 1:
            sizes = " and ".join(f"{w} x {h}" for h, w in sorted(stored))
            raise DataError(
                f"{clip.name} has images of {sizes} pixels in one sample: give a camera's images "
                "one size"
            )
        fit = fitting.fit(views[0].shape[:2], self.size, cut_bottom=self.cut_bottom)
        record = {"image": np.stack([fitting.fit_image(view, fit) for view in views])}
        if clip.intrinsics is not None:
            intrinsics = clip.intrinsics[min(at, len(clip.intrinsics) - 1)]
            record["intrinsics"] = fitting.fit_intrinsics(intrinsics, fit).astype(np.float32)
        if self.stereo and clip.baseline is not None:
            record["baseline"] = np.float32(clip.baseline)
        if self.distances:
            record["distance"] = _distances(clip, at, others)
        if self.with_sequence:
            record["sequence"] = np.int32(self.sequences[i])
        if self.with_depth:
            record["depth"] = clip.depth.read(at, fit)
        if self.with_pose:
            poses = np.linalg.inv(clip.poses[others]) @ clip.poses[at]
            record["pose"] = poses.astype(np.float32)
        return record

    def numbers(self, i: int) -> np.ndarray:
        """The numbers of a sample's frames in its clip, int `[S]`."""
        number, at = self.targets[i]
        return np.clip(at + self.steps, 0, len(self.clips[number].frames) - 1)


def check(config: ConfigDict) -> None:
    """Refuses what no sample of frames can have.

    Raises:
        DataError: naming the key and its remedy.
    """
    size = tuple(config.size)
    if size and (len(size) != 2 or min(size) < 1):
        raise DataError(f"data.size={size} must be a height and a width in pixels, or ()")
    if config.image_size:
        raise DataError(
            f"data.image_size={config.image_size} is for square images: set data.size=(height, "
            f"width) for data.source={config.source!r}"
        )
    if config.frames < 1 or config.interval < 1:
        raise DataError(
            f"data.frames={config.frames} and data.interval={config.interval} must be 1 or more"
        )
    if config.frames == 1 and not config.stereo:
        raise DataError(
            "data.frames=1 without data.stereo leaves a frame nothing to be compared with: set "
            "data.frames=3 (for flow 2), or data.stereo=True"
        )
    if config.target not in ("middle", "first", "second"):
        raise DataError(f"data.target={config.target!r} is not one of 'middle', 'first', 'second'")
    if config.target == "first" and (config.frames != 2 or config.stereo):
        raise DataError(
            "data.target='first' is for flow, from the first of two frames to the second: set "
            "data.frames=2 and data.stereo=False"
        )
    if config.target == "second" and (config.frames != 3 or config.stereo):
        raise DataError(
            "data.target='second' is for flow, from the second of three frames to the third: set "
            "data.frames=3 and data.stereo=False"
        )
    if not 0 <= config.cut_bottom < 1 or config.still < 0:
        raise DataError(
            f"data.cut_bottom={config.cut_bottom} must be in [0, 1) and data.still={config.still} "
            "0.0 or more"
        )


def steps(config: ConfigDict) -> tuple[int, ...]:
    """Where a sample's frames are, counted from its target."""
    target = 0 if config.target == "first" else config.frames // 2
    return tuple((i - target) * config.interval for i in range(config.frames))


def dataset(config: ConfigDict, clips: Sequence[Clip], test: Sequence[Clip] | None) -> Dataset:
    """Training and test samples of clips: every frame that has the others about it is a target.

    Without test clips, `config.test_fraction` holds out the last part of each clip, so that no
    frame is in both: neighbors in time are nearly equal, and a random part would be no test.

    Raises:
        DataError: if a part has no sample.
    """
    if test is not None and config.test_fraction:
        raise DataError("data.test_fraction is set but there is a test set: set it to 0.0")
    lengths = [len(clip.frames) for clip in clips]
    cuts = [n - round(config.test_fraction * n) for n in lengths]
    train = source(clips, targets(clips, config, ends=cuts), config, "training")
    if test is not None:
        held = source(test, targets(test, config), config, "test")
    elif config.test_fraction:
        held = source(clips, targets(clips, config, starts=cuts), config, "test")
    else:
        held = None
    return Dataset(train, held, None)


def targets(
    clips: Sequence[Clip],
    config: ConfigDict,
    *,
    starts: Sequence[int] | None = None,
    ends: Sequence[int] | None = None,
) -> np.ndarray:
    """All frames with the others of their sample about them, `[N, 2]`: clip and frame.

    Args:
        clips: what is cut.
        config: the `data` section.
        starts: first frame of each clip that may be used.
        ends: first frame of each clip that may not.
    """
    around = steps(config)
    pairs = []
    for number, clip in enumerate(clips):
        start = starts[number] if starts else 0
        end = ends[number] if ends else len(clip.frames)
        at = np.arange(start - around[0], end - around[-1])
        pairs.append(np.stack([np.full_like(at, number), at], axis=1))
    return np.concatenate(pairs) if pairs else np.zeros((0, 2), int)


def source(clips: Sequence[Clip], targets: np.ndarray, config: ConfigDict, part: str) -> ClipSource:
    """The samples about the targets; of the training part without those that stand still.

    Raises:
        DataError: if none is left, or what the config wants is not known of a clip.
    """
    around = steps(config)
    span = around[-1] - around[0] + 1
    if not len(targets):
        longest = max((len(clip.frames) for clip in clips), default=0)
        held = (
            f" of which data.test_fraction={config.test_fraction} is the test set"
            if config.test_fraction
            else ""
        )
        raise DataError(
            f"no sequence is long enough for a {part} sample: data.frames={config.frames} at "
            f"data.interval={config.interval} span {span} frames, and the longest sequence has "
            f"{longest}{held}"
        )
    for clip in clips:
        _check_clip(clip, config)
    if part == "test":
        targets = _measured(clips, targets)
    if short := sum(len(clip.frames) < span for clip in clips):
        logging.getLogger(__name__).warning(
            "%d of %d sequences have fewer than the %d frames of a sample and are not used",
            short,
            len(clips),
            span,
        )
    result = ClipSource(
        clips,
        targets,
        steps=around,
        size=tuple(config.size),
        cut_bottom=config.cut_bottom,
        stereo=config.stereo,
        distances=config.distances,
        truth=part == "test",
    )
    if part == "training" and config.still and config.frames > 1:
        return without_still(result, config)
    return result


def without_still(source: ClipSource, config: ConfigDict) -> ClipSource:
    """A source without samples whose frames hardly differ: they teach that all is infinitely far.

    Frames are compared as 24 x 48 gray thumbnails; a sample is left out where no frame differs from
    the next by `config.still` gray levels (of 255) in the mean.

    Raises:
        DataError: if none is left, or a frame cannot be read.
    """
    needed = [source.numbers(i) for i in range(len(source))]
    pairs = sorted(
        {(int(source.targets[i, 0]), int(n)) for i, found in enumerate(needed) for n in found}
    )

    def thumbnail(pair: tuple[int, int]) -> np.ndarray | None:
        try:
            return _thumbnail(source.clips[pair[0]].frames[pair[1]])
        except ImageError:
            if config.bad_images != "skip":
                raise
            return None  # kept here, and skipped with all that cannot be read

    with ThreadPoolExecutor(threads(config.workers)) as pool:
        thumbnails = dict(zip(pairs, pool.map(thumbnail, pairs)))

    def moves(i: int) -> bool:
        clip = int(source.targets[i, 0])
        seen = [thumbnails[clip, int(n)] for n in needed[i]]
        return any(
            a is None or b is None or np.abs(a - b).mean() >= config.still
            for a, b in itertools.pairwise(seen)
        )

    kept = np.array([moves(i) for i in range(len(source))])
    if not kept.any():
        raise DataError(
            f"in all {len(kept)} training samples the frames differ by less than "
            f"data.still={config.still} gray levels: nothing moves. Lower data.still, raise "
            "data.interval, or give frames of a moving camera"
        )
    if not kept.all():
        logging.getLogger(__name__).warning(
            "left out %d of %d training samples, whose frames differ by less than data.still=%g "
            "gray levels; the first: frame %d of %s",
            (~kept).sum(),
            len(kept),
            config.still,
            source.targets[~kept][0, 1],
            source.clips[source.targets[~kept][0, 0]].name,
        )
    source.targets = source.targets[kept]
    return source


def sequences(path: str, what: str, config: ConfigDict) -> list[tuple[Path, list[str]]]:
    """The image files of a directory, or of each of its sub-directories, in the order of time.

    Numbers in names count as numbers, so that `9.png` is before `10.png`.

    Raises:
        DataError: if it is no directory, or has no images, or images beside sub-directories of
            them.
    """
    root = directory(path, what, config)
    loose = image_files(root)
    inner = [(entry, image_files(entry)) for entry in directories(root)]
    inner = [(entry, files) for entry, files in inner if files]
    if loose and inner:
        raise DataError(
            f"{root} has images, such as {Path(loose[0]).name}, beside directories of images, such "
            f"as {inner[0][0].name}: give each sequence a directory"
        )
    if not loose and not inner:
        known = " ".join(sorted(suffix[1:] for suffix in images.SUFFIXES))
        raise DataError(
            f"{root} has no images, nor has a directory in it: images are the files ending in "
            f"{known}"
        )
    return [(root, loose)] if loose else inner


def directory(path: str, what: str, config: ConfigDict) -> Path:
    """An existing directory that a key of the config names.

    Raises:
        DataError: if it is none.
    """
    if not path:
        raise DataError(f"data.source={config.source!r} needs {what}, a directory")
    root = Path(path).expanduser()
    if not root.is_dir():
        problem = "is a file, not a directory" if root.exists() else "does not exist"
        raise DataError(f"{what} {path} {problem}")
    return root


def directories(root: Path) -> list[Path]:
    """The directories in one, without hidden ones, in natural order."""
    found = (entry for entry in root.iterdir() if not entry.name.startswith("."))
    return sorted((entry for entry in found if entry.is_dir()), key=lambda at: natural(at.name))


def image_files(root: Path, suffixes: frozenset[str] = images.SUFFIXES) -> list[str]:
    """The image files in a directory, without hidden ones, in natural order."""
    if not root.is_dir():
        return []
    names = [name for name in os.listdir(root) if not name.startswith(".")]
    names = [name for name in names if os.path.splitext(name)[1].lower() in suffixes]
    return [str(root / name) for name in sorted(names, key=natural)]


def natural(name: str) -> list:
    """A key by which names are sorted with their numbers as numbers.

    Example:
        >>> sorted(["b10", "b9", "a"], key=natural)
        ['a', 'b9', 'b10']
    """
    words = re.split(r"(\d+)", name)
    return [int(word) if i % 2 else word for i, word in enumerate(words)] + [name]


def folder_intrinsics(folder: Path, config: ConfigDict) -> np.ndarray | None:
    """Intrinsics `[1, 3, 3]` of the images in a folder, or None.

    From the file `config.intrinsics`, or else `intrinsics.txt` in the folder or the one above.
    """
    if config.intrinsics:
        file = Path(config.intrinsics).expanduser()
        if not file.is_file():
            raise DataError(f"data.intrinsics {config.intrinsics} does not exist")
        return formats.read_intrinsics(file)[None]
    for place in (folder, folder.parent):
        if (file := place / "intrinsics.txt").is_file():
            return formats.read_intrinsics(file)[None]
    return None


def as_poses(poses: np.ndarray, what: str) -> np.ndarray:
    """Camera-to-world poses `[N, 3, 4]` or `[N, 4, 4]` as float64 `[N, 4, 4]`.

    Raises:
        DataError: for another shape, or if their rotations are none.
    """
    if poses.ndim != 3 or poses.shape[1:] not in ((3, 4), (4, 4)):
        raise DataError(
            f"{what} has the shape {list(poses.shape)}; poses are [N, 4, 4] or [N, 3, 4]"
        )
    result = np.tile(np.eye(4), (len(poses), 1, 1))
    result[:, :3] = poses[:, :3]
    rotation = result[:, :3, :3]
    wrong = np.abs(rotation @ rotation.swapaxes(1, 2) - np.eye(3)).max(initial=0)
    if not (wrong < 1e-2 and (np.linalg.det(rotation) > 0).all() and np.isfinite(result).all()):
        raise DataError(
            f"{what} has matrices that are no rigid motions; poses are [R | t] from the camera to "
            "the world, R a rotation"
        )
    return result


def _measured(clips: Sequence[Clip], targets: np.ndarray) -> np.ndarray:
    """The targets whose depth was measured, if any depth is known of every clip."""
    if any(clip.depth is None for clip in clips):
        return targets
    measured = np.array([clips[number].depth.has(at) for number, at in targets.tolist()])
    if not measured.any():
        raise DataError(
            f"there is no measured depth of any of the {len(targets)} test frames, such as frame "
            f"{targets[0, 1]} of {clips[targets[0, 0]].name}: is data.depth complete?"
        )
    if not measured.all():
        logging.getLogger(__name__).warning(
            "left out %d of %d test frames, whose depth was not measured",
            (~measured).sum(),
            len(measured),
        )
    return targets[measured]


def _check_clip(clip: Clip, config: ConfigDict) -> None:
    if config.stereo:
        if clip.partner is None:
            raise DataError(
                f"data.stereo=True but {clip.name} has no second camera: set data.stereo=False, or "
                "data.source='stereo' for directories left and right"
            )
        if len(clip.partner) != len(clip.frames):
            raise DataError(
                f"{clip.name} has {len(clip.frames)} images of one camera and "
                f"{len(clip.partner)} of the other: they must be the same moments"
            )
    if config.distances and clip.poses is None and clip.traveled is None:
        raise DataError(
            f"data.distances=True but of {clip.name} no camera poses or speeds are known: give "
            "them ('pose' in an .npz archive), or set data.distances=False"
        )
    if clip.intrinsics is not None and len(clip.frames):
        try:
            stored = clip.frames.shape(0)
        except ImageError:
            if config.bad_images != "skip":
                raise
        else:
            fitting.check_intrinsics(clip.intrinsics, stored, clip.name)


def _distances(clip: Clip, at: int, others: np.ndarray) -> np.ndarray:
    if clip.poses is not None:
        away = np.linalg.norm(clip.poses[others, :3, 3] - clip.poses[at, :3, 3], axis=-1)
    else:
        away = np.abs(clip.traveled[others] - clip.traveled[at])
    return away.astype(np.float32)


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("L")
    small = image.resize(THUMBNAIL[::-1], Image.Resampling.BOX)
    return np.asarray(small, np.int16)
