"""Depth and disparity maps: 16-bit PNG (KITTI, TUM) and PFM (Middlebury, FlyingThings)."""

import os
import re
from pathlib import Path

import numpy as np

from sslax import checks
from sslax.data.files.headers import check_size, describe
from sslax.data.files.png import read_png, write_png
from sslax.data.records import DataError


def read_scaled_png(
    path: str | os.PathLike, *, scale: float = 256.0
) -> tuple[np.ndarray, np.ndarray]:
    """Reads disparity or depth from a 16-bit gray PNG: `value / scale`, unknown where 0.

    Args:
        path: the file to read.
        scale: 256 for KITTI's disparity (pixels) and depth (meters), 5000 for TUM's depth, 1000
            for depth in millimeters.

    Returns:
        Values `[H, W]` float32, 0 where unknown; known `[H, W]` bool.

    Raises:
        DataError: another format, or a damaged file.
    """
    stored = read_png(path)
    if stored.dtype != np.uint16 or stored.ndim != 2:
        raise DataError(
            f"{path} is {describe(stored)}; disparity and depth are 16-bit gray. An 8-bit or "
            "color file is a visualization of them, without their values"
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

    A known value is stored as at least 1, since 0 means unknown.

    Args:
        path: the file to write.
        values: `[H, W]`, not negative.
        known: `[H, W]`, True where known; by default where finite and positive.
        scale: as in `read_scaled_png`; values up to 65535 / scale fit.

    Raises:
        DataError: known values are negative, not finite, or too large.
    """
    values = np.asarray(values, np.float64)
    checks.assert_rank(values, 2)
    known = np.isfinite(values) & (values > 0) if known is None else np.asarray(known, bool)
    checks.assert_equal_shape([values, known])
    stored = np.rint(np.where(known, values, 0.0) * scale)
    if not ((stored >= 0) & (stored <= 65535)).all():  # False for NaN
        raise DataError(
            f"{path}: 16 bits at scale {scale:g} hold 0 to {65535 / scale:.2f}, but values span "
            f"{values[known].min():g} to {values[known].max():g}; mark those outside as unknown"
        )
    write_png(path, np.where(known, np.maximum(stored, 1), 0).astype(np.uint16))


def read_pfm(path: str | os.PathLike) -> np.ndarray:
    """Reads a portable float map, top row first.

    The sign of the scale in its header gives the byte order; its size has no agreed meaning and is
    ignored.

    Args:
        path: the file to read.

    Returns:
        `[H, W]`, or `[H, W, 3]` for a color file (FlyingThings' flow is its first two channels),
        float32 as stored: Middlebury's unknown disparity is infinite.

    Raises:
        DataError: another format, or a damaged file.
    """
    content = Path(path).read_bytes()
    header = re.match(rb"(PF|Pf)\s+(\d+)\s+(\d+)\s+([-+.\deE]+)\s", content[:200])
    if header is None:
        raise DataError(
            f"{path} is not a PFM file: it begins with {content[:8]!r}, not with 'PF' or 'Pf', "
            "width, height and scale"
        )
    channels = 3 if header[1] == b"PF" else 1
    width, height = int(header[2]), int(header[3])
    order = "<f4" if float(header[4]) < 0 else ">f4"
    body = content[header.end() :]
    check_size(path, len(body), width, height, 4 * channels)
    values = np.frombuffer(body, order, width * height * channels).astype(np.float32)
    return values.reshape((height, width, 3) if channels == 3 else (height, width))[::-1].copy()


def write_pfm(path: str | os.PathLike, values: np.ndarray) -> None:
    """Writes a portable float map, little-endian.

    Args:
        path: the file to write.
        values: `[H, W]` or `[H, W, 3]`.
    """
    values = np.asarray(values, "<f4")
    checks.assert_shape(values, (None, None) if values.ndim == 2 else (None, None, 3))
    height, width = values.shape[:2]
    kind = "Pf" if values.ndim == 2 else "PF"
    Path(path).write_bytes(f"{kind}\n{width} {height}\n-1.0\n".encode() + values[::-1].tobytes())
