"""Checks of headers and sizes, shared by the readers of binary files."""

import os

import numpy as np

from sslax.data.records import DataError

_LARGEST_SIDE = 1 << 16


def check_sides(path: str | os.PathLike, width: int, height: int) -> None:
    """Refuses a header whose width or height no image has.

    Raises:
        DataError: naming both.
    """
    if not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE):
        raise DataError(f"{path} is damaged: its header says {width} x {height} pixels")


def check_size(
    path: str | os.PathLike, size: int, width: int, height: int, pixel_bytes: int
) -> None:
    """Refuses a body of `size` bytes that does not match its header.

    Raises:
        DataError: saying whether it is too short or too long.
    """
    check_sides(path, width, height)
    expected = width * height * pixel_bytes
    if size == expected:
        return
    problem, remedy = ("truncated", "; copy it again") if size < expected else ("damaged", "")
    raise DataError(
        f"{path} is {problem}: {width} x {height} pixels take {expected} bytes, but it has "
        f"{size}{remedy}"
    )


def describe(array: np.ndarray) -> str:
    """Type and shape, for messages.

    Example:
        >>> describe(np.zeros((2, 3), np.uint8))
        'uint8 [2, 3]'
    """
    return f"{array.dtype} {list(array.shape)}"
