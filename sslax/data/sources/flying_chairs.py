"""FlyingChairs: rendered pairs with flow.

Dosovitskiy et al., "FlowNet: Learning Optical Flow with Convolutional Networks", 2015.
"""

from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from sslax.data import flow_pairs
from sslax.data.files import listing
from sslax.data.records import DataError, Dataset


class Section(NamedTuple):
    """The section `data.flying_chairs`."""

    split_file: str = ""  # 1 (training) or 2 (test) for each pair


def load(config: ConfigDict) -> Dataset:
    """`data/00001_img1.ppm`, `00001_img2.ppm`, `00001_flow.flo` and so on.

    `FlyingChairs_train_val.txt` beside `data`, or `config.flying_chairs.split_file`, has a line for
    each pair, 1 for training and 2 for the test; without it `config.test_fraction` holds out the
    last pairs.

    Raises:
        DataError: files are missing.
    """
    if config.target_frame == "second":
        raise DataError(
            "data.source='flying_chairs' has pairs and nothing before them: set "
            "data.target_frame='first' and data.frames=2"
        )
    root = flow_pairs.open_root(config)
    folder = root / "data" if (root / "data").is_dir() else root
    pairs = _pairs(folder)
    flow_pairs.check_files(pairs, root, "data/00001_img1.ppm")
    named = config.flying_chairs.split_file
    split = Path(named or root / "FlyingChairs_train_val.txt")
    if named and not split.is_file():
        raise DataError(f"data.flying_chairs.split_file {named} does not exist")
    if not split.is_file():
        return flow_pairs.hold_out(pairs, config)
    marks = split.read_text().split()
    if len(marks) != len(pairs) or set(marks) - {"1", "2"}:
        raise DataError(
            f"{split} must have a line of 1 (training) or 2 (test) for each of the {len(pairs)} "
            f"pairs; it has {len(marks)}"
        )
    train, test = ([p for p, mark in zip(pairs, marks) if mark == part] for part in "12")
    return flow_pairs.dataset(train, test, config)


def _pairs(folder: Path) -> list[flow_pairs.Pair]:
    firsts = [file for file in listing.image_files(folder) if Path(file).stem.endswith("_img1")]
    return [
        flow_pairs.Pair(
            first=first,
            second=first.replace("_img1.", "_img2."),
            flow=str(folder / f"{Path(first).stem.removesuffix('_img1')}_flow.flo"),
        )
        for first in firsts
    ]
