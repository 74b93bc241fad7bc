"""From a config's `data` section to the records it names: `load(config.data)`."""

import logging
import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from ml_collections import ConfigDict

from sslax import paths, ranges
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
from sslax.errors import UserError, check_choice
from sslax.ranges import Condition, NonNegativeInt, PositiveInt, ProperFraction, Size, Unset

Ends = Annotated[
    tuple[float, float],
    Condition(
        lambda ends: ends[0] < ends[1],
        "two numbers, the values that become black and white, such as (0, 4095), each {},",
    ),
]
EndsOfBands = Annotated[tuple[Ends, ...], Condition(bool, "one pair for each band")]


class Section(NamedTuple):
    """The keys of the `data` section that all sources share."""

    source: str = "embedded"  # a key of SOURCES
    path: str = ""  # a directory or an archive
    test_path: str = ""  # the same for the test, where a source takes one
    test_fraction: ProperFraction = 0.0  # or hold out this fraction; of videos the end
    labels: bool = True  # False: ignore labels
    channels: NonNegativeInt = 0  # 1: gray, 3: RGB, or that many bands; 0: as stored (files: RGB)
    # Files of more than 8 bits: the values that become black and white, of bands together or each;
    # (): all of 16 bits
    value_range: Ends | EndsOfBands | Unset = ()

    # Records with one image
    image_size: NonNegativeInt = 0  # pixels: shorter side resized, center cropped; 0: as stored

    # Records with several images: video, stereo, flow
    size: Size | Unset = ()  # height and width in pixels; (): as stored
    # How images from files are brought to it: 'cover', a central crop of its aspect, resized;
    # 'stretch', both axes resized by themselves; 'window', the central pixels, not resized
    fitting: Literal["cover", "stretch", "window"] = "cover"
    frames: PositiveInt = 1  # frames in a sample
    interval: PositiveInt = 1  # frames from one frame of a sample to the next
    stereo: bool = False  # add the target's right-hand partner as the last image
    # The frame whose ground truth is wanted: for flow 'first' of two, 'second' of three
    target_frame: Literal["middle", "first", "second"] = "middle"
    distances: bool = False  # add meters from the target's camera to each frame's

    # Reading
    bad_images: Literal["raise", "skip"] = "raise"  # 'skip': leave out the unreadable ones
    device: Literal["auto", "resident", "stream"] = "auto"  # 'stream': read while training
    resident_bytes: NonNegativeInt = 2**30  # 'auto' is 'resident' up to this size
    workers: NonNegativeInt = 0  # threads that read and decode; 0: one per core, at most 32

    camera: sampling.CameraSection = sampling.CameraSection()


def defaults() -> ConfigDict:
    """The `data` section of a run's config: common keys, and a section for each source.

    Example:
        >>> load(defaults()).num_classes
        10
    """
    own = {name: ranges.defaults(section()) for name, section in _own_sections().items()}
    return ConfigDict({**ranges.defaults(Section()), **own})


def kinds() -> dict[str, ranges.Kind]:
    """Types and ranges of all keys of the `data` section, as `ranges.check_knobs` takes them."""
    return {**ranges.kinds_of(Section), **_own_sections()}


def check(config: ConfigDict) -> None:
    """Checks every key of a `data` section.

    Raises:
        DataError: a key is unknown, or its value out of its range.
    """
    try:
        ranges.check_knobs("data", config, kinds())
        check_choice("data.source", config.source, SOURCES)
    except UserError as error:
        raise DataError(str(error)) from error


def _own_sections() -> dict[str, type]:
    """The sections of the sources that have keys of their own."""
    return {name: module.Section for name, module in SOURCES.items() if hasattr(module, "Section")}


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
    check(config)
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


def name_of(section: ConfigDict) -> str:
    """A name for the set that a `data` section describes, to be part of a file's name.

    Example:
        >>> name_of(defaults())
        'embedded'
    """
    name = section.source
    if section.source == "tfds" and section.tfds.name:
        name = section.tfds.name
    elif section.source == "npz":
        name = Path(section.path).stem
    elif section.path:  # '.../flowers/train' and '.../birds/train' are two sets
        name = "-".join(Path(section.path).resolve().parts[-2:])
    return re.sub(r"[^\w.-]+", "-", name).strip("-")
