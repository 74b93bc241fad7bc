"""Crops of the color photographs that scikit-image and scikit-learn bring with them."""

import functools
import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sslax import errors
from sslax.data.files import images
from sslax.data.records import DataError, Dataset, Record

# Files of the packages' wheels, so nothing is downloaded. Their other pictures are gray, drawn, or
# mostly black.
FILES = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/ihc.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
)
TRAIN, TEST = 8000, 2000  # crops
TEST_WIDTH = 0.3  # of a photograph: its left, which is less blurred than its right
DEFAULT_SIDE = 32
LARGEST_FACTOR = 4.0  # of a crop's side in the photograph to its side as a record


class PhotographSource:
    """Square crops of photographs, cut out when asked for.

    Record i shows a square of a random photograph, at a random place, whose side is log-uniform
    between `size` pixels and four times as many (at most the narrowest part of any photograph),
    shrunk to `size` by an antialiased bilinear filter: a function of i alone.
    """

    def __init__(self, part: str, length: int, *, size: int, channels: int) -> None:
        self.part = part  # 'train' or 'test'
        self.length = length
        self.size = size
        self.channels = channels

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Record:
        if not 0 <= i < self.length:
            raise IndexError(f"there are {self.length} crops, counted from 0; got {i}")
        parts = photograph_parts()
        pictures = parts.test if self.part == "test" else parts.train
        # Raw bits, because NumPy may change its distributions' streams but not this one.
        bits = np.random.Philox(key=[i, self.part == "test"]).random_raw(4)
        which, scale, down, right = (bits >> np.uint64(11)) / 2.0**53  # uniform in [0, 1)
        picture = pictures[int(which * len(pictures))]
        largest = min(LARGEST_FACTOR, parts.narrowest / self.size)
        side = round(self.size * largest**scale)
        top = int(down * (picture.shape[0] - side + 1))
        left = int(right * (picture.shape[1] - side + 1))
        square = picture[top : top + side, left : left + side]
        return {"image": images.convert(square, size=self.size, channels=self.channels)}


def photographs(config: ConfigDict) -> Dataset:
    """8,000 training and 2,000 test crops of eight photographs, uint8 `[s, s, 3]`, no labels.

    The left 30 % of each photograph is for the test and the rest for training, so that no pixel is
    in both. `s` is `config.image_size`, 32 if that is 0.

    Raises:
        DataError: if a path is given, a photograph is missing, or the size is more than the
            narrowest part of a photograph has.
    """
    if config.path or config.test_path:
        raise DataError(
            "data.path is set but data.source='photographs' reads no path: set "
            "data.source='folder' for photographs of your own"
        )
    size, narrowest = config.image_size or DEFAULT_SIDE, photograph_parts().narrowest
    if size > narrowest:
        raise DataError(
            f"data.image_size={size} is more than the photographs have: set it to at most "
            f"{narrowest}, the width of the narrowest test part"
        )
    train, test = (
        PhotographSource(part, length, size=size, channels=config.channels or 3)
        for part, length in (("train", TRAIN), ("test", TEST))
    )
    return Dataset(train, test, None)


class PhotographParts(NamedTuple):
    """What is cut from the photographs: uint8 `[H, W, 3]` each."""

    train: list[np.ndarray]
    test: list[np.ndarray]

    @property
    def narrowest(self) -> int:
        """The least height or width, in pixels."""
        return min(min(picture.shape[:2]) for picture in self.train + self.test)


@functools.cache
def photograph_parts() -> PhotographParts:
    """All photographs, decoded once in a process, each cut in two."""
    train, test = [], []
    for package, name in FILES:
        picture = images.decode(installed_file(package, name))
        cut = round(TEST_WIDTH * picture.shape[1])
        test.append(picture[:, :cut])
        train.append(picture[:, cut:])
    return PhotographParts(train, test)


def installed_file(package: str, name: str) -> Path:
    """Where a file of an installed package is; the package is not imported.

    Raises:
        MissingExtra: the package is not installed.
        DataError: it lacks the file.
    """
    if package == "skimage":
        errors.require("geometry")
    spec = importlib.util.find_spec(package)
    for root in (spec and spec.submodule_search_locations) or ():
        if (file := Path(root) / name).exists():
            return file
    project = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
    raise DataError(
        f"The file {package}/{name} is missing: install {project} again "
        f"(python -m pip install --force-reinstall {project})"
    )
