"""Text files: written in one move; tables of numbers."""

import os
from pathlib import Path

import numpy as np

from sslax.data.records import DataError
from sslax.paths import replacing


def write_text(path: str | Path, text: str) -> None:
    """Writes a file atomically: a kill leaves the old file or the new one, never half of it."""
    with replacing(path) as unfinished:
        unfinished.write_text(text)


def read_text(path: str | os.PathLike) -> str:
    """The text of a file.

    Raises:
        DataError: it is not a text file.
    """
    try:
        return Path(path).read_text()
    except UnicodeDecodeError:
        raise DataError(f"{path} is not a text file") from None


def read_table(path: str | os.PathLike, columns: int, meaning: str) -> np.ndarray:
    """Numbers `[N, columns]` from a text file; `#` starts a comment.

    Args:
        path: the file to read.
        columns: numbers on each line.
        meaning: the format in a sentence, for messages.

    Raises:
        DataError: a line has something else, or there is none.
    """
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            raise DataError(f"{path}, line {number}: not all are numbers; {meaning}") from None
        if len(words) != columns:
            raise DataError(f"{path}, line {number} has {len(words)} columns; {meaning}")
    if not rows:
        raise DataError(f"{path} is empty; {meaning}")
    return np.array(rows, np.float64)


def write_table(path: str | os.PathLike, rows: np.ndarray, heading: str = "") -> None:
    """Writes numbers `[N, columns]`, one row a line, so that they are read back exactly."""
    lines = (" ".join(f"{value:.17g}" for value in row) for row in rows)
    Path(path).write_text(heading + "".join(f"{line}\n" for line in lines))
