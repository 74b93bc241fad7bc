"""Camera files: intrinsics, KITTI's calibration, and trajectories of KITTI and TUM.

Intrinsics are in pixels; poses are camera-to-world.
"""

import os
import re

import numpy as np

from sslax import checks
from sslax.data.files.text import read_table, read_text, write_table
from sslax.data.records import DataError


def read_intrinsics(path: str | os.PathLike) -> np.ndarray:
    """Reads intrinsics from a text file: nine numbers, a 3 x 3 matrix, or four, `fx fy cx cy`.

    Numbers are separated by spaces, commas or line breaks, as in SfMLearner's `cam.txt`; `#` starts
    a comment.

    Args:
        path: the file to read.

    Returns:
        `[3, 3]`, float64, in pixels of the image they were written for.

    Raises:
        DataError: another count of numbers, a matrix that cannot be intrinsics, or intrinsics as
            fractions of the image.
    """
    text = re.sub(r"#.*", "", read_text(path))
    try:
        numbers = np.array([float(word) for word in re.split(r"[\s,;\[\]]+", text) if word])
    except ValueError:
        raise DataError(
            f"{path} has more than numbers; intrinsics are 3 x 3 numbers or fx fy cx cy. KITTI's "
            "calibration, with names and colons, is read by read_kitti_calibration"
        ) from None
    if numbers.size == 4:
        fx, fy, cx, cy = numbers
        numbers = np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1])
    if numbers.size != 9:
        raise DataError(f"{path} has {numbers.size} numbers; intrinsics are 9, or 4: fx fy cx cy")
    matrix = numbers.reshape(3, 3)
    if not (np.array_equal(matrix[2], [0, 0, 1]) and matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise DataError(
            f"{path} is not a matrix of intrinsics: those are fx, skew, cx; 0, fy, cy; 0, 0, 1, "
            "with fx and fy positive"
        )
    focal, center = matrix.diagonal()[:2], matrix[:2, 2]
    if (center <= 1).all() or (focal < 2).any():
        what = "intrinsics" if (center <= 1).all() and (focal < 10).all() else "some of the numbers"
        raise DataError(
            f"{path} gives {what} as fractions of the image, fx = {focal[0]:g}; multiply fx and cx "
            "by the width, fy and cy by the height"
        )
    return matrix


def write_intrinsics(path: str | os.PathLike, intrinsics: np.ndarray) -> None:
    """Writes intrinsics as a 3 x 3 matrix.

    Args:
        path: the text file to write.
        intrinsics: `[3, 3]`, in pixels.
    """
    checks.assert_shape(intrinsics, (3, 3))
    write_table(path, np.asarray(intrinsics, np.float64))


def read_kitti_calibration(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the matrices of a KITTI calibration file (`calib.txt`, `calib_cam_to_cam.txt`).

    Args:
        path: a text file with lines `name: numbers`.

    Returns:
        By name: 12 numbers as `[3, 4]`, 9 as `[3, 3]`, others flat; float64. Lines without numbers,
        such as the time, are left out.

    Raises:
        DataError: no line has that form.
    """
    matrices = {}
    for name, values in re.findall(r"^\s*(\w+)\s*:(.*)$", read_text(path), re.MULTILINE):
        try:
            numbers = np.array([float(word) for word in values.split()])
        except ValueError:
            continue
        shape = {12: (3, 4), 9: (3, 3)}.get(numbers.size)
        matrices[name] = numbers if shape is None else numbers.reshape(shape)
    if not matrices:
        raise DataError(
            f"{path} has no line 'name: numbers', as KITTI's calibration has; plain numbers are "
            "read by read_intrinsics"
        )
    return matrices


def kitti_intrinsics(calibration: dict[str, np.ndarray], *, camera: int = 2) -> np.ndarray:
    """Intrinsics of one rectified KITTI camera.

    Args:
        calibration: as `read_kitti_calibration` returns it.
        camera: 0 and 1 are the gray ones, left and right; 2 and 3 the color ones.

    Returns:
        `[3, 3]`, in pixels of the rectified image.

    Raises:
        DataError: the calibration lacks the camera.

    Example:
        >>> projection = np.array([[700.0, 0, 600, -70], [0, 700, 180, 0], [0, 0, 1, 0]])
        >>> kitti_intrinsics({"P2": projection})[0].tolist()
        [700.0, 0.0, 600.0]
    """
    return _kitti_projection(calibration, camera)[:, :3].copy()


def kitti_baseline(calibration: dict[str, np.ndarray], *, left: int = 2, right: int = 3) -> float:
    """Distance between two rectified KITTI cameras: the difference of their `P[0, 3] / P[0, 0]`.

    Args:
        calibration: as `read_kitti_calibration` returns it.
        left: number of the left camera.
        right: number of the right camera.

    Returns:
        The distance in meters; about 0.53 for the color pair, 0.54 for the gray one.

    Raises:
        DataError: the calibration lacks a camera.

    Example:
        >>> left = np.array([[700.0, 0, 600, 35], [0, 700, 180, 0], [0, 0, 1, 0]])
        >>> right = np.array([[700.0, 0, 600, -336], [0, 700, 180, 0], [0, 0, 1, 0]])
        >>> round(kitti_baseline({"P2": left, "P3": right}), 6)
        0.53
    """
    offsets = []
    for camera in (left, right):
        projection = _kitti_projection(calibration, camera)
        offsets.append(projection[0, 3] / projection[0, 0])
    return float(offsets[0] - offsets[1])


def read_kitti_poses(path: str | os.PathLike) -> np.ndarray:
    """Reads a trajectory in the format of KITTI's odometry: the rows of `[R | t]` on each line.

    Args:
        path: a text file with 12 numbers a line.

    Returns:
        Camera-to-world `[N, 4, 4]`, float64.

    Raises:
        DataError: a line does not have 12 numbers.
    """
    rows = read_table(path, 12, "KITTI poses are the 12 numbers of [R | t]")
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows.reshape(-1, 3, 4)
    return poses


def write_kitti_poses(path: str | os.PathLike, poses: np.ndarray) -> None:
    """Writes a trajectory as KITTI's odometry benchmark takes it.

    Args:
        path: the text file to write.
        poses: camera-to-world `[N, 4, 4]`.
    """
    poses = np.asarray(poses, np.float64)
    checks.assert_shape(poses, (None, 4, 4))
    write_table(path, poses[:, :3].reshape(-1, 12))


def read_tum_poses(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Reads a trajectory in TUM's format: `time tx ty tz qx qy qz qw` on each line, `#` comments.

    Args:
        path: the text file to read.

    Returns:
        Times `[N]` in seconds and camera-to-world `[N, 4, 4]`, float64. Quaternions are normalized.

    Raises:
        DataError: a line does not have 8 numbers, or a quaternion is zero.
    """
    from scipy.spatial.transform import Rotation

    rows = read_table(path, 8, "TUM poses are time, position and quaternion, qw last")
    norm = np.linalg.norm(rows[:, 4:], axis=1)
    if (norm < 1e-6).any():
        raise DataError(f"{path}: pose {int(np.argmin(norm))} has a quaternion of zero")
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3, :3] = Rotation.from_quat(rows[:, 4:]).as_matrix()
    poses[:, :3, 3] = rows[:, 1:4]
    return rows[:, 0], poses


def write_tum_poses(path: str | os.PathLike, times: np.ndarray, poses: np.ndarray) -> None:
    """Writes a trajectory in TUM's format, with qw not negative.

    Args:
        path: the text file to write.
        times: `[N]`, in seconds.
        poses: camera-to-world `[N, 4, 4]`.
    """
    from scipy.spatial.transform import Rotation

    times, poses = np.asarray(times, np.float64), np.asarray(poses, np.float64)
    checks.assert_shape(poses, (None, 4, 4))
    checks.assert_shape(times, (len(poses),))
    quaternions = Rotation.from_matrix(poses[:, :3, :3]).as_quat(canonical=True)
    rows = np.concatenate([times[:, None], poses[:, :3, 3], quaternions], 1)
    write_table(path, rows, "# time tx ty tz qx qy qz qw\n")


def _kitti_projection(calibration: dict[str, np.ndarray], camera: int) -> np.ndarray:
    for name in (f"P_rect_{camera:02d}", f"P{camera}"):
        if name in calibration:
            return calibration[name]
    raise DataError(
        f"the calibration has no camera {camera}: neither P_rect_{camera:02d} nor P{camera} among "
        f"{', '.join(sorted(calibration))}"
    )
