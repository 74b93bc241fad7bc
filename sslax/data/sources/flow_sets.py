"""Sets of image pairs with measured or rendered flow, in their published layouts."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sslax.data import clips, fitting
from sslax.data.files import formats, images
from sslax.data.records import DataError, Dataset, ImageError, Record


class Pair(NamedTuple):
    """Files of two images and of the flow between them.

    Attributes:
        first: image.
        second: image.
        flow: of the first to the second, '' where it is not known.
        occluded: PNG, not 0 where the first's pixels are not seen in the second, or ''.
        visible_flow: flow of the pixels seen in both, or ''.
        before: image before the first, or ''.
    """

    first: str
    second: str
    flow: str = ""
    occluded: str = ""
    visible_flow: str = ""
    before: str = ""


class PairSource:
    """Image pairs, read when asked for; with `truth` 'flow', 'known' and perhaps 'visible'.

    With `past` a record has three images: the one before the pair, or, where there is none, the
    pair's first once more, and the pair.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        size: tuple[int, int] = (),
        cut_bottom: float = 0.0,
        channels: int = 3,
        truth: bool = False,
        past: bool = False,
    ) -> None:
        self.pairs = list(pairs)
        self.size = size
        self.cut_bottom = cut_bottom
        self.channels = channels
        self.truth = truth
        self.past = past

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> Record:
        pair = self.pairs[i]
        files = [pair.before or pair.first] * self.past + [pair.first, pair.second]
        frames = clips.FileFrames(files, channels=self.channels)
        views = [frames[i] for i in range(len(files))]
        for file, view in zip(files, views):
            if view.shape != views[-1].shape:
                raise DataError(f"{file} and {pair.second} differ in size: they are no pair")
        fit = fitting.fit(views[0].shape[:2], self.size, cut_bottom=self.cut_bottom)
        record = {"image": np.stack([fitting.fit_image(view, fit) for view in views])}
        return record | self._truth(pair, views[0].shape[:2], fit) if self.truth else record

    def _truth(self, pair: Pair, stored: tuple[int, int], fit: fitting.Fit) -> Record:
        flow, known = _flow(pair.flow, stored)
        record = {
            "flow": (fitting.fit_values(flow, fit) * fit.scale).astype(np.float32),
            "known": fitting.fit_values(known, fit),
        }
        if pair.occluded:
            record["visible"] = fitting.fit_values(_mask(pair.occluded, stored) == 0, fit)
        elif pair.visible_flow:
            record["visible"] = fitting.fit_values(_flow(pair.visible_flow, stored)[1], fit)
        return record


def flying_chairs(config: ConfigDict) -> Dataset:
    """FlyingChairs: `data/00001_img1.ppm`, `00001_img2.ppm`, `00001_flow.flo`.

    `FlyingChairs_train_val.txt` beside `data`, or `config.split_file`, has a line for each pair, 1
    for training and 2 for the test; without it `config.test_fraction` holds out the last.

    Raises:
        DataError: if files are missing.

    Dosovitskiy et al., "FlowNet: Learning Optical Flow with Convolutional Networks", 2015.
    """
    if config.target == "second":
        raise DataError(
            "data.source='flying_chairs' has pairs and nothing before them: set "
            "data.target='first' and data.frames=2"
        )
    root = _root(config)
    folder = root / "data" if (root / "data").is_dir() else root
    firsts = [file for file in clips.image_files(folder) if Path(file).stem.endswith("_img1")]
    pairs = [
        Pair(
            file, file.replace("_img1.", "_img2."), str(folder / f"{Path(file).stem[:-5]}_flow.flo")
        )
        for file in firsts
    ]
    _check_pairs(pairs, root, "data/00001_img1.ppm")
    split = Path(config.split_file or root / "FlyingChairs_train_val.txt").expanduser()
    if not split.is_file():
        if config.split_file:
            raise DataError(f"data.split_file {config.split_file} does not exist")
        return _held_out(pairs, config)
    marks = split.read_text().split()
    if len(marks) != len(pairs) or set(marks) - {"1", "2"}:
        raise DataError(
            f"{split} must have a line of 1 (training) or 2 (test) for each of the {len(pairs)} "
            f"pairs; it has {len(marks)}"
        )
    train, test = ([p for p, mark in zip(pairs, marks) if mark == part] for part in "12")
    return _parts(train, test, config)


def sintel(config: ConfigDict) -> Dataset:
    """MPI Sintel: `training/clean/SCENE/frame_0001.png`, `training/flow`, `training/occlusions`.

    `config.name` is the pass, 'clean' or 'final'. Trained on is `test/`, whose flow is not
    published, and tested on `training/`. Where `test/` is missing, `config.test_fraction` holds out
    the last scenes.

    Raises:
        DataError: if files are missing.

    Butler et al., "A Naturalistic Open Source Movie for Optical Flow Evaluation", 2012.
    """
    root = _root(config)
    if config.name not in ("clean", "final"):
        raise DataError(f"data.name={config.name!r} must be the pass of Sintel, 'clean' or 'final'")
    known, unknown = (root / part / config.name for part in ("training", "test"))
    scenes = _scenes(known)
    test = _sintel_pairs(scenes)
    _check_pairs(test, root, f"training/{config.name}/SCENE/frame_0001.png")
    if _scenes(unknown):
        return _parts(_sintel_pairs(_scenes(unknown)), test, config)
    count = len(scenes) - round(config.test_fraction * len(scenes))
    parts = _sintel_pairs(scenes[:count]), _sintel_pairs(scenes[count:])
    return _parts(*parts, config, held_out=True)


def kitti_flow(config: ConfigDict) -> Dataset:
    """KITTI's flow of 2015 or 2012: `training/image_2/000000_10.png`, `flow_occ`, `flow_noc`.

    Of 2012 `colored_0` stands for `image_2`. Trained on are all pairs of `testing/` that follow
    each other, with the multi-view extension 20 for each scene, and tested on is `training/`. Where
    `testing/` is missing, `config.test_fraction` holds out the last scenes.

    Raises:
        DataError: if files are missing.

    Menze and Geiger, "Object Scene Flow for Autonomous Vehicles", 2015.
    """
    root = _root(config)
    known = []
    for pair in _kitti_pairs(root / "training"):
        name = Path(pair.first).stem + ".png"
        occ, noc = (root / "training" / folder / name for folder in ("flow_occ", "flow_noc"))
        if name.endswith("_10.png"):
            visible = str(noc) if noc.is_file() else ""
            known.append(pair._replace(flow=str(occ), visible_flow=visible))
    _check_pairs(known, root, "training/image_2/000000_10.png")
    unknown = _kitti_pairs(root / "testing")
    if unknown:
        return _parts(unknown, known, config)
    return _held_out(known, config)


def _root(config: ConfigDict) -> Path:
    clips.check(config)
    if config.target == "middle" or config.interval != 1:
        raise DataError(
            f"data.source={config.source!r} has pairs with flow of the first image: set "
            "data.target='first', data.frames=2 and data.interval=1, or, with the image before "
            "them, data.target='second' and data.frames=3"
        )
    if config.test_path or config.distances or config.still:
        raise DataError(
            f"data.source={config.source!r} has its test and nothing else below data.path: set "
            "data.test_path='', data.distances=False and data.still=0.0"
        )
    return clips.directory(config.path, "data.path", config)


def _parts(
    train: Sequence[Pair], test: Sequence[Pair], config: ConfigDict, *, held_out: bool = False
) -> Dataset:
    if config.test_fraction and not held_out:
        raise DataError("data.test_fraction is set but there is a test set: set it to 0.0")
    past = config.target == "second"
    if past and train:
        train = [pair for pair in train if pair.before]
        if not train:
            raise DataError(
                "no training pair has an image before it, which data.target='second' needs: give "
                "longer sequences (of KITTI the multi-view extension)"
            )
    if not train or (held_out and config.test_fraction and not test):
        raise DataError(
            f"data.test_fraction={config.test_fraction} of {len(train) + len(test)} pairs leaves "
            "an empty part: change it"
        )
    shape = {
        "size": tuple(config.size),
        "cut_bottom": config.cut_bottom,
        "channels": config.channels or 3,
        "past": past,
    }
    held = PairSource(test, truth=True, **shape) if test else None
    return Dataset(PairSource(train, **shape), held, None)


def _held_out(pairs: Sequence[Pair], config: ConfigDict) -> Dataset:
    count = len(pairs) - round(config.test_fraction * len(pairs))
    return _parts(pairs[:count], pairs[count:], config, held_out=True)


def _check_pairs(pairs: Sequence[Pair], root: Path, example: str) -> None:
    if not pairs:
        raise DataError(f"{root} has no {example}: set data.path to the directory above that")
    for pair in pairs:
        for file in (pair.second, pair.flow, pair.occluded):
            if file and not Path(file).is_file():
                raise DataError(f"{file} is missing: it belongs to {pair.first}")


def _scenes(root: Path) -> list[Path]:
    return clips.directories(root) if root.is_dir() else []


def _sintel_pairs(scenes: Sequence[Path]) -> list[Pair]:
    """Frames that follow each other in `part/pass/scene`, with flow if there is `part/flow`."""
    pairs = []
    for scene in scenes:
        part = scene.parents[1]
        files = clips.image_files(scene)
        for before, first, second in zip(["", *files], files, files[1:]):
            name = Path(first).stem
            flow = part / "flow" / scene.name / f"{name}.flo"
            occluded = part / "occlusions" / scene.name / f"{name}.png"
            pair = Pair(first, second, before=before)
            if part.name == "training":
                mask = str(occluded) if occluded.is_file() else ""
                pair = pair._replace(flow=str(flow), occluded=mask)
            pairs.append(pair)
    return pairs


def _kitti_pairs(part: Path) -> list[Pair]:
    """Files of one scene whose numbers follow each other: `000000_10.png`, `000000_11.png`."""
    folder = next((part / at for at in ("image_2", "colored_0") if (part / at).is_dir()), part)
    files = [
        (re.fullmatch(r"(\d+)_(\d+)", Path(file).stem), file) for file in clips.image_files(folder)
    ]
    found = {(match[1], int(match[2])): file for match, file in files if match}
    return [
        Pair(file, found[scene, number + 1], before=found.get((scene, number - 1), ""))
        for (scene, number), file in found.items()
        if (scene, number + 1) in found
    ]


def _flow(path: str, stored: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    flow, known = formats.read_flow(path)
    if known.shape != stored:
        raise DataError(f"{path} is of {known.shape}, its image of {stored} pixels")
    return flow, known


def _mask(path: str, stored: tuple[int, int]) -> np.ndarray:
    try:
        mask = images.decode(Path(path), channels=1)[..., 0]
    except ImageError as error:
        raise ImageError(f"{path} cannot be read as an image: {error}") from error
    if mask.shape != stored:
        raise DataError(f"{path} is of {mask.shape}, its image of {stored} pixels")
    return mask
