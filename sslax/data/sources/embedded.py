"""The images that come with the package: a part of Fashion-MNIST."""

from importlib import resources

import numpy as np
from ml_collections import ConfigDict

from sslax.data.files import images
from sslax.data.records import ArraySource, DataError, Dataset

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SIDE = 28


def load(config: ConfigDict) -> Dataset:
    """8,000 training and 2,000 test images, uint8 `[28, 28, 1]`, ten classes."""
    if config.path or config.test_path:
        raise DataError(
            "data.path is set but data.source='embedded' reads no path: set data.source='folder' "
            "for a directory of images or 'npz' for an archive"
        )
    train, test = (
        images.converted(_mosaic(name), size=config.image_size, channels=config.channels)
        for name in ("train.png", "test.png")
    )
    return Dataset(train, test, CLASSES)


def _mosaic(name: str) -> ArraySource:
    """The tiles of a mosaic written by experiments/make_embedded_data.py; classes take turns."""
    encoded = resources.files("sslax.data").joinpath("embedded", name).read_bytes()
    mosaic = images.decode(encoded, channels=1)[..., 0]
    grid = mosaic.reshape(mosaic.shape[0] // SIDE, SIDE, mosaic.shape[1] // SIDE, SIDE)
    tiles = np.ascontiguousarray(grid.swapaxes(1, 2)).reshape(-1, SIDE, SIDE, 1)
    return ArraySource(tiles, np.arange(len(tiles), dtype=np.int32) % len(CLASSES))
