"""Image files of any kind decoded to uint8 `[H, W, C]`, with Pillow."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sslax.data.records import ArraySource, ImageError, Record, Source

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"}
)
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"}
)


def decode(encoded: bytes | Path, *, size: int = 0, channels: int = 3) -> np.ndarray:
    """Decodes an image file.

    Every mode becomes 8-bit gray or RGB: palettes are expanded, transparency is composited over
    white, 16 bits are divided by 257, CMYK is converted. The EXIF orientation is applied. With a
    `size` the shorter side is resized to it by an antialiased bilinear filter and the center square
    is cropped.

    Args:
        encoded: the file's bytes, or its path.
        size: side of the result in pixels; 0 keeps the stored size.
        channels: 1 (gray, ITU-R 601), 3 (RGB), or 0 to keep gray as gray and convert the rest to
            RGB.

    Returns:
        uint8 `[H, W, channels]`.

    Raises:
        ImageError: the bytes are not an image, or are truncated; the message is the decoder's and
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
        raise ImageError("Pillow does not recognize it as an image") from error
    except Exception as error:  # decoders raise a dozen types for broken bytes
        raise ImageError(str(error)) from error


def read_image(path: str | Path, *, size: int = 0, channels: int = 3) -> np.ndarray:
    """`decode` for a file, with errors that name it.

    Raises:
        ImageError: the file cannot be read as an image.
    """
    try:
        return decode(Path(path), size=size, channels=channels)
    except ImageError as error:
        raise ImageError(f"{path} cannot be read as an image: {error}") from error


def convert(pixels: np.ndarray, *, size: int = 0, channels: int = 0) -> np.ndarray:
    """Resizes and converts decoded pixels uint8 `[H, W, 1 or 3]` as `decode` does.

    Example:
        >>> convert(np.zeros((28, 28, 1), np.uint8), size=32, channels=3).shape
        (32, 32, 3)
    """
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return _finish(image, size, channels)


def converted(source: ArraySource, *, size: int, channels: int) -> Source:
    """A source in memory, resized and converted as it is read, if it differs from what is asked."""
    if size or channels not in (0, source.images.shape[-1]):
        return Converted(source, size=size, channels=channels)
    return source


class Converted:
    """A source of decoded images that resizes and converts them as they are read."""

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
    """An image of any mode as 'L' or 'RGB'."""
    from PIL import Image

    if image.mode == "F":
        raise ImageError("it is a floating-point image: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion clips at 255
        wide = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _finish(image: "Image.Image", size: int, channels: int) -> np.ndarray:
    """Converts the channels, then resizes the center square to `size`."""
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
