"""Crops of the color photographs that come with scikit-image and scikit-learn."""

import numpy as np
from ml_collections import ConfigDict

from sslax.data.files import images, installed
from sslax.data.records import DataError, Dataset, Record

TRAIN, TEST = 8000, 2000  # crops
DEFAULT_SIDE = 32
LARGEST_FACTOR = 4.0  # largest ratio of a crop's side in the photograph to its side in the record


def load(config: ConfigDict) -> Dataset:
    """8,000 training and 2,000 test crops of eight photographs, uint8 `[s, s, 3]`, no labels.

    The left 30 % of each photograph is for the test and the rest for training, so they share no
    pixel. `s` is `config.image_size`, or 32 if that is 0.

    Raises:
        DataError: a path is given, a photograph is missing, or the size exceeds the narrowest part
            of a photograph.
    """
    if config.path or config.test_path:
        raise DataError(
            "data.path is set but data.source='photographs' reads no path: set "
            "data.source='folder' for photographs of your own"
        )
    size, narrowest = config.image_size or DEFAULT_SIDE, installed.photograph_parts().narrowest
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


class PhotographSource:
    """Square crops of photographs, cut when asked for.

    Record i, a function of i alone, is a square at a random position in a random photograph. Its
    side is log-uniform between `size` pixels and four times that (at most the narrowest part of any
    photograph); it is resized to `size` by an antialiased bilinear filter.
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
        parts = installed.photograph_parts()
        photographs = parts.test if self.part == "test" else parts.train
        # Raw bits, because NumPy may change its distributions' streams but not this one.
        bits = np.random.Philox(key=[i, self.part == "test"]).random_raw(4)
        which, scale, down, right = (bits >> np.uint64(11)) / 2.0**53  # uniform in [0, 1)
        photograph = photographs[int(which * len(photographs))]
        largest = min(LARGEST_FACTOR, parts.narrowest / self.size)
        side = round(self.size * largest**scale)
        top = int(down * (photograph.shape[0] - side + 1))
        left = int(right * (photograph.shape[1] - side + 1))
        crop = photograph[top : top + side, left : left + side]
        return {"image": images.convert(crop, size=self.size, channels=self.channels)}
