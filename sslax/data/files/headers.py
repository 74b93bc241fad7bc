"""Checks of headers and sizes, shared by the readers of binary files."""

import os

import numpy as np

from sslax.data.records import DataError, ImageError

MAX_PIXELS = "SSLAX_MAX_PIXELS"  # the environment variable
_MAX_PIXELS = 178_956_970  # where Pillow refuses, too
_LARGEST_SIDE = 1 << 16


def max_pixels() -> int:
    """The largest number of pixels that an image may have, or bytes of a PNG that is read whole.

    A file of a megabyte may claim gigabytes of pixels. The environment variable `SSLAX_MAX_PIXELS`
    raises the limit.

    Raises:
        DataError: the variable is not a positive number.
    """
    text = os.environ.get(MAX_PIXELS, "")
    if text and not (text.isascii() and text.isdigit() and int(text)):
        raise DataError(f"{MAX_PIXELS}={text} is not a number of pixels, such as 500000000")
    return int(text) if text else _MAX_PIXELS


def check_pixels(what: str, width: int, height: int, pixel_bytes: int = 1) -> None:
    """Refuses an image that would take too much memory.

    Raises:
        ImageError: naming its size, and the environment variable that raises the limit.
    """
    claimed = width * height * pixel_bytes
    if claimed > max_pixels():
        unit = "pixels" if pixel_bytes == 1 else "bytes"
        raise ImageError(
            f"{what} claims {width} x {height} pixels, {claimed} {unit}, and at most "
            f"{max_pixels()} are read: if it is no damaged or hostile file, set the environment "
            f"variable {MAX_PIXELS}={claimed}"
        )


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
