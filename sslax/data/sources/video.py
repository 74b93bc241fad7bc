"""Video: frames of one camera, from directories, animations and archives."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sslax.data import clips, sampling
from sslax.data.files import archives, films, images, listing
from sslax.data.records import DataError, Dataset

_LARGEST_ANIMATION = 1 << 32  # bytes of all its frames


def load(config: ConfigDict) -> Dataset:
    """Samples of frames from `config.path`: a directory, a film, an animation, or an archive.

    A directory holds the frames of one sequence, a directory of frames for each sequence, or films.
    The frames of a film are extracted once (`films.extracted`). An animation is anything Pillow
    reads (GIF, APNG, WebP, TIFF). An archive has 'image' uint8 `[N, H, W]` or `[N, H, W, C]`,
    'intrinsics' `[3, 3]` or `[N, 3, 3]` and, for the test's ground truth and for distances, 'depth'
    `[N, H, W]` in meters, 0 where unknown, and 'pose' `[N, 3, 4]` or `[N, 4, 4]`, camera-to-world.
    Flow, and methods that learn the camera, need no intrinsics.

    Raises:
        DataError: there is no video, only some have intrinsics, or it is too short.
    """
    sampling.check(config)
    if config.stereo:
        raise DataError(
            "data.source='video' has one camera: set data.source='stereo' for directories left "
            "and right, or data.stereo=False"
        )
    train = _clips(config.path, "data.path", config)
    test = _clips(config.test_path, "data.test_path", config) if config.test_path else None
    return sampling.dataset(config, train, test)


def _clips(path: str, key: str, config: ConfigDict) -> list[clips.Clip]:
    if not path:
        raise DataError(
            f"data.source='video' needs {key}: a directory of frames or films, a film, an "
            "animation or an .npz archive"
        )
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix in images.VIDEO_SUFFIXES and file.is_file():
        found = [_film(file, config)]
    elif suffix == ".npz":
        found = [_archive(path, config)]
    elif suffix in images.SUFFIXES and file.is_file():
        found = [_animation(file, config)]
    else:
        root = listing.require_directory(path, key, config.source)
        if recorded := _films(root):
            found = [_film(film, config) for film in recorded]
        else:
            found = [_sequence(folder, files, config) for folder, files in listing.sequences(root)]
    return found


def _films(root: Path) -> list[Path]:
    """The films of a directory.

    Raises:
        DataError: it has images as well.
    """
    names = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    recorded = [file for file in names if file.suffix.lower() in images.VIDEO_SUFFIXES]
    if recorded and (loose := listing.image_files(root)):
        raise DataError(
            f"{root} has films, such as {recorded[0].name}, beside images, such as "
            f"{Path(loose[0]).name}: give one of both"
        )
    return recorded


def _film(film: Path, config: ConfigDict) -> clips.Clip:
    """A film's frames, with the intrinsics that stand beside it."""
    files = listing.image_files(films.extracted(film))
    clip = _sequence(film.parent, files, config)
    return clip._replace(name=str(film))


def _sequence(folder: Path, files: list[str], config: ConfigDict) -> clips.Clip:
    return clips.Clip(
        name=str(folder),
        frames=clips.FileFrames(
            files, channels=config.channels or 3, value_range=images.value_range(config)
        ),
        intrinsics=sampling.folder_intrinsics(folder, config),
    )


def _animation(file: Path, config: ConfigDict) -> clips.Clip:
    """All frames of an animation in memory, because each is stored as a change to the previous."""
    height, width = images.stored_size(file)
    count, channels = images.count_frames(file), config.channels or 3
    if count == 1:
        raise DataError(
            f"{file} is one image, not a video: set the path to the directory of the frames"
        )
    if count * height * width * channels > _LARGEST_ANIMATION:
        raise DataError(
            f"{file} has {count} frames of {width} x {height} pixels, too many for memory: extract "
            "them into a directory, from which they are read one at a time"
        )
    frames = [*images.read_frames(file, channels=channels, value_range=images.value_range(config))]
    if len({frame.shape for frame in frames}) > 1:
        raise DataError(f"{file} has pages of several sizes; frames of a video have one")
    intrinsics = sampling.folder_intrinsics(file.parent, config)
    return clips.Clip(str(file), clips.PixelFrames(np.stack(frames)), intrinsics)


def _archive(path: str, config: ConfigDict) -> clips.Clip:
    arrays = archives.read_archive(path)
    pixels = archives.images(arrays, "image", path)
    count, poses, depth = len(pixels), None, None
    if "pose" in arrays:
        poses = archives.poses(arrays, count, path)
    if "depth" in arrays:
        depth = clips.DenseDepth(archives.dense_map(arrays, "depth", pixels.shape[:3], path))
    return clips.Clip(
        name=path,
        frames=clips.PixelFrames(pixels, channels=config.channels),
        intrinsics=sampling.archive_intrinsics(arrays, count, path, config),
        poses=poses,
        depth=depth,
    )
