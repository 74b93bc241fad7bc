"""Medical images in DICOM files, by pydicom."""

import io
from pathlib import Path

import numpy as np

from sslax import errors
from sslax.data.files import bands
from sslax.data.files.bands import ValueRange
from sslax.data.records import ImageError

SUFFIX = ".dcm"
_PREAMBLE = 128  # bytes before the file's magic


def is_dicom(encoded: bytes | Path) -> bool:
    """Whether the bytes, or the file by its suffix, are those of a DICOM file."""
    if isinstance(encoded, bytes):
        return encoded[_PREAMBLE : _PREAMBLE + 4] == b"DICM"
    return encoded.suffix.lower() == SUFFIX


def size(encoded: bytes | Path) -> tuple[int, int]:
    """Height and width, from the header.

    Raises:
        ImageError: the file is damaged.
        MissingExtra: pydicom is not installed.
    """
    dataset = _dataset(encoded, header=True)
    return int(dataset.Rows), int(dataset.Columns)


def read(encoded: bytes | Path, value_range: ValueRange = ()) -> np.ndarray:
    """The pixels of a DICOM file, uint8 `[H, W]` gray or `[H, W, 3]` RGB.

    Stored values become those of the device, Hounsfield units for instance, by the file's rescale
    slope and intercept or its table. Where low values are to be shown white (MONOCHROME1), the
    result is inverted. The window that a file suggests for display is not applied, since it may
    differ from file to file.

    Args:
        encoded: the file's bytes, or its path.
        value_range: the device's values that become 0 and 255, with those beyond clipped; () for
            values that are stored with 8 bits.

    Raises:
        ImageError: it has no pixels or several frames, is damaged or compressed in a way that is
            not installed, or has more than 8 bits and no range.
        MissingExtra: pydicom is not installed.
    """
    dataset = _dataset(encoded)
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    if frames > 1:
        raise ImageError(f"it has {frames} frames: write each to a file of its own")
    from pydicom.pixels import apply_modality_lut

    try:
        stored = dataset.pixel_array
    except Exception as error:  # a dozen types, of missing decoders and of broken bytes
        raise ImageError(f"its pixels cannot be decoded ({error})") from error
    kind = str(dataset.PhotometricInterpretation)
    if stored.ndim == 3:
        if kind.startswith("PALETTE") or stored.dtype != np.uint8:
            raise ImageError(f"its colors are {kind} of {stored.dtype}: save them as 8-bit RGB")
        return stored
    values = np.asarray(apply_modality_lut(stored, dataset))
    if values.dtype == np.uint16 and not value_range:
        values = values.astype(np.int32)  # 12 of 16 bits are usual, so there is no natural range
    pixels = bands.to_eight_bits(values[..., None], value_range)[..., 0]
    return 255 - pixels if kind == "MONOCHROME1" else pixels


def _dataset(encoded: bytes | Path, *, header: bool = False) -> "pydicom.Dataset":  # noqa: F821
    errors.require("dicom")
    import pydicom

    source = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
    try:
        return pydicom.dcmread(source, stop_before_pixels=header)
    except Exception as error:  # a dozen types for broken bytes
        raise ImageError(f"it is a damaged DICOM file ({error})") from error
