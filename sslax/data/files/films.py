"""Films: how ffmpeg is to read them, with each frame once."""

import functools
import shlex
import subprocess

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
