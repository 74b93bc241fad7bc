"""KITTI's optical flow of 2015 and 2012.

Menze and Geiger, "Object Scene Flow for Autonomous Vehicles", 2015.
"""

import re
from pathlib import Path

from ml_collections import ConfigDict

from sslax.data import flow_pairs
from sslax.data.files import listing
from sslax.data.records import Dataset


def load(config: ConfigDict) -> Dataset:
    """`training/image_2/000000_10.png` (2012: `colored_0`), `flow_occ`, `flow_noc` and so on.

    It is trained on all consecutive pairs of `testing/`, with the multi-view extension 20 for each
    scene, and tested on `training/`. Where `testing/` is missing, `config.test_fraction` holds out
    the last scenes.

    Raises:
        DataError: files are missing.
    """
    root = flow_pairs.open_root(config)
    test = _pairs_with_flow(root / "training")
    flow_pairs.check_files(test, root, "training/image_2/000000_10.png")
    if train := _pairs(root / "testing"):
        return flow_pairs.dataset(train, test, config)
    return flow_pairs.hold_out(test, config)


def _pairs_with_flow(part: Path) -> list[flow_pairs.Pair]:
    """The pair of each scene whose flow was measured: frames 10 and 11."""
    pairs = []
    for pair in _pairs(part):
        name = Path(pair.first).stem + ".png"
        if name.endswith("_10.png"):
            visible = part / "flow_noc" / name
            pair = pair._replace(
                flow=str(part / "flow_occ" / name),
                visible_flow=str(visible) if visible.is_file() else "",
            )
            pairs.append(pair)
    return pairs


def _pairs(part: Path) -> list[flow_pairs.Pair]:
    """Consecutive frames of each scene: `000000_10.png`, `000000_11.png`."""
    folder = next(
        (part / name for name in ("image_2", "colored_0") if (part / name).is_dir()), part
    )
    files = {}
    for file in listing.image_files(folder):
        if match := re.fullmatch(r"(\d+)_(\d+)", Path(file).stem):
            files[match[1], int(match[2])] = file
    return [
        flow_pairs.Pair(file, files[scene, number + 1], before=files.get((scene, number - 1), ""))
        for (scene, number), file in files.items()
        if (scene, number + 1) in files
    ]
