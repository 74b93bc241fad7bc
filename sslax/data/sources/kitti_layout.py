"""KITTI as it lies on disk: the images, calibration, poses, speeds and laser scans of a drive.

`Raw` and `Odometry` answer the same questions about the two published layouts.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sslax.data import fitting
from sslax.data.files import cameras, listing
from sslax.data.records import DataError, ImageError

PERIOD = 0.1  # seconds per frame, where there are no time stamps
_SPEEDS = slice(8, 11)  # columns of OXTS: forward, leftward and upward, m/s


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

    def read(self, i: int, fit: fitting.Fit, stored: tuple[int, int]) -> np.ndarray:
        """float32 `[H, W]`; scans have no size."""
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
