"""Clips, and the samples cut from them: frames of one camera around a target frame.

A clip is what one camera recorded, in time order, with everything known about it. A sample is S of
its frames, of which one is the target. Every source of video or stereo is a list of clips; which of
their frames are targets is decided by `sslax.data.sampling`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from sslax.data import fitting
from sslax.data.files import images, listing
from sslax.data.records import DataError, ImageError, Record


class Frames(Protocol):
    """Images of a clip by index: uint8 `[h, w, C]`."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> np.ndarray: ...

    def shape(self, i: int) -> tuple[int, int]:
        """Height and width of image i, without decoding it."""
        ...

    def runs(self) -> np.ndarray:
        """`[N]`, equal for frames between which none is missing, and growing."""
        ...


class Depth(Protocol):
    """Ground-truth depth of a clip's frames."""

    def has(self, i: int) -> bool:
        """Whether the depth of frame i was measured."""
        ...

    def read(self, i: int, fit: fitting.Fit, stored: tuple[int, int]) -> np.ndarray:
        """float32 `[H, W]` of the cropped and resized frame, in meters, 0 where unknown.

        Raises:
            DataError: the depth is of an image of another size than `stored`, height and width.
        """
        ...


class Clip(NamedTuple):
    """N frames of one camera in time order; None for what is not known.

    Attributes:
        name: for messages.
        frames: N images of one size.
        intrinsics: `[N, 3, 3]` or `[1, 3, 3]`, in pixels of the stored images.
        partner: N images of a second camera, rectified, of the same size.
        baseline: meters to that camera, positive where it is to the right.
        poses: `[N, 4, 4]`, camera-to-world, meters.
        traveled: `[N]`, meters traveled so far, as an odometer counts them.
        depth: ground truth for the test.
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

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        channels: int = 3,
        value_range: images.ValueRange = (),
    ) -> None:
        self.paths = [str(path) for path in paths]
        self.channels = channels
        self.value_range = value_range

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        return images.read_image(
            self.paths[i], channels=self.channels, value_range=self.value_range
        )

    def shape(self, i: int) -> tuple[int, int]:
        """Height and width, from the file's header."""
        return images.stored_size(self.paths[i])

    def runs(self) -> np.ndarray:
        """By the numbers in the files' names, `listing.runs`."""
        return listing.runs([Path(path).stem for path in self.paths])


class PixelFrames:
    """Images in memory, uint8 `[N, h, w, 1 or 3]`; `channels=0` keeps theirs."""

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

    def runs(self) -> np.ndarray:
        """Zeros: no frame is missing."""
        return np.zeros(len(self.pixels), int)


class DenseDepth:
    """Depth maps `[N, h, w]` in memory, in meters; 0, negative or not finite is unknown."""

    def __init__(self, depth: np.ndarray) -> None:
        self.depth = depth

    def has(self, i: int) -> bool:
        """True."""
        return True

    def read(self, i: int, fit: fitting.Fit, stored: tuple[int, int]) -> np.ndarray:
        """The depth at the nearest stored pixels."""
        fitting.check_size("a depth map", self.depth.shape[1:], stored)
        depth = fitting.fit_values(self.depth[i], fit)
        return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


class DepthFiles:
    """One file of depth for each frame.

    Args:
        paths: a file for each frame; a frame whose file does not exist was not measured.
        decode: `path -> [h, w]`, meters, 0 where unknown; picklable.
        sparse: keep every measurement, the nearest where several fall into one pixel, instead of
            picking the nearest stored pixel.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        decode: Callable[[str], np.ndarray],
        *,
        sparse: bool = False,
    ) -> None:
        self.paths = [str(path) for path in paths]
        self.decode = decode
        self.sparse = sparse

    def has(self, i: int) -> bool:
        """Whether the file exists."""
        return Path(self.paths[i]).is_file()

    def read(self, i: int, fit: fitting.Fit, stored: tuple[int, int]) -> np.ndarray:
        """float32 `[H, W]`."""
        depth = self.decode(self.paths[i])
        fitting.check_size(self.paths[i], depth.shape, stored)
        if not self.sparse:
            return fitting.fit_values(depth, fit).astype(np.float32)
        y, x = np.nonzero(depth)
        return fitting.fit_points(x, y, depth[y, x], fit)


def disparity_to_depth(disparity: np.ndarray, focal_baseline: np.ndarray | float) -> np.ndarray:
    """`focal_baseline / disparity`, 0 where the disparity is unknown: not positive or not finite.

    Args:
        disparity: `[..., h, w]`, in pixels.
        focal_baseline: focal length in pixels times baseline in meters, broadcastable.

    Returns:
        float32 `[..., h, w]`, in meters.

    Example:
        >>> disparity_to_depth(np.array([[4.0, 0.0, np.inf]]), 2.0).tolist()
        [[0.5, 0.0, 0.0]]
    """
    known = np.isfinite(disparity) & (disparity > 0)
    depth = np.where(known, focal_baseline / np.where(known, disparity, 1), 0)
    return depth.astype(np.float32)


class ClipSource:
    """Samples of clips, one for each target frame.

    Args:
        clips: the clips.
        targets: `[N, 2]`, indices of a clip and of a frame in it.
        offsets: indices of a sample's frames relative to its target; beyond the ends of its run
            of frames without a gap, the run's first or last frame is repeated.
        size: height and width, or () for those stored.
        cut_bottom: fraction of the rows to crop at the bottom.
        fitting: how images are brought to the size, as in `fitting.fit`.
        stereo: add the target's partner as the last image.
        distances: add 'distance', meters from the target's camera to each frame's.
        ground_truth: add 'depth' and 'pose' where they are known for every clip, and 'sequence',
            which is equal for consecutive frames.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        targets: np.ndarray,
        *,
        offsets: Sequence[int],
        size: tuple[int, int] | tuple[()] = (),
        cut_bottom: float = 0.0,
        fitting: str = "cover",
        stereo: bool = False,
        distances: bool = False,
        ground_truth: bool = False,
    ) -> None:
        several = len(offsets) > 1
        self.clips = list(clips)
        self.targets = targets
        self._runs = [clip.frames.runs() for clip in clips]
        self._sizes: dict[int, tuple[int, int]] = {}  # of the first frames of clips
        self.offsets = np.asarray(offsets)
        self.size = size
        self.cut_bottom = cut_bottom
        self.fitting = fitting
        self.stereo = stereo
        self.distances = distances
        self.with_sequence = ground_truth and several and set(np.diff(offsets)) == {1}
        runs = [[self._runs[clip][frame]] for clip, frame in targets.tolist()]
        steps = np.diff(np.concatenate([targets, runs], axis=1), axis=0, prepend=0)
        self.sequences = np.cumsum(np.any(steps != [0, 1, 0], axis=1))
        self.with_depth = ground_truth and all(clip.depth is not None for clip in clips)
        self.with_pose = ground_truth and several and all(clip.poses is not None for clip in clips)

    @property
    def files(self) -> list[str]:
        """The files of all clips, of depth those that there may be."""
        stored = (part for clip in self.clips for part in (clip.frames, clip.partner, clip.depth))
        return [path for part in stored for path in getattr(part, "paths", ())]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The targets, and what else is in memory of each clip."""
        arrays = {"targets": self.targets}
        for i, clip in enumerate(self.clips):
            known = {
                "frames": getattr(clip.frames, "pixels", None),
                "partner": getattr(clip.partner, "pixels", None),
                "depth": getattr(clip.depth, "depth", None),
                **{n: getattr(clip, n) for n in ("intrinsics", "baseline", "poses", "traveled")},
            }
            arrays |= {f"{name} {i}": value for name, value in known.items() if value is not None}
        return arrays

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> Record:
        index, target = self.targets[i].tolist()
        clip, frames = self.clips[index], self.frame_indices(i)
        views = [clip.frames[n] for n in frames.tolist()]
        if self.stereo:
            views.append(clip.partner[target])
        check_one_size(views, clip.name)
        if clip.intrinsics is not None:
            self._check_calibrated(index, views[0])
        fit = fitting.fit(
            views[0].shape[:2], self.size, cut_bottom=self.cut_bottom, fitting=self.fitting
        )
        record = {"image": np.stack([fitting.fit_image(view, fit) for view in views])}
        if clip.intrinsics is not None:
            intrinsics = clip.intrinsics[min(target, len(clip.intrinsics) - 1)]
            record["intrinsics"] = fitting.fit_intrinsics(intrinsics, fit).astype(np.float32)
        if self.stereo and clip.baseline is not None:
            record["baseline"] = np.float32(clip.baseline)
        if self.distances:
            record["distance"] = _distances(clip, target, frames)
        if self.with_sequence:
            record["sequence"] = np.int32(self.sequences[i])
        if self.with_depth:
            record["depth"] = clip.depth.read(target, fit, views[0].shape[:2])
        if self.with_pose:
            poses = np.linalg.inv(clip.poses[frames]) @ clip.poses[target]
            record["pose"] = poses.astype(np.float32)
        return record

    def frame_indices(self, i: int) -> np.ndarray:
        """Indices of a sample's frames in its clip, int `[S]`."""
        clip, target = self.targets[i]
        runs = self._runs[clip]
        first, end = np.searchsorted(runs, [runs[target], runs[target] + 1])
        return np.clip(target + self.offsets, first, end - 1)

    def _check_calibrated(self, index: int, view: np.ndarray) -> None:
        """Refuses an image of another size than its clip's first, which intrinsics belong to."""
        clip = self.clips[index]
        if index not in self._sizes:
            try:
                self._sizes[index] = clip.frames.shape(0)
            except ImageError:  # it is reported, or skipped, as the first frame of a sample
                self._sizes[index] = view.shape[:2]
        (height, width), (h, w) = self._sizes[index], view.shape[:2]
        if (height, width) != (h, w):
            raise DataError(
                f"{clip.name} has images of {w} x {h} pixels, and its first of {width} x {height}, "
                "but one camera's intrinsics are for one size: give each size a directory"
            )


def check_one_size(views: Sequence[np.ndarray], name: str) -> None:
    """Refuses images of several sizes.

    Args:
        views: images `[h, w, C]` of one sample.
        name: of the clip, for messages.

    Raises:
        DataError: naming the sizes.
    """
    stored = {view.shape[:2] for view in views}
    if len(stored) > 1:
        sizes = " and ".join(f"{w} x {h}" for h, w in sorted(stored))
        raise DataError(
            f"{name} has images of {sizes} pixels in one sample: give all images of a camera one "
            "size"
        )


def _distances(clip: Clip, target: int, frames: np.ndarray) -> np.ndarray:
    """Meters from the target's camera to those of `frames`, float32 `[S]`."""
    if clip.poses is not None:
        shifts = clip.poses[frames, :3, 3] - clip.poses[target, :3, 3]
        return np.linalg.norm(shifts, axis=-1).astype(np.float32)
    return np.abs(clip.traveled[frames] - clip.traveled[target]).astype(np.float32)
