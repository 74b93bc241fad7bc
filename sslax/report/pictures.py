"""Images and maps as text that a page can hold, and that stays small."""

import base64
import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.typing import ArrayLike

from sslax.figures import style

if TYPE_CHECKING:
    from PIL import Image

_SMALL = 64  # pixels of a side, up to which an image is kept without loss
_QUALITY = 85  # of JPEG
_BLOCK = 8  # pixels of a side of the blocks that JPEG compresses


def data_uri(image: ArrayLike, *, side: int = 480) -> str:
    """An image as a data URI: JPEG, or PNG where it is small.

    Args:
        image: `[H, W]` or `[H, W, C]`, uint8 or float in [0, 1].
        side: larger images are reduced to this side length in pixels.

    Example:
        >>> data_uri(np.zeros((4, 4, 3), np.uint8))[:22]
        'data:image/png;base64,'
    """
    picture = _reduced(image, side)
    return _encoded(picture, "PNG" if max(picture.size) <= _SMALL else "JPEG")


def sheet(images: ArrayLike, *, side: int = 48) -> dict[str, Any]:
    """Thumbnails of many images in a single JPEG, row by row.

    Args:
        images: `[N, H, W, C]`, uint8 or float in [0, 1].
        side: larger images are reduced to this side length in pixels.

    Returns:
        `uri`; `count` of images and how many there are in a row, `columns`; the `width` and
        `height` of each, in the upper left corner of a square of `cell` pixels.

    Example:
        >>> found = sheet(np.zeros((5, 12, 10, 1), np.uint8))
        >>> [found[name] for name in ("count", "columns", "width", "height", "cell")]
        [5, 3, 10, 12, 16]
    """
    tiles = np.stack([np.asarray(_reduced(image, side).convert("RGB")) for image in images])
    count, height, width = tiles.shape[:3]
    # Whole blocks, filled by the border, so that no thumbnail bleeds into another.
    cell = _BLOCK * math.ceil(max(height, width) / _BLOCK)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    margin = ((0, rows * columns - count), (0, cell - height), (0, cell - width), (0, 0))
    tiles = np.pad(tiles, margin, mode="edge").reshape(rows, columns, cell, cell, 3)
    page = np.swapaxes(tiles, 1, 2).reshape(rows * cell, columns * cell, 3)
    return {
        "uri": _encoded(_pillow(page), "JPEG"),
        "count": count,
        "columns": columns,
        "cell": cell,
        "width": width,
        "height": height,
    }


def quantized(values: ArrayLike) -> dict[str, Any]:
    """An array in 16 bits, `low + (code - 1) / 65534 * (high - low)`; unknown values are 0.

    Args:
        values: any shape; unknown where not finite.

    Returns:
        `shape`, `low`, `high`, and `data`, the codes in base64, little-endian.

    Example:
        >>> found = quantized(np.array([[1.0, 3.0, np.nan]]))
        >>> np.frombuffer(base64.b64decode(found["data"]), "<u2").tolist()
        [1, 65535, 0]
    """
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    low, high = (values[known].min(), values[known].max()) if known.any() else (0.0, 0.0)
    code = 1 + np.rint((np.where(known, values, low) - low) / max(high - low, 1e-30) * 65534)
    return {
        "shape": list(values.shape),
        "low": float(low),
        "high": float(high),
        "data": integers(np.where(known, code, 0)),
    }


def integers(values: ArrayLike) -> str:
    """Integers from 0 to 65535 in base64, 16 bits each, little-endian.

    Example:
        >>> integers([1, 256])
        'AQAAAQ=='
    """
    return base64.b64encode(np.asarray(values).astype("<u2").tobytes()).decode()


def _reduced(image: ArrayLike, side: int) -> "Image.Image":
    picture = _pillow(np.rint(255 * style.displayable(np.asarray(image))).astype(np.uint8))
    picture.thumbnail((side, side))
    return picture


def _pillow(array: np.ndarray) -> "Image.Image":
    from PIL import Image

    return Image.fromarray(array)


def _encoded(picture: "Image.Image", form: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, form, quality=_QUALITY, subsampling=0)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{form.lower()};base64,{text}"
