"""Optical flow: Middlebury's `.flo`, and KITTI's 16-bit PNG.

Flow is (x, y) in pixels, masks are True where it is known, and unknown flow is 0.
"""

import os
import struct
from pathlib import Path

import numpy as np

from sslax import checks
from sslax.data.files.headers import check_size, describe
from sslax.data.files.png import read_png, write_png
from sslax.data.records import DataError

_FLO_MAGIC = 202021.25  # the bytes 'PIEH'
_FLO_UNKNOWN = 1e9  # larger flow is unknown; 1e10 is written


def read_flow(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Reads optical flow, in the format that the path's suffix names.

    `.flo` (Middlebury, Sintel, Chairs): float32, unknown where a component exceeds 1e9 or is NaN.
    `.png` (KITTI): `(value - 2^15) / 64` of the first two of three 16-bit channels, known where the
    third is not 0.

    Args:
        path: ending in .flo or .png.

    Returns:
        Flow `[H, W, 2]` float32, (x, y) in pixels, 0 where unknown; known `[H, W]` bool.

    Raises:
        DataError: another suffix, another format, or a damaged file.
    """
    path = Path(path)
    if path.suffix.lower() == ".flo":
        return _read_flo(path)
    if path.suffix.lower() == ".png":
        return _read_kitti(path)
    raise DataError(f"{path}: flow is read from .flo and .png files, not from {path.suffix!r} ones")


def write_flow(path: str | os.PathLike, flow: np.ndarray, known: np.ndarray | None = None) -> None:
    """Writes optical flow in the format that the path's suffix names.

    `.flo` keeps float32. `.png` rounds to the nearest 1/64 pixel (KITTI's own writer truncates) and
    holds -512 to 511.98 pixels.

    Args:
        path: ending in .flo or .png.
        flow: `[H, W, 2]`, (x, y) in pixels.
        known: `[H, W]`, True where it is known; by default where it is finite.

    Raises:
        DataError: another suffix, or flow that is not finite where known or does not fit.
    """
    path, flow = Path(path), np.asarray(flow, np.float32)
    checks.assert_shape(flow, (None, None, 2))
    known = np.isfinite(flow).all(-1) if known is None else np.asarray(known, bool)
    checks.assert_shape(known, flow.shape[:2])
    if not np.isfinite(flow[known]).all():
        raise DataError(f"{path}: flow is not finite at known pixels; mark them as unknown")
    if path.suffix.lower() == ".flo":
        _write_flo(path, flow, known)
    elif path.suffix.lower() == ".png":
        _write_kitti(path, flow, known)
    else:
        raise DataError(f"{path}: flow is written to .flo and .png files; choose such a suffix")


def _read_flo(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = path.read_bytes()
    if content[:4] != struct.pack("<f", _FLO_MAGIC):
        raise DataError(
            f"{path} is not a .flo file: it begins with {content[:4]!r}, not with b'PIEH' "
            "(202021.25 as a little-endian float)"
        )
    if len(content) < 12:
        raise DataError(f"{path} is truncated: even its header is incomplete; copy it again")
    width, height = struct.unpack("<ii", content[4:12])
    check_size(path, len(content) - 12, width, height, 8)
    flow = np.frombuffer(content, "<f4", 2 * width * height, 12).reshape(height, width, 2)
    known = (np.abs(flow) <= _FLO_UNKNOWN).all(-1)  # False for NaN
    return np.where(known[..., None], flow, 0).astype(np.float32), known


def _write_flo(path: Path, flow: np.ndarray, known: np.ndarray) -> None:
    height, width = known.shape
    stored = np.where(known[..., None], flow, np.float32(1e10)).astype("<f4")
    path.write_bytes(struct.pack("<fii", _FLO_MAGIC, width, height) + stored.tobytes())


def _read_kitti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    stored = read_png(path)
    if stored.dtype != np.uint16 or stored.ndim != 3 or stored.shape[-1] != 3:
        raise DataError(
            f"{path} is {describe(stored)}; KITTI's flow is 16-bit RGB. An 8-bit file is a "
            "visualization of the flow, without its values"
        )
    known = stored[..., 2] > 0
    flow = (stored[..., :2].astype(np.float32) - 2**15) / 64
    return np.where(known[..., None], flow, np.float32(0)), known


def _write_kitti(path: Path, flow: np.ndarray, known: np.ndarray) -> None:
    flow = np.where(known[..., None], flow, np.float32(0))
    stored = np.rint(flow * 64.0 + 2**15)
    if stored.min(initial=0) < 0 or stored.max(initial=0) > 65535:
        raise DataError(
            f"{path}: flow of {np.abs(flow).max():.0f} pixels does not fit a KITTI PNG, which "
            "holds -512 to 511.98; write a .flo file or mark those pixels as unknown"
        )
    stored = np.concatenate([stored, np.ones_like(stored[..., :1])], -1)
    write_png(path, np.where(known[..., None], stored, 0).astype(np.uint16))
