"""Grids of images: the training task of a method, and nearest neighbors of its features."""

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike

from sslax import checks
from sslax.figures import style
from sslax.figures.maps import colorize
from sslax.measures.knn import nearest_neighbors
from sslax.types import Array, FlowField, InverseDepth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL = 0.82  # inches


def task_grid(
    columns: Mapping[str, Array | InverseDepth | FlowField],
    path: str | os.PathLike,
    *,
    title: str = "Training task",
) -> None:
    """What a method is given and what it predicts: a row per example, a column per quantity.

    Args:
        columns: by title, images `[B, h, w, C]`, uint8 or float in [0, 1], or maps, which
            `colorize` turns into images.
        path: of the PNG.
        title: heading of the page.
    """
    images = {name: colorize(column) for name, column in columns.items()}
    checks.assert_rank([*images.values()], 4)
    checks.assert_equal_shape_prefix([*images.values()], 1)
    count = len(next(iter(images.values())))
    cell = max(_CELL, min(1.3, 10.4 / len(images)))  # few columns are drawn larger
    lines = {name: textwrap.wrap(name, max(9, round(13 * cell))) for name in images}
    top = 0.5 + 0.16 * max(len(text) for text in lines.values())
    width = max(0.15 + len(images) * cell + 0.05, 3.2)
    tallest = max(column.shape[1] / column.shape[2] for column in images.values())
    row_height = 0.1 + min(tallest, 1.0) * (cell - 0.1)  # rows of wide images are lower
    height = top + count * row_height + 0.05
    with style.page(path, width, height) as figure:
        style.heading(figure, title)
        for index, (name, column) in enumerate(images.items()):
            x = 0.15 + index * cell
            figure.text(x / width, 1 - (top - 0.06) / height, "\n".join(lines[name]), size=8.5)
            for row in range(count):
                y = top + row * row_height
                _cell(figure, x, y, column[row], side=cell, height=row_height)


def neighbors(
    test_images: ArrayLike,
    train_images: ArrayLike,
    *,
    before: tuple[Array, Array],
    after: tuple[Array, Array],
    path: str | os.PathLike,
    labels: ArrayLike | None = None,
    train_labels: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    queries: int = 8,
    k: int = 5,
    seed: int = 0,
) -> None:
    """Test images with their nearest training images before and after training, side by side.

    Nearest by cosine similarity of the features. With labels, neighbors of the query's class are
    framed in green and others in red, and the headings give the percentage of neighbors, over all
    test images, that share the query's class.

    Args:
        test_images: `[M, H, W, C]`, uint8 or float in [0, 1].
        train_images: `[N, H, W, C]`.
        before: features of the untrained encoder, `([M, D], [N, D])`.
        after: features of the trained encoder, `([M, D], [N, D])`.
        path: of the PNG.
        labels: `[M]` integers, or None.
        train_labels: `[N]` integers, or None.
        class_names: one per class, or None.
        queries: number of test images drawn, of different classes where possible.
        k: neighbors per query.
        seed: of the choice of queries.
    """
    test_images, train_images = np.asarray(test_images), np.asarray(train_images)
    checks.assert_rank([test_images, train_images], 4)
    for test_features, train_features in (before, after):
        checks.assert_axis_dimension(test_features, 0, len(test_images))
        checks.assert_axis_dimension(train_features, 0, len(train_images))
    k = min(k, len(train_images))
    nearest = [
        np.asarray(nearest_neighbors(train, test, k=k)[1]) for test, train in (before, after)
    ]
    titles = ["before training", "after training"]
    classes, same_class = None, None
    if labels is not None and train_labels is not None:
        classes = np.asarray(labels)
        same_class = [np.asarray(train_labels)[index] == classes[:, None] for index in nearest]
        titles = [f"{t}: {100 * s.mean():.0f} % same class" for t, s in zip(titles, same_class)]
    chosen = _spread_choice(classes, len(test_images), queries, seed)

    names = None
    if classes is not None and class_names is not None:
        names = [class_names[int(classes[query])] for query in chosen]
    left = 0.15 if names is None else 1.05
    gap, top = 0.3, 1.05
    starts = [left + _CELL + gap + side * (k * _CELL + gap) for side in (0, 1)]
    height = top + len(chosen) * _CELL + 0.15
    width = max(starts[1] + k * _CELL + 0.15, 5.6)
    with style.page(path, width, height) as figure:
        note = "the training images nearest to each test image in feature space"
        if same_class is not None:
            note += "; green: same class, red: another"
        style.heading(figure, "Nearest neighbors", note)
        for start, title in zip((left, *starts), ("query", *titles)):
            figure.text(start / width, 1 - 0.95 / height, title, size=9.5)
        for row, query in enumerate(chosen):
            y = top + row * _CELL
            _cell(figure, left, y, test_images[query])
            if names is not None:
                at = (left - 0.08) / width, 1 - (y + _CELL / 2) / height
                figure.text(*at, _shorten(names[row]), ha="right", va="center", size=8.5)
            for side, start in enumerate(starts):
                for column, index in enumerate(nearest[side][query]):
                    frame = None
                    if same_class is not None:
                        frame = style.RIGHT if same_class[side][query, column] else style.WRONG
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
    """Draws an image in a cell `side` inches wide and `height` (by default as much) tall, `x` from
    the left and `y` from the top of the page.
    """
    wide, tall = side - 0.1, (height or side) - 0.1
    page = figure.get_figwidth(), figure.get_figheight()
    axes = figure.add_axes((x / page[0], 1 - (y + tall) / page[1], wide / page[0], tall / page[1]))
    style.draw_image(axes, style.displayable(image, 128), frame)


def _spread_choice(labels: np.ndarray | None, count: int, wanted: int, seed: int) -> np.ndarray:
    """Up to `wanted` indices at random, cycling through the classes."""
    order = np.random.default_rng(seed).permutation(count)
    if labels is None:
        return order[:wanted]
    turn = np.zeros(count, int)
    for c in np.unique(labels):
        members = order[labels[order] == c]
        turn[members] = np.arange(len(members))
    chosen = order[np.argsort(turn[order], kind="stable")][:wanted]
    return chosen[np.argsort(labels[chosen], kind="stable")]


def _shorten(name: str, length: int = 14) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
