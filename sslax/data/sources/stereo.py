"""Rectified stereo pairs, from directories and archives, checked before use."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sslax.data import clips, rectification, sampling
from sslax.data.files import archives, images, listing
from sslax.data.records import DataError, Dataset

SIDES = (("left", "right"), ("image_2", "image_3"))  # names of directories


def load(config: ConfigDict) -> Dataset:
    """Pairs from directories left and right (or image_2 and image_3), or from an archive.

    The files of both directories have the same names; directories that hold such pairs are
    sequences. An `.npz` archive has 'left' and 'right' uint8 `[N, H, W]` or `[N, H, W, C]`,
    'intrinsics' `[3, 3]` or `[N, 3, 3]`, 'baseline' in meters, and, as the test's ground truth,
    perhaps 'disparity' (pixels of the left image) or 'depth' (meters) `[N, H, W]`, 0 where unknown.
    With `config.frames` > 1 consecutive pairs are frames of a video, whose intrinsics a method may
    learn.

    Raises:
        DataError: there are no pairs, the calibration is missing, or the pairs are swapped or not
            rectified.
    """
    sampling.check(config)
    if not config.stereo:
        raise DataError(
            "data.source='stereo' gives pairs: set data.stereo=True, or data.source='video' for "
            "one camera"
        )
    train = _clips(config.path, "data.path", config)
    test = _clips(config.test_path, "data.test_path", config) if config.test_path else None
    if config.camera.check_pairs:
        rectification.check_pairs(train)
    return sampling.dataset(config, train, test)


def _clips(path: str, key: str, config: ConfigDict) -> list[clips.Clip]:
    if path and Path(path).suffix.lower() == ".npz":
        return [_archive(path, config)]
    root = listing.require_directory(path, key, config.source)
    folders = [root] if _sides(root) else [at for at in listing.directories(root) if _sides(at)]
    if not folders:
        raise DataError(
            f"{root} has no directories left and right (or image_2 and image_3), nor has a "
            "directory in it: put the images of each camera into its own"
        )
    return [_pairs(folder, config) for folder in folders]


def _sides(root: Path) -> tuple[str, str] | None:
    """The names of the directories of the left and the right camera."""
    return next((pair for pair in SIDES if all((root / side).is_dir() for side in pair)), None)


def _pairs(root: Path, config: ConfigDict) -> clips.Clip:
    left, right = _sides(root)
    files = {side: listing.image_files(root / side) for side in (left, right)}
    names = {side: {Path(file).name for file in files[side]} for side in files}
    if alone := sorted(names[left] ^ names[right]):
        side, other = (left, right) if alone[0] in names[left] else (right, left)
        raise DataError(
            f"{root / side / alone[0]} has no partner: the files of {left} and {right} must have "
            f"the same names, and {other} has no {alone[0]}"
        )
    if not names[left]:
        raise DataError(f"{root / left} has no images")
    for side in (left, right):
        listing.warn_left_out(root / side, listing.other_files(root / side))
    decoding = {"channels": config.channels or 3, "value_range": images.value_range(config)}
    clip = clips.Clip(
        name=str(root),
        frames=clips.FileFrames(files[left], **decoding),
        partner=clips.FileFrames(files[right], **decoding),
        intrinsics=sampling.folder_intrinsics(root, config),
        baseline=config.camera.baseline or None,
    )
    _check_calibration(clip, config)
    return clip


def _archive(path: str, config: ConfigDict) -> clips.Clip:
    arrays = archives.read_archive(path)
    left, right = (archives.images(arrays, side, path) for side in ("left", "right"))
    if left.shape != right.shape:
        raise DataError(
            f"{path} has 'left' {list(left.shape)} and 'right' {list(right.shape)}: they must have "
            "one shape"
        )
    clip = clips.Clip(
        name=path,
        frames=clips.PixelFrames(left, channels=config.channels),
        partner=clips.PixelFrames(right, channels=config.channels),
        intrinsics=sampling.archive_intrinsics(arrays, len(left), path, config),
        baseline=config.camera.baseline or float(arrays.get("baseline", 0.0)) or None,
    )
    _check_calibration(clip, config)
    depth = _archive_depth(arrays, clip, left.shape[:3])
    return clip if depth is None else clip._replace(depth=clips.DenseDepth(depth))


def _archive_depth(
    arrays: archives.Arrays, clip: clips.Clip, shape: tuple[int, ...]
) -> np.ndarray | None:
    """Depth `[N, H, W]` of an archive, float32, from its 'depth' or 'disparity'."""
    if "depth" in arrays:
        return archives.dense_map(arrays, "depth", shape, clip.name).astype(np.float32)
    if "disparity" not in arrays or clip.baseline is None or clip.intrinsics is None:
        return None
    disparity = archives.dense_map(arrays, "disparity", shape, clip.name)
    focal_baseline = clip.intrinsics[:, :1, :1] * abs(clip.baseline)
    return clips.disparity_to_depth(disparity, focal_baseline)


def _check_calibration(clip: clips.Clip, config: ConfigDict) -> None:
    """Refuses a clip with half of its calibration; of a video, one without a baseline."""
    is_video = config.frames > 1  # from which the intrinsics may be learned
    if (clip.intrinsics is None) == (clip.baseline is None) and not is_video:
        return
    if clip.intrinsics is None and not is_video:
        raise DataError(
            f"{clip.name} has no intrinsics: name their file in data.camera.intrinsics (3 x 3 "
            "numbers, or fx fy cx cy, in pixels of the stored images)"
        )
    if clip.baseline is None:
        raise DataError(
            f"{clip.name} has no baseline: set data.camera.baseline to the distance between the "
            "cameras in meters"
        )
