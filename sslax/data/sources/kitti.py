"""KITTI: raw drives and odometry sequences, with measured depth, poses and speeds.

Geiger et al., "Vision meets Robotics: The KITTI Dataset", 2013.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sslax.data import clips, fitting, sampling
from sslax.data.files import cameras, listing, maps
from sslax.data.records import DataError, Dataset, ImageError

ODOMETRY_TEST = ("09", "10")  # sequences held out since SfMLearner
PERIOD = 0.1  # seconds per frame, where there are no time stamps
_SPEEDS = slice(8, 11)  # columns of OXTS: forward, leftward and upward, m/s


def defaults() -> ConfigDict:
    """The section `data.kitti`."""
    return ConfigDict(
        {
            "split_file": "",  # frames to train on; '': all
            "test_split_file": "",  # frames to test on
            "depth": "",  # ground truth: 'velodyne', or a directory of depth images
        }
    )


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
    root = listing.require_directory(config.path, "data.path", config.source)
    drives = Odometry(root) if (root / "sequences").is_dir() else Raw(root)
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


class CameraFiles(NamedTuple):
    """One camera of a drive.

    Attributes:
        number: 0 to 3.
        files: its images.
        projection: `[3, 4]`, from rectified coordinates of camera 0 to pixels.
    """

    number: int
    files: list[str]
    projection: np.ndarray


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


def kitti_depth(points: np.ndarray, projection: np.ndarray, fit: fitting.Fit) -> np.ndarray:
    """Projects laser points to a sparse depth map: the nearest point in each pixel.

    `depth (x, y, 1) = projection (X, Y, Z, 1)`: depth is along the camera's optical axis, and pixel
    centers are at integers.

    Args:
        points: `[N, 3]` or, with reflectance, `[N, 4]`, in the laser's coordinates, meters.
        projection: `[3, 4]`, from those to stored pixels: `P_rect R_rect [R | T]`.
        fit: crop and resize of the stored image.

    Returns:
        float32 `[H, W]` in meters, 0 where there is no point.

    Example:
        >>> projection = np.array([[10.0, 0, 2, 0], [0, 10, 1, 0], [0, 0, 1, 0]])
        >>> kitti_depth(np.array([[0.0, 0, 8], [0, 0, 5]]), projection, fitting.fit((2, 4)))
        array([[0., 0., 0., 0.],
               [0., 0., 5., 0.]], dtype=float32)
    """
    ahead = projection @ np.concatenate([points[:, :3], np.ones_like(points[:, :1])], axis=1).T
    ahead = ahead[:, ahead[2] > 0]
    return fitting.fit_points(ahead[0] / ahead[2], ahead[1] / ahead[2], ahead[2], fit)


def traveled(speeds: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Meters traveled so far: the speed integrated by the trapezoidal rule.

    Args:
        speeds: `[N]`, meters per second.
        times: `[N]`, seconds.

    Returns:
        `[N]`, beginning with 0.

    Example:
        >>> traveled(np.array([10.0, 10, 20]), np.array([0.0, 0.1, 0.2])).round(3).tolist()
        [0.0, 1.0, 2.5]
    """
    steps = np.diff(times) * (speeds[1:] + speeds[:-1]) / 2
    return np.concatenate([[0.0], np.cumsum(steps)])


class LaserDepth:
    """Depth from laser scans, one file for each frame."""

    def __init__(self, files: Sequence[str], projection: np.ndarray) -> None:
        self.paths = list(files)
        self.projection = projection

    def has(self, i: int) -> bool:
        """Whether there is a scan: some frames have none."""
        return Path(self.paths[i]).is_file()

    def read(self, i: int, fit: fitting.Fit) -> np.ndarray:
        """float32 `[H, W]`."""
        scan = np.fromfile(self.paths[i], "<f4")
        if not scan.size or scan.size % 4:
            raise ImageError(f"{self.paths[i]} is damaged: a scan is x, y, z, reflectance, float32")
        return kitti_depth(scan.reshape(-1, 4), self.projection, fit)


class Raw:
    """The raw drives below a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """All drives, `date/drive`."""
        found = [
            f"{date.name}/{drive.name}"
            for date in listing.directories(self.root)
            for drive in listing.directories(date)
            if (drive / "image_02").is_dir()
        ]
        if not found:
            raise DataError(
                f"{self.root} is neither KITTI's raw data (date/drive/image_02/data) nor its "
                "odometry (sequences/00/image_2): set data.path to the directory above those"
            )
        return found

    def camera(self, name: str, side: str) -> CameraFiles:
        """The color camera of a side."""
        number = 2 if side == "l" else 3
        files = listing.image_files(self.root / name / f"image_{number:02d}" / "data")
        return CameraFiles(
            number, files, self._calibration(name, "cam_to_cam")[f"P_rect_{number:02d}"]
        )

    def poses(self, name: str, camera: CameraFiles) -> None:
        """None: raw drives have no ground-truth poses."""
        return None

    def traveled(self, name: str, camera: CameraFiles) -> np.ndarray | None:
        """Meters traveled so far, from the car's speed."""
        folder = self.root / name / "oxts"
        files = [folder / "data" / f"{Path(file).stem}.txt" for file in camera.files]
        if not all(file.is_file() for file in files):
            return None
        speeds = np.array([np.linalg.norm(_numbers(file)[_SPEEDS]) for file in files])
        return traveled(speeds, _times(folder / "timestamps.txt", camera.files))

    def laser(self, name: str, camera: CameraFiles) -> LaserDepth:
        """Depth from the laser's scans."""
        rectified = np.eye(4)
        rectified[:3, :3] = self._calibration(name, "cam_to_cam")["R_rect_00"]
        pose = np.eye(4)
        calibration = self._calibration(name, "velo_to_cam")
        pose[:3, :3], pose[:3, 3] = calibration["R"], calibration["T"]
        folder = self.root / name / "velodyne_points" / "data"
        files = [str(folder / f"{Path(file).stem}.bin") for file in camera.files]
        return LaserDepth(files, camera.projection @ rectified @ pose)

    def _calibration(self, name: str, which: str) -> dict[str, np.ndarray]:
        return _calibration(self.root / Path(name).parent / f"calib_{which}.txt")


class Odometry:
    """The sequences of the odometry benchmark below a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """All sequences, `00`."""
        return [folder.name for folder in listing.directories(self.root / "sequences")]

    def camera(self, name: str, side: str) -> CameraFiles:
        """The color camera of a side, or the gray one where there is no color."""
        folder = self.root / "sequences" / name
        number = (2 if (folder / "image_2").is_dir() else 0) + (side == "r")
        projection = _calibration(folder / "calib.txt")[f"P{number}"]
        return CameraFiles(number, listing.image_files(folder / f"image_{number}"), projection)

    def poses(self, name: str, camera: CameraFiles) -> np.ndarray | None:
        """Camera-to-world poses of this camera, or None; the file has those of camera 0."""
        file = self.root / "poses" / f"{name}.txt"
        if not file.is_file():
            return None
        to_camera_0 = np.eye(4)
        to_camera_0[:3, 3] = -np.linalg.solve(camera.projection[:, :3], camera.projection[:, 3])
        poses = cameras.read_kitti_poses(file) @ to_camera_0
        if len(poses) != len(camera.files):
            raise DataError(
                f"{file} has {len(poses)} poses but sequence {name} has {len(camera.files)} "
                "images: one of the two is incomplete"
            )
        return poses

    def traveled(self, name: str, camera: CameraFiles) -> None:
        """None: distances come from the poses."""
        return None

    def laser(self, name: str, camera: CameraFiles) -> LaserDepth:
        """Depth from the laser's scans."""
        folder = self.root / "sequences" / name
        pose = np.eye(4)
        pose[:3] = _calibration(folder / "calib.txt")["Tr"]
        files = [str(folder / "velodyne" / f"{Path(file).stem}.bin") for file in camera.files]
        return LaserDepth(files, camera.projection @ pose)


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
        if part == "training" and not 0 <= first <= last < len(frames[clip]):
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


def _times(stamps: Path, files: Sequence[str]) -> np.ndarray:
    """Seconds since the drive's first frame at each of the files' frames."""
    if stamps.is_file():
        lines = [line.strip().replace(" ", "T") for line in stamps.read_text().splitlines()]
        times = np.array([line for line in lines if line], "datetime64[ns]")
        numbers = [int(Path(file).stem) for file in files]
        if numbers[-1] < len(times):  # drives lack some images, but no time stamps
            return (times[numbers] - times[0]) / np.timedelta64(1, "s")
    return PERIOD * np.arange(len(files))


@functools.lru_cache(maxsize=512)
def _calibration(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        raise DataError(f"{file} is missing: it is the calibration, download it with the images")
    return cameras.read_kitti_calibration(file)


def _numbers(file: Path) -> np.ndarray:
    return np.array(file.read_text().split(), np.float64)
