"""Batches and images of the parts of a data set, for evaluation."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from sslax import data
from sslax.data import records
from sslax.tasks.base import Subject
from sslax.types import Batch

_FILM = 48  # frames of a film
_INTERVALS = 4  # frames from one to the next of a record, at most


def parts_of(dataset: data.Dataset) -> dict[str, data.Source]:
    """The training part of a data set, and the test part where there is one."""
    return {"train": dataset.train} | ({"test": dataset.test} if dataset.test is not None else {})


def batches_of(
    subject: Subject, source: data.Source, *, by_process: bool = False
) -> Iterator[Batch]:
    """Batches of `config.evaluate.batch_size`, as `data.evaluation_batches` makes them."""
    config = subject.run.config
    return data.evaluation_batches(
        source,
        batch_size=config.evaluate.batch_size,
        mesh=subject.mesh,
        workers=config.data.workers,
        by_process=by_process,
    )


def names_of(source: data.Source, rows: np.ndarray, part: str) -> list[str]:
    """What people call some records: file and folder, or the part of the set and the position."""
    if isinstance(source, records.Subset):
        return names_of(source.source, source.indices[rows], part)
    if isinstance(source, records.Unlabeled):
        return names_of(source.source, rows, part)
    files = getattr(source, "paths", None)
    if files is None:
        return [f"{part} image {row}" for row in rows]
    return ["/".join(Path(files[row]).parts[-2:]) for row in rows]


def video_rows(source: data.Source) -> np.ndarray:
    """Positions of the first records that show one video: one's later images are another's first.

    Empty where records have one image, or where fewer than three follow each other.
    """
    frames = [source[i]["image"] for i in range(min(_FILM, len(source)))]
    if not frames or frames[0].ndim < 4 or len(frames[0]) < 2:
        return np.arange(0)
    first, end = 0, 0
    for row, images in enumerate(frames):
        if row > end:  # nothing joined this record to the last one
            if end - first >= 2:
                break
            first = end = row
        later = frames[row + 1 : row + 1 + _INTERVALS]
        joined = [i for i, other in enumerate(later, 1) if np.array_equal(images[1], other[0])]
        end = max([end, *(row + i for i in joined)])
    return np.arange(first, end + 1) if end - first >= 2 else np.arange(0)


def random_rows(source: data.Source, count: int) -> np.ndarray:
    """Positions of `count` records drawn at random: folders are sorted by class."""
    return np.random.default_rng(0).permutation(len(source))[:count]


def stack_images(source: data.Source, rows: Iterable[int]) -> np.ndarray:
    """Images of some records, `[n, ...]`."""
    return np.stack([source[int(i)]["image"] for i in rows])
