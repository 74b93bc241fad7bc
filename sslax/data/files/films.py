"""Films: how ffmpeg is to read them, with each frame once, and their frames as files."""

import functools
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from sslax import paths
from sslax.data.records import DataError

# Otherwise ffmpeg repeats and drops frames to make a variable frame rate constant.
_EACH_FRAME = "-fps_mode passthrough -enc_time_base demux"


def extraction(film: str, folder: str, suffix: str) -> str:
    """A shell command that writes the frames of a film as images, each frame once.

    Args:
        film: the file.
        folder: to be made, for the images.
        suffix: of the images, 'png' or 'jpg'.

    Example:
        >>> extraction("a.mp4", "a", "png")
        'mkdir a && ffmpeg -i a.mp4 -fps_mode passthrough -enc_time_base demux a/%06d.png'
    """
    quality = "-qscale:v 2 " if suffix == "jpg" else ""
    film, folder = shlex.quote(film), shlex.quote(folder)
    return f"mkdir {folder} && ffmpeg -i {film} {_EACH_FRAME} {quality}{folder}/%06d.{suffix}"


@functools.cache
def options(program: str) -> tuple[str, ...]:
    """The options with which an ffmpeg sends each frame of a film once, through a pipe."""
    command = [program, "-hide_banner", "-h", "long"]
    known = subprocess.run(command, capture_output=True, check=False).stdout
    return ("-fps_mode" if b"-fps_mode" in known else "-vsync", "passthrough")  # before 5.1


def ffmpeg() -> str | None:
    """The ffmpeg program: of the package imageio-ffmpeg, or on the PATH; None if there is none."""
    if importlib.util.find_spec("imageio_ffmpeg"):
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    return shutil.which("ffmpeg")


def extracted(film: Path) -> Path:
    """A folder of a film's frames, 000001.jpg and so on, each frame once.

    They are extracted at the first call, and kept in `sslax/films` of the user's cache folder; a
    film that has been changed since is extracted anew. JPEG files of high quality: about 0.2 MB a
    frame of 1920 x 1080 pixels, and so 18 GB for an hour of 25 frames a second.

    Raises:
        DataError: there is no ffmpeg, or it cannot read the film or write all frames.
    """
    status = film.stat()
    version = f"{film.resolve()} {status.st_size} {status.st_mtime_ns}"
    digest = hashlib.sha256(version.encode()).hexdigest()[:12]
    folder = paths.cache_folder() / "films" / f"{film.stem}-{digest}"
    if folder.is_dir():
        return folder
    program = ffmpeg()
    if program is None:
        raise DataError(
            f"{film} is a film, which takes ffmpeg to read: pip install 'sslax[video]' brings one; "
            f"or extract its frames elsewhere, `{extraction(film.name, film.stem, 'jpg')}`, and "
            "give that directory in its place"
        )
    print(f"Extracting the frames of {film} to {folder}, once.", file=sys.stderr, flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
        frames = Path(unfinished) / "frames"
        frames.mkdir()
        given = ["-nostdin", "-loglevel", "error", "-i", str(film), *options(program)]
        command = [program, *given, "-qscale:v", "2", str(frames / "%06d.jpg")]
        result = subprocess.run(command, capture_output=True, check=False)
        if result.returncode or not any(frames.iterdir()):
            reason = result.stderr.decode(errors="replace").strip().splitlines()
            raise DataError(f"{film} cannot be decoded: {reason[-1] if reason else 'ffmpeg'}")
        os.replace(frames, folder)
    return folder
