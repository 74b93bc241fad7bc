"""MPI Sintel: scenes of an animated film, with flow and occlusions.

Butler et al., "A Naturalistic Open Source Movie for Optical Flow Evaluation", 2012.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sslax.data import flow_pairs
from sslax.data.files import listing
from sslax.data.records import Dataset


class Section(NamedTuple):
    """The section `data.sintel`."""

    rendering: Literal["clean", "final"] = "clean"  # 'final': with blur and atmospheric effects


def load(config: ConfigDict) -> Dataset:
    """`training/clean/SCENE/frame_0001.png`, `training/flow`, `training/occlusions` and so on.

    It is trained on `test/`, whose flow is not published, and tested on `training/`. Where `test/`
    is missing, `config.test_fraction` holds out the last scenes.

    Raises:
        DataError: files are missing.
    """
    root = flow_pairs.open_root(config)
    rendering = config.sintel.rendering
    scenes = listing.directories(root / "training" / rendering)
    test = _pairs(scenes)
    flow_pairs.check_files(test, root, f"training/{rendering}/SCENE/frame_0001.png")
    if unlabeled := listing.directories(root / "test" / rendering):
        return flow_pairs.dataset(_pairs(unlabeled), test, config)
    count = len(scenes) - round(config.test_fraction * len(scenes))
    train, test = _pairs(scenes[:count]), _pairs(scenes[count:])
    return flow_pairs.dataset(train, test, config, held_out=True)


def _pairs(scenes: Sequence[Path]) -> list[flow_pairs.Pair]:
    """Consecutive frames of `PART/RENDERING/SCENE`, in the part 'training' with their flow."""
    pairs = []
    for scene in scenes:
        part = scene.parents[1]
        files = listing.image_files(scene)
        numbers = listing.runs([Path(file).stem for file in files])
        for i in np.flatnonzero(np.diff(numbers) == 0):  # no frame is missing between i and i + 1
            first = files[i]
            before = files[i - 1] if i and numbers[i - 1] == numbers[i] else ""
            pair = flow_pairs.Pair(first, files[i + 1], before=before)
            if part.name == "training":
                name = Path(first).stem
                occluded = part / "occlusions" / scene.name / f"{name}.png"
                pair = pair._replace(
                    flow=str(part / "flow" / scene.name / f"{name}.flo"),
                    occluded=str(occluded) if occluded.is_file() else "",
                )
            pairs.append(pair)
    return pairs
