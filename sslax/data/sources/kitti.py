"""KITTI: raw drives and odometry sequences, with measured depth, poses and speeds.

Geiger et al., "Vision meets Robotics: The KITTI Dataset", 2013.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sslax.data import clips, fitting
from sslax.data.files import formats
from sslax.data.records import DataError, Dataset, ImageError

ODOMETRY_TEST = ("09", "10")  # sequences, since SfMLearner
PERIOD = 0.1  # seconds a frame, where no times are given
_SPEEDS = slice(8, 11)  # of an OXTS line: forward, leftward, upward, m/s


class Line(NamedTuple):
    """A line of a split file: `folder frame side`.

    Attributes:
        drive: of raw drives `date/date_drive_number_sync`, of odometry `09`.
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
        files: of its images.
        projection: `[3, 4]`, from rectified coordinates of camera 0 to pixels.
    """

    number: int
    files: list[str]
    projection: np.ndarray


def kitti(config: ConfigDict) -> Dataset:
    """KITTI in its published layout: raw drives, or the odometry benchmark (with `sequences/`).

    Raw: `date/drive/image_02/data`, `date/calib_cam_to_cam.txt`, `oxts`. A split file has lines
    `date/drive frame side`, as monodepth2's; without one all frames of the left camera of all
    drives are used, but of those that the test's split file names. Odometry: `sequences/NN/image_2`
    and `calib.txt`, `poses/NN.txt`; without split files sequences 09 and 10 are the test. The side
    `r` has the right camera's image as target, and the left one, at a negative baseline, as its
    partner.

    Raises:
        DataError: if files are missing, or a line of a split file names what is not there.
    """
    clips.check(config)
    if config.test_path:
        raise DataError(
            "data.source='kitti' reads no data.test_path: name the test's samples by "
            "data.test_split_file, all below data.path"
        )
    root = clips.directory(config.path, "data.path", config)
    drives = Odometry(root) if (root / "sequences").is_dir() else Raw(root)
    train_lines = read_split(config.split_file)
    test_lines = read_split(config.test_split_file)
    if config.test_fraction and (train_lines or test_lines):
        raise DataError(
            "data.test_fraction holds out the ends of whole drives, not of lists: set it to 0.0 "
            "and name the test's samples by data.test_split_file"
        )
    whole = train_lines is None and test_lines is None
    if whole and isinstance(drives, Odometry) and not config.test_fraction:
        return _by_sequence(drives, config)
    if train_lines is None:
        tested = {line.drive for line in test_lines or ()}
        names = [name for name in drives.names() if name not in tested]
        found = [_clip(drives, name, "l", config) for name in names]
        if test_lines is None:
            return clips.dataset(config, found, None)
        train = clips.source(found, clips.targets(found, config), config, "training")
    else:
        train = _listed(drives, train_lines, config, "training")
    test = None if test_lines is None else _listed(drives, test_lines, config, "test")
    return Dataset(train, test, None)


def read_split(path: str) -> list[Line] | None:
    """The lines `folder frame side` of a split file, or None without one.

    A line of two words, `folder frame`, is of the left camera.

    Raises:
        DataError: if the file is missing or a line is of another form.
    """
    if not path:
        return None
    file = Path(path).expanduser()
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
                f"{path}, line {number}: {text.strip()!r} is no 'date/drive frame side' with a "
                "side of l or r"
            )
        folder = f"{int(words[0]):02d}" if words[0].isdigit() else words[0].strip("/")
        lines.append(Line(folder, int(words[1]), side))
    if not lines:
        raise DataError(f"the split file {path} is empty")
    return lines


def kitti_depth(points: np.ndarray, projection: np.ndarray, fit: fitting.Fit) -> np.ndarray:
    """Laser points as a sparse depth map of a camera, the nearest point of each pixel.

    `depth (x, y, 1) = projection (X, Y, Z, 1)`: the depth is along the camera's optical axis, and
    pixel centers are at integers.

    Args:
        points: `[N, 3]` or, with reflectance, `[N, 4]`, in the laser's coordinates, meters.
        projection: `[3, 4]`, from those to stored pixels: `P_rect R_rect [R | T]`.
        fit: from the stored image to the wanted one.

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
    """Meters on the way at each moment: the trapezoid sum of the speed.

    Args:
        speeds: `[N]`, meters a second.
        times: `[N]`, seconds.

    Returns:
        `[N]`, from 0.

    Example:
        >>> traveled(np.array([10.0, 10, 20]), np.array([0.0, 0.1, 0.2])).round(3).tolist()
        [0.0, 1.0, 2.5]
    """
    steps = np.diff(times) * (speeds[1:] + speeds[:-1]) / 2
    return np.concatenate([[0.0], np.cumsum(steps)])


class LaserDepth:
    """Depth maps of laser scans, by the number in a frame's name."""

    def __init__(self, files: Sequence[str], projection: np.ndarray) -> None:
        self.files = list(files)
        self.projection = projection

    def has(self, i: int) -> bool:
        """Whether there is a scan: of some frames there is none."""
        return Path(self.files[i]).is_file()

    def read(self, i: int, fit: fitting.Fit) -> np.ndarray:
        """float32 `[H, W]`."""
        scan = np.fromfile(self.files[i], "<f4")
        if not scan.size or scan.size % 4:
            raise ImageError(f"{self.files[i]} is damaged: a scan is x, y, z, reflectance, float32")
        return kitti_depth(scan.reshape(-1, 4), self.projection, fit)


class SparseDepth:
    """Depth maps in 16-bit PNGs, 256 a metre: KITTI's improved ground truth."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = list(files)

    def has(self, i: int) -> bool:
        """Whether there is a map: of the first and last frames of a drive there is none."""
        return Path(self.files[i]).is_file()

    def read(self, i: int, fit: fitting.Fit) -> np.ndarray:
        """float32 `[H, W]`."""
        depth, known = formats.read_scaled_png(self.files[i])
        y, x = np.nonzero(known)
        return fitting.fit_points(x, y, depth[known], fit)


class Raw:
    """Raw drives below a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """All drives, `date/drive`."""
        found = [
            f"{date.name}/{drive.name}"
            for date in clips.directories(self.root)
            for drive in clips.directories(date)
            if (drive / "image_02").is_dir()
        ]
        if not found:
            raise DataError(
                f"{self.root} is neither KITTI's raw data (date/drive/image_02/data) nor its "
                "odometry (sequences/00/image_2): set data.path to the directory above those"
            )
        return found

    def camera(self, name: str, side: str) -> CameraFiles:
        """The colored camera of a side."""
        number = 2 if side == "l" else 3
        files = clips.image_files(self.root / name / f"image_{number:02d}" / "data")
        return CameraFiles(
            number, files, self._calibration(name, "cam_to_cam")[f"P_rect_{number:02d}"]
        )

    def poses(self, name: str, camera: CameraFiles) -> None:
        """Not known of raw drives."""
        return None

    def traveled(self, name: str, camera: CameraFiles) -> np.ndarray | None:
        """Meters on the way at each frame, of the car's speed."""
        folder = self.root / name / "oxts"
        files = [folder / "data" / f"{Path(file).stem}.txt" for file in camera.files]
        if not all(file.is_file() for file in files):
            return None
        speeds = np.array([np.linalg.norm(_numbers(file)[_SPEEDS]) for file in files])
        times = PERIOD * np.arange(len(files))
        if (stamps := folder / "timestamps.txt").is_file():
            moments = [line.strip().replace(" ", "T") for line in stamps.read_text().splitlines()]
            every = np.array([moment for moment in moments if moment], "datetime64[ns]")
            numbers = [int(Path(file).stem) for file in camera.files]
            if numbers[-1] < len(every):  # drives lack some images, but no moments
                times = (every[numbers] - every[0]) / np.timedelta64(1, "s")
        return traveled(speeds, times)

    def laser(self, name: str, camera: CameraFiles) -> LaserDepth:
        """Depth of the laser's scans."""
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
    """Sequences of the odometry benchmark."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """All sequences, `00`."""
        return [at.name for at in clips.directories(self.root / "sequences")]

    def camera(self, name: str, side: str) -> CameraFiles:
        """The colored camera of a side, or where there is none the gray one."""
        folder = self.root / "sequences" / name
        number = (2 if (folder / "image_2").is_dir() else 0) + (side == "r")
        projection = _calibration(folder / "calib.txt")[f"P{number}"]
        return CameraFiles(number, clips.image_files(folder / f"image_{number}"), projection)

    def poses(self, name: str, camera: CameraFiles) -> np.ndarray | None:
        """Of this camera, to the world; the file has those of camera 0."""
        file = self.root / "poses" / f"{name}.txt"
        if not file.is_file():
            return None
        here = np.eye(4)
        here[:3, 3] = -np.linalg.solve(camera.projection[:, :3], camera.projection[:, 3])
        poses = formats.read_kitti_poses(file) @ here
        if len(poses) != len(camera.files):
            raise DataError(
                f"{file} has {len(poses)} poses but sequence {name} has {len(camera.files)} "
                "images: one of them is not complete"
            )
        return poses

    def traveled(self, name: str, camera: CameraFiles) -> None:
        """Not needed: there are poses."""
        return None

    def laser(self, name: str, camera: CameraFiles) -> LaserDepth:
        """Depth of the laser's scans."""
        folder = self.root / "sequences" / name
        pose = np.eye(4)
        pose[:3] = _calibration(folder / "calib.txt")["Tr"]
        files = [str(folder / "velodyne" / f"{Path(file).stem}.bin") for file in camera.files]
        return LaserDepth(files, camera.projection @ pose)


def _by_sequence(drives: Odometry, config: ConfigDict) -> Dataset:
    names = drives.names()
    found = {name: _clip(drives, name, "l", config) for name in names}
    train = [clip for name, clip in found.items() if name not in ODOMETRY_TEST]
    test = [clip for name, clip in found.items() if name in ODOMETRY_TEST]
    # Sequences from 11 on have no poses: they can be trained on, unless distances are wanted.
    if config.distances:
        train = [clip for clip in train if clip.poses is not None]
    return clips.dataset(config, train, test or None)


def _listed(
    drives: Raw | Odometry, lines: Sequence[Line], config: ConfigDict, part: str
) -> clips.ClipSource:
    """The samples that a split file lists, in its order."""
    keys = list(dict.fromkeys((line.drive, line.side) for line in lines))
    found = [_clip(drives, drive, side, config) for drive, side in keys]
    places = {key: i for i, key in enumerate(keys)}
    numbers = [
        {int(Path(file).stem): at for at, file in enumerate(clip.frames.paths)} for clip in found
    ]
    around = clips.steps(config)
    targets = []
    for line in lines:
        place = places[line.drive, line.side]
        at = numbers[place].get(line.frame)
        if at is None:
            raise DataError(
                f"the split file names frame {line.frame} of {line.drive} ({line.side}), which is "
                f"not below {drives.root}: is the drive complete?"
            )
        if part == "training" and not 0 <= at + around[0] <= at + around[-1] < len(numbers[place]):
            raise DataError(
                f"the split file names frame {line.frame} of {line.drive} for training, which has "
                f"not all frames of data.frames={config.frames} about it: leave that line out"
            )
        targets.append((place, at))
    return clips.source(found, np.array(targets), config, part)


def _clip(drives: Raw | Odometry, name: str, side: str, config: ConfigDict) -> clips.Clip:
    camera = drives.camera(name, side)
    if not camera.files:
        raise DataError(f"{drives.root} has no images of {name}, camera {camera.number}")
    partner = drives.camera(name, "r" if side == "l" else "l") if config.stereo else None
    channels = config.channels or 3
    depth = None
    if config.depth == "velodyne":
        depth = drives.laser(name, camera)
    elif config.depth:
        depth = _improved(name, camera, config)
    baseline = None
    if partner is not None:
        here, there = (c.projection[0, 3] / c.projection[0, 0] for c in (camera, partner))
        baseline = float(here - there)
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


def _improved(name: str, camera: CameraFiles, config: ConfigDict) -> SparseDepth:
    """The improved ground truth of a drive, which is published in the parts train and val."""
    root = clips.directory(config.depth, "data.depth", config)
    drive = Path(name).name
    inner = Path(drive) / "proj_depth" / "groundtruth" / f"image_{camera.number:02d}"
    parts = [root / part / inner for part in ("", "train", "val")]
    folder = next((part for part in parts if part.is_dir()), parts[0])
    return SparseDepth([str(folder / f"{Path(file).stem}.png") for file in camera.files])


@functools.lru_cache(maxsize=512)
def _calibration(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        raise DataError(f"{file} is missing: it is the calibration, download it with the images")
    return formats.read_kitti_calibration(file)


def _numbers(file: Path) -> np.ndarray:
    return np.array(file.read_text().split(), np.float64)
