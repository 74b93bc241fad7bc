"""Images that are neither gray nor RGB: arrays and TIFF files of any number of bands."""

import io
from pathlib import Path

import numpy as np

from sslax import errors
from sslax.data.files import headers
from sslax.data.records import ImageError

SUFFIXES = frozenset({".npy", ".tif", ".tiff"})
Ends = tuple[float, float]
ValueRange = Ends | tuple[Ends, ...] | tuple[()]

_NPY = b"\x93NUMPY"
_PERCENTILES = (1, 99)  # of the suggestion for a range


def read_bands(encoded: bytes | Path, *, channels: int, value_range: ValueRange = ()) -> np.ndarray:
    """Reads an array of NumPy or a TIFF file with a number of bands.

    Args:
        encoded: the file's bytes, or its path. Arrays are `[H, W, C]`; bands of TIFF may be
            interleaved, or pages.
        channels: C, the number of bands that it has to have.
        value_range: the values that become 0 and 255, with those beyond clipped: two numbers, or
            two for each band; () for all values of uint8 or uint16.

    Returns:
        uint8 `[H, W, channels]`.

    Raises:
        ImageError: it is neither, has another number of bands, or values whose range is not known.
        MissingExtra: it is a TIFF file, and tifffile is not installed.
    """
    content = encoded if isinstance(encoded, bytes) else Path(encoded).read_bytes()
    values = _array(content) if content.startswith(_NPY) else _tiff(content)
    if values.ndim != 3 or values.shape[-1] != channels:
        raise ImageError(
            f"it is {headers.describe(values)}, and images of data.channels={channels} bands are "
            f"[H, W, {channels}], bands last"
        )
    return to_eight_bits(values, value_range)


def to_eight_bits(values: np.ndarray, value_range: ValueRange = ()) -> np.ndarray:
    """Values of bands as uint8.

    Args:
        values: `[..., H, W, C]`, of any real type.
        value_range: as in `read_bands`.

    Raises:
        ImageError: there is no range for floating-point or signed values, it is for another number
            of bands, or a value is not finite.

    Example:
        >>> to_eight_bits(np.array([[[0.0, 10.0], [2.0, 30.0]]]), ((0, 2), (10, 30)))[0].tolist()
        [[0, 0], [255, 255]]
    """
    if not value_range:
        if values.dtype == np.uint8:
            return values
        if values.dtype == np.uint16:
            return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
        raise ImageError(
            f"its values are {values.dtype}: set data.value_range{_suggestion(values)}"
        )
    ends = np.asarray(value_range, np.float64)
    if ends.ndim == 2 and len(ends) != values.shape[-1]:
        raise ImageError(
            f"data.value_range has {len(ends)} pairs for {values.shape[-1]} bands: give one for "
            "each, or one for all"
        )
    fractions = (values.astype(np.float64) - ends[..., 0]) / (ends[..., 1] - ends[..., 0])
    if not np.isfinite(fractions).all():
        raise ImageError("it has values that are not finite: replace them by numbers")
    return np.rint(255 * np.clip(fractions, 0, 1)).astype(np.uint8)


def _suggestion(values: np.ndarray) -> str:
    """Ranges of the bands of an image, as one would write them."""
    finite = np.where(np.isfinite(values), values, np.nan).reshape(-1, values.shape[-1])
    ends = np.nanpercentile(finite, _PERCENTILES, axis=0).T
    pairs = ", ".join(f"({low:.4g}, {high:.4g})" for low, high in ends)
    one, other = _PERCENTILES
    return f"=({pairs}), as are the percentiles {one} and {other} of its bands, or one pair for all"


def _array(content: bytes) -> np.ndarray:
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ImageError(f"it is a damaged array, or one of Python objects ({error})") from error


def _tiff(content: bytes) -> np.ndarray:
    """The first image of a TIFF file, bands last."""
    errors.require("bands")
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            series = file.series[0]
            headers.check_pixels("it", int(np.prod(series.shape)), 1)
            values, axes = series.asarray(), series.axes
    except ImageError:
        raise
    except Exception as error:  # a dozen types for broken bytes
        raise ImageError(f"it is neither an array of NumPy nor a TIFF file ({error})") from error
    first = values.ndim == 3 and axes[-2:] == "YX"  # the bands are planes or pages
    return np.moveaxis(values, 0, -1) if first else values
