"""Images and videos that a command line is given, frame by frame."""

import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sslax.data import clips
from sslax.data.files import images, listing
from sslax.errors import UserError


class Frame(NamedTuple):
    """One image, and the name of the files that are written for it, without a suffix."""

    name: str
    image: np.ndarray  # uint8 [H, W, C]


class Files:
    """Image files, read lazily on each iteration.

    Args:
        paths: of the images, in their order.
        channels: 1 or 3.
    """

    def __init__(self, paths: Sequence[Path], *, channels: int) -> None:
        self.paths = list(paths)
        self.channels = channels

    def __iter__(self) -> Iterator[Frame]:
        pictures = clips.FileFrames([str(path) for path in self.paths], channels=self.channels)
        for name, i in zip(self.names, range(len(pictures))):
            yield Frame(name, pictures[i])

    @property
    def names(self) -> list[str]:
        """Names without their suffixes, or with them where two would be equal."""
        stems = [path.stem for path in self.paths]
        return stems if len({*stems}) == len(stems) else [path.name for path in self.paths]

    def of_one_size(self) -> bool:
        """Whether all images have the first one's size, by their headers."""
        from PIL import Image, UnidentifiedImageError

        sizes = set()
        for path in self.paths:
            try:
                with Image.open(path) as image:
                    sizes.add(image.size)
            except (OSError, UnidentifiedImageError):  # whoever reads it will say so
                return False
        return len(sizes) == 1


class Film:
    """The frames of one file, an animation that Pillow reads or a film, decoded on each iteration.

    Args:
        path: of the file.
        channels: 1 or 3.
    """

    def __init__(self, path: Path, *, channels: int) -> None:
        self.path = path
        self.channels = channels

    def __iter__(self) -> Iterator[Frame]:
        decode = _film if self.path.suffix.lower() in images.VIDEO_SUFFIXES else _animation
        for i, picture in enumerate(decode(self.path)):
            image = images.convert(picture, channels=self.channels)
            yield Frame(f"{self.path.stem}_{i:06d}", image)


def open_frames(text: str, *, channels: int) -> Files | Film:
    """The frames that `--input` names: an image, several separated by commas, a folder, or a video.

    Args:
        text: a path; for a folder, the images directly in it, with numbers in their names in
            numeric order.
        channels: 1 for gray, 3 for RGB; stored images are converted.

    Raises:
        UserError: there is no such file, no image in the folder, or a film that cannot be decoded.
    """
    path = Path(text)
    if path.is_dir():
        return Files(_in_folder(path), channels=channels)
    if not path.exists() and "," in text:
        paths = [Path(part.strip()) for part in text.split(",")]
        for part in paths:
            _check_image(part)
        return Files(paths, channels=channels)
    if path.suffix.lower() in images.VIDEO_SUFFIXES and path.is_file():
        _check_decoder(path)
        return Film(path, channels=channels)
    _check_image(path)
    if _is_animated(path):
        return Film(path, channels=channels)
    return Files([path], channels=channels)


def _in_folder(path: Path) -> list[Path]:
    found = [Path(name) for name in listing.image_files(path)]
    if found:
        return found
    inner = [entry for entry in listing.directories(path) if listing.image_files(entry)]
    remedy = f"; {inner[0].name} in it has some: give one folder" if inner else ""
    raise UserError(f"--input={path} has no images{remedy}. Images end in {_endings()}.")


def _check_image(path: Path) -> None:
    if not path.exists():
        raise UserError(f"--input={path} does not exist.")
    if path.is_dir() or path.suffix.lower() not in images.SUFFIXES:
        raise UserError(f"--input={path} is no image; those end in {_endings()}.")


def _endings() -> str:
    return " ".join(sorted(suffix[1:] for suffix in images.SUFFIXES))


def _is_animated(path: Path) -> bool:
    """Whether a file that Pillow reads has several frames; previews in photographs do not count."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            moving = image.format in ("GIF", "PNG", "WEBP", "TIFF")
            return moving and getattr(image, "n_frames", 1) > 1
    except (OSError, UnidentifiedImageError):  # whoever reads it will say so
        return False


def _animation(path: Path) -> Iterator[np.ndarray]:
    from PIL import Image, ImageSequence

    with Image.open(path) as image:
        frames = ImageSequence.Iterator(image)
        while True:
            try:
                frame = next(frames, None)
                picture = None if frame is None else np.asarray(frame.convert("RGB"))
            except Exception as error:  # decoders raise a dozen types for broken bytes
                raise UserError(f"{path} cannot be read as an animation: {error}.") from error
            if picture is None:
                return
            if frame.mode[0] in "IF":
                raise UserError(f"{path} has frames of more than 8 bits; save them with 8.")
            yield picture


def ffmpeg() -> str | None:
    """The ffmpeg program: of the package imageio-ffmpeg, or on the PATH; None if there is none."""
    if importlib.util.find_spec("imageio_ffmpeg"):
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    return shutil.which("ffmpeg")


def _check_decoder(path: Path) -> None:
    if ffmpeg() is None:
        raise UserError(
            f"{path} is a film, which takes ffmpeg to read: pip install 'sslax[video]' "
            f"brings one; or extract its frames elsewhere, `mkdir {path.stem} && ffmpeg -i {path} "
            f"{path.stem}/%06d.png`, and give --input={path.stem}."
        )


def _film(path: Path) -> Iterator[np.ndarray]:
    """Frames uint8 `[H, W, 3]`, decoded by ffmpeg, which sends them as PPM images."""
    options = ["-nostdin", "-loglevel", "error", "-i", str(path)]
    command = [ffmpeg(), *options, "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"]
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints)
        try:
            while process.stdout.readline() == b"P6\n":
                width, height = (int(word) for word in process.stdout.readline().split())
                process.stdout.readline()  # the largest value
                pixels = process.stdout.read(width * height * 3)
                yield np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
            if process.wait():
                complaints.seek(0)
                reason = complaints.read().decode(errors="replace").strip().splitlines()
                raise UserError(f"{path} cannot be decoded: {reason[-1] if reason else 'ffmpeg'}")
        finally:
            process.kill()
            process.communicate()
