"""Which files and directories a directory holds: what is data, and what is not.

Hidden files and directories are no data, nor are those that systems leave behind, nor the pictures
that this library writes.
"""

import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sslax.data.files import images
from sslax.data.records import DataError

# Thumbnails, copies and deleted files, by the names that systems give to their directories.
_LEFT_BEHIND = frozenset({"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN"})
# A run's folder has these files, and its pictures in these directories.
_RUN_FILES = frozenset({"config.json", "data.json"})
_RUN_PARTS = frozenset({"checkpoints", "figures", "tensorboard"})
_PREDICTIONS = "predictions.json"  # is in a folder of predictions
_LONGEST_STEP = 1000  # from one frame's number to the next; beyond, numbers are times
_LARGEST_GAP = 1.5  # times the usual step from one frame's number to the next


class Tree(NamedTuple):
    """What was found below a directory.

    Attributes:
        files: paths of all files, each once, in alphabetical order.
        outputs: directories that were passed over because this library wrote them.
        links: links that were passed over because they lead to what is in `files` anyway.
    """

    files: list[str]
    outputs: list[str]
    links: list[str]


def require_directory(path: str, key: str, source: str) -> Path:
    """The existing directory that a key of the config names.

    Args:
        path: the key's value.
        key: such as 'data.path', for messages.
        source: `config.data.source`, for messages.

    Raises:
        DataError: there is no such directory.
    """
    if not path:
        raise DataError(f"data.source={source!r} needs {key}, a directory")
    root = Path(path)
    if not root.is_dir():
        problem = "is a file, not a directory" if root.exists() else "does not exist"
        raise DataError(f"{key} {path} {problem}")
    return root


def directories(root: Path) -> list[Path]:
    """The directories of data inside `root`, each once; none where it does not exist."""
    if not root.is_dir():
        return []
    found = [entry for entry in _entries(root)[0] if _is_directory(entry)]
    found = sorted(_each_once(root, found), key=lambda entry: natural(entry.name))
    return [Path(entry.path) for entry in found]


def image_files(root: Path) -> list[str]:
    """The image files inside `root`, each once, in natural order; none where it does not exist."""
    if not root.is_dir():
        return []
    found = [entry for entry in _entries(root)[0] if is_image(entry.name)]
    found = [entry for entry in found if not _is_directory(entry)]
    found = sorted(_each_once(root, found), key=lambda entry: natural(entry.name))
    return [entry.path for entry in found]


def other_files(root: Path) -> list[str]:
    """The files inside `root` that are neither images by their names nor text."""
    entries = (entry for entry in _entries(root)[0] if not _is_directory(entry))
    names = (entry.name for entry in entries)
    return [name for name in names if not is_image(name) and not name.endswith(".txt")]


def tree(root: Path) -> Tree:
    """All files of data anywhere below `root`.

    Links are followed, once the directories are walked, but to nothing that was found already and
    to no directory that `root` is in. So a link to a parent adds nothing.

    Raises:
        DataError: a directory cannot be read.
    """
    top = os.path.realpath(root)
    visited = {top, *map(str, Path(top).parents)}
    files: dict[str, str] = {}  # the path of each file by where it leads
    outputs, links, linked_files = [], [], []
    folders, linked_folders = [(str(root), top)], []
    while folders or linked_folders:
        if folders:
            folder, real = folders.pop()
        else:
            folder, real = linked_folders.pop(0)
            if real in visited:
                links.append(folder)
                continue
            visited.add(real)
        entries, passed = _entries(folder)
        outputs += passed
        for entry in entries:
            at = (
                os.path.realpath(entry.path)
                if entry.is_symlink()
                else os.path.join(real, entry.name)
            )
            if not _is_directory(entry):
                if entry.is_symlink():
                    linked_files.append((entry.path, at))
                else:
                    files[at] = entry.path
            elif entry.is_symlink():
                linked_folders.append((entry.path, at))
            elif at not in visited:
                visited.add(at)
                folders.append((entry.path, at))
    for path, at in linked_files:
        if files.setdefault(at, path) != path:
            links.append(path)
    return Tree(sorted(files.values()), outputs, links)


def is_image(name: str, channels: int = 3) -> bool:
    """Whether a file's name has the suffix of an image of so many channels and is not hidden.

    Example:
        >>> is_image("a.JPG"), is_image(".a.jpg")
        (True, False)
    """
    suffix = os.path.splitext(name)[1].lower()
    return suffix in images.suffixes(channels) and not os.path.basename(name).startswith(".")


def sequences(root: Path) -> list[tuple[Path, list[str]]]:
    """The image files of a directory, or of each directory in it, as frames in time order.

    Raises:
        DataError: there are none, or there are both images and directories of them.
    """
    loose = image_files(root)
    inner = [(entry, image_files(entry)) for entry in directories(root)]
    inner = [(entry, files) for entry, files in inner if files]
    if loose and inner:
        raise DataError(
            f"{root} has images, such as {Path(loose[0]).name}, beside directories of images, such "
            f"as {inner[0][0].name}: give each sequence a directory"
        )
    if not loose and not inner:
        raise DataError(
            f"{root} has no images, nor has a directory in it: images are the files ending in "
            f"{suffixes()}"
        )
    found = [(root, loose)] if loose else inner
    warn_left_out(root, [name for folder, _ in found for name in other_files(folder)])
    _warn_of_steps(found)
    return found


def warn_left_out(root: str | Path, files: Iterable[str], channels: int = 3) -> None:
    """Logs how many of the files are no images by their names, and which suffixes they have."""
    others = [os.path.splitext(file)[1].lower() for file in files if not is_image(file, channels)]
    if others:
        counts = Counter(suffix or "without a suffix" for suffix in others).most_common()
        logging.getLogger(__name__).warning(
            "left out %d files of %s that are no images by their names: %s",
            len(others),
            root,
            ", ".join(f"{count} {suffix}" for suffix, count in counts),
        )


def _warn_of_steps(sequences: Sequence[tuple[Path, Sequence[str]]]) -> None:
    """Says so where all frames are numbered 3, 50, ...: some may be missing between them."""
    found = [
        (folder, _usual_step(*_steps([Path(file).stem for file in files])))
        for folder, files in sequences
    ]
    found = [(folder, step) for folder, step in found if step and 1 < step <= _LONGEST_STEP]
    if found:
        logging.getLogger(__name__).warning(
            "the frames of %d of %d directories are numbered in steps, in %s of %g: they are taken "
            "as consecutive",
            len(found),
            len(sequences),
            *found[0],
        )


def runs(names: Sequence[str]) -> np.ndarray:
    """Which frames follow each other without a gap, by the numbers in their names.

    The last number of a name counts the frames. Where it grows by more than 1.5 times the usual
    step, or the text before it changes, frames are missing. Names that do not count have no gaps.

    Args:
        names: of frames in time order, without suffixes.

    Returns:
        `[N]`, the number of the run that each frame belongs to, from 0.

    Example:
        >>> runs(["f1", "f2", "f3", "f50", "f51"]).tolist()
        [0, 0, 0, 1, 1]
    """
    same, steps = _steps(names)
    usual = _usual_step(same, steps)
    if usual is None:
        return np.zeros(len(names), int)
    gaps = ~same | (steps > _LARGEST_GAP * usual)
    return np.concatenate([[0], np.cumsum(gaps)])


def _steps(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """From each name to the next: whether the text before the number stays, and the step."""
    matches = [re.fullmatch(r"(.*?)(\d+(?:\.\d+)?)\D*", name) for name in names]
    pairs = list(itertools.pairwise(matches))
    same = np.array([bool(a and b) and a[1] == b[1] for a, b in pairs], bool)
    steps = np.array([float(b[2]) - float(a[2]) if a and b else np.inf for a, b in pairs])
    return same, steps


def _usual_step(same: np.ndarray, steps: np.ndarray) -> float | None:
    """The usual one of `_steps`; None where names do not count."""
    if not same.any() or (steps[same] <= 0).any():
        return None
    return float(np.percentile(steps[same], 25))


def suffixes(channels: int = 3) -> str:
    """The suffixes of files of images of so many channels, for messages."""
    return " ".join(sorted(suffix[1:] for suffix in images.suffixes(channels)))


def natural(name: str) -> list:
    """A sort key that compares the numbers in names as numbers.

    Example:
        >>> sorted(["b10", "b9", "a"], key=natural)
        ['a', 'b9', 'b10']
    """
    words = re.split(r"(\d+)", name)
    return [int(word) if i % 2 else word for i, word in enumerate(words)] + [name]


def _entries(folder: str | Path) -> tuple[list[os.DirEntry], list[str]]:
    """What is data in a directory, by name, and the directories in it that this library wrote."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from error
    is_run = {entry.name for entry in entries} >= _RUN_FILES
    outputs = [
        entry
        for entry in entries
        if ((is_run and entry.name in _RUN_PARTS) or _has_predictions(entry))
    ]
    kept = [
        entry
        for entry in entries
        if entry not in outputs
        and not entry.name.startswith(".")
        and entry.name not in _LEFT_BEHIND
    ]
    return kept, [entry.path for entry in outputs]


def _each_once(root: Path, entries: list[os.DirEntry]) -> list[os.DirEntry]:
    """The entries of `root` without links to others of them, or to a directory that it is in."""
    top = os.path.realpath(root)
    known = {top, *map(str, Path(top).parents)}
    known |= {os.path.join(top, entry.name) for entry in entries if not entry.is_symlink()}
    kept = []
    for entry in entries:
        if entry.is_symlink():
            if (at := os.path.realpath(entry.path)) in known:
                continue
            known.add(at)
        kept.append(entry)
    if repeated := len(entries) - len(kept):
        logging.getLogger(__name__).warning(
            "left out %d links in %s to what is read already", repeated, root
        )
    return kept


def _has_predictions(entry: os.DirEntry) -> bool:
    return _is_directory(entry) and os.path.exists(os.path.join(entry.path, _PREDICTIONS))


def _is_directory(entry: os.DirEntry) -> bool:
    """Whether an entry is a directory, or a link to one; False for a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False
