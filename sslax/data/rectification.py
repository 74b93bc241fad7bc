"""Checks by block matching that stereo pairs are rectified and not swapped."""

from collections.abc import Sequence

import numpy as np

from sslax.data import fitting
from sslax.data.clips import Clip, check_one_size
from sslax.data.records import DataError, ImageError

CHECKED = 4  # pairs that are checked
CHECK_WIDTH = 256  # pixels to which they are shrunk
MAX_DISPARITY = 64  # in those pixels
ROWS = 3  # largest vertical shift
WINDOW = 9  # side of the patches compared
MARGIN = 0.9  # an error smaller by this factor decides


def check_pairs(clips: Sequence[Clip]) -> None:
    """Refuses clips whose stereo pairs look swapped or not rectified.

    Patches of the left image are matched to the right one, in the same row and up to
    `MAX_DISPARITY` columns to the left. If they match clearly better to the right, the images are
    swapped; if clearly better some rows higher or lower, they are not rectified. Errors are summed
    over a few pairs, shrunk to `CHECK_WIDTH` columns.

    Args:
        clips: with partners.

    Raises:
        DataError: saying which, or that the images of a pair differ in size.
    """
    pairs = [(clip, i) for clip in clips for i in range(len(clip.frames))]
    chosen = np.unique(np.linspace(0, len(pairs) - 1, CHECKED).round().astype(int))
    errors = []
    for clip, i in (pairs[k] for k in chosen):
        try:
            pair = clip.frames[i], clip.partner[i]
        except ImageError:  # it is reported, or skipped, with all other unreadable images
            continue
        check_one_size(pair, f"pair {i} of {clip.name}")
        errors.append(pair_errors(*pair, clip.baseline or 1.0))
    if not errors:
        return
    leftwards, rightwards = np.sum(errors, axis=0)
    best = np.minimum(leftwards, rightwards)
    name = clips[0].name
    if best.min() < MARGIN * best[ROWS]:
        shrunk = max(1.0, clips[0].frames.shape(0)[1] / CHECK_WIDTH)
        pixels = abs(int(best.argmin()) - ROWS) * shrunk
        raise DataError(
            f"the pairs of {name} are not rectified: patches match better about {pixels:.0f} "
            "pixels higher or lower than in the same row. Rectify them (with OpenCV's "
            "stereoRectify), or set data.camera.check_pairs=False if this is wrong"
        )
    if rightwards[ROWS] < MARGIN * leftwards[ROWS]:
        raise DataError(
            f"left and right of {name} seem swapped: patches of the left image match farther to "
            "the right in the right one. Swap them (or the sign of the baseline), or set "
            "data.camera.check_pairs=False if this is wrong"
        )


def pair_errors(first: np.ndarray, second: np.ndarray, baseline: float = 1.0) -> np.ndarray:
    """How well patches of one image match another, in the same row and around it.

    Args:
        first: uint8 `[h, w, C]`.
        second: uint8 `[h, w, C]`.
        baseline: only its sign counts: negative where the second camera is to the left.

    Returns:
        `[2, 2 ROWS + 1]`: mean error of the best match to the left, as in correct pairs, and to
        the right; for each shift by -ROWS to ROWS rows.
    """
    first, second = (_normalized(pixels) for pixels in (first, second))
    if baseline < 0:
        first, second = first[:, ::-1], second[:, ::-1]
    height, width = first.shape
    shift = min(MAX_DISPARITY, width // 4)
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


def _normalized(pixels: np.ndarray) -> np.ndarray:
    """Gray, shrunk, minus the mean of each patch, because cameras differ in brightness."""
    scale = min(1.0, CHECK_WIDTH / pixels.shape[1])
    size = max(1, round(scale * pixels.shape[0])), max(1, round(scale * pixels.shape[1]))
    gray = pixels.astype(np.float32).mean(-1).round().astype(np.uint8)[..., None]
    small = fitting.fit_image(
        gray, fitting.Fit((0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0])), size)
    )[..., 0].astype(np.float32)
    half = WINDOW // 2
    return small - _window_means(np.pad(small, half, mode="symmetric"))


def _window_means(values: np.ndarray) -> np.ndarray:
    """Means of all windows inside the image, `[h - 8, w - 8]`."""
    for axis in (0, 1):
        sums = np.cumsum(values, axis=axis, dtype=np.float64)
        sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums], axis=axis)
        count = sums.shape[axis]
        upper = sums.take(np.arange(WINDOW, count), axis)
        values = (upper - sums.take(np.arange(count - WINDOW), axis)) / WINDOW
    return values
