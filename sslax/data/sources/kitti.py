"""KITTI: raw drives and odometry sequences, with measured depth, poses and speeds.

Geiger et al., "Vision meets Robotics: The KITTI Dataset", 2013.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sslax.data import clips, sampling
from sslax.data.files import listing, maps
from sslax.data.records import DataError, Dataset
from sslax.data.sources.kitti_layout import CameraFiles, Odometry, Raw

ODOMETRY_TEST = ("09", "10")  # sequences held out since SfMLearner


class Section(NamedTuple):
    """The section `data.kitti`."""

    split_file: str = ""  # frames to train on; '': all
    test_split_file: str = ""  # frames to test on
    depth: str = ""  # ground truth: 'velodyne', or a directory of depth images


def load(config: ConfigDict) -> Dataset:
    """KITTI in its published layout: raw drives, or the odometry benchmark (with `sequences/`).

    Raw: `date/drive/image_02/data`, `date/calib_cam_to_cam.txt`, `oxts`. A split file has lines
    `date/drive frame side`, as monodepth2's. Without one, the training set is all frames of the
    left camera, except for drives in the test's split file.

    Odometry: `sequences/NN/image_2` and `calib.txt`, `poses/NN.txt`. Without split files, sequences
    09 and 10 are the test.

    On side `r` the target is the right camera's image, and its partner the left one, at a negative
    baseline.

    Raises:
        DataError: files are missing, or a split file names frames that are.
    """
    sampling.check(config)
    if config.test_path:
        raise DataError(
            "data.source='kitti' reads no data.test_path: name the test's frames in "
            "data.kitti.test_split_file, all below data.path"
        )
    drives = _drives(config)
    train_lines = read_split(config.kitti.split_file)
    test_lines = read_split(config.kitti.test_split_file)
    if config.test_fraction and (train_lines or test_lines):
        raise DataError(
            "data.test_fraction holds out the ends of whole drives, not of lists: set it to 0.0 "
            "and name the test's frames in data.kitti.test_split_file"
        )
    if train_lines is None and test_lines is None:
        return _whole_drives(drives, config)
    if train_lines is not None:
        train = _listed(drives, train_lines, config, "training")
    else:
        tested = {line.drive for line in test_lines}
        rest = [_clip(drives, name, "l", config) for name in drives.names() if name not in tested]
        targets = sampling.all_targets(rest, config)
        train = sampling.clip_source(rest, targets, config, "training")
    test = None if test_lines is None else _listed(drives, test_lines, config, "test")
    return Dataset(train, test, None)


def test_frames(config: ConfigDict) -> clips.ClipSource:
    """The frames of `config.kitti.test_split_file` alone, those without measured depth left out.

    Raises:
        DataError: files are missing, or the split file names frames that are.
    """
    lines = read_split(config.kitti.test_split_file)
    if lines is None:
        raise DataError("data.kitti.test_split_file names no file")
    return _listed(_drives(config), lines, config, "test")


def _drives(config: ConfigDict) -> Raw | Odometry:
    root = listing.require_directory(config.path, "data.path", config.source)
    return Odometry(root) if (root / "sequences").is_dir() else Raw(root)


class Line(NamedTuple):
    """A line of a split file: `drive frame side`.

    Attributes:
        drive: `date/date_drive_number_sync` for raw data, `09` for odometry.
        frame: the number in the file's name.
        side: 'l' or 'r'.
    """

    drive: str
    frame: int
    side: str


def read_split(path: str) -> list[Line] | None:
    """The lines `drive frame side` of a split file, or None where `path` is ''.

    A line without a side is about the left camera.

    Raises:
        DataError: the file is missing, or a line has another form.
    """
    if not path:
        return None
    file = Path(path)
    if not file.is_file():
        raise DataError(f"the split file {path} does not exist")
    lines = []
    for number, text in enumerate(file.read_text().splitlines(), 1):
        words = text.split()
        if not words:
            continue
        side = words[2] if len(words) == 3 else "l"
        if len(words) not in (2, 3) or not words[1].isdigit() or side not in ("l", "r"):
            raise DataError(
                f"{path}, line {number}: {text.strip()!r} is not 'date/drive frame side' with a "
                "side of l or r"
            )
        drive = f"{int(words[0]):02d}" if words[0].isdigit() else words[0].strip("/")
        lines.append(Line(drive, int(words[1]), side))
    if not lines:
        raise DataError(f"the split file {path} is empty")
    return lines


def _whole_drives(drives: Raw | Odometry, config: ConfigDict) -> Dataset:
    """All drives; those of odometry in the benchmark's customary split."""
    found = {name: _clip(drives, name, "l", config) for name in drives.names()}
    if isinstance(drives, Raw) or config.test_fraction:
        return sampling.dataset(config, [*found.values()], None)
    train = [clip for name, clip in found.items() if name not in ODOMETRY_TEST]
    test = [clip for name, clip in found.items() if name in ODOMETRY_TEST]
    # Sequences from 11 on have no poses: they can be trained on, unless distances are wanted.
    if config.distances:
        train = [clip for clip in train if clip.poses is not None]
    return sampling.dataset(config, train, test or None)


def _listed(
    drives: Raw | Odometry, lines: Sequence[Line], config: ConfigDict, part: str
) -> clips.ClipSource:
    """The samples that a split file lists, in its order."""
    keys = dict.fromkeys((line.drive, line.side) for line in lines)
    clip_of = {key: i for i, key in enumerate(keys)}
    found = [_clip(drives, drive, side, config) for drive, side in keys]
    frames = [
        {int(Path(file).stem): i for i, file in enumerate(clip.frames.paths)} for clip in found
    ]  # indices by the number in a file's name, since some drives lack images
    runs = [clip.frames.runs() for clip in found]
    offsets = sampling.frame_offsets(config)
    targets = []
    for line in lines:
        clip = clip_of[line.drive, line.side]
        target = frames[clip].get(line.frame)
        if target is None:
            raise DataError(
                f"the split file names frame {line.frame} of {line.drive} ({line.side}), which is "
                f"not below {drives.root}: is the drive complete?"
            )
        first, last = target + offsets[0], target + offsets[-1]
        complete = 0 <= first <= last < len(frames[clip]) and runs[clip][first] == runs[clip][last]
        if part == "training" and not complete:
            raise DataError(
                f"the split file names frame {line.frame} of {line.drive} for training, which "
                f"lacks some of its data.frames={config.frames} neighbors: leave that line out"
            )
        targets.append((clip, target))
    return sampling.clip_source(found, np.array(targets), config, part)


def _clip(drives: Raw | Odometry, name: str, side: str, config: ConfigDict) -> clips.Clip:
    camera = drives.camera(name, side)
    if not camera.files:
        raise DataError(f"{drives.root} has no images of {name}, camera {camera.number}")
    partner = drives.camera(name, "r" if side == "l" else "l") if config.stereo else None
    if partner is not None and _stems(partner) != _stems(camera):
        raise DataError(
            f"cameras {camera.number} and {partner.number} of {name} do not have images of the "
            "same frames: one of the two is incomplete, so download it again"
        )
    channels = config.channels or 3
    depth = None
    if config.kitti.depth == "velodyne":
        depth = drives.laser(name, camera)
    elif config.kitti.depth:
        depth = _improved_depth(name, camera, config)
    baseline = None
    if partner is not None:
        own, other = (c.projection[0, 3] / c.projection[0, 0] for c in (camera, partner))
        baseline = float(own - other)
    return clips.Clip(
        name=f"{name}, camera {camera.number}",
        frames=clips.FileFrames(camera.files, channels=channels),
        intrinsics=camera.projection[None, :, :3],
        partner=partner and clips.FileFrames(partner.files, channels=channels),
        baseline=baseline,
        poses=drives.poses(name, camera),
        traveled=drives.traveled(name, camera) if config.distances else None,
        depth=depth,
    )


def _stems(camera: CameraFiles) -> list[str]:
    return [Path(file).stem for file in camera.files]


def _improved_depth(name: str, camera: CameraFiles, config: ConfigDict) -> clips.DepthFiles:
    """The improved ground truth of a drive, which is published in the parts train and val.

    The first and last frames of a drive have none.
    """
    root = listing.require_directory(config.kitti.depth, "data.kitti.depth", config.source)
    drive = Path(name).name
    inner = Path(drive) / "proj_depth" / "groundtruth" / f"image_{camera.number:02d}"
    parts = [root / part / inner for part in ("", "train", "val")]
    folder = next((part for part in parts if part.is_dir()), parts[0])
    files = [folder / f"{Path(file).stem}.png" for file in camera.files]
    return clips.DepthFiles(files, _read_depth, sparse=True)


def _read_depth(path: str) -> np.ndarray:
    return maps.read_scaled_png(path)[0]
