"""Grids of images: what augmentation does, and what the features hold to be alike."""

import os
from collections.abc import Sequence

import chex
import numpy as np

from sslax.evaluate.knn import nearest_neighbours
from sslax.figures import style
from sslax.types import Array

_CELL = 0.82  # inches


def augmentation_grid(originals: Array, views: Array, path: str | os.PathLike) -> None:
    """Each row an image as the data has it, then its views as the network sees them.

    Args:
        originals: `[B, H, W, C]`, uint8 or float in [0, 1].
        views: `[B, V, h, w, C]`, likewise.
        path: of the PNG.
    """
    originals, views = np.asarray(originals), np.asarray(views)
    chex.assert_rank([originals, views], [4, 5])
    chex.assert_equal_shape_prefix([originals, views], 1)
    count, per_image = views.shape[:2]
    gap = 0.25
    top, left = 0.75, 0.15
    width = max(left + (1 + per_image) * _CELL + gap + 0.15, 3.2)
    height = top + count * _CELL + 0.15
    with style.page(path, width, height) as figure:
        style.heading(figure, "Augmentation", "original, then its views")
        for row in range(count):
            images = [originals[row], *views[row]]
            for column, image in enumerate(images):
                x = left + column * _CELL + (gap if column else 0)
                _cell(figure, x, top + row * _CELL, image)


def neighbours(
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
    neighbour is of the query's class and red where not, and the heading counts, over all test
    images, how many of the k neighbours are of the query's class.

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
        k: neighbours each.
        seed: of the choice of queries.
    """
    test_images, train_images = np.asarray(test_images), np.asarray(train_images)
    chex.assert_rank([test_images, train_images], 4)
    for test_features, train_features in (before, after):
        chex.assert_axis_dimension(test_features, 0, len(test_images))
        chex.assert_axis_dimension(train_features, 0, len(train_images))
    labelled = labels is not None and train_labels is not None
    k = min(k, len(train_images))
    found = [np.asarray(nearest_neighbours(train, test, k=k)[1]) for test, train in (before, after)]
    titles = ["before training", "after training"]
    if labelled:
        labels, train_labels = np.asarray(labels), np.asarray(train_labels)
        right = [train_labels[index] == labels[:, None] for index in found]
        titles = [f"{t}: {100 * r.mean():.0f} % of its class" for t, r in zip(titles, right)]
    chosen = _spread_choice(labels if labelled else None, len(test_images), queries, seed)

    name_width = 1.05 if labelled and class_names is not None else 0.15
    gap, top = 0.3, 1.05
    starts = [name_width + _CELL + gap + side * (k * _CELL + gap) for side in (0, 1)]
    height = top + len(chosen) * _CELL + 0.15
    width = max(starts[1] + k * _CELL + 0.15, 5.6)
    with style.page(path, width, height) as figure:
        note = "training images nearest to each test image by the features"
        if labelled:
            note += "; green: the same class, red: another"
        style.heading(figure, "Nearest neighbours", note)
        for start, title in zip(starts, titles):
            figure.text(start / width, 1 - 0.95 / height, title, size=9.5)
        figure.text(name_width / width, 1 - 0.95 / height, "query", size=9.5)
        for row, query in enumerate(chosen):
            y = top + row * _CELL
            _cell(figure, name_width, y, test_images[query])
            if labelled and class_names is not None:
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
                    if labelled:
                        frame = style.RIGHT if right[side][query, column] else style.WRONG
                    _cell(figure, start + column * _CELL, y, train_images[index], frame)


def _cell(figure, x: float, y: float, image: np.ndarray, frame: str | None = None) -> None:  # noqa: ANN001
    """An image whose cell begins `x` inches from the left and `y` from the top."""
    width, height, side = figure.get_figwidth(), figure.get_figheight(), _CELL - 0.1
    axes = figure.add_axes((x / width, 1 - (y + side) / height, side / width, side / height))
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
