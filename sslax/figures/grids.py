"""Grids of images: what a method is asked, and what its features hold to be alike."""

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import chex
import numpy as np

from sslax.figures import style
from sslax.measures.knn import nearest_neighbors
from sslax.types import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL = 0.82  # inches


def task_grid(
    columns: Mapping[str, Array], path: str | os.PathLike, *, title: str = "The task"
) -> None:
    """What a method is asked and what it answers: each row an example, each column a picture.

    Args:
        columns: under each title, images `[B, h, w, C]`, uint8 or float in [0, 1].
        path: of the PNG.
        title: heading of the page.
    """
    columns = {name: np.asarray(images) for name, images in columns.items()}
    chex.assert_rank([*columns.values()], 4)
    chex.assert_equal_shape_prefix([*columns.values()], 1)
    count = len(next(iter(columns.values())))
    cell = max(_CELL, min(1.3, 10.4 / len(columns)))  # few columns are drawn larger
    lines = {name: textwrap.wrap(name, max(9, round(13 * cell))) for name in columns}
    top = 0.5 + 0.16 * max(len(text) for text in lines.values())
    width = max(0.15 + len(columns) * cell + 0.05, 3.2)
    tallest = max(images.shape[1] / images.shape[2] for images in columns.values())
    row_height = 0.1 + min(tallest, 1.0) * (cell - 0.1)  # wide images lie close to each other
    height = top + count * row_height + 0.05
    with style.page(path, width, height) as figure:
        style.heading(figure, title)
        for column, (name, images) in enumerate(columns.items()):
            x = 0.15 + column * cell
            figure.text(x / width, 1 - (top - 0.06) / height, "\n".join(lines[name]), size=8.5)
            for row in range(count):
                place = x, top + row * row_height
                _cell(figure, *place, images[row], side=cell, height=row_height)


def neighbors(
    test_images: Array,
    train_images: Array,
    *,
    before: tuple[Array, Array],
    after: tuple[Array, Array],
    path: str | os.PathLike,
    labels: Array | None = None,
    train_labels: Array | None = None,
    class_names: Sequence[str] | None = None,
    queries: int = 8,
    k: int = 5,
    seed: int = 0,
) -> None:
    """Test images with their nearest training images before and after training, side by side.

    Nearest by cosine similarity of the features. With labels the frames are green where a
    neighbor is of the query's class and red where not, and the heading counts, over all test
    images, how many of the k neighbors are of the query's class.

    Args:
        test_images: `[M, H, W, C]`, uint8 or float in [0, 1].
        train_images: `[N, H, W, C]`.
        before: features of the untrained encoder, `([M, D], [N, D])`.
        after: features of the trained one, `([M, D], [N, D])`.
        path: of the PNG.
        labels: `[M]` integers, or None.
        train_labels: `[N]` integers, or None.
        class_names: one for each class, or None.
        queries: test images drawn, of different classes where possible.
        k: neighbors each.
        seed: of the choice of queries.
    """
    test_images, train_images = np.asarray(test_images), np.asarray(train_images)
    chex.assert_rank([test_images, train_images], 4)
    for test_features, train_features in (before, after):
        chex.assert_axis_dimension(test_features, 0, len(test_images))
        chex.assert_axis_dimension(train_features, 0, len(train_images))
    labeled = labels is not None and train_labels is not None
    k = min(k, len(train_images))
    found = [np.asarray(nearest_neighbors(train, test, k=k)[1]) for test, train in (before, after)]
    titles = ["before training", "after training"]
    if labeled:
        labels, train_labels = np.asarray(labels), np.asarray(train_labels)
        right = [train_labels[index] == labels[:, None] for index in found]
        titles = [f"{t}: {100 * r.mean():.0f} % of its class" for t, r in zip(titles, right)]
    chosen = _spread_choice(labels if labeled else None, len(test_images), queries, seed)

    name_width = 1.05 if labeled and class_names is not None else 0.15
    gap, top = 0.3, 1.05
    starts = [name_width + _CELL + gap + side * (k * _CELL + gap) for side in (0, 1)]
    height = top + len(chosen) * _CELL + 0.15
    width = max(starts[1] + k * _CELL + 0.15, 5.6)
    with style.page(path, width, height) as figure:
        note = "training images nearest to each test image by the features"
        if labeled:
            note += "; green: the same class, red: another"
        style.heading(figure, "Nearest neighbors", note)
        for start, title in zip(starts, titles):
            figure.text(start / width, 1 - 0.95 / height, title, size=9.5)
        figure.text(name_width / width, 1 - 0.95 / height, "query", size=9.5)
        for row, query in enumerate(chosen):
            y = top + row * _CELL
            _cell(figure, name_width, y, test_images[query])
            if labeled and class_names is not None:
                figure.text(
                    (name_width - 0.08) / width,
                    1 - (y + _CELL / 2) / height,
                    _fit(class_names[labels[query]]),
                    ha="right",
                    va="center",
                    size=8.5,
                )
            for side, start in enumerate(starts):
                for column, index in enumerate(found[side][query]):
                    frame = None
                    if labeled:
                        frame = style.RIGHT if right[side][query, column] else style.WRONG
                    _cell(figure, start + column * _CELL, y, train_images[index], frame)


def _cell(
    figure: "Figure",
    x: float,
    y: float,
    image: np.ndarray,
    frame: str | None = None,
    *,
    side: float = _CELL,
    height: float | None = None,
) -> None:
    """An image whose cell, `side` inches wide and `height` (or as much) tall, begins `x` from the
    left and `y` from the top.
    """
    wide, tall = side - 0.1, (height or side) - 0.1
    page = figure.get_figwidth(), figure.get_figheight()
    axes = figure.add_axes((x / page[0], 1 - (y + tall) / page[1], wide / page[0], tall / page[1]))
    style.show(axes, style.displayable(image, 128), frame)


def _spread_choice(labels: np.ndarray | None, count: int, wanted: int, seed: int) -> np.ndarray:
    """Up to `wanted` indices at random, taking the classes in turn."""
    order = np.random.default_rng(seed).permutation(count)
    if labels is None:
        return order[:wanted]
    turn = np.zeros(count, int)
    for c in np.unique(labels):
        members = order[labels[order] == c]
        turn[members] = np.arange(len(members))
    chosen = order[np.argsort(turn[order], kind="stable")][:wanted]
    return chosen[np.argsort(labels[chosen], kind="stable")]


def _fit(name: str, length: int = 14) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
