"""Cityscapes: stereo video of streets, with calibration.

Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", 2016.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sslax.data import clips, fitting
from sslax.data.files import formats
from sslax.data.records import DataError, Dataset

_NAME = re.compile(r"(.+)_(\d+)_(\d+)_(\w+)\.\w+")  # city, sequence, frame, kind


def cityscapes(config: ConfigDict) -> Dataset:
    """Cityscapes in its published layout; its part train to train on, val to test on.

    Frames are those of `leftImg8bit_sequence`, or for pairs alone (`frames=1`) of `leftImg8bit`
    where that is there; partners those of `rightImg8bit...`; calibration is in `camera`. Where
    `disparity...` is there the test has depth, by semi-global matching. The car's bonnet is in the
    lowest rows: papers cut off a fifth (`cut_bottom=0.2`).

    Raises:
        DataError: if files are missing.
    """
    clips.check(config)
    root = clips.directory(config.path, "data.path", config)
    if config.test_path or config.test_fraction:
        raise DataError(
            "data.source='cityscapes' is tested on its part val: set data.test_path='' and "
            "data.test_fraction=0.0"
        )
    train = _clips(root, "train", config)
    if not train:
        raise DataError(
            f"{root} has no leftImg8bit_sequence/train/CITY/*_leftImg8bit.png"
            f"{' nor leftImg8bit' if config.frames == 1 else ''}: set data.path to the directory "
            "above it"
        )
    return clips.dataset(config, train, _clips(root, "val", config) or None)


class DisparityFiles:
    """Depth of Cityscapes' disparity files: `(value - 1) / 256` pixels, unknown where 0."""

    def __init__(self, files: Sequence[str], length: float) -> None:
        self.files = list(files)
        self.length = length  # focal length times baseline, pixels times meters

    def has(self, i: int) -> bool:
        """Whether there is a file."""
        return Path(self.files[i]).is_file()

    def read(self, i: int, fit: fitting.Fit) -> np.ndarray:
        """float32 `[H, W]`."""
        values = fitting.fit_values(formats.read_png(self.files[i]), fit)
        disparity = (values.astype(np.float32) - 1) / 256
        known = disparity > 0
        return np.where(known, self.length / np.where(known, disparity, 1), 0).astype(np.float32)


def _clips(root: Path, part: str, config: ConfigDict) -> list[clips.Clip]:
    kinds = ["_sequence", ""] if config.frames > 1 or not (root / "leftImg8bit").is_dir() else [""]
    suffix = next((k for k in kinds if (root / f"leftImg8bit{k}" / part).is_dir()), None)
    if suffix is None:
        return []
    found = []
    for city in clips.directories(root / f"leftImg8bit{suffix}" / part):
        cameras = _cameras(root / "camera" / part / city.name)
        for sequence, numbers, files in _runs(clips.image_files(city), whole=config.frames == 1):
            camera = _nearest(cameras, sequence, numbers, root / "camera" / part / city.name)
            found.append(_clip(root, suffix, files, camera, config))
    return found


def _runs(files: list[str], *, whole: bool) -> list[tuple[str, list[int], list[str]]]:
    """Sequence, numbers and files that follow each other; `whole`: gaps do not matter."""
    runs: list[tuple[str, list[int], list[str]]] = []
    for file in files:
        match = _NAME.fullmatch(Path(file).name)
        if match is None:
            raise DataError(f"{file} is not named CITY_SEQUENCE_FRAME_leftImg8bit.png")
        sequence, number = f"{match[1]}_{match[2]}", int(match[3])
        follows = runs and runs[-1][0] == sequence and (whole or runs[-1][1][-1] == number - 1)
        if not follows:
            runs.append((sequence, [], []))
        runs[-1][1].append(number)
        runs[-1][2].append(file)
    return runs


def _clip(
    root: Path, suffix: str, files: list[str], camera: dict[str, Any], config: ConfigDict
) -> clips.Clip:
    channels = config.channels or 3
    inner, outer = camera["intrinsic"], camera["extrinsic"]
    intrinsics = np.array(
        [[inner["fx"], 0, inner["u0"]], [0, inner["fy"], inner["v0"]], [0, 0, 1]], np.float64
    )
    baseline = float(outer["baseline"])
    partner = depth = None
    if config.stereo:
        right = [_other(file, f"rightImg8bit{suffix}", "rightImg8bit") for file in files]
        if missing := next((file for file in right if not Path(file).is_file()), None):
            raise DataError(
                f"{missing} is missing: download rightImg8bit{suffix}, or set data.stereo=False"
            )
        partner = clips.FileFrames(right, channels=channels)
    if (root / f"disparity{suffix}").is_dir():
        maps = [_other(file, f"disparity{suffix}", "disparity", ".png") for file in files]
        depth = DisparityFiles(maps, intrinsics[0, 0] * baseline)
    return clips.Clip(
        name=str(Path(files[0]).with_suffix("")),
        frames=clips.FileFrames(files, channels=channels),
        intrinsics=intrinsics[None],
        partner=partner,
        baseline=baseline,
        depth=depth,
    )


def _other(file: str, folder: str, kind: str, suffix: str = "") -> str:
    """The file of another kind that belongs to an image."""
    path = Path(file)
    name = path.stem.removesuffix("leftImg8bit") + kind + (suffix or path.suffix)
    return str(path.parents[3] / folder / path.parent.parent.name / path.parent.name / name)


def _cameras(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    """Calibration files by sequence: the frame's number and the file."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for file in sorted(folder.glob("*_camera.json")):
        if match := _NAME.fullmatch(file.name):
            found.setdefault(f"{match[1]}_{match[2]}", []).append((int(match[3]), file))
    return found


def _nearest(
    cameras: dict[str, list[tuple[int, Path]]], sequence: str, numbers: list[int], folder: Path
) -> dict[str, Any]:
    """Calibration of the frame of a sequence that is nearest: only one in thirty has a file."""
    if sequence not in cameras:
        raise DataError(
            f"{folder} has no {sequence}_*_camera.json, the calibration: download "
            "camera_trainvaltest"
        )
    middle = numbers[len(numbers) // 2]
    _, file = min(cameras[sequence], key=lambda found: abs(found[0] - middle))
    try:
        camera = json.loads(file.read_text())
        float(camera["intrinsic"]["fx"] + camera["intrinsic"]["u0"] + camera["intrinsic"]["v0"])
        float(camera["intrinsic"]["fy"] + camera["extrinsic"]["baseline"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} is no calibration of Cityscapes, which has intrinsic fx, fy, u0, v0 and "
            f"extrinsic baseline ({error!r})"
        ) from None
    return camera
