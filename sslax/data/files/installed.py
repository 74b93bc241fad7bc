"""Photographs in the wheels of scikit-image and scikit-learn: nothing is downloaded."""

import functools
import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sslax import errors
from sslax.data.files import images
from sslax.data.records import DataError

# Their other images are gray, drawn, or mostly black.
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
TEST_WIDTH = 0.3  # fraction of each photograph for the test: its left, which is sharper


class PhotographParts(NamedTuple):
    """The parts of the photographs that crops are taken from: uint8 `[H, W, 3]` each."""

    train: list[np.ndarray]
    test: list[np.ndarray]

    @property
    def narrowest(self) -> int:
        """The smallest height or width in pixels."""
        return min(min(photograph.shape[:2]) for photograph in self.train + self.test)


@functools.cache
def photograph_parts() -> PhotographParts:
    """All photographs, each cut in two; decoded once per process."""
    train, test = [], []
    for package, name in FILES:
        photograph = images.decode(installed_file(package, name))
        cut = round(TEST_WIDTH * photograph.shape[1])
        test.append(photograph[:, :cut])
        train.append(photograph[:, cut:])
    return PhotographParts(train, test)


def installed_file(package: str, name: str) -> Path:
    """The path of a file of an installed package, which is not imported.

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
