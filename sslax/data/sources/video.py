"""Video: frames of one camera, from directories, animations and archives."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sslax.data import clips
from sslax.data.files import images
from sslax.data.records import DataError, Dataset, ImageError
from sslax.data.sources import arrays

FILMS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"})


def video(config: ConfigDict) -> Dataset:
    """Samples of frames from `config.path`: a directory, an animation, or an `.npz` archive.

    A directory holds the frames of one sequence, or a directory of frames for each. An animation is
    what Pillow reads (GIF, APNG, WebP, TIFF). An archive has 'image' uint8 `[N, H, W]` or
    `[N, H, W, C]`, 'intrinsics' `[3, 3]` or `[N, 3, 3]` and perhaps 'depth' `[N, H, W]` in meters,
    0 where unknown, and 'pose' `[N, 3, 4]` or `[N, 4, 4]` from the camera to the world: the test's
    truth, and the distances.

    Raises:
        DataError: if there is no video there, its intrinsics are missing, or it is too short.
    """
    clips.check(config)
    if config.stereo:
        raise DataError(
            "data.source='video' has one camera: set data.source='stereo' for directories left "
            "and right, or data.stereo=False"
        )
    train = _clips(config.path, "data.path", config)
    test = _clips(config.test_path, "data.test_path", config) if config.test_path else None
    return clips.dataset(config, train, test)


def _clips(path: str, what: str, config: ConfigDict) -> list[clips.Clip]:
    if not path:
        raise DataError(
            f"data.source='video' needs {what}: a directory of frames, an animation or an .npz "
            "archive"
        )
    file = Path(path).expanduser()
    suffix = file.suffix.lower()
    if suffix in FILMS:
        frames = file.with_suffix("").name
        raise DataError(
            f"{path}: films are not decoded here. Extract the frames, mkdir {frames} && ffmpeg -i "
            f"{file.name} -qscale:v 2 {frames}/%06d.jpg, and set {what} to that directory"
        )
    if suffix == ".npz":
        found = [_archive(path, config)]
    elif suffix in images.SUFFIXES and file.is_file():
        found = [_animation(file, config)]
    else:
        found = [
            clips.Clip(
                name=str(folder),
                frames=clips.FileFrames(files, channels=config.channels or 3),
                intrinsics=clips.folder_intrinsics(folder, config),
            )
            for folder, files in clips.sequences(path, what, config)
        ]
    # Flow needs none.
    if config.target == "middle" and any(clip.intrinsics is None for clip in found):
        lacking = next(clip.name for clip in found if clip.intrinsics is None)
        raise DataError(
            f"{lacking} has no intrinsics: name their file by data.intrinsics (3 x 3 numbers, or "
            "fx fy cx cy, in pixels of the stored frames), or put them there as intrinsics.txt"
        )
    return found


def _animation(file: Path, config: ConfigDict) -> clips.Clip:
    """All frames of an animation in memory, because each is stored as a change of the last."""
    from PIL import Image, ImageSequence

    mode = "L" if config.channels == 1 else "RGB"
    try:
        with Image.open(file) as image:
            frames = [np.asarray(frame.convert(mode)) for frame in ImageSequence.Iterator(image)]
    except Exception as error:  # decoders raise a dozen types for broken bytes
        raise ImageError(f"{file} cannot be read as an animation: {error}") from error
    if len(frames) == 1:
        raise DataError(
            f"{file} is one image, not a video: set the path to the directory of the frames"
        )
    if len({frame.shape for frame in frames}) > 1:
        raise DataError(f"{file} has pages of several sizes; frames of a video have one")
    pixels = np.stack(frames)
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    intrinsics = clips.folder_intrinsics(file.parent, config)
    return clips.Clip(str(file), clips.PixelFrames(pixels), intrinsics)


def _archive(path: str, config: ConfigDict) -> clips.Clip:
    found = arrays.read_archive(path)
    pixels = archive_images(found, "image", path)
    count, size = len(pixels), pixels.shape[1:3]
    poses = depth = None
    if "pose" in found:
        poses = clips.as_poses(found["pose"], f"'pose' of {path}")
        _check_count(poses, count, "pose", path)
    if "depth" in found:
        depth = clips.DenseDepth(archive_map(found, "depth", (count, *size), path))
    return clips.Clip(
        name=path,
        frames=clips.PixelFrames(pixels, channels=config.channels),
        intrinsics=archive_intrinsics(found, count, path, config),
        poses=poses,
        depth=depth,
    )


def archive_images(found: dict[str, np.ndarray], name: str, path: str) -> np.ndarray:
    """Images uint8 `[N, H, W, 1 or 3]` of an archive.

    Raises:
        DataError: if they are missing or of another type or shape.
    """
    if name not in found:
        raise DataError(f"{path} has no {name!r} but {sorted(found)}: save the images as {name!r}")
    pixels = found[name][..., None] if found[name].ndim == 3 else found[name]
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3) or pixels.dtype != np.uint8:
        raise DataError(
            f"{name!r} of {path} is {found[name].dtype} {list(found[name].shape)}; images are "
            "uint8 [N, H, W] or [N, H, W, 1 or 3]"
        )
    return pixels


def archive_map(
    found: dict[str, np.ndarray], name: str, shape: tuple[int, ...], path: str
) -> np.ndarray:
    """A map of floating-point numbers `[N, H, W]` of an archive.

    Raises:
        DataError: if it has another type or shape.
    """
    values = found[name]
    if values.shape != shape:
        raise DataError(
            f"{name!r} of {path} has the shape {list(values.shape)}; with these images it is "
            f"{list(shape)}"
        )
    if not np.issubdtype(values.dtype, np.floating):
        unit = "meters" if name == "depth" else "pixels"
        raise DataError(
            f"{name!r} of {path} is {values.dtype}; save {unit} as floating-point numbers (of "
            "millimeters: depth / 1000.0)"
        )
    return values


def archive_intrinsics(
    found: dict[str, np.ndarray], count: int, path: str, config: ConfigDict
) -> np.ndarray | None:
    """Intrinsics `[1, 3, 3]` or `[N, 3, 3]` of an archive, or of `config.intrinsics`, or None.

    Raises:
        DataError: if they have another shape.
    """
    if config.intrinsics or "intrinsics" not in found:
        return clips.folder_intrinsics(Path(path).expanduser().parent, config)
    intrinsics = np.asarray(found["intrinsics"], np.float64)
    if intrinsics.shape not in ((3, 3), (count, 3, 3)):
        raise DataError(
            f"'intrinsics' of {path} has the shape {list(intrinsics.shape)}; it is [3, 3], or "
            f"[{count}, 3, 3]"
        )
    return intrinsics.reshape(-1, 3, 3)


def _check_count(values: np.ndarray, count: int, name: str, path: str) -> None:
    if len(values) != count:
        raise DataError(
            f"{path} has {count} images but {len(values)} of {name!r}: give one for each"
        )
