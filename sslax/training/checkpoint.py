"""Checkpoints of a run: asynchronous, atomic, verified; the latest two and the best one kept.

A checkpoint holds the training state; the state's `step` is also the position in the data (the
order of examples is a function of seed and step), and its `rng` the random key. Its manifest has
the checksums of all its files, its score, and the description of the run: its config and data.

Readers open single checkpoints and never write. The trainer of a run, `Checkpoints`, writes and
deletes, under the lock of the run's folder (`locked`).
"""

import contextlib
import fcntl
import json
import logging
import math
import os
import shutil
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
from orbax.checkpoint import v1 as ocp

from sslax.data.files.text import write_text
from sslax.errors import UserError, check_system
from sslax.types import PyTree, TrainState

FOLDER = "checkpoints"
KEPT = 2  # the latest, beside the best
SMALLEST_PART = 2**20  # bytes
_MANIFEST = "manifest.json"


def _is_told(record: logging.LogRecord) -> bool:
    """Whether a record of asyncio is not of Orbax, whose errors are raised where they are due."""
    trace = record.exc_info and record.exc_info[2]
    return not any("orbax" in frame.filename for frame in traceback.extract_tb(trace or None))


logging.getLogger("asyncio").addFilter(_is_told)


class Damaged(Exception):
    """A checkpoint is not what was saved."""


class _Manifest(NamedTuple):
    """What a checkpoint holds beside the state.

    Attributes:
        score: the higher, the better.
        checksums: CRC-32 of each file.
        description: of the run.
    """

    score: float
    checksums: dict[str, int]
    description: dict[str, Any]


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Holds the lock of a run's folder, which is created; it ends with the process.

    Raises:
        UserError: another process trains there.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"{workdir} is in use: {file.read().strip()} trains there; wait until it is done, "
                "or give another --workdir."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        file.flush()
        yield


def _small_arrays_whole() -> ocp.Context:
    """Of replicated arrays each device writes a part, but none smaller than `SMALLEST_PART`.

    To cut off a part takes a compiled program for each shape: for a small network on eight devices
    longer than the training up to its first checkpoint.
    """
    context = ocp.Context()
    context.array.saving.min_slice_bytes_for_replica_parallel = SMALLEST_PART
    return context


class Checkpoints:
    """Saves the checkpoints of the run that holds the lock; leaving the context waits for the last.

    Every process of a run has one; the first process writes manifests and deletes.
    """

    def __init__(
        self, directory: Path, description: Mapping[str, Any] | None = None, *, start: int = 0
    ) -> None:
        """Creates the directory, which has one folder per step, and deletes unfinished saves.

        Args:
            directory: of the checkpoints.
            description: of the run, to be stored with each of them.
            start: the step that the run goes on from; those after it could not be read.
        """
        self._directory = directory.absolute()
        self._description = dict(description or {})
        self._thread = ThreadPoolExecutor(1)
        self._saving: tuple[int, Future] | None = None
        self._chief = jax.process_index() == 0
        self._scores: dict[int, float] = {}
        if self._chief:
            directory.mkdir(parents=True, exist_ok=True)
            for unfinished in directory.glob("[0-9]*.*"):
                shutil.rmtree(unfinished)
            self._scores = {s: _score(directory, s) for s in steps(directory) if s <= start}

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def save(self, step: int, state: TrainState, score: float) -> None:
        """Starts saving `state`: the arrays are copied before this returns, the files follow.

        The checkpoint with the highest `score` is kept beside the latest two.

        Raises:
            UserError: the system refused to write this checkpoint, or the one before.
        """
        self.wait()
        unfinished = self._directory / f"{step}.unfinished"
        with self._refused(step), _small_arrays_whole():
            saving = ocp.save_checkpointables_async(unfinished, {"state": state}, overwrite=True)
        self._saving = step, self._thread.submit(self._finish, saving, unfinished, step, score)

    def wait(self) -> None:
        """Waits for the last save.

        Raises:
            UserError: the system refused to write it.
        """
        if self._saving:
            (step, finished), self._saving = self._saving, None
            with self._refused(step):
                finished.result()

    def _finish(self, saving: ocp.AsyncResponse, path: Path, step: int, score: float) -> None:
        saving.result()  # also ends this save's thread and event loop
        if self._chief:
            _write_manifest(path, _Manifest(score, _checksums(path), self._description))
            self._delete(step)  # a damaged one
            path.rename(self._directory / str(step))
            self._scores[step] = score
            self._delete_replaced(step)

    def _delete_replaced(self, newest: int) -> None:
        best = max(self._scores, key=lambda step: (self._scores[step], step))
        kept = {*sorted(self._scores)[-KEPT:], best}
        self._scores = {step: self._scores[step] for step in kept}
        for step in steps(self._directory):
            if step < newest and step not in kept:
                self._delete(step)

    def _delete(self, step: int) -> None:
        path = self._directory / str(step)
        if path.exists():  # first out of the way of readers, in one move
            shutil.rmtree(path.rename(path.with_suffix(".deleted")))

    @contextlib.contextmanager
    def _refused(self, step: int) -> Iterator[None]:
        """Says in a sentence what the system refused; earlier checkpoints stay."""
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many kinds
            check_system(error, f"The checkpoint of step {step} in {self._directory} is not saved")
            raise


def steps(directory: Path) -> list[int]:
    """The steps that have a checkpoint, oldest first."""
    return sorted(int(at.name) for at in directory.glob("*") if at.name.isdecimal())


def description(directory: Path) -> dict[str, Any]:
    """The description of the run that the newest readable checkpoint holds; {} if there is none."""
    for step in steps(directory)[::-1]:
        with contextlib.suppress(Damaged):
            return _read_manifest(directory / str(step)).description
    return {}


def best_step(directory: Path) -> int | None:
    """The step of the checkpoint with the highest score; None if there is no checkpoint."""
    return max(steps(directory), key=lambda step: (_score(directory, step), step), default=None)


def restore(
    directory: Path,
    abstract: TrainState,
    *,
    which: str = "latest",
    say: Callable[[str], None] = print,
) -> TrainState | None:
    """The latest or best state that is whole, laid out as `abstract` says; None if there is none.

    Args:
        directory: of the checkpoints.
        abstract: the state as `jax.ShapeDtypeStruct`s with shardings, which may differ from
            the ones it was saved with.
        which: `latest`, or `best`, the one of the highest score.
        say: is called with a message when a damaged checkpoint is skipped.

    Raises:
        UserError: there are checkpoints but none can be read, or one has other parameters.
    """
    damaged: list[int] = []
    # Listed again each time, because a trainer may replace checkpoints meanwhile.
    while left := [step for step in steps(directory) if step not in damaged]:
        scores = {step: _score(directory, step) if which == "best" else 0.0 for step in left}
        step = max(left, key=lambda step: (scores[step], step))
        path = directory.absolute() / str(step)
        try:
            _verify(path)
            _check_parameters(path, abstract.params)
            return ocp.load_checkpointables(path, {"state": abstract})["state"]
        except Damaged as error:
            if path.exists():
                damaged.append(step)
                say(f"The checkpoint of step {step} is damaged ({error}); going to another one.")
        except UserError:
            raise
        except Exception as error:  # Orbax and TensorStore raise many kinds
            if path.exists():
                check_system(error, f"The checkpoint of step {step} in {directory} is not read")
                raise
    if damaged:
        raise UserError(
            f"None of the checkpoints of steps {damaged} in {directory} is whole; start again in "
            "a new --workdir."
        )
    return None


def _checksums(path: Path) -> dict[str, int]:
    """CRC-32 of each file of a checkpoint, by its path in it."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != _MANIFEST)
    with ThreadPoolExecutor() as pool:
        return {str(f.relative_to(path)): c for f, c in zip(files, pool.map(_checksum, files))}


def _checksum(file: Path) -> int:
    checksum = 0
    with file.open("rb") as content:
        while part := content.read(2**24):
            checksum = zlib.crc32(part, checksum)
    return checksum


def _verify(path: Path) -> None:
    """Compares a checkpoint's files with their checksums.

    Raises:
        Damaged: they differ.
    """
    expected, found = _read_manifest(path).checksums, _checksums(path)
    if wrong := [name for name in expected if name not in found]:
        raise Damaged(f"{wrong[0]} is missing")
    if wrong := [name for name, checksum in expected.items() if found[name] != checksum]:
        raise Damaged(f"{wrong[0]} is not what was written")


def _write_manifest(path: Path, manifest: _Manifest) -> None:
    text = json.dumps(manifest._asdict())
    write_text(path / _MANIFEST, f"{zlib.crc32(text.encode())}\n{text}\n")


def _read_manifest(path: Path) -> _Manifest:
    """What a checkpoint holds beside the state.

    Raises:
        Damaged: it is not what was written.
    """
    try:
        checksum, text = (path / _MANIFEST).read_bytes().splitlines()
        if zlib.crc32(text) == int(checksum):
            return _Manifest(**json.loads(text))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        pass
    raise Damaged(f"{_MANIFEST} is missing, or not what was written")


def _score(directory: Path, step: int) -> float:
    """The score of a checkpoint; of a damaged one the lowest."""
    try:
        return _read_manifest(directory / str(step)).score
    except Damaged:
        return -math.inf


def _check_parameters(path: Path, params: PyTree) -> None:
    """Checks names and shapes of a checkpoint's parameters.

    Raises:
        UserError: they differ.
    """
    saved = ocp.checkpointables_metadata(path).metadata["state"]
    before, now = _shapes(saved["params"]), _shapes(params)
    if changed := sorted(now.items() ^ before.items()):
        name = changed[0][0]
        raise UserError(
            f"The checkpoint of step {path.name} in {path.parent} has other parameters than the "
            f"method of this version: {name} is {before.get(name, 'not')} in it, and "
            f"{now.get(name, 'not')} in the method. Go on with the version that made it, or start "
            "again in a new --workdir."
        )


def _shapes(params: PyTree) -> dict[str, tuple[int, ...]]:
    """Shapes of parameters, or of their descriptions, by name."""
    return {name: tuple(leaf.shape) for name, leaf in _named(params).items()}


def _named(tree: PyTree) -> dict[str, Any]:
    """Leaves by their path: 'params/conv1/kernel'."""
    named, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in named}


def abstract_like(state: Any, shardings: Any) -> Any:
    """`state` (arrays or shapes) as `jax.ShapeDtypeStruct`s with shardings, one for each leaf or a
    single one for all."""
    if isinstance(shardings, jax.sharding.Sharding):
        everywhere = shardings
        shardings = jax.tree.map(lambda _: everywhere, state)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        shardings,
    )
