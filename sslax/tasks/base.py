"""The record of a task: whatever in a run's evaluation and use depends on what it learns."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from sslax import data
from sslax.inference.encoder import Trained
from sslax.inference.predictor import Predictor
from sslax.inference.run import Run
from sslax.report.page import Section
from sslax.types import Batch, TrainState, Variables

PARTS = ("train", "test")


class Subject(NamedTuple):
    """A run on a data set: what is evaluated.

    Attributes:
        run: the run.
        mesh: the devices.
        dataset: with the splits to evaluate on.
        networks: variables by the suffix of their numbers: '' for the trained ones, '_untrained',
            and those of the method's `references`.
        step: of the trained ones.
        suffix: of the files that are written; '' for the data set of the run's own config.
    """

    run: Run
    mesh: Mesh
    dataset: data.Dataset
    networks: dict[str, Variables]
    step: int
    suffix: str


class Evaluated(NamedTuple):
    """A network's predictions and the ground truth on one part of a data set, `[N, ...]` each.

    Where the task is `spread`, they are those of this process's examples.
    """

    prediction: Any
    truth: Any


Parts = dict[str, Evaluated]  # by the part's name, "train" or "test"


def keep_all(subject: Subject, parts: Parts) -> Parts:
    """`Task.drawn` of tasks that look at everything."""
    return parts


def report_nothing(shown: Any) -> list[Section]:
    """`Task.report` of tasks that have no pictures."""
    return []


class Task(NamedTuple):
    """A record of functions; a task has one row in `sslax.tasks.TASKS`.

    Attributes:
        name: as users read it.
        prediction: type of a method's predictions.
        truth: type of the ground truth; its fields are read from the batches of a test set.
        parts: the parts of a data set that an evaluation predicts.
        predict: `(subject, predictor, batch) -> (prediction, kept entries)`.
        measure: `(subject, variables, parts) -> numbers by name`; no variables for baselines. All
            processes of a run call it.
        baselines: `(subject, parts) -> {suffix: parts}`, trivial predictions to compare with.
        draw: `(subject, predicted by suffix, folder) -> shown`, pictures for people, of what
            `drawn` kept, and what `report` shows of it; the first process calls it.
        load: `(run, state) -> ` what `sslax.load` returns.
        resizable: whether the network works at other sizes than that of training.
        options: names of the flags of `sslax.predict` that the task understands.
        write: `(trained, input, output, options) -> None`, predictions as files.
        spread: whether each process of a run has the predictions of a part of the examples, or all.
        drawn: `(subject, parts) -> parts`, what of the predictions of a network is kept for `draw`
            while others are evaluated. All processes call it.
        report: `shown -> sections` of the run's page, see `sslax.report`.
    """

    name: str
    prediction: type
    truth: type
    parts: tuple[str, ...]
    predict: Callable[[Subject, Predictor, Batch], tuple[Any, dict[str, np.ndarray]]]
    measure: Callable[[Subject, Variables | None, Parts], dict[str, float]]
    baselines: Callable[[Subject, Parts], dict[str, Parts]]
    draw: Callable[[Subject, dict[str, Parts], Path], Any]
    load: Callable[[Run, TrainState], Trained]
    resizable: bool
    options: frozenset[str]
    write: Callable[[Any, str, Path, Mapping[str, Any]], None]
    spread: bool = False
    drawn: Callable[[Subject, Parts], Parts] = keep_all
    report: Callable[[Any], list[Section]] = report_nothing


def predict_as_is(
    subject: Subject, predictor: Predictor, batch: Batch
) -> tuple[Any, dict[str, np.ndarray]]:
    """`Task.predict` without anything added to the method's own prediction."""
    return predictor(batch)
