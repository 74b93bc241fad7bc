"""Rectified stereo pairs, from directories and archives, looked at before they are trusted."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sslax.data import clips, fitting
from sslax.data.records import DataError, Dataset, ImageError
from sslax.data.sources import arrays
from sslax.data.sources.video import archive_images, archive_intrinsics, archive_map

SIDES = (("left", "right"), ("image_2", "image_3"))  # names of directories
CHECKED = 4  # pairs that are looked at
CHECK_WIDTH = 256  # pixels to which they are shrunk
SHIFT = 64  # greatest disparity looked for, in those pixels
ROWS = 3  # greatest vertical shift looked for
WINDOW = 9  # side of the patches compared
CLEARLY = 0.9  # an error this much smaller decides


def stereo(config: ConfigDict) -> Dataset:
    """Pairs of `config.path`: directories left and right (or image_2 and image_3), or an archive.

    Files of both directories have the same names; directories of such pairs are sequences. An
    `.npz` archive has 'left' and 'right' uint8 `[N, H, W]` or `[N, H, W, C]`, 'intrinsics' `[3, 3]`
    or `[N, 3, 3]`, 'baseline' in meters, and perhaps, as the test's truth, 'disparity' (pixels of
    the left image) or 'depth' (meters) `[N, H, W]`, 0 where unknown. With `config.frames` > 1 pairs
    that follow each other are frames of a video.

    Raises:
        DataError: if there are no pairs, the calibration is missing, or the pairs are swapped or
            not rectified.
    """
    clips.check(config)
    if not config.stereo:
        raise DataError(
            "data.source='stereo' gives pairs: set data.stereo=True, or data.source='video' for "
            "one camera"
        )
    train = _clips(config.path, "data.path", config)
    test = _clips(config.test_path, "data.test_path", config) if config.test_path else None
    if config.check_pairs:
        check_pairs(train)
    return clips.dataset(config, train, test)


def check_pairs(found: Sequence[clips.Clip]) -> None:
    """Looks at some pairs of clips with partners: are they swapped, are they rectified?

    Patches of the left image are looked for in the right one, in the same row and up to `SHIFT`
    columns to the left. If they are found clearly better to the right, the images are swapped; if
    clearly better some rows higher or lower, they are not rectified. Errors are summed over the
    pairs, each of which is shrunk to `CHECK_WIDTH` columns.

    Raises:
        DataError: saying which.
    """
    pairs = [(clip, i) for clip in found for i in range(len(clip.frames))]
    chosen = np.unique(np.linspace(0, len(pairs) - 1, CHECKED).round().astype(int))
    errors = []
    for clip, i in (pairs[k] for k in chosen):
        try:
            errors.append(pair_errors(clip.frames[i], clip.partner[i], clip.baseline or 1.0))
        except ImageError:  # it is reported, or skipped, with all others that cannot be read
            continue
    if not errors:
        return
    leftwards, rightwards = np.sum(errors, axis=0)
    swapped = rightwards[ROWS] < CLEARLY * leftwards[ROWS]
    best = np.minimum(leftwards, rightwards)
    name = found[0].name
    if best.min() < CLEARLY * best[ROWS]:
        shrunk = max(1.0, found[0].frames.shape(0)[1] / CHECK_WIDTH)
        pixels = abs(int(best.argmin()) - ROWS) * shrunk
        raise DataError(
            f"the pairs of {name} are not rectified: patches match better about {pixels:.0f} "
            "pixels higher or lower than in the same row. Rectify them (with OpenCV: "
            "stereoRectify), or set data.check_pairs=False if this is wrong"
        )
    if swapped:
        raise DataError(
            f"left and right of {name} seem swapped: patches of the left image are found farther "
            "to the right in the right one. Swap them (or the sign of the baseline), or set "
            "data.check_pairs=False if this is wrong"
        )


def pair_errors(first: np.ndarray, second: np.ndarray, baseline: float = 1.0) -> np.ndarray:
    """How well patches of one image are found in another, in the same row and around it.

    Args:
        first: uint8 `[h, w, C]`.
        second: `[h, w, C]`.
        baseline: only its sign counts: negative where the second camera is to the left.

    Returns:
        `[2, 2 ROWS + 1]`: mean error of the best match to the left, as of true pairs, and to the
        right; for each shift by -ROWS to ROWS rows.
    """
    first, second = (_normalized(pixels) for pixels in (first, second))
    if baseline < 0:
        first, second = first[:, ::-1], second[:, ::-1]
    height, width = first.shape
    shift = min(SHIFT, width // 4)
    inner = first[ROWS : height - ROWS, shift : width - shift]
    errors = np.empty((2, 2 * ROWS + 1))
    for k in range(2 * ROWS + 1):
        rows = second[k : k + height - 2 * ROWS]
        costs = [
            _window_means(np.abs(inner - rows[:, shift + d : width - shift + d]))
            for d in range(-shift, shift + 1)
        ]
        errors[0, k] = np.min(costs[: shift + 1], axis=0).mean()
        errors[1, k] = np.min(costs[shift:], axis=0).mean()
    return errors


def _clips(path: str, what: str, config: ConfigDict) -> list[clips.Clip]:
    if path and Path(path).suffix.lower() == ".npz":
        return [_archive(path, config)]
    root = clips.directory(path, what, config)
    places = [root] if _sides(root) else [at for at in clips.directories(root) if _sides(at)]
    if not places:
        raise DataError(
            f"{root} has no directories left and right (or image_2 and image_3), nor has a "
            "directory in it: put the images of each camera into its own"
        )
    return [_pairs(place, config) for place in places]


def _sides(root: Path) -> tuple[str, str] | None:
    return next((pair for pair in SIDES if all((root / side).is_dir() for side in pair)), None)


def _pairs(root: Path, config: ConfigDict) -> clips.Clip:
    left, right = _sides(root)
    files = {side: clips.image_files(root / side) for side in (left, right)}
    names = {side: {Path(file).name for file in files[side]} for side in files}
    if alone := sorted(names[left] ^ names[right]):
        side, other = (left, right) if alone[0] in names[left] else (right, left)
        raise DataError(
            f"{root / side / alone[0]} has no partner: the files of {left} and {right} must have "
            f"the same names, and {other} has no {alone[0]}"
        )
    if not names[left]:
        raise DataError(f"{root / left} has no images")
    channels = config.channels or 3
    return _calibrated(
        clips.Clip(
            name=str(root),
            frames=clips.FileFrames(files[left], channels=channels),
            partner=clips.FileFrames(files[right], channels=channels),
            intrinsics=clips.folder_intrinsics(root, config),
            baseline=config.baseline or None,
        ),
        config,
    )


def _archive(path: str, config: ConfigDict) -> clips.Clip:
    found = arrays.read_archive(path)
    left, right = (archive_images(found, side, path) for side in ("left", "right"))
    if left.shape != right.shape:
        raise DataError(
            f"{path} has 'left' {list(left.shape)} and 'right' {list(right.shape)}: they must have "
            "one shape"
        )
    baseline = config.baseline or float(found.get("baseline", 0.0)) or None
    clip = _calibrated(
        clips.Clip(
            name=path,
            frames=clips.PixelFrames(left, channels=config.channels),
            partner=clips.PixelFrames(right, channels=config.channels),
            intrinsics=archive_intrinsics(found, len(left), path, config),
            baseline=baseline,
        ),
        config,
    )
    if "depth" in found:
        depth = archive_map(found, "depth", left.shape[:3], path)
    elif "disparity" in found and clip.baseline is not None:
        disparity = archive_map(found, "disparity", left.shape[:3], path)
        known = np.isfinite(disparity) & (disparity > 0)
        length = np.broadcast_to(clip.intrinsics[:, :1, :1] * abs(clip.baseline), left.shape[:3])
        depth = np.where(known, length / np.where(known, disparity, 1.0), 0.0)
    else:
        return clip
    return clip._replace(depth=clips.DenseDepth(depth.astype(np.float32)))


def _calibrated(clip: clips.Clip, config: ConfigDict) -> clips.Clip:
    """The clip, if it has all of its calibration, or none and needs none."""
    if (clip.intrinsics is None) == (clip.baseline is None) and config.frames == 1:
        return clip
    for value, what in (
        (
            clip.intrinsics,
            "intrinsics: name their file by data.intrinsics (3 x 3 numbers, or fx fy cx cy, in "
            "pixels of the stored images)",
        ),
        (clip.baseline, "baseline: set data.baseline to the distance of the cameras in meters"),
    ):
        if value is None:
            raise DataError(f"{clip.name} has no {what}")
    return clip


def _normalized(pixels: np.ndarray) -> np.ndarray:
    """Gray, shrunk, without what is wider than a patch: cameras differ in brightness."""
    scale = min(1.0, CHECK_WIDTH / pixels.shape[1])
    size = max(1, round(scale * pixels.shape[0])), max(1, round(scale * pixels.shape[1]))
    gray = pixels.astype(np.float32).mean(-1).round().astype(np.uint8)[..., None]
    small = fitting.fit_image(
        gray, fitting.Fit((0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0])), size)
    )[..., 0].astype(np.float32)
    half = WINDOW // 2
    return small - _window_means(np.pad(small, half, mode="symmetric"))


def _window_means(values: np.ndarray) -> np.ndarray:
    """Means of all windows that are inside, `[h - 8, w - 8]`."""
    for axis in (0, 1):
        sums = np.cumsum(values, axis=axis, dtype=np.float64)
        sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums], axis=axis)
        count = sums.shape[axis]
        upper = sums.take(np.arange(WINDOW, count), axis)
        values = (upper - sums.take(np.arange(count - WINDOW), axis)) / WINDOW
    return values
