"""Batches and images of the parts of a data set, for evaluation."""

from collections.abc import Iterable, Iterator

import numpy as np

from sslax import data
from sslax.tasks.base import Subject
from sslax.types import Batch


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


def random_rows(source: data.Source, count: int) -> np.ndarray:
    """Positions of `count` records drawn at random: folders are sorted by class."""
    return np.random.default_rng(0).permutation(len(source))[:count]


def stack_images(source: data.Source, rows: Iterable[int]) -> np.ndarray:
    """Images of some records, `[n, ...]`."""
    return np.stack([source[int(i)]["image"] for i in rows])
