"""PNG images of 8 or 16 bits a channel, read and written with all their bits.

Pillow reads 16-bit gray, but reduces 16-bit color, in which KITTI stores optical flow, to 8 bits.
"""

import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sslax.data.files.headers import check_pixels, check_sides, describe
from sslax.data.records import DataError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by color type: gray, RGB, gray and alpha, RGBA


def read_png(path: str | os.PathLike) -> np.ndarray:
    """Reads a PNG image at its full bit depth.

    A 16-bit color image of KITTI's size takes about 0.2 s. Memory is bounded by the size that the
    header claims, and that by `headers.max_pixels`.

    Args:
        path: a PNG with 8 or 16 bits a channel, neither interlaced nor with a palette.

    Returns:
        `[H, W]`, or `[H, W, C]` with 2 (gray, alpha), 3 or 4 channels; uint8 or uint16.

    Raises:
        DataError: the file is not a PNG, is damaged, is of another kind, or claims more than
            `headers.max_pixels` bytes of pixels.
    """
    content = Path(path).read_bytes()
    if not content.startswith(_SIGNATURE):
        raise DataError(f"{path} is not a PNG file: it begins with {content[:8]!r}")
    chunks = _chunks(path, content)
    header = _header(path, chunks)
    height, row_bytes = header.height, header.width * header.pixel_bytes
    packed = _inflate(path, chunks, height * (1 + row_bytes))
    rows = np.frombuffer(packed, np.uint8).reshape(height, -1)
    if rows[:, 0].max() > 4:
        raise DataError(f"{path} is a damaged PNG: unknown row filter; copy or download it again")
    pixels = np.array(rows[:, 1:]).reshape(height, header.width, header.pixel_bytes)
    values = _unfilter(rows[:, 0], pixels)
    if header.bits == 16:
        values = values.view(">u2").astype(np.uint16)
    return values[..., 0] if header.channels == 1 else values


def write_png(path: str | os.PathLike, image: np.ndarray) -> None:
    """Writes an image with 8 or 16 bits a channel as a PNG.

    Args:
        path: the file to write.
        image: `[H, W]`, or `[H, W, C]` with 1 to 4 channels; uint8 or uint16.

    Raises:
        DataError: the image has another type or shape.
    """
    image = np.asarray(image)
    channels = 1 if image.ndim == 2 else image.shape[-1]
    if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3) or not image.size:
        raise DataError(f"a PNG holds uint8 or uint16 [H, W] or [H, W, C], not {describe(image)}")
    if channels > 4:
        raise DataError(f"a PNG holds 1 to 4 channels, not {channels}")
    height, width = image.shape[:2]
    bits = 8 * image.dtype.itemsize
    big_endian = np.ascontiguousarray(image.astype(image.dtype.newbyteorder(">")))
    rows = big_endian.view(np.uint8).reshape(height, -1)
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), rows - above], 1)  # filter 'up'
    color = {count: color for color, count in _CHANNELS.items()}[channels]
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)),
        (b"IDAT", zlib.compress(filtered.tobytes(), 6)),
        (b"IEND", b""),
    )
    parts = [_SIGNATURE]
    for name, data in chunks:
        parts += [struct.pack(">I", len(data)), name, data]
        parts.append(struct.pack(">I", zlib.crc32(name + data)))
    Path(path).write_bytes(b"".join(parts))


class _Header(NamedTuple):
    width: int
    height: int
    bits: int  # a channel
    channels: int

    @property
    def pixel_bytes(self) -> int:
        return self.channels * self.bits // 8


def _chunks(path: str | os.PathLike, content: bytes) -> list[tuple[bytes, bytes]]:
    """Names and data of a file's chunks, after their checksums agree."""
    chunks, start = [], len(_SIGNATURE)
    while not chunks or chunks[-1][0] != b"IEND":
        if start + 12 > len(content):
            raise DataError(f"{path} is truncated: a PNG ends with IEND; copy it again")
        (length,) = struct.unpack_from(">I", content, start)
        name, data = content[start + 4 : start + 8], content[start + 8 : start + 8 + length]
        if start + 12 + length > len(content):
            raise DataError(f"{path} is truncated: a PNG ends with IEND; copy it again")
        if struct.unpack_from(">I", content, start + 8 + length)[0] != zlib.crc32(name + data):
            raise DataError(f"{path} is a damaged PNG (checksum of {name!r}); copy it again")
        chunks.append((name, data))
        start += 12 + length
    return chunks


def _header(path: str | os.PathLike, chunks: list[tuple[bytes, bytes]]) -> _Header:
    if chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise DataError(f"{path} is a damaged PNG: it has no header; copy or download it again")
    width, height, bits, color, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if bits not in (8, 16) or color not in _CHANNELS or interlaced:
        kind = "interlaced" if interlaced else "palette" if color == 3 else f"{bits}-bit"
        raise DataError(
            f"{path} is a PNG of a kind that stores no measured values ({kind}); open such images "
            "with Pillow"
        )
    check_sides(path, width, height)
    header = _Header(width, height, bits, _CHANNELS[color])
    check_pixels(str(path), width, height, header.pixel_bytes)
    return header


def _inflate(path: str | os.PathLike, chunks: list[tuple[bytes, bytes]], size: int) -> bytes:
    """`size` bytes of pixels; whatever a file may hold beyond them is not inflated."""
    inflater = zlib.decompressobj()
    packed = b"".join(data for name, data in chunks if name == b"IDAT")
    try:
        pixels = inflater.decompress(packed, size)
    except zlib.error as error:
        raise DataError(f"{path} is a damaged PNG ({error}); copy or download it again") from None
    if len(pixels) < size:
        raise DataError(f"{path} is a damaged PNG: rows are missing; copy or download it again")
    return pixels


def _unfilter(filters: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Undoes PNG's row filters, in place.

    Each byte adds a prediction from those left (a), above (b) and above left (c) of it.

    Pixels depend on their neighbors, but those on one anti-diagonal, x + y = t, not on each other:
    so this takes H + W steps on whole diagonals, where a loop over bytes would take seconds.
    """
    height, width, pixel = rows.shape
    flat = rows.reshape(-1, pixel)
    # The last two diagonals, with pixel (t - y, y) at y + 1; zero left of the image and above it.
    last, before = np.zeros((2, height + 1, pixel), np.int16)
    is_a, is_b, is_mean, is_paeth = ((filters == kind)[:, None] for kind in (1, 2, 3, 4))
    step = max(width - 1, 1)  # from pixel (x, y) to (x - 1, y + 1)
    for t in range(height + width - 1):
        y = slice(max(0, t - width + 1), min(height, t + 1))
        below = slice(y.start + 1, y.stop + 1)
        start = t + y.start * (width - 1)
        pixels = flat[start : start + (y.stop - y.start - 1) * step + 1 : step]
        a, b, c = last[below], last[y], before[y]
        to_a, to_b = np.abs(b - c), np.abs(a - c)  # distances from a + b - c
        to_c = np.abs(a + b - 2 * c)
        paeth = np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c))
        prediction = is_a[y] * a + is_b[y] * b + is_mean[y] * ((a + b) >> 1) + is_paeth[y] * paeth
        pixels[...] = (pixels + prediction) & 255
        last, before = before, last
        last[below] = pixels
    return rows
