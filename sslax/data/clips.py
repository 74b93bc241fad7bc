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
from sslax.data.files import images
from sslax.data.records import DataError, ImageError, Record


class Frames(Protocol):
    """Images of a clip by index: uint8 `[h, w, C]`."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> np.ndarray: ...

    def shape(self, i: int) -> tuple[int, int]:
        """Height and width of image i, without decoding it."""
        ...


class Depth(Protocol):
    """Ground-truth depth of a clip's frames."""

    def has(self, i: int) -> bool:
        """Whether the depth of frame i was measured."""
        ...

    def read(self, i: int, fit: fitting.Fit) -> np.ndarray:
        """float32 `[H, W]` of the cropped and resized frame, in meters, 0 where unknown."""
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

    def __init__(self, paths: Sequence[str | Path], *, channels: int = 3) -> None:
        self.paths = [str(path) for path in paths]
        self.channels = channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        return images.read_image(self.paths[i], channels=self.channels)

    def shape(self, i: int) -> tuple[int, int]:
        """Height and width, from the file's header."""
        from PIL import Image

        try:
            with Image.open(self.paths[i]) as image:
                rotated = image.getexif().get(0x0112, 1) > 4  # EXIF's orientation
                return image.size if rotated else image.size[::-1]
        except Exception as error:  # decoders raise a dozen types for broken bytes
            raise ImageError(f"{self.paths[i]} cannot be read as an image: {error}") from error


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


class DenseDepth:
    """Depth maps `[N, h, w]` in memory, in meters; 0, negative or not finite is unknown."""

    def __init__(self, depth: np.ndarray) -> None:
        self.depth = depth

    def has(self, i: int) -> bool:
        """True."""
        return True

    def read(self, i: int, fit: fitting.Fit) -> np.ndarray:
        """The depth at the nearest stored pixels."""
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

    def read(self, i: int, fit: fitting.Fit) -> np.ndarray:
        """float32 `[H, W]`."""
        depth = self.decode(self.paths[i])
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
        offsets: indices of a sample's frames relative to its target; beyond the clip's ends its
            first or last frame is repeated.
        size: height and width, or () for those stored.
        cut_bottom: fraction of the rows to crop at the bottom.
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
        stereo: bool = False,
        distances: bool = False,
        ground_truth: bool = False,
    ) -> None:
        several = len(offsets) > 1
        self.clips = list(clips)
        self.targets = targets
        self.offsets = np.asarray(offsets)
        self.size = size
        self.cut_bottom = cut_bottom
        self.stereo = stereo
        self.distances = distances
        self.with_sequence = ground_truth and several and set(np.diff(offsets)) == {1}
        self.sequences = np.cumsum(np.any(np.diff(targets, axis=0, prepend=0) != [0, 1], axis=1))
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
        _check_one_size(views, clip.name)
        fit = fitting.fit(views[0].shape[:2], self.size, cut_bottom=self.cut_bottom)
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
            record["depth"] = clip.depth.read(target, fit)
        if self.with_pose:
            poses = np.linalg.inv(clip.poses[frames]) @ clip.poses[target]
            record["pose"] = poses.astype(np.float32)
        return record

    def frame_indices(self, i: int) -> np.ndarray:
        """Indices of a sample's frames in its clip, int `[S]`."""
        clip, target = self.targets[i]
        return np.clip(target + self.offsets, 0, len(self.clips[clip].frames) - 1)


def _check_one_size(views: Sequence[np.ndarray], name: str) -> None:
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
