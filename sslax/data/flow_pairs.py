"""Image pairs with measured or rendered flow: code shared by their sources."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sslax.data import fitting, sampling
from sslax.data.files import flow_files, images, listing
from sslax.data.records import DataError, Dataset, Record


class Pair(NamedTuple):
    """Files of two images and of the flow between them; '' for what there is not.

    Attributes:
        first: image.
        second: image.
        flow: from the first to the second.
        occluded: PNG, nonzero where the second image does not show the first's pixel.
        visible_flow: flow of the visible pixels alone.
        before: image before the first.
    """

    first: str
    second: str
    flow: str = ""
    occluded: str = ""
    visible_flow: str = ""
    before: str = ""


class PairSource:
    """Image pairs, read when asked for.

    Args:
        pairs: their files.
        size: height and width, or () for those stored.
        cut_bottom: fraction of the rows to crop at the bottom.
        fitting: how images are brought to the size, as in `fitting.fit`.
        channels: 1 or 3.
        ground_truth: add 'flow' and 'known', 'visible' where it is known, and, of stretched
            images, 'pixel', the width and height of a pixel in stored ones.
        past: begin with the image before the pair, or, where there is none, with the first again.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        size: tuple[int, int] | tuple[()] = (),
        cut_bottom: float = 0.0,
        fitting: str = "cover",
        channels: int = 3,
        ground_truth: bool = False,
        past: bool = False,
    ) -> None:
        self.pairs = list(pairs)
        self.size = size
        self.cut_bottom = cut_bottom
        self.fitting = fitting
        self.channels = channels
        self.ground_truth = ground_truth
        self.past = past

    @property
    def files(self) -> list[str]:
        """The files that are read."""
        return [file for pair in self.pairs for file in pair if file]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> Record:
        pair = self.pairs[i]
        files = [pair.before or pair.first] * self.past + [pair.first, pair.second]
        views = [images.read_image(file, channels=self.channels) for file in files]
        for file, view in zip(files, views):
            if view.shape != views[-1].shape:
                raise DataError(f"{file} and {pair.second} differ in size: they are not a pair")
        stored = views[0].shape[:2]
        fit = fitting.fit(stored, self.size, cut_bottom=self.cut_bottom, fitting=self.fitting)
        record = {"image": np.stack([fitting.fit_image(view, fit) for view in views])}
        if not self.ground_truth:
            return record
        return record | _ground_truth(pair, stored, fit, stretched=self.fitting == "stretch")


def open_root(config: ConfigDict) -> Path:
    """The directory `config.path` of a source of pairs, after a check of the config.

    Raises:
        DataError: the config asks for what pairs do not have, or there is no such directory.
    """
    sampling.check(config)
    if config.target_frame == "middle" or config.interval != 1:
        raise DataError(
            f"data.source={config.source!r} has pairs with the flow of the first image: set "
            "data.target_frame='first', data.frames=2 and data.interval=1, or, with the image "
            "before them, data.target_frame='second' and data.frames=3"
        )
    if config.test_path or config.distances or config.camera.min_motion:
        raise DataError(
            f"data.source={config.source!r} has its test below data.path, and no camera poses: set "
            "data.test_path='', data.distances=False and data.camera.min_motion=0.0"
        )
    return listing.require_directory(config.path, "data.path", config.source)


def check_files(pairs: Sequence[Pair], root: Path, example: str) -> None:
    """Refuses pairs with missing files, or none at all.

    Args:
        pairs: their files.
        root: where they were looked for.
        example: a file that should be there.

    Raises:
        DataError: naming the missing file.
    """
    if not pairs:
        raise DataError(f"{root} has no {example}: set data.path to the directory above that")
    for pair in pairs:
        for file in (pair.second, pair.flow, pair.occluded):
            if file and not Path(file).is_file():
                raise DataError(f"{file} is missing: it belongs to {pair.first}")


def dataset(
    train: Sequence[Pair], test: Sequence[Pair], config: ConfigDict, *, held_out: bool = False
) -> Dataset:
    """Training pairs, and test pairs with their flow.

    Args:
        train: pairs to train on.
        test: pairs to test on, perhaps none.
        config: the `data` section.
        held_out: whether the test pairs were held out by `config.test_fraction`.

    Raises:
        DataError: a part is empty, or no training pair has an image before it and the config wants
            one.
    """
    if config.test_fraction and not held_out:
        raise DataError("data.test_fraction is set but there is a test set: set it to 0.0")
    past = config.target_frame == "second"
    if past and train:
        train = [pair for pair in train if pair.before]
        if not train:
            raise DataError(
                "no training pair has an image before it, which data.target_frame='second' needs: "
                "give longer sequences (for KITTI the multi-view extension)"
            )
    if not train or (held_out and config.test_fraction and not test):
        raise DataError(
            f"data.test_fraction={config.test_fraction} of {len(train) + len(test)} pairs leaves "
            "an empty part: change it"
        )
    shape = {
        "size": tuple(config.size),
        "cut_bottom": config.camera.cut_bottom,
        "fitting": config.fitting,
        "channels": config.channels or 3,
        "past": past,
    }
    tested = PairSource(test, ground_truth=True, **shape) if test else None
    return Dataset(PairSource(train, **shape), tested, None)


def hold_out(pairs: Sequence[Pair], config: ConfigDict) -> Dataset:
    """`dataset`, with the last `config.test_fraction` of the pairs for the test."""
    count = len(pairs) - round(config.test_fraction * len(pairs))
    return dataset(pairs[:count], pairs[count:], config, held_out=True)


def _ground_truth(
    pair: Pair, stored: tuple[int, int], fit: fitting.Fit, *, stretched: bool
) -> Record:
    flow, known = _read_flow(pair.flow, stored)
    scale = np.array(fit.scale)
    record = {
        "flow": (fitting.fit_values(flow, fit) * scale).astype(np.float32),
        "known": fitting.fit_values(known, fit),
    }
    if stretched:
        record["pixel"] = (1 / scale).astype(np.float32)
    if pair.occluded:
        record["visible"] = fitting.fit_values(_read_mask(pair.occluded, stored) == 0, fit)
    elif pair.visible_flow:
        record["visible"] = fitting.fit_values(_read_flow(pair.visible_flow, stored)[1], fit)
    return record


def _read_flow(path: str, stored: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    flow, known = flow_files.read_flow(path)
    fitting.check_size(path, known.shape, stored)
    return flow, known


def _read_mask(path: str, stored: tuple[int, int]) -> np.ndarray:
    mask = images.read_image(path, channels=1)[..., 0]
    fitting.check_size(path, mask.shape, stored)
    return mask
