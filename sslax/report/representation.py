"""A representation on the page: its map, and the nearest neighbors of every image."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sslax.figures import style
from sslax.measures.knn import nearest_neighbors
from sslax.report import pictures
from sslax.report.page import Section

_NEIGHBORS = 8


class Shown(NamedTuple):
    """What is shown of a representation.

    Attributes:
        images: `[N, H, W, C]`.
        points: `[N, 2]` in [0, 1], the features in two dimensions.
        features: `[N, D]` by the state of the network, 'after training' and 'before training'.
        labels: `[N]` classes, or None.
        class_names: one for each class, or None.
        files: a name for each image.
    """

    images: np.ndarray
    points: np.ndarray
    features: dict[str, np.ndarray]
    labels: np.ndarray | None
    class_names: Sequence[str] | None
    files: Sequence[str]


def sections(shown: Shown) -> list[Section]:
    """The map of the images with their thumbnails, and the neighbors of each among them.

    Neighbors are `[N, k]` positions of the images with the highest cosine similarity, nearest
    first.
    """
    count = len(shown.images)
    k = min(_NEIGHBORS, count - 1)
    section: Section = {
        "id": "embedding",
        "type": "embedding",
        "title": "Nearest neighbors and the map of the embedding",
        "sheet": pictures.sheet(shown.images),
        "points": np.rint(1000 * shown.points).astype(int).tolist(),
        "files": list(shown.files),
        "labels": None,
        "k": k,
        "neighbors": [],
    }
    if shown.labels is not None:
        section["labels"] = shown.labels.tolist()
        section["classes"] = _classes(shown.labels, shown.class_names)
    for name, features in shown.features.items() if k else ():
        nearest = _others(features, k)
        entry = {"name": name, "index": pictures.integers(nearest)}
        if shown.labels is not None:
            entry["same_class"] = float((shown.labels[nearest] == shown.labels[:, None]).mean())
        section["neighbors"].append(entry)
    return [section]


def _classes(labels: np.ndarray, names: Sequence[str] | None) -> list[dict[str, str]]:
    count = len(names) if names is not None else int(labels.max()) + 1
    return [
        {"name": str(c) if names is None else str(names[c]), "color": style.color(c)}
        for c in range(count)
    ]


def _others(features: np.ndarray, k: int) -> np.ndarray:
    """The k nearest other rows of each row, `[N, k]`."""
    nearest = np.asarray(nearest_neighbors(features, features, k=k + 1)[1])
    # Its own row is among them, unless enough others are equal to it.
    own = nearest == np.arange(len(nearest))[:, None]
    own[~own.any(1), -1] = True
    return nearest[~own].reshape(len(nearest), k)
