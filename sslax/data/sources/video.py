"""Video: frames of one camera, from directories, animations and archives."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sslax.data import clips, sampling
from sslax.data.files import archives, films, images, listing
from sslax.data.records import DataError, Dataset

_LARGEST_ANIMATION = 1 << 32  # bytes of all its frames


def load(config: ConfigDict) -> Dataset:
    """Samples of frames from `config.path`: a directory, an animation, or an `.npz` archive.

    A directory holds the frames of one sequence, or a directory of frames for each sequence. An
    animation is anything Pillow reads (GIF, APNG, WebP, TIFF). An archive has 'image' uint8
    `[N, H, W]` or `[N, H, W, C]`, 'intrinsics' `[3, 3]` or `[N, 3, 3]` and, for the test's ground
    truth and for distances, 'depth' `[N, H, W]` in meters, 0 where unknown, and 'pose' `[N, 3, 4]`
    or `[N, 4, 4]`, camera-to-world. Flow, and methods that learn the camera, need no intrinsics.

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
            f"data.source='video' needs {key}: a directory of frames, an animation or an .npz "
            "archive"
        )
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix in images.VIDEO_SUFFIXES:
        frames = file.with_suffix("").name
        raise DataError(
            f"{path}: video files are not decoded here. Extract the frames, "
            f"{films.extraction(file.name, frames, 'jpg')}, and set {key} to that directory"
        )
    if suffix == ".npz":
        found = [_archive(path, config)]
    elif suffix in images.SUFFIXES and file.is_file():
        found = [_animation(file, config)]
    else:
        root = listing.require_directory(path, key, config.source)
        found = [_sequence(folder, files, config) for folder, files in listing.sequences(root)]
    return found


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
