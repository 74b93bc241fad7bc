"""A map of the embedding: near on the page, near in the features."""

import os
from collections.abc import Sequence

import chex
import numpy as np

from sslax.figures import style
from sslax.types import Array

_THUMBNAIL = 0.36  # inches


def embedding_map(
    features: Array,
    images: Array,
    labels: Array | None,
    class_names: Sequence[str] | None,
    path: str | os.PathLike,
    *,
    max_points: int = 1000,
    max_thumbnails: int = 90,
    seed: int = 0,
) -> None:
    """Features on a page by PCA and t-SNE: a dot for each image and thumbnails of some.

    Args:
        features: `[N, D]`.
        images: `[N, H, W, C]`, uint8 or float in [0, 1].
        labels: `[N]` integers, which color the dots and the thumbnails' frames, or None.
        class_names: one for each class, for the legend, or None.
        path: of the PNG.
        max_points: a random choice of this many where there are more.
        max_thumbnails: at most this many, where they do not overlap.
        seed: of the choice and of t-SNE.
    """
    features, images = np.asarray(features, np.float32), np.asarray(images)
    chex.assert_rank([features, images], [2, 4])
    chex.assert_equal_shape_prefix([features, images], 1)
    chosen = np.random.default_rng(seed).permutation(len(features))[:max_points]
    points = project(features[chosen], seed=seed)
    labels = None if labels is None else np.asarray(labels)[chosen]

    size, top, side = 7.2, 0.65, 1.75 if labels is not None else 0.15
    width, height = 0.15 + size + side, top + size + 0.15
    with style.page(path, width, height) as figure:
        style.heading(
            figure,
            "Embedding",
            f"t-SNE of the features of {len(chosen)} images; only nearness has a meaning",
        )
        axes = figure.add_axes((0.15 / width, 0.15 / height, size / width, size / height))
        axes.set_xlim(-0.04, 1.04)
        axes.set_ylim(-0.04, 1.04)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(False)
        axes.spines[:].set_visible(False)
        dots = style.FAINT if labels is None else [style.color(label) for label in labels]
        axes.scatter(*points.T, s=14, c=dots, linewidths=0, alpha=0.85)
        frames = [style.FAINT] * len(chosen) if labels is None else dots
        for i in _apart(points, 1.15 * _THUMBNAIL * 1.08 / size, max_thumbnails):
            _thumbnail(axes, images[chosen[i]], points[i], frames[i])
        if labels is not None:
            _legend(figure, axes, labels, class_names)


def project(features: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Features in the unit square: PCA to 50 dimensions, then t-SNE from the first two.

    Args:
        features: `[N, D]`, l2-normalized first, as the cosine similarity sees them.
        seed: of t-SNE.

    Returns:
        `[N, 2]` in [0, 1]. Fewer than five images, and features all equal, are laid out by PCA
        alone.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # scikit-learn's own dependency

    features = np.nan_to_num(np.asarray(features, np.float64))
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    centered = features - features.mean(0)
    u, s, _ = np.linalg.svd(centered, full_matrices=False)
    points = np.zeros((len(features), max(2, min(50, s.size))))
    points[:, : min(50, s.size)] = (u * s)[:, :50]
    if len(points) >= 5 and s[0] > 1e-6:
        start = points[:, :2] / points[:, 0].std() * 1e-4
        perplexity = min(30.0, (len(points) - 1) / 3)
        tsne = TSNE(init=start, perplexity=perplexity, max_iter=500, random_state=seed)
        # One thread: several wait on each other at every step, slow where cores are shared.
        with threadpool_limits(1):
            points = tsne.fit_transform(points)
    points = points[:, :2]
    low, extent = points.min(0), np.ptp(points, 0).max()
    points = (points - low) / (extent if extent > 1e-9 else 1.0)
    return points + (1 - points.max(0)) / 2


def _apart(points: np.ndarray, distance: float, wanted: int) -> list[int]:
    """Indices of points that lie `distance` apart in x or y, taken in order."""
    taken: list[int] = []
    for i, point in enumerate(points):
        if all(np.abs(point - points[j]).max() >= distance for j in taken):
            taken.append(i)
        if len(taken) == wanted:
            break
    return taken


def _thumbnail(axes, image: np.ndarray, at: np.ndarray, frame: str) -> None:  # noqa: ANN001
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    image = style.displayable(image, 64)
    zoom = _THUMBNAIL * 72 / max(image.shape[:2])
    picture = OffsetImage(image, zoom=zoom, cmap="gray", norm=None, interpolation="nearest")
    picture.image.set_clim(0, 1)
    box = AnnotationBbox(
        picture, at, frameon=True, pad=0.12, bboxprops={"edgecolor": frame, "linewidth": 1.6}
    )
    axes.add_artist(box)


def _legend(figure, axes, labels: np.ndarray, class_names: Sequence[str] | None) -> None:  # noqa: ANN001
    from matplotlib.lines import Line2D

    present = np.unique(labels)
    shown = present[:20]
    handles = [
        Line2D([], [], marker="o", linestyle="", color=style.color(c), markersize=6) for c in shown
    ]
    names = [str(c) if class_names is None else class_names[c] for c in shown]
    if len(present) > len(shown):
        handles.append(Line2D([], [], linestyle=""))
        names.append(f"and {len(present) - len(shown)} more")
    figure.legend(
        handles, names, loc="upper left", bbox_to_anchor=(1.01, 0.97), bbox_transform=axes.transAxes
    )
