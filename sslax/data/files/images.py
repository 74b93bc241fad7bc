"""Image files of any kind decoded to uint8 `[H, W, C]`, with Pillow."""

import contextlib
import functools
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sslax.data.files import bands, dicom, headers
from sslax.data.files.bands import ValueRange
from sslax.data.records import ArraySource, ImageError, Record, Source

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".png", ".apng", ".webp", ".avif"),
        *(".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
        dicom.SUFFIX,
    }
)
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"}
)
# Formats whose further images are frames or pages; in others they are previews.
_ANIMATED = frozenset({"GIF", "PNG", "WEBP", "TIFF", "AVIF"})
_ORIENTATION = 0x0112  # of EXIF
_UNUSUAL_BITS = (8, 10, 12, 14)  # of cameras, whose values are stored in 16


def value_range(config: Any) -> ValueRange:
    """`config.value_range` of a `data` section; () where it is from before there was one."""
    return tuple(config.get("value_range", ()))


def decode(
    encoded: bytes | Path, *, size: int = 0, channels: int = 3, value_range: ValueRange = ()
) -> np.ndarray:
    """Decodes an image file, or the first image of an animation.

    Every mode becomes 8-bit gray or RGB: palettes are expanded, transparency is composited over
    white, 16 bits are divided by 257, CMYK is converted. The EXIF orientation is applied. With a
    `size` the shorter side is resized to it by an antialiased bilinear filter and the center square
    is cropped.

    Any other number of channels is that of the bands of an array or a TIFF file, which
    `bands.read_bands` reads. DICOM files are read by `dicom.read`.

    Args:
        encoded: the file's bytes, or its path.
        size: side of the result in pixels; 0 keeps the stored size.
        channels: 1 (gray, ITU-R 601), 3 (RGB), or 0 to keep gray as gray and convert the rest to
            RGB; or the number of bands.
        value_range: of gray images with more than 8 bits, or floating-point ones: the values that
            become 0 and 255, with those beyond clipped; () for all 16 bits.

    Returns:
        uint8 `[H, W, channels]`.

    Raises:
        ImageError: the bytes are not an image, are truncated or claim too many pixels, or values
            are outside 16 bits; the message is often the decoder's and does not name the file.
    """
    from PIL import ImageOps

    if channels not in (0, 1, 3):
        pixels = bands.read_bands(encoded, channels=channels, value_range=value_range)
        return convert(pixels, size=size)
    if dicom.is_dicom(encoded):
        pixels = dicom.read(encoded, value_range)
        return convert(np.atleast_3d(pixels), size=size, channels=channels)
    with _opened(encoded) as image:
        if size:  # JPEG decodes several times faster at a reduced scale; twice the size is kept
            image.draft(None, (2 * size, 2 * size))
        wide = _has_wide_colors(image)
        ImageOps.exif_transpose(image, in_place=True)
        return _finish(_eight_bits(image, value_range, wide), size, channels)


def read_image(
    path: str | Path, *, size: int = 0, channels: int = 3, value_range: ValueRange = ()
) -> np.ndarray:
    """`decode` for a file, with errors that name it.

    Raises:
        ImageError: the file cannot be read as an image.
    """
    with _named(path):
        return decode(Path(path), size=size, channels=channels, value_range=value_range)


def read_frames(
    path: str | Path, *, channels: int = 3, value_range: ValueRange = ()
) -> Iterator[np.ndarray]:
    """The frames of an animation or the pages of a file, each as `read_image` reads a file.

    Args:
        path: the file to read.
        channels: as in `decode`.
        value_range: as in `decode`.

    Yields:
        uint8 `[H, W, channels]`.

    Raises:
        ImageError: the file cannot be read as an image.
    """
    from PIL import ImageOps, ImageSequence

    with _named(path), _opened(Path(path)) as image:
        for frame in ImageSequence.Iterator(image):
            headers.check_pixels("a page", *frame.size)
            wide = _has_wide_colors(frame)
            upright = ImageOps.exif_transpose(frame)
            yield _finish(_eight_bits(upright, value_range, wide), 0, channels)


def stored_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image as it is decoded, from the file's header.

    Raises:
        ImageError: the file cannot be read as an image.
    """
    if dicom.is_dicom(Path(path)):
        with _named(path):
            return dicom.size(Path(path))
    with _named(path), _opened(Path(path)) as image:
        # Of TIFF, Pillow reports the size after the turn.
        turned = image.getexif().get(_ORIENTATION, 1) > 4 and image.format != "TIFF"
        return image.size if turned else image.size[::-1]


def count_frames(path: str | Path) -> int:
    """Number of frames or pages; previews in photographs do not count.

    Raises:
        ImageError: the file cannot be read as an image.
    """
    with _named(path), _opened(Path(path)) as image:
        return getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1


def suffixes(channels: int) -> frozenset[str]:
    """Suffixes of the files that hold images of so many channels.

    Example:
        >>> ".npy" in suffixes(3), ".npy" in suffixes(5)
        (False, True)
    """
    return SUFFIXES if channels in (0, 1, 3) else bands.SUFFIXES


def convert(pixels: np.ndarray, *, size: int = 0, channels: int = 0) -> np.ndarray:
    """Resizes and converts decoded pixels uint8 `[H, W, C]` as `decode` does; bands stay bands.

    Raises:
        ImageError: bands would have to become gray or RGB, or the other way round.

    Example:
        >>> convert(np.zeros((28, 28, 1), np.uint8), size=32, channels=3).shape
        (32, 32, 3)
    """
    from PIL import Image

    stored = pixels.shape[-1]
    if stored not in (1, 3) or channels not in (0, 1, 3):
        if channels not in (0, stored):
            raise ImageError(
                f"it has {stored} channels, which cannot become data.channels={channels}: set that "
                f"to {stored}"
            )
        each = [convert(pixels[..., i : i + 1], size=size) for i in range(stored)] if size else []
        return np.concatenate(each, axis=-1) if each else pixels
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


@contextlib.contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Errors of decoders with the name of the file."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{path} cannot be read as an image: {error}") from error


@contextlib.contextmanager
def _opened(encoded: bytes | Path) -> Iterator["Image.Image"]:
    """The image, with whatever goes wrong as an `ImageError`."""
    from PIL import Image, UnidentifiedImageError

    limit = headers.max_pixels()
    if Image.MAX_IMAGE_PIXELS is not None and limit > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit  # Pillow has no other way to raise its own
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            headers.check_pixels("it", *image.size)
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("Pillow does not recognize it as an image") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"it claims more than {limit} pixels: if it is no damaged or hostile file, set the "
            f"environment variable {headers.MAX_PIXELS} to a larger number"
        ) from error
    except Exception as error:  # decoders raise a dozen types for broken bytes
        raise ImageError(str(error) or type(error).__name__) from error


def _eight_bits(image: "Image.Image", value_range: ValueRange, wide: bool) -> "Image.Image":
    """An image of any mode as 'L' or 'RGB'; `wide` where its colors are stored with 16 bits."""
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):  # Pillow's own conversion clips at 255
        return Image.fromarray(_scaled(np.asarray(image), value_range))
    if value_range and wide:
        raise ImageError(
            "it has 16-bit colors, of which 8 bits are read, so data.value_range cannot apply: "
            "save it with 8 bits a channel"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    if wide:  # Pillow keeps the upper 8 bits
        _check_bits(256 * int(np.max(image.getextrema())))
    return image


def _scaled(values: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """Gray values of more than 8 bits as uint8."""
    if value_range:
        return bands.to_eight_bits(values[..., None], value_range)[..., 0]
    remedy = "set data.value_range=(LOWEST, HIGHEST) to the values that become black and white"
    if values.dtype.kind == "f":
        raise ImageError(f"it is a floating-point image: {remedy}, or save it with 8 or 16 bits")
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > 65535:
        raise ImageError(f"its values, {lowest} to {highest}, are outside 16 bits: {remedy}")
    _check_bits(highest)
    return ((values.astype(np.int64) + 128) // 257).astype(np.uint8)


def _check_bits(highest: int) -> None:
    """Says so where the values of a 16-bit image, up to `highest`, fit fewer bits."""
    bits = next(bits for bits in (*_UNUSUAL_BITS, 16) if highest < 1 << bits)
    if highest and bits < 16:
        _warn_of_bits(bits)


@functools.cache  # once is enough
def _warn_of_bits(bits: int) -> None:
    logging.getLogger(__name__).warning(
        "there are 16-bit images whose values fit %d bits, and which look dark or black: if their "
        "camera has %d bits, set data.value_range=(0, %d) (color images: save them with 8 bits)",
        bits,
        bits,
        (1 << bits) - 1,
    )


def _has_wide_colors(image: "Image.Image") -> bool:
    """Whether an image has 16 bits a channel, of which Pillow reads 8; known before it decodes."""
    colors = not image.mode.startswith(("I", "F"))
    return colors and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


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
