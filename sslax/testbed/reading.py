"""Reads what a program predicted for a test bed, and the truth; refuses what cannot be scored."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sslax.data.files.cameras import read_kitti_poses, read_tum_poses
from sslax.data.files.flow_files import read_flow
from sslax.data.files.headers import describe
from sslax.data.files.maps import read_pfm, read_scaled_png
from sslax.data.files.png import read_png
from sslax.data.records import DataError
from sslax.errors import nearest
from sslax.measures import pose
from sslax.testbed.layout import CONDITIONS, QUANTITIES, SIZE, TASKS, sample_names

FRAMES = len(TASKS["video"].images)


def read_quantity(folder: Path, quantity: str, samples: int) -> np.ndarray | None:
    """A quantity of all samples of a task.

    Args:
        folder: of a condition, or of the truth.
        quantity: a key of `QUANTITIES`.
        samples: how many the task has.

    Returns:
        `[N, ...]`, float32 maps `[H, W]` or `[H, W, 2]`, float64 poses `[5, 4, 4]`, visibility in
        [0, 1]; None if there is no file of it.

    Raises:
        DataError: it is there for a part of the samples, or a file is not as it should be.
    """
    task, files, _ = QUANTITIES[quantity]
    places = [folder / task / name for name in sample_names(samples)]
    found = [next((p / f for f in files if (p / f).is_file()), None) for p in places]
    lacking = [place for place, file in zip(places, found) if file is None]
    if len(lacking) == samples:
        return None
    if lacking:
        others = f", nor have {len(lacking) - 1} others" if len(lacking) > 1 else ""
        raise DataError(
            f"{lacking[0]} has no {' or '.join(files)}{others}: {quantity} is scored over all "
            f"{samples} samples; write the file for each, or for none to leave {quantity} out"
        )
    return np.stack([READERS[quantity](file) for file in found if file])


def read_mask(folder: Path, task: str, mask: str, samples: int) -> np.ndarray:
    """A mask of the truth, bool `[N, H, W]`."""
    file = f"{TASKS[task].target}_{mask}.png"
    return np.stack([_read_mask(folder / task / n / file) > 0.5 for n in sample_names(samples)])


def conditions_in(predictions: Path, samples: dict[str, int]) -> list[str]:
    """The conditions that there are predictions for, in the order of `CONDITIONS`.

    Args:
        predictions: folder with a folder for each condition.
        samples: number of samples by task.

    Raises:
        DataError: there is no such folder, none of a condition, or one of an unknown condition,
            task or sample.
    """
    if not predictions.is_dir():
        raise DataError(f"--predictions={predictions} is no folder; name the one to score")
    found = _folders(predictions)
    if misplaced := [name for name in found if name in TASKS]:
        raise DataError(
            f"{predictions} has {misplaced[0]} without a condition; predictions for the clean "
            f"images go to {predictions / CONDITIONS[0] / misplaced[0]}"
        )
    _check_known(predictions, found, CONDITIONS, "condition")
    if not found:
        raise DataError(f"{predictions} has no predictions, such as {CONDITIONS[0]}/stereo/000")
    for condition in found:
        place = predictions / condition
        _check_known(place, _folders(place), TASKS, "task")
        for task in _folders(place):
            names = sample_names(samples[task])
            _check_known(place / task, _folders(place / task), names, "sample")
    return [condition for condition in CONDITIONS if condition in found]


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _check_known(folder: Path, found: Iterable[str], known: Iterable[str], what: str) -> None:
    known = list(known)
    for name in found:
        if name not in known:
            listed = nearest(name, known) if len(known) <= 20 else f"{known[0]} to {known[-1]}."
            raise DataError(f"{folder / name} is no {what} of the test bed: {listed}")


def _read_map(path: Path) -> np.ndarray:
    """A dense map of one number a pixel, of the size of the images."""
    if path.suffix == ".png":
        values, known = read_scaled_png(path)
        values = np.where(known, values, np.nan)
    else:
        values = read_pfm(path) if path.suffix == ".pfm" else _read_array(path)
    return _dense(path, values, SIZE)


def _read_depth(path: Path) -> np.ndarray:
    values = _read_map(path)
    if values.min() <= 0:
        bad = (values <= 0).mean()
        raise DataError(f"{path}: {bad:.1%} of the depths are not positive; fill those pixels")
    return values


def _read_flow(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return _dense(path, _read_array(path), (*SIZE, 2))
    values, known = read_flow(path)
    return _dense(path, np.where(known[..., None], values, np.nan), (*SIZE, 2))


def _read_mask(path: Path) -> np.ndarray:
    """A mask in [0, 1] from an 8-bit gray image."""
    values = read_png(path)
    if values.dtype != np.uint8 or values.shape != SIZE:
        raise DataError(f"{path} is {describe(values)}; masks are 8-bit gray images {list(SIZE)}")
    return values / np.float32(255)


def _read_poses(path: Path) -> np.ndarray:
    tum = path.name.endswith("_tum.txt")
    poses = read_tum_poses(path)[1] if tum else read_kitti_poses(path)
    if len(poses) != FRAMES:
        raise DataError(f"{path} has {len(poses)} poses; write one for each of {FRAMES} frames")
    try:
        pose.inverse_poses(poses)
    except ValueError as error:
        raise DataError(f"{path}: {str(error).partition(': ')[2]}") from None
    if not np.isfinite(poses).all():
        raise DataError(f"{path} has positions that are not finite; write numbers for all frames")
    return poses


def _read_array(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(
            f"{path} is not an .npy file of numbers ({error}); write it again"
        ) from None
    if values.dtype.kind not in "fiu":
        raise DataError(f"{path} is {describe(values)}; write floating-point numbers")
    return values


def _dense(path: Path, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if values.shape != shape:
        raise DataError(
            f"{path} is {describe(values)}; it has to have the size of the images, {list(shape)}: "
            "resize it, and disparity and flow also in value"
        )
    unknown = 1 - np.isfinite(values).reshape(*SIZE, -1).all(-1).mean()
    if unknown:
        raise DataError(
            f"{path}: {unknown:.1%} of the pixels are unknown or not finite; every pixel is "
            "scored: fill the holes"
        )
    return values.astype(np.float32)


READERS: dict[str, Callable[[Path], Any]] = {
    "disparity": _read_map,
    "flow": _read_flow,
    "visible": _read_mask,
    "depth": _read_depth,
    "poses": _read_poses,
}
