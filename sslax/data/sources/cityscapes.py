"""Cityscapes: stereo video of streets, with calibration.

Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", 2016.
"""

import functools
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sslax.data import clips, sampling
from sslax.data.files import listing
from sslax.data.files.png import read_png
from sslax.data.records import DataError, Dataset

_NAME = re.compile(r"(.+)_(\d+)_(\d+)_(\w+)\.\w+")  # city, sequence, frame, kind


def load(config: ConfigDict) -> Dataset:
    """Cityscapes in its published layout: trained on its part train, tested on val.

    Frames are those of `leftImg8bit_sequence`, or, for pairs alone (`frames=1`), of `leftImg8bit`
    where that exists; partners those of `rightImg8bit...`; calibration is in `camera`. With
    `disparity...` the test has depth, by semi-global matching. The car's hood fills the lowest
    rows: papers crop a fifth (`camera.cut_bottom=0.2`).

    Raises:
        DataError: files are missing.
    """
    sampling.check(config)
    root = listing.require_directory(config.path, "data.path", config.source)
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
    return sampling.dataset(config, train, _clips(root, "val", config) or None)


def _clips(root: Path, part: str, config: ConfigDict) -> list[clips.Clip]:
    pairs_alone = config.frames == 1 and (root / "leftImg8bit").is_dir()
    suffixes = [""] if pairs_alone else ["_sequence", ""]
    suffix = next((s for s in suffixes if (root / f"leftImg8bit{s}" / part).is_dir()), None)
    if suffix is None:
        return []
    found = []
    for city in listing.directories(root / f"leftImg8bit{suffix}" / part):
        folder = root / "camera" / part / city.name
        cameras = _camera_files(folder)
        for run in _runs(listing.image_files(city), gaps=config.frames == 1):
            camera = _nearest_camera(cameras, run, folder)
            found.append(_clip(root, suffix, run.files, camera, config))
    return found


class _Run(NamedTuple):
    """Consecutive frames of a sequence."""

    sequence: str
    numbers: list[int]
    files: list[str]


def _runs(files: list[str], *, gaps: bool) -> list[_Run]:
    """The files as runs of consecutive frames; with `gaps`, as whole sequences."""
    runs: list[_Run] = []
    for file in files:
        match = _NAME.fullmatch(Path(file).name)
        if match is None:
            raise DataError(f"{file} is not named CITY_SEQUENCE_FRAME_leftImg8bit.png")
        sequence, number = f"{match[1]}_{match[2]}", int(match[3])
        last = runs[-1] if runs else None
        if not last or last.sequence != sequence or not (gaps or last.numbers[-1] == number - 1):
            runs.append(_Run(sequence, [], []))
        runs[-1].numbers.append(number)
        runs[-1].files.append(file)
    return runs


def _clip(
    root: Path, suffix: str, files: list[str], camera: dict[str, Any], config: ConfigDict
) -> clips.Clip:
    channels = config.channels or 3
    given = camera["intrinsic"]
    intrinsics = np.array(
        [[given["fx"], 0, given["u0"]], [0, given["fy"], given["v0"]], [0, 0, 1]], np.float64
    )
    baseline = float(camera["extrinsic"]["baseline"])
    partner = depth = None
    if config.stereo:
        right = [_sibling(file, f"rightImg8bit{suffix}", "rightImg8bit") for file in files]
        if missing := next((file for file in right if not Path(file).is_file()), None):
            raise DataError(
                f"{missing} is missing: download rightImg8bit{suffix}, or set data.stereo=False"
            )
        partner = clips.FileFrames(right, channels=channels)
    if (root / f"disparity{suffix}").is_dir():
        maps = [_sibling(file, f"disparity{suffix}", "disparity", ".png") for file in files]
        decode = functools.partial(_read_depth, focal_baseline=intrinsics[0, 0] * baseline)
        depth = clips.DepthFiles(maps, decode)
    return clips.Clip(
        name=str(Path(files[0]).with_suffix("")),
        frames=clips.FileFrames(files, channels=channels),
        intrinsics=intrinsics[None],
        partner=partner,
        baseline=baseline,
        depth=depth,
    )


def _read_depth(path: str, focal_baseline: float) -> np.ndarray:
    """Depth from disparity stored as `256 disparity + 1`, 0 where unknown."""
    return clips.disparity_to_depth((read_png(path).astype(np.float32) - 1) / 256, focal_baseline)


def _sibling(file: str, folder: str, kind: str, suffix: str = "") -> str:
    """The file of another kind about the same frame."""
    path = Path(file)
    name = path.stem.removesuffix("leftImg8bit") + kind + (suffix or path.suffix)
    return str(path.parents[3] / folder / path.parent.parent.name / path.parent.name / name)


def _camera_files(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    """Calibration files by sequence: the frame's number and the file."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for file in sorted(folder.glob("*_camera.json")):
        if match := _NAME.fullmatch(file.name):
            found.setdefault(f"{match[1]}_{match[2]}", []).append((int(match[3]), file))
    return found


def _nearest_camera(
    cameras: dict[str, list[tuple[int, Path]]], run: _Run, folder: Path
) -> dict[str, Any]:
    """The calibration nearest in time: only one frame in thirty has a file."""
    if run.sequence not in cameras:
        raise DataError(
            f"{folder} has no {run.sequence}_*_camera.json, the calibration: download "
            "camera_trainvaltest"
        )
    middle = run.numbers[len(run.numbers) // 2]
    _, file = min(cameras[run.sequence], key=lambda numbered: abs(numbered[0] - middle))
    try:
        camera = json.loads(file.read_text())
        float(camera["intrinsic"]["fx"] + camera["intrinsic"]["u0"] + camera["intrinsic"]["v0"])
        float(camera["intrinsic"]["fy"] + camera["extrinsic"]["baseline"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} is not a calibration of Cityscapes, which has intrinsic fx, fy, u0, v0 and "
            f"extrinsic baseline ({error!r})"
        ) from None
    return camera
