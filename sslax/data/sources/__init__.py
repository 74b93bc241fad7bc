"""Where images come from: `load(config.data)`."""

import logging
from collections.abc import Callable

from ml_collections import ConfigDict

from sslax.data.records import (
    DataError,
    Dataset,
    Source,
    hold_out,
    in_memory,
    is_made,
    shapes,
    size_in_memory,
    skip_unreadable,
    without_labels,
)
from sslax.data.sources import cityscapes, flow_sets, geometric, kitti, stereo, video
from sslax.data.sources.arrays import embedded, npz
from sslax.data.sources.folder import folder
from sslax.data.sources.photographs import photographs
from sslax.data.sources.tfds import tfds
from sslax.errors import nearest

SOURCES: dict[str, Callable[[ConfigDict], Dataset]] = {
    "embedded": embedded,
    "folder": folder,
    "npz": npz,
    "photographs": photographs,
    "tfds": tfds,
    # Frames and pairs of cameras
    "motorcycle": geometric.motorcycle,
    "scenes": geometric.rendered,
    "video": video.video,
    "stereo": stereo.stereo,
    "kitti": kitti.kitti,
    "cityscapes": cityscapes.cityscapes,
    # Flow
    "flying_chairs": flow_sets.flying_chairs,
    "sintel": flow_sets.sintel,
    "kitti_flow": flow_sets.kitti_flow,
}


def defaults() -> ConfigDict:
    """The `data` section of a run's config.

    Example:
        >>> load(defaults()).num_classes
        10
    """
    config = ConfigDict()
    config.source = "embedded"  # a key of SOURCES
    config.path = ""  # folder: the training images; npz: the archive; tfds: where sets are prepared
    config.test_path = ""  # folder: the test images
    config.test_fraction = 0.0  # hold out this part where there is no test set; of videos the end
    config.name = ""  # tfds: the set; sintel: 'clean' or 'final'
    config.train_split = "train"  # tfds
    config.test_split = "test"  # tfds; '' for none
    config.image_size = 0  # pixels: shorter side resized, center cut out; 0: as stored
    config.channels = 0  # 1: gray, 3: RGB; 0: as stored (folder: RGB)
    config.labels = True  # False: ignore labels
    config.size = ()  # video, stereo, flow: height and width, in pixels; (): as stored
    config.frames = 1  # video: frames of a sample, whose middle one is the target; flow: 2
    config.stereo = False  # with the target's right-hand partner as the last image
    config.interval = 1  # video: frames from one frame of a sample to the next
    config.target = "middle"  # whose truth is wanted; for flow 'first' of two, 'second' of three
    config.distances = False  # with meters from the target's camera to each frame's, where known
    config.still = 0.0  # video: leave out frames that differ less, in gray levels of 255
    config.intrinsics = ""  # video, stereo: a file; '': intrinsics.txt beside the frames
    config.baseline = 0.0  # stereo: meters, where no file has it
    config.check_pairs = True  # stereo: refuse pairs that look swapped or not rectified
    config.cut_bottom = 0.0  # video, stereo: part of the height that is left out (the car's bonnet)
    config.split_file = ""  # kitti: the training frames; flying_chairs: 1 or 2 for each pair
    config.test_split_file = ""  # kitti: the test frames
    config.depth = ""  # kitti: a folder of depth images, or 'velodyne'
    config.scenes = ConfigDict(
        {
            "kind": "rooms",  # or 'layered'
            "seed": 0,
            "length": 2**16,  # of an epoch; there is no end of them
            "test": 64,  # scenes to test on
            "textures": 48,
            "boxes": 6,
            "layers": 4,
            "baseline": 0.2,  # meters
            "drive": False,  # as a car sees it: ahead, all boxes on the floor, light from above
            "speed": 1.0,
            "moving": 0.0,  # probability that a box moves on its own
            "following": 0.0,  # probability that this box keeps its place before the camera
            "still": 0.0,  # probability that the camera stands still
            "brightness": 0.0,  # each image by up to exp(±brightness)
        }
    )
    config.bad_images = "raise"  # 'skip': try all images first and leave out those that fail
    config.device = "auto"  # 'resident': the set lives on the device; 'stream': read while training
    config.resident_bytes = 2**30  # 'auto' is 'resident' up to here
    config.workers = 0  # threads that read and decode; 0: one a core, at most 32
    return config


def load(config: ConfigDict) -> Dataset:
    """Opens the images that a run's `data` section names.

    Sets that will be resident on the device are read into memory here, so that what is wrong with
    them shows before anything compiles.

    Args:
        config: as `defaults` makes it.

    Returns:
        The training and test records and the class names.

    Raises:
        DataError: with one sentence that names the mistake and its remedy.
    """
    _check(config)
    train, test, names = SOURCES[config.source](config)
    train = _checked(train, "training", config)
    if test is not None:
        test = _checked(test, "test", config)
    # Videos are held out in time, by their sources.
    if config.test_fraction and len(shapes(train)["image"].shape) == 3:
        if test is not None:
            raise DataError("data.test_fraction is set but there is a test set: set it to 0.0")
        train, test = hold_out(train, config.test_fraction)
    names = names if config.labels else None
    return Dataset(_kept(train, config), None if test is None else _kept(test, config), names)


def _check(config: ConfigDict) -> None:
    if config.source not in SOURCES:
        raise DataError(
            f"unknown data.source {config.source!r}: {nearest(config.source, [*SOURCES])}"
        )
    options = {
        "channels": (0, 1, 3),
        "bad_images": ("raise", "skip"),
        "device": ("auto", "resident", "stream"),
    }
    for field, allowed in options.items():
        if config[field] not in allowed:
            choices = ", ".join(repr(option) for option in allowed)
            raise DataError(f"data.{field}={config[field]!r} is not one of {choices}")
    if not 0 <= config.test_fraction < 1:
        raise DataError(f"data.test_fraction={config.test_fraction} must be in [0, 1)")
    if config.image_size < 0:
        raise DataError(f"data.image_size={config.image_size} must be 0 (as stored) or positive")
    if config.workers < 0:
        raise DataError(
            f"data.workers={config.workers} must be 0 (one a core) or a positive number"
        )


def _checked(source: Source, part: str, config: ConfigDict) -> Source:
    """The source without unreadable images, if so asked, and with labels or without, as asked."""
    total = len(source)
    if not total:
        raise DataError(f"the {part} set is empty: give it images")
    if config.bad_images == "skip" and not is_made(source):
        source, failures = skip_unreadable(source, workers=config.workers)
        if failures:
            logging.getLogger(__name__).warning(
                "skipped %d of %d %s images; the first: %s",
                len(failures),
                total,
                part,
                failures[0],
            )
    found = shapes(source)
    if not config.labels:
        return without_labels(source) if "label" in found else source
    # Frames of a video and pairs of cameras are of no class.
    if "label" not in found and len(found["image"].shape) == 3:
        raise DataError(
            f"data.labels=True but the {part} images have no labels: give them labels (a folder: "
            "one sub-directory a class), or set data.labels=False to do without"
        )
    return source


def _kept(source: Source, config: ConfigDict) -> Source:
    """The source in memory where its images will live on the device."""
    if is_made(source):
        return source
    fits = config.device == "auto" and size_in_memory(source) <= config.resident_bytes
    if config.device == "resident" or fits:
        return in_memory(source, workers=config.workers)
    return source
