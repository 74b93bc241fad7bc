"""Images and videos that a command line is given, frame by frame."""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sslax.data import clips
from sslax.data.files import films, images, listing
from sslax.data.records import ImageError
from sslax.errors import UserError

# What is written for each image, by the end of its name, and once for all of them.
_ENDINGS = ("", "_color", "_visible")
_COMMON = ("trajectory", "trajectory_tum", "video", "predictions")


class Frame(NamedTuple):
    """One image, and the name of the files that are written for it, without a suffix."""

    name: str
    image: np.ndarray  # uint8 [H, W, C]


class Files:
    """Image files, read lazily on each iteration.

    Args:
        paths: of the images, in their order.
        channels: 1 or 3.
        value_range: of the run's training images, as `images.decode` takes it.
    """

    def __init__(
        self, paths: Sequence[Path], *, channels: int, value_range: images.ValueRange = ()
    ) -> None:
        self.paths = list(paths)
        self._pictures = clips.FileFrames(paths, channels=channels, value_range=value_range)

    def __iter__(self) -> Iterator[Frame]:
        for i, name in enumerate(self.names):
            yield Frame(name, self._pictures[i])

    @property
    def names(self) -> list[str]:
        """Names without their suffixes, or with as much more as makes all outputs differ."""
        parts = [Path(os.path.abspath(path)).parts[1:] for path in self.paths]
        stems, longest = [path.stem for path in self.paths], max(map(len, parts))
        choices = [stems, *(["_".join(p[-n:]) for p in parts] for n in range(1, longest + 1))]
        numbered = [f"{stem}_{i:06d}" for i, stem in enumerate(stems)]
        return next((names for names in choices if _differ(names)), numbered)

    def of_one_size(self) -> bool:
        """Whether all images have the first one's size, by their headers."""
        try:
            return len({self._pictures.shape(i) for i in range(len(self.paths))}) == 1
        except ImageError:  # whoever reads it will say so
            return False

    def gap(self) -> tuple[str, str] | None:
        """The first two consecutive frames between which others are missing, by their numbers."""
        steps = np.flatnonzero(np.diff(self._pictures.runs()))
        return (self.paths[steps[0]].name, self.paths[steps[0] + 1].name) if len(steps) else None


class Film:
    """The frames of one file, an animation that Pillow reads or a film, decoded on each iteration.

    Args:
        path: of the file.
        channels: 1 or 3.
        value_range: as in `Files`; for animations.
    """

    def __init__(self, path: Path, *, channels: int, value_range: images.ValueRange = ()) -> None:
        self.path = path
        self.channels = channels
        self.value_range = value_range

    def __iter__(self) -> Iterator[Frame]:
        if self.path.suffix.lower() in images.VIDEO_SUFFIXES:
            pictures = (images.convert(rgb, channels=self.channels) for rgb in _film(self.path))
        else:
            pictures = images.read_frames(
                self.path, channels=self.channels, value_range=self.value_range
            )
        for i, picture in enumerate(pictures):
            yield Frame(f"{self.path.stem}_{i:06d}", picture)


def open_frames(text: str, *, channels: int, value_range: images.ValueRange = ()) -> Files | Film:
    """The frames that `--input` names: an image, several separated by commas, a folder, or a video.

    Args:
        text: a path; for a folder, the images directly in it, with numbers in their names in
            numeric order.
        channels: 1 for gray, 3 for RGB; stored images are converted.
        value_range: of the run's training images, as `images.decode` takes it.

    Raises:
        UserError: there is no such file, no image in the folder, or a film that cannot be decoded.
    """
    decoding = {"channels": channels, "value_range": value_range}
    path = Path(text)
    if path.is_dir():
        return Files(_in_folder(path), **decoding)
    if not path.exists() and "," in text:
        paths = [Path(part.strip()) for part in text.split(",")]
        for part in paths:
            _check_image(part)
        return Files(paths, **decoding)
    if path.suffix.lower() in images.VIDEO_SUFFIXES and path.is_file():
        _check_decoder(path)
        return Film(path, **decoding)
    _check_image(path)
    if _is_animated(path):
        return Film(path, **decoding)
    return Files([path], **decoding)


def _differ(names: Sequence[str]) -> bool:
    """Whether no output of an image, such as NAME_color.png, replaces another one's."""
    outputs = [f"{name}{ending}".lower() for name in names for ending in _ENDINGS]
    return len({*outputs, *_COMMON}) == len(outputs) + len(_COMMON)


def _in_folder(path: Path) -> list[Path]:
    found = [Path(name) for name in listing.image_files(path)]
    listing.warn_left_out(path, listing.other_files(path))
    if found:
        return found
    inner = [entry for entry in listing.directories(path) if listing.image_files(entry)]
    remedy = f"; {inner[0].name} in it has some: give one folder" if inner else ""
    raise UserError(f"--input={path} has no images{remedy}. Images end in {listing.suffixes()}.")


def _check_image(path: Path) -> None:
    if not path.exists():
        raise UserError(f"--input={path} does not exist.")
    if path.is_dir() or path.suffix.lower() not in images.SUFFIXES:
        raise UserError(f"--input={path} is not an image; those end in {listing.suffixes()}.")


def _is_animated(path: Path) -> bool:
    try:
        return images.count_frames(path) > 1
    except ImageError:  # whoever reads it will say so
        return False


def _check_decoder(path: Path) -> None:
    if films.ffmpeg() is None:
        raise UserError(
            f"{path} is a film, which takes ffmpeg to read: pip install 'sslax[video]' "
            f"brings one; or extract its frames elsewhere, "
            f"`{films.extraction(str(path), path.stem, 'png')}`, and give --input={path.stem}."
        )


def _film(path: Path) -> Iterator[np.ndarray]:
    """Frames uint8 `[H, W, 3]`, decoded by ffmpeg, which sends them as PPM images."""
    program = films.ffmpeg()
    given = ["-nostdin", "-loglevel", "error", "-i", str(path), *films.options(program)]
    command = [program, *given, "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"]
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
