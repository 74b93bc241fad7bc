"""Archives of predictions as the servers of benchmarks want them, and what is wrong with one.

| benchmark | images | archive |
|---|---|---|
| KITTI stereo and flow, 2012 | `testing/image_0` or `colored_0`, 195 | 16-bit PNGs at the top |
| KITTI stereo and flow, 2015 | `testing/image_2`, 200 | the same in `disp_0` or `flow` |
| KITTI depth prediction | `test_depth_prediction_anonymous/image`, 500 | the same at the top |
| Sintel | `test/clean` and `test/final`, 12 scenes each | a folder of .flo files for its bundler |

The formats are those of the development kits' own descriptions. Disparity and depth are stored
times 256, flow times 64 plus 2^15. Values beyond what that can hold are clipped.
"""

import itertools
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from sslax import paths
from sslax.data.files import images
from sslax.data.files.flow_files import read_flow, write_flow
from sslax.data.files.maps import read_scaled_png, write_scaled_png
from sslax.data.records import DataError
from sslax.errors import UserError, check_choice
from sslax.inference.estimator import DepthEstimator, FlowEstimator

_LARGEST = 65535 / 256  # of disparity and depth in a PNG
_FASTEST = 511.98  # of flow
_SHOWN = 3  # names in a message
_SINTEL_SCENES = 12  # of a pass


class Entry(NamedTuple):
    """One file of an archive: its name in it, and the images that it is predicted from."""

    name: str
    images: tuple[Path, ...]


class Benchmark(NamedTuple):
    """What a server expects.

    Attributes:
        kind: what is predicted.
        entries: the files of an archive, from the folder of the downloaded images.
        count: how many there have to be.
        zipped: one .zip; otherwise a folder, which another program makes an archive of.
    """

    kind: Literal["disparity", "depth", "flow"]
    entries: Callable[[Path], list[Entry]]
    count: int | None
    zipped: bool = True


def write(estimator: Any, benchmark: str, images_at: str | Path, output: str | Path) -> int:
    """Predicts a benchmark's test images and writes what its server wants.

    Args:
        estimator: of a run or of published weights, as `sslax.load` returns it.
        benchmark: a key of `BENCHMARKS`.
        images_at: the folder of the downloaded images.
        output: the .zip; for Sintel a folder.

    Returns:
        The number of maps.

    Raises:
        UserError: unknown benchmark, images that are missing, or an estimator of something else.
    """
    check_choice("--benchmark", benchmark, BENCHMARKS)
    known, output = BENCHMARKS[benchmark], paths.expand(output, "--output")
    if known.zipped and output.suffix != ".zip":
        raise UserError(f"--output={output} must end in .zip.")
    paths.check_output(output, "--output", folder=not known.zipped)
    _check_estimator(estimator, known.kind, benchmark)
    entries = _entries(known, benchmark, paths.expand(images_at, "--images"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if known.zipped else output
        for entry, values in _predicted(estimator, known.kind, entries):
            _write_map(folder / entry.name, values)
        if known.zipped:
            with zipfile.ZipFile(output, "w") as archive:  # PNGs are compressed already
                for entry in entries:
                    archive.write(folder / entry.name, entry.name)
    return len(entries)


def check(benchmark: str, images_at: str | Path, output: str | Path) -> int:
    """Checks an archive, of any program, against the images it belongs to.

    Args:
        benchmark: a key of `BENCHMARKS`.
        images_at: the folder of the downloaded images.
        output: the .zip, or the folder.

    Returns:
        The number of maps.

    Raises:
        UserError: maps are missing or too many, of another size than their image, not readable as
            what the server reads, or have unknown pixels.
    """
    check_choice("--benchmark", benchmark, BENCHMARKS)
    known, output = BENCHMARKS[benchmark], paths.expand(output, "--check")
    if not output.exists():
        raise UserError(f"--check={output} does not exist.")
    entries = _entries(known, benchmark, paths.expand(images_at, "--images"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = output
        if known.zipped:
            folder = Path(temporary)
            try:
                with zipfile.ZipFile(output) as archive:
                    archive.extractall(folder)
            except (zipfile.BadZipFile, IsADirectoryError) as error:
                raise UserError(f"--check={output} is no .zip archive.") from error
        found = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
        expected = {entry.name for entry in entries}
        _refuse(f"{output} lacks", sorted(expected - found))
        _refuse(f"{output} has what the server does not expect:", sorted(found - expected))
        for entry in entries:
            _check_map(folder / entry.name, entry, known.kind)
    return len(entries)


def _refuse(what: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise UserError(f"{what} {', '.join(names[:_SHOWN])}{more}.")


def _check_map(path: Path, entry: Entry, kind: str) -> None:
    try:
        values, known = read_flow(path) if kind == "flow" else read_scaled_png(path)
    except DataError as error:
        raise UserError(f"{entry.name}: {error}") from error
    size = images.stored_size(entry.images[0])
    if values.shape[:2] != size:
        raise UserError(
            f"{entry.name} has {values.shape[1]} x {values.shape[0]} pixels, and its image "
            f"{entry.images[0].name} has {size[1]} x {size[0]}."
        )
    if not known.all():
        share = 100 * (1 - known.mean())
        raise UserError(
            f"{entry.name} is unknown at {share:.1f} % of its pixels: servers fill these in, or "
            "count them as errors; predict them."
        )


def _check_estimator(estimator: Any, kind: str, benchmark: str) -> None:
    if kind == "flow" and not isinstance(estimator, FlowEstimator):
        raise UserError(f"{benchmark} takes flow; give a run or weights that learned it.")
    if kind == "flow":
        return
    if not isinstance(estimator, DepthEstimator):
        raise UserError(f"{benchmark} takes {kind}; give a run or weights that learned it.")
    if kind == "disparity" and "disparity" not in estimator.predicts:
        raise UserError(f"{benchmark} takes disparity; give a run of monodepth.")
    if kind == "depth" and not (estimator.metric and "depth" in estimator.predicts):
        raise UserError(
            f"{benchmark} takes depth in meters; give a run that learned them, from stereo pairs "
            "or with config.data.distances=True."
        )


def _entries(known: Benchmark, benchmark: str, root: Path) -> list[Entry]:
    entries = known.entries(root)
    if known.count is not None and len(entries) != known.count:
        raise UserError(
            f"--images={root} has {len(entries)} of the {known.count} test images of {benchmark}; "
            "give the folder of the whole download."
        )
    return entries


def _predicted(estimator: Any, kind: str, entries: list[Entry]) -> Iterator[tuple[Entry, Any]]:
    def examples() -> Iterator[dict[str, Any]]:
        for entry in entries:
            views = [images.read_image(path, channels=estimator.channels) for path in entry.images]
            yield {"entry": entry, "image": np.stack(views)}

    for example, maps in estimator.over(examples(), batch_size=1):
        values = getattr(maps, kind)
        if values is None:
            raise UserError(
                "This run predicts disparity, and depth only with a known camera: give a run that "
                "learned depth, such as monodepth2 from stereo pairs."
            )
        yield example["entry"], values


def _write_map(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if values.ndim == 3:
        bound = np.inf if path.suffix == ".flo" else _FASTEST
        write_flow(path, np.clip(values, -bound, bound))
    else:
        write_scaled_png(path, np.clip(values, 1 / 256, _LARGEST))


def _folder(root: Path, *names: str) -> Path:
    """The first of some folders that exists in `root`, or is named by it."""
    for name in names:
        for folder in (root / name, root if str(root).endswith(name) else root / name):
            if folder.is_dir():
                return folder
    raise UserError(f"--images={root} has no folder {' or '.join(names)}.")


def _kitti(*folders: str, into: str, pairs: bool) -> Callable[[Path], list[Entry]]:
    def entries(root: Path) -> list[Entry]:
        folder = _folder(root, *folders)
        firsts = sorted(folder.glob("*_10.png"))
        seconds = [f.with_name(f.name.replace("_10.", "_11.")) for f in firsts] if pairs else firsts
        _refuse(f"--images={root} lacks", [f.name for f in seconds if not f.exists()])
        views = zip(firsts, seconds) if pairs else ((first,) for first in firsts)
        return [Entry(f"{into}{of[0].name}", tuple(of)) for of in views]

    return entries


def _kitti_depth(root: Path) -> list[Entry]:
    folder = _folder(root, "test_depth_prediction_anonymous/image")
    return [Entry(file.name, (file,)) for file in sorted(folder.glob("*.png"))]


def _sintel(root: Path) -> list[Entry]:
    entries = []
    for name in ("clean", "final"):
        folder = _folder(root, f"test/{name}", name)
        scenes = sorted(scene for scene in folder.iterdir() if scene.is_dir())
        if len(scenes) != _SINTEL_SCENES:
            raise UserError(
                f"{folder} has {len(scenes)} of the {_SINTEL_SCENES} scenes of Sintel's test set; "
                "give the folder of the whole download."
            )
        for scene in scenes:
            frames = sorted(scene.glob("frame_*.png"))
            for first, second in itertools.pairwise(frames):
                target = f"{name}/{scene.name}/{first.with_suffix('.flo').name}"
                entries.append(Entry(target, (first, second)))
    return entries


_OF_2012 = ("testing/image_0", "testing/colored_0")
BENCHMARKS = {
    "kitti2012_stereo": Benchmark("disparity", _kitti(*_OF_2012, into="", pairs=False), 195),
    "kitti2012_flow": Benchmark("flow", _kitti(*_OF_2012, into="", pairs=True), 195),
    "kitti2015_stereo": Benchmark(
        "disparity", _kitti("testing/image_2", into="disp_0/", pairs=False), 200
    ),
    "kitti2015_flow": Benchmark("flow", _kitti("testing/image_2", into="flow/", pairs=True), 200),
    "kitti_depth": Benchmark("depth", _kitti_depth, 500),
    "sintel": Benchmark("flow", _sintel, None, zipped=False),
}
