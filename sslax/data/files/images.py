"""Encoded images of any kind to uint8 `[H, W, C]`, with Pillow."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sslax.data.records import ImageError, Record, Source

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"}
)


def decode(encoded: bytes | Path, *, size: int = 0, channels: int = 3) -> np.ndarray:
    """Decodes an image file.

    Any mode becomes 8-bit gray or RGB: palettes are looked up, transparency is laid over white, 16
    bits are divided by 257, CMYK is converted. The EXIF orientation is applied. With a `size` the
    shorter side is brought to it by an antialiased bilinear filter and the center is cut out.

    Args:
        encoded: the file's bytes, or its path.
        size: side of the result in pixels; 0 keeps the stored size.
        channels: 1 (gray, ITU-R 601), 3 (RGB), or 0 to keep gray gray and make RGB of the rest.

    Returns:
        uint8 `[H, W, channels]`.

    Raises:
        ImageError: if the bytes are no image or not all of one; the message is the decoder's and
            does not name the file.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    file = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
    try:
        with Image.open(file) as image:
            if size:  # JPEG decodes several times faster at a reduced scale; twice the size is kept
                image.draft(None, (2 * size, 2 * size))
            ImageOps.exif_transpose(image, in_place=True)
            return _finish(_eight_bits(image), size, channels)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("its bytes are no image that Pillow knows") from error
    except Exception as error:  # decoders raise a dozen types for broken bytes
        raise ImageError(str(error)) from error


def convert(pixels: np.ndarray, *, size: int = 0, channels: int = 0) -> np.ndarray:
    """`decode`'s resizing and channels for pixels uint8 `[H, W, 1 or 3]` that are decoded already.

    Example:
        >>> convert(np.zeros((28, 28, 1), np.uint8), size=32, channels=3).shape
        (32, 32, 3)
    """
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return _finish(image, size, channels)


class Converted:
    """A source of decoded images, resized and with its channels changed as it is read."""

    def __init__(self, source: Source, *, size: int, channels: int) -> None:
        self.source = source
        self.size = size
        self.channels = channels
        self.labels = getattr(source, "labels", None)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> Record:
        record = self.source[i]
        image = convert(record["image"], size=self.size, channels=self.channels)
        return {**record, "image": image}


def _eight_bits(image: "Image.Image") -> "Image.Image":
    """Any mode to 'L' or 'RGB'."""
    from PIL import Image

    if image.mode == "F":
        raise ImageError("floating-point image: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion clips at 255
        wide = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _finish(image: "Image.Image", size: int, channels: int) -> np.ndarray:
    """Channels, then the central square to `size`: the shorter side resized, the center cut out."""
    from PIL import Image

    if channels:
        image = image.convert("L" if channels == 1 else "RGB")
    if size and image.size != (size, size):
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        square = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=square)
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
