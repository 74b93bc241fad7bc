"""Files of flow, disparity, depth, camera poses and intrinsics, read and written.

| what | files | functions |
|---|---|---|
| flow | Middlebury `.flo`; KITTI `.png`, 16 bits | `read_flow`, `write_flow` |
| disparity, depth | `.png`, 16 bits | `read_scaled_png`, `write_scaled_png` |
| any map | `.pfm` (Middlebury, FlyingThings) | `read_pfm`, `write_pfm` |
| points | `.ply` | `write_ply` |
| trajectories | KITTI, 12 numbers a row | `read_kitti_poses`, `write_kitti_poses` |
| | TUM, time and position and quaternion | `read_tum_poses`, `write_tum_poses` |
| intrinsics | 3 x 3 numbers, or fx fy cx cy | `read_intrinsics`, `write_intrinsics` |
| | KITTI's calibration | `read_kitti_calibration`, `kitti_intrinsics`, `kitti_baseline` |
| images | `.png`, 8 or 16 bits, 1 to 4 channels | `read_png`, `write_png` |

Arrays are as everywhere in this library: flow is `(x, y)` in pixels, poses are camera-to-world
`[N, 4, 4]`, masks are True where a value is known, and where it is not the value is 0.
"""

import os
import re
import struct
import zlib
from pathlib import Path

import chex
import numpy as np

from sslax.data.records import DataError

_FLO_MAGIC = 202021.25  # the bytes 'PIEH'
_FLO_UNKNOWN = 1e9  # flow beyond it is unknown; 1e10 is written
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by color type: gray, RGB, gray and alpha, RGBA
_LARGEST_SIDE = 1 << 16


def read_flow(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Optical flow of a file, in the format that its ending tells.

    `.flo` (Middlebury, Sintel, Chairs): float32, unknown where a component is beyond 1e9 or NaN.
    `.png` (KITTI): `(value - 2^15) / 64` of the first two of three 16-bit channels, known where the
    third is not 0.

    Args:
        path: of the file.

    Returns:
        Flow `[H, W, 2]` float32, `(x, y)` in pixels, 0 where unknown; known `[H, W]` bool.

    Raises:
        DataError: for another ending, another format or a damaged file.
    """
    path = Path(path)
    if path.suffix.lower() == ".flo":
        return _read_flo(path)
    if path.suffix.lower() == ".png":
        return _read_kitti_flow(path)
    raise DataError(f"{path}: flow is read from .flo and .png files, not {path.suffix!r} ones")


def write_flow(path: str | os.PathLike, flow: np.ndarray, known: np.ndarray | None = None) -> None:
    """Writes optical flow in the format that the path's ending tells.

    `.flo` keeps float32. `.png` rounds to the nearest 1/64 pixel (KITTI's own writer truncates) and
    holds -512 to 511.98 pixels.

    Args:
        path: ending in .flo or .png.
        flow: `[H, W, 2]`, `(x, y)` in pixels.
        known: `[H, W]`, True where it is known; by default where it is finite.

    Raises:
        DataError: for another ending, or flow that is not finite where known or does not fit.
    """
    path, flow = Path(path), np.asarray(flow, np.float32)
    chex.assert_shape(flow, (None, None, 2))
    known = np.isfinite(flow).all(-1) if known is None else np.asarray(known, bool)
    chex.assert_shape(known, flow.shape[:2])
    if not np.isfinite(flow[known]).all():
        raise DataError(f"{path}: flow is not finite at known pixels; mark them as unknown")
    flow = np.where(known[..., None], flow, np.float32(0))
    if path.suffix.lower() == ".flo":
        height, width = known.shape
        stored = np.where(known[..., None], flow, np.float32(1e10)).astype("<f4")
        path.write_bytes(struct.pack("<fii", _FLO_MAGIC, width, height) + stored.tobytes())
    elif path.suffix.lower() == ".png":
        stored = np.rint(flow * 64.0 + 2**15)
        if stored.min(initial=0) < 0 or stored.max(initial=0) > 65535:
            raise DataError(
                f"{path}: flow of {np.abs(flow).max():.0f} pixels does not fit a KITTI PNG, which "
                "holds -512 to 511.98; write a .flo file or mark those pixels as unknown"
            )
        stored = np.concatenate([stored, np.ones_like(stored[..., :1])], -1)
        write_png(path, np.where(known[..., None], stored, 0).astype(np.uint16))
    else:
        raise DataError(f"{path}: flow is written to .flo and .png files; choose such an ending")


def read_scaled_png(
    path: str | os.PathLike, *, scale: float = 256.0
) -> tuple[np.ndarray, np.ndarray]:
    """Disparity or depth of a 16-bit gray PNG: `value / scale`, unknown where 0.

    Args:
        path: of the file.
        scale: 256 for KITTI's disparity (pixels) and depth (meters), 5000 for TUM's depth, 1000
            for depth in millimeters.

    Returns:
        Values `[H, W]` float32, 0 where unknown; known `[H, W]` bool.

    Raises:
        DataError: for another format or a damaged file.
    """
    stored = read_png(path)
    if stored.dtype != np.uint16 or stored.ndim != 2:
        raise DataError(
            f"{path} has {_describe(stored)}; disparity and depth are 16-bit gray. An 8-bit or "
            "colored file is a picture of them, without their values"
        )
    return (stored / np.float32(scale)).astype(np.float32), stored > 0


def write_scaled_png(
    path: str | os.PathLike,
    values: np.ndarray,
    known: np.ndarray | None = None,
    *,
    scale: float = 256.0,
) -> None:
    """Writes disparity or depth as a 16-bit gray PNG: `round(scale · value)`, 0 where unknown.

    A known value is stored as 1 at least, since 0 means unknown.

    Args:
        path: of the file.
        values: `[H, W]`, not negative.
        known: `[H, W]`, True where known; by default where finite and positive.
        scale: as in `read_scaled_png`; values up to 65535 / scale fit.

    Raises:
        DataError: for known values that are negative, not finite or too large.
    """
    values = np.asarray(values, np.float64)
    chex.assert_rank(values, 2)
    known = np.isfinite(values) & (values > 0) if known is None else np.asarray(known, bool)
    chex.assert_equal_shape([values, known])
    stored = np.rint(np.where(known, values, 0.0) * scale)
    if not ((stored >= 0) & (stored <= 65535)).all():  # False for NaN
        raise DataError(
            f"{path}: 16 bits at scale {scale:g} hold 0 to {65535 / scale:.2f}, but values span "
            f"{values[known].min():g} to {values[known].max():g}; mark those outside as unknown"
        )
    write_png(path, np.where(known, np.maximum(stored, 1), 0).astype(np.uint16))


def read_pfm(path: str | os.PathLike) -> np.ndarray:
    """A portable float map, its rows from the top.

    The number in its header tells the byte order by its sign; its size has no agreed meaning and
    is ignored.

    Args:
        path: of the file.

    Returns:
        `[H, W]`, or `[H, W, 3]` of a color file (FlyingThings' flow is its first two channels),
        float32 as stored: Middlebury's unknown disparity is infinite.

    Raises:
        DataError: for another format or a damaged file.
    """
    content = Path(path).read_bytes()
    header = re.match(rb"(PF|Pf)\s+(\d+)\s+(\d+)\s+([-+.\deE]+)\s", content[:200])
    if header is None:
        raise DataError(
            f"{path} is no PFM file: it begins with {content[:8]!r}, not with 'PF' or 'Pf', width, "
            "height and scale"
        )
    channels = 3 if header[1] == b"PF" else 1
    width, height = int(header[2]), int(header[3])
    order = "<f4" if float(header[4]) < 0 else ">f4"
    body = content[header.end() :]
    _check_size(path, len(body), width, height, 4 * channels)
    values = np.frombuffer(body, order, width * height * channels).astype(np.float32)
    return values.reshape((height, width, 3) if channels == 3 else (height, width))[::-1].copy()


def write_pfm(path: str | os.PathLike, values: np.ndarray) -> None:
    """Writes a portable float map, little-endian.

    Args:
        path: of the file.
        values: `[H, W]` or `[H, W, 3]`.
    """
    values = np.asarray(values, "<f4")
    chex.assert_shape(values, (None, None) if values.ndim == 2 else (None, None, 3))
    height, width = values.shape[:2]
    kind = "Pf" if values.ndim == 2 else "PF"
    Path(path).write_bytes(f"{kind}\n{width} {height}\n-1.0\n".encode() + values[::-1].tobytes())


def write_ply(
    path: str | os.PathLike, points: np.ndarray, colors: np.ndarray | None = None
) -> None:
    """Writes points, colored perhaps, for a viewer of point clouds.

    Binary, little-endian, float32. Points that are not finite are left out. The camera looks along
    +z with y down; viewers with y up show the scene upside down until it is turned.

    Args:
        path: of the file.
        points: `[..., 3]`, such as `ops.backproject` returns.
        colors: `[..., 3]`, uint8 or float in [0, 1], or None.
    """
    points = np.asarray(points, np.float32)
    chex.assert_axis_dimension(points, -1, 3)
    known = np.isfinite(points).all(-1)
    fields = [(name, "<f4") for name in "xyz"]
    columns = list(points[known].T)
    if colors is not None:
        colors = np.asarray(colors)
        chex.assert_equal_shape([points, colors])
        if colors.dtype != np.uint8:
            colors = np.rint(np.clip(colors, 0, 1) * 255).astype(np.uint8)
        fields += [(name, "u1") for name in ("red", "green", "blue")]
        columns += list(colors[known].T)
    vertices = np.empty(int(known.sum()), fields)
    for (name, _), column in zip(fields, columns):
        vertices[name] = column
    kinds = {"<f4": "float", "u1": "uchar"}
    properties = "".join(f"property {kinds[kind]} {name}\n" for name, kind in fields)
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
        f"{properties}end_header\n"
    )
    Path(path).write_bytes(header.encode() + vertices.tobytes())


def read_kitti_poses(path: str | os.PathLike) -> np.ndarray:
    """A trajectory of KITTI's odometry: the rows of `[R | t]` of one camera on each line.

    Args:
        path: of the text file, 12 numbers a line.

    Returns:
        Camera-to-world `[N, 4, 4]`, float64.

    Raises:
        DataError: if a line has not 12 numbers.
    """
    rows = _table(path, 12, "KITTI poses are the 12 numbers of [R | t]")
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows.reshape(-1, 3, 4)
    return poses


def write_kitti_poses(path: str | os.PathLike, poses: np.ndarray) -> None:
    """Writes a trajectory as KITTI's odometry benchmark takes it.

    Args:
        path: of the text file.
        poses: camera-to-world `[N, 4, 4]`.
    """
    poses = np.asarray(poses, np.float64)
    chex.assert_shape(poses, (None, 4, 4))
    _write_table(path, poses[:, :3].reshape(-1, 12))


def read_tum_poses(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """A trajectory in TUM's format: `time tx ty tz qx qy qz qw` on each line, `#` for comments.

    Args:
        path: of the text file.

    Returns:
        Times `[N]` in seconds and camera-to-world `[N, 4, 4]`, float64. Quaternions are normalized.

    Raises:
        DataError: if a line has not 8 numbers, or a quaternion is zero.
    """
    rows = _table(path, 8, "TUM poses are time, position and quaternion, qw last")
    norm = np.linalg.norm(rows[:, 4:], axis=1, keepdims=True)
    if (norm < 1e-6).any():
        raise DataError(f"{path}: pose {int(np.argmin(norm))} has a quaternion of zero")
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3, :3] = _rotation(rows[:, 4:] / norm)
    poses[:, :3, 3] = rows[:, 1:4]
    return rows[:, 0], poses


def write_tum_poses(path: str | os.PathLike, times: np.ndarray, poses: np.ndarray) -> None:
    """Writes a trajectory in TUM's format, qw not negative.

    Args:
        path: of the text file.
        times: `[N]`, in seconds.
        poses: camera-to-world `[N, 4, 4]`.
    """
    times, poses = np.asarray(times, np.float64), np.asarray(poses, np.float64)
    chex.assert_shape(poses, (None, 4, 4))
    chex.assert_shape(times, (len(poses),))
    rows = np.concatenate([times[:, None], poses[:, :3, 3], _quaternion(poses[:, :3, :3])], 1)
    _write_table(path, rows, "# time tx ty tz qx qy qz qw\n")


def read_intrinsics(path: str | os.PathLike) -> np.ndarray:
    """Intrinsics of a text file: nine numbers, a 3 x 3 matrix, or four, `fx fy cx cy`.

    Numbers are separated by spaces, commas or lines (SfMLearner's `cam.txt` is one of them); what
    follows `#` is a comment.

    Args:
        path: of the file.

    Returns:
        `[3, 3]`, float64, in pixels of the image they were written for.

    Raises:
        DataError: for another number of numbers, a matrix that is none of intrinsics, or intrinsics
            as fractions of the image.
    """
    text = re.sub(r"#.*", "", _text(path))
    try:
        numbers = np.array([float(word) for word in re.split(r"[\s,;\[\]]+", text) if word])
    except ValueError:
        raise DataError(
            f"{path} holds more than numbers; intrinsics are 3 x 3 numbers or fx fy cx cy. Of "
            "KITTI's calibration, with names and colons, use read_kitti_calibration"
        ) from None
    if numbers.size == 4:
        fx, fy, cx, cy = numbers
        numbers = np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1])
    if numbers.size != 9:
        raise DataError(f"{path} holds {numbers.size} numbers; intrinsics are 9, or 4: fx fy cx cy")
    matrix = numbers.reshape(3, 3)
    if not (np.array_equal(matrix[2], [0, 0, 1]) and matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise DataError(
            f"{path} is no matrix of intrinsics: they are fx, skew, cx; 0, fy, cy; 0, 0, 1, with "
            "fx and fy positive"
        )
    if (matrix[:2, 2] <= 1).all() and matrix[0, 0] < 10:
        raise DataError(
            f"{path} gives intrinsics as fractions of the image, fx = {matrix[0, 0]:g}; multiply "
            "the first row by the width and the second by the height"
        )
    return matrix


def write_intrinsics(path: str | os.PathLike, intrinsics: np.ndarray) -> None:
    """Writes intrinsics as a 3 x 3 matrix of numbers.

    Args:
        path: of the text file.
        intrinsics: `[3, 3]`, in pixels.
    """
    chex.assert_shape(intrinsics, (3, 3))
    _write_table(path, np.asarray(intrinsics, np.float64))


def read_kitti_calibration(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The matrices of a KITTI calibration file (`calib.txt`, `calib_cam_to_cam.txt`).

    Args:
        path: of the text file, lines of `name: numbers`.

    Returns:
        By name: 12 numbers as `[3, 4]`, 9 as `[3, 3]`, others flat; float64. Lines without numbers,
        such as the time, are left out.

    Raises:
        DataError: if no line is of that form.
    """
    matrices = {}
    for name, values in re.findall(r"^\s*(\w+)\s*:(.*)$", _text(path), re.MULTILINE):
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
        calibration: of `read_kitti_calibration`.
        camera: 0 and 1 are gray, left and right; 2 and 3 colored.

    Returns:
        `[3, 3]`, in pixels of the rectified image.

    Raises:
        DataError: if the camera is not there.

    Example:
        >>> projection = np.array([[700.0, 0, 600, -70], [0, 700, 180, 0], [0, 0, 1, 0]])
        >>> kitti_intrinsics({"P2": projection})[0].tolist()
        [700.0, 0.0, 600.0]
    """
    return _kitti_projection(calibration, camera)[:, :3].copy()


def kitti_baseline(calibration: dict[str, np.ndarray], *, left: int = 2, right: int = 3) -> float:
    """Distance of two rectified KITTI cameras: the difference of their `P[0, 3] / P[0, 0]`.

    Args:
        calibration: of `read_kitti_calibration`.
        left: number of the left camera.
        right: number of the right one.

    Returns:
        The distance in meters; about 0.53 for the colored pair, 0.54 for the gray one.

    Raises:
        DataError: if a camera is not there.

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


def read_png(path: str | os.PathLike) -> np.ndarray:
    """A PNG image with all its bits; Pillow reads 16-bit color as 8-bit.

    A frame of KITTI's flow takes about 0.2 s.

    Args:
        path: of the file, 8 or 16 bits a channel, not interlaced, without a palette.

    Returns:
        `[H, W]`, or `[H, W, C]` with 2 (gray, alpha), 3 or 4 channels; uint8 or uint16.

    Raises:
        DataError: for a file that is no PNG, damaged, or of another kind.
    """
    content = Path(path).read_bytes()
    if not content.startswith(_PNG_SIGNATURE):
        raise DataError(f"{path} is no PNG file: it begins with {content[:8]!r}")
    chunks = _png_chunks(path, content)
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise DataError(f"{path} is a damaged PNG: it has no header; copy or download it again")
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if depth not in (8, 16) or color not in _PNG_CHANNELS or interlaced:
        kind = "interlaced" if interlaced else "palette" if color == 3 else f"{depth}-bit"
        raise DataError(
            f"{path} is a PNG of a kind that holds no measured values ({kind}); open such pictures "
            "with Pillow"
        )
    try:
        packed = zlib.decompress(b"".join(data for name, data in chunks if name == b"IDAT"))
    except zlib.error as error:
        raise DataError(f"{path} is a damaged PNG ({error}); copy or download it again") from None
    channels = _PNG_CHANNELS[color]
    pixel = channels * depth // 8
    _check_sides(path, width, height)
    if len(packed) < height * (1 + width * pixel):
        raise DataError(f"{path} is a damaged PNG: rows are missing; copy or download it again")
    rows = np.frombuffer(packed, np.uint8, height * (1 + width * pixel)).reshape(height, -1)
    if rows[:, 0].max() > 4:
        raise DataError(f"{path} is a damaged PNG: unknown row filter; copy or download it again")
    values = _unfilter(rows[:, 0], rows[:, 1:].reshape(height, width, pixel))
    if depth == 16:
        values = values.view(">u2").astype(np.uint16)
    return values[..., 0] if channels == 1 else values


def write_png(path: str | os.PathLike, image: np.ndarray) -> None:
    """Writes an image of 8 or 16 bits a channel as a PNG.

    Args:
        path: of the file.
        image: `[H, W]`, or `[H, W, C]` with 1 to 4 channels; uint8 or uint16.

    Raises:
        DataError: for another type or shape.
    """
    image = np.asarray(image)
    channels = 1 if image.ndim == 2 else image.shape[-1]
    if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3) or not image.size:
        raise DataError(f"a PNG holds uint8 or uint16 [H, W] or [H, W, C], not {_describe(image)}")
    if channels > 4:
        raise DataError(f"a PNG holds 1 to 4 channels, not {channels}")
    height, width = image.shape[:2]
    depth = 8 * image.dtype.itemsize
    big_endian = np.ascontiguousarray(image.astype(image.dtype.newbyteorder(">")))
    rows = big_endian.view(np.uint8).reshape(height, -1)
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), rows - above], 1)  # filter 'up'
    color = {count: color for color, count in _PNG_CHANNELS.items()}[channels]
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)),
        (b"IDAT", zlib.compress(filtered.tobytes(), 6)),
        (b"IEND", b""),
    )
    parts = [_PNG_SIGNATURE]
    for name, data in chunks:
        parts += [struct.pack(">I", len(data)), name, data]
        parts.append(struct.pack(">I", zlib.crc32(name + data)))
    Path(path).write_bytes(b"".join(parts))


def _read_flo(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = path.read_bytes()
    if content[:4] != struct.pack("<f", _FLO_MAGIC):
        raise DataError(
            f"{path} is no .flo file: it begins with {content[:4]!r}, not with b'PIEH' "
            "(202021.25 as a little-endian float)"
        )
    if len(content) < 12:
        raise DataError(f"{path} is cut short: not even its header is whole; copy it again")
    width, height = struct.unpack("<ii", content[4:12])
    _check_size(path, len(content) - 12, width, height, 8)
    flow = np.frombuffer(content, "<f4", 2 * width * height, 12).reshape(height, width, 2)
    known = (np.abs(flow) <= _FLO_UNKNOWN).all(-1)  # False for NaN
    return np.where(known[..., None], flow, 0).astype(np.float32), known


def _read_kitti_flow(path: Path) -> tuple[np.ndarray, np.ndarray]:
    stored = read_png(path)
    if stored.dtype != np.uint16 or stored.ndim != 3 or stored.shape[-1] != 3:
        raise DataError(
            f"{path} has {_describe(stored)}; KITTI's flow is 16-bit RGB. An 8-bit file is a "
            "picture of the flow, without its values"
        )
    known = stored[..., 2] > 0
    flow = (stored[..., :2].astype(np.float32) - 2**15) / 64
    return np.where(known[..., None], flow, np.float32(0)), known


def _png_chunks(path: str | os.PathLike, content: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], len(_PNG_SIGNATURE)
    while not chunks or chunks[-1][0] != b"IEND":
        if at + 12 > len(content):
            raise DataError(f"{path} is cut short: a PNG ends with IEND; copy it again")
        (length,) = struct.unpack_from(">I", content, at)
        name, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        if at + 12 + length > len(content):
            raise DataError(f"{path} is cut short: a PNG ends with IEND; copy it again")
        if struct.unpack_from(">I", content, at + 8 + length)[0] != zlib.crc32(name + data):
            raise DataError(f"{path} is a damaged PNG (checksum of {name!r}); copy it again")
        chunks.append((name, data))
        at += 12 + length
    return chunks


def _unfilter(filters: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Undoes PNG's row filters: each byte adds a prediction from those left (a), above (b) and
    above left (c) of it.

    Pixels depend on their neighbors, but those of one diagonal, x + y = t, not on each other: so
    H + W steps on whole diagonals, where a loop over bytes would take seconds.
    """
    height, width, pixel = rows.shape
    steps = height + width
    # Sheared, so that [t, y] is pixel (t - y, y): each row begins one place later than the last.
    padded = np.zeros((height, steps + 1, pixel), np.int16)
    padded[:, :width] = rows
    sheared = padded.reshape(-1, pixel)[: height * steps].reshape(height, steps, pixel)
    sheared = np.ascontiguousarray(sheared.swapaxes(0, 1))
    done = np.zeros((steps + 2, height + 1, pixel), np.int16)  # pixel (t - y, y) at [t + 2, y + 1]
    is_a, is_b, is_mean, is_paeth = ((filters == kind)[:, None] for kind in (1, 2, 3, 4))
    for t in range(steps - 1):
        y = slice(max(0, t - width + 1), min(height, t + 1))
        below = slice(y.start + 1, y.stop + 1)
        a, b, c = done[t + 1, below], done[t + 1, y], done[t, y]
        to_a, to_b = np.abs(b - c), np.abs(a - c)  # of a + b - c
        to_c = np.abs(a + b - 2 * c)
        paeth = np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c))
        prediction = is_a[y] * a + is_b[y] * b + is_mean[y] * ((a + b) >> 1) + is_paeth[y] * paeth
        done[t + 2, below] = (sheared[t, y] + prediction) & 255
    straight = np.zeros((height * (steps + 1), pixel), np.uint8)
    straight[: height * steps] = done[2:, 1:].swapaxes(0, 1).reshape(-1, pixel)
    return np.ascontiguousarray(straight.reshape(height, steps + 1, pixel)[:, :width])


def _check_size(path: str | os.PathLike, size: int, width: int, height: int, pixel: int) -> None:
    _check_sides(path, width, height)
    wanted = width * height * pixel
    if size < wanted:
        raise DataError(
            f"{path} is cut short: {width} x {height} pixels take {wanted} bytes, {size} are "
            "there; copy it again"
        )
    if size > wanted:
        raise DataError(
            f"{path} is damaged: {width} x {height} pixels take {wanted} bytes, {size} are there"
        )


def _check_sides(path: str | os.PathLike, width: int, height: int) -> None:
    if not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE):
        raise DataError(f"{path} is damaged: its header says {width} x {height} pixels")


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _text(path: str | os.PathLike) -> str:
    try:
        return Path(path).read_text()
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text file") from None


def _table(path: str | os.PathLike, columns: int, meaning: str) -> np.ndarray:
    """Numbers `[N, columns]` of a text file, without comments and empty lines."""
    rows = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            raise DataError(f"{path}, line {number}: not all are numbers; {meaning}") from None
        if len(words) != columns:
            raise DataError(f"{path}, line {number} has {len(words)} columns; {meaning}")
    if not rows:
        raise DataError(f"{path} is empty; {meaning}")
    return np.array(rows, np.float64)


def _write_table(path: str | os.PathLike, rows: np.ndarray, heading: str = "") -> None:
    lines = (" ".join(f"{value:.17g}" for value in row) for row in rows)
    Path(path).write_text(heading + "".join(f"{line}\n" for line in lines))


def _kitti_projection(calibration: dict[str, np.ndarray], camera: int) -> np.ndarray:
    for name in (f"P_rect_{camera:02d}", f"P{camera}"):
        if name in calibration:
            return calibration[name]
    raise DataError(
        f"the calibration has no camera {camera}: neither P_rect_{camera:02d} nor P{camera} among "
        f"{', '.join(sorted(calibration))}"
    )


def _rotation(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrices `[N, 3, 3]` of unit quaternions `[N, 4]`, `(x, y, z, w)`."""
    x, y, z, w = quaternion.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternions `[N, 4]`, `(x, y, z, w)`, w not negative, nearest to matrices `[N, 3, 3]`.

    They are the leading eigenvectors of a symmetric matrix of the rotation's entries (Bar-Itzhack,
    2000), which has no special cases near half turns.
    """
    r = rotation
    form = np.zeros((len(r), 4, 4))
    for i in range(3):
        for j in range(3):
            form[:, i, j] = r[:, i, j] + r[:, j, i]
        form[:, i, i] -= np.trace(r, axis1=1, axis2=2)
        j, k = (i + 1) % 3, (i + 2) % 3
        form[:, i, 3] = form[:, 3, i] = r[:, k, j] - r[:, j, k]
    form[:, 3, 3] = np.trace(r, axis1=1, axis2=2)
    leading = np.linalg.eigh(form)[1][..., -1]
    return leading * np.where(leading[:, 3:] < 0, -1.0, 1.0)
