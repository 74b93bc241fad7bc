"""From a config's `data` section to the records it names: `load(config.data)`."""

import logging

from ml_collections import ConfigDict

from sslax import paths
from sslax.data import sampling
from sslax.data.fingerprint import fingerprint
from sslax.data.records import (
    DataError,
    Dataset,
    Source,
    hold_out,
    in_memory,
    is_generated,
    shapes,
    size_in_memory,
    skip_unreadable,
    without_labels,
)
from sslax.data.sources import SOURCES
from sslax.errors import nearest


def defaults() -> ConfigDict:
    """The `data` section of a run's config: common keys, and a section for each source.

    Example:
        >>> load(defaults()).num_classes
        10
    """
    config = ConfigDict()
    config.source = "embedded"  # a key of SOURCES
    config.path = ""  # a directory or an archive
    config.test_path = ""  # the same for the test, where a source takes one
    config.test_fraction = 0.0  # or hold out this fraction; of videos the end
    config.labels = True  # False: ignore labels
    config.channels = 0  # 1: gray, 3: RGB; 0: as stored (files: RGB)

    # Records with one image
    config.image_size = 0  # pixels: shorter side resized, center cropped; 0: as stored

    # Records with several images: video, stereo, flow
    config.size = ()  # height and width in pixels; (): as stored
    config.frames = 1  # frames in a sample
    config.interval = 1  # frames from one frame of a sample to the next
    config.stereo = False  # add the target's right-hand partner as the last image
    # The frame whose ground truth is wanted: 'middle'; for flow 'first' of two, 'second' of three
    config.target_frame = "middle"
    config.distances = False  # add meters from the target's camera to each frame's

    # Reading
    config.bad_images = "raise"  # 'skip': try all images first and leave out unreadable ones
    config.device = "auto"  # 'resident': the set lives on the device; 'stream': read while training
    config.resident_bytes = 2**30  # 'auto' is 'resident' up to this size
    config.workers = 0  # threads that read and decode; 0: one per core, at most 32

    config.camera = sampling.camera_defaults()
    for name, module in SOURCES.items():
        if section := module.defaults():
            config[name] = section
    return config


def load(config: ConfigDict) -> Dataset:
    """Opens the data set that a run's `data` section names.

    Sets that will be resident on the device are read into memory here, so that errors in them show
    before anything compiles.

    Args:
        config: as `defaults` returns it.

    Returns:
        The training and test records and the class names.

    Raises:
        DataError: with one sentence that names the mistake and its remedy.
    """
    config = paths.expand_config(config)
    _check(config)
    train, test, names = SOURCES[config.source].load(config)
    train = _checked(train, "training", config)
    if test is not None:
        test = _checked(test, "test", config)
    # Sources of videos hold out the end of each themselves.
    if config.test_fraction and not _has_views(train):
        if test is not None:
            raise DataError("data.test_fraction is set but there is a test set: set it to 0.0")
        train, test = hold_out(train, config.test_fraction)
    names = names if config.labels else None
    test = None if test is None else _placed(test, config)
    return Dataset(_placed(train, config), test, names)


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
        raise DataError(f"data.workers={config.workers} must be 0 (one per core) or positive")


def _checked(source: Source, part: str, config: ConfigDict) -> Source:
    """The source without unreadable images and without labels, if the config says so."""
    total = len(source)
    if not total:
        raise DataError(f"the {part} set is empty: give it images")
    if config.bad_images == "skip" and not is_generated(source):
        source, failures = skip_unreadable(source, workers=config.workers)
        if failures:
            logging.getLogger(__name__).warning(
                "skipped %d of %d %s images; the first: %s",
                len(failures),
                total,
                part,
                failures[0],
            )
    has_label = "label" in shapes(source)
    if not config.labels:
        return without_labels(source) if has_label else source
    if not has_label and not _has_views(source):
        raise DataError(
            f"data.labels=True but the {part} images have no labels: give them labels (a folder: "
            "one sub-directory per class), or set data.labels=False to do without"
        )
    return source


def _has_views(source: Source) -> bool:
    """Whether a record holds several images, as of video, stereo and flow, and so has no class."""
    return len(shapes(source)["image"].shape) == 4


def _placed(source: Source, config: ConfigDict) -> Source:
    """The source in memory, if its images will live on the device."""
    if is_generated(source):
        return source
    fits = config.device == "auto" and size_in_memory(source) <= config.resident_bytes
    if config.device == "resident" or fits:
        memory = in_memory(source, workers=config.workers)
        memory.origin = fingerprint(source)
        return memory
    return source
