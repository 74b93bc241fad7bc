"""The embedding in two dimensions, by PCA and t-SNE."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike

from sslax import checks
from sslax.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_THUMBNAIL = 0.36  # inches


def embedding_map(
    features: ArrayLike,
    images: ArrayLike,
    labels: ArrayLike | None,
    class_names: Sequence[str] | None,
    path: str | os.PathLike,
    *,
    points: ArrayLike | None = None,
    max_points: int = 1000,
    max_thumbnails: int = 90,
    seed: int = 0,
) -> None:
    """Scatter plot of features, by PCA and t-SNE, with thumbnails of some images.

    Args:
        features: `[N, D]`.
        images: `[N, H, W, C]`, uint8 or float in [0, 1].
        labels: `[N]` integers, which color the dots and frame the thumbnails, or None.
        class_names: one per class, for the legend, or None.
        path: of the PNG.
        points: `[N, 2]` in [0, 1], what `project` made of the features, where that is known.
        max_points: larger sets are subsampled at random.
        max_thumbnails: draws at most this many, and none that would overlap.
        seed: of the subsample and of t-SNE.
    """
    features, images = np.asarray(features, np.float32), np.asarray(images)
    checks.assert_rank([features, images], [2, 4])
    checks.assert_equal_shape_prefix([features, images], 1)
    chosen = np.random.default_rng(seed).permutation(len(features))[:max_points]
    known = None if points is None else np.asarray(points)[chosen]
    points = project(features[chosen], seed=seed) if known is None else known
    classes = None if labels is None else np.asarray(labels)[chosen]

    size, top, side = 7.2, 0.65, 1.75 if classes is not None else 0.15
    width, height = 0.15 + size + side, top + size + 0.15
    with style.page(path, width, height) as figure:
        style.heading(
            figure,
            "Embedding",
            f"t-SNE of the features of {len(chosen)} images; only neighborhoods are meaningful",
        )
        axes = figure.add_axes((0.15 / width, 0.15 / height, size / width, size / height))
        axes.set_xlim(-0.04, 1.04)
        axes.set_ylim(-0.04, 1.04)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(False)
        axes.spines[:].set_visible(False)
        colors = [style.FAINT] * len(chosen)
        if classes is not None:
            colors = [style.color(c) for c in classes]
        axes.scatter(points[:, 0], points[:, 1], s=14, c=colors, linewidths=0, alpha=0.85)
        for i in _apart(points, 1.15 * _THUMBNAIL * 1.08 / size, max_thumbnails):
            _thumbnail(axes, images[chosen[i]], points[i], colors[i])
        if classes is not None:
            _legend(figure, axes, classes, class_names)


def project(features: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Projects features to the unit square: PCA to 50 dimensions, then t-SNE from the first two.

    Args:
        features: `[N, D]`; l2-normalized first, to match cosine similarity.
        seed: of t-SNE.

    Returns:
        `[N, 2]` in [0, 1]. Fewer than five images, or features that are all equal, are projected by
        PCA alone.
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
        # On shared cores, several threads wait for each other at every step.
        with threadpool_limits(1):
            points = tsne.fit_transform(points)
    points = points[:, :2]
    low, extent = points.min(0), np.ptp(points, 0).max()
    points = (points - low) / (extent if extent > 1e-9 else 1.0)
    return points + (1 - points.max(0)) / 2


def _apart(points: np.ndarray, distance: float, wanted: int) -> list[int]:
    """Indices of points that are `distance` apart in x or y, chosen greedily."""
    chosen: list[int] = []
    for i, point in enumerate(points):
        if all(np.abs(point - points[j]).max() >= distance for j in chosen):
            chosen.append(i)
        if len(chosen) == wanted:
            break
    return chosen


def _thumbnail(axes: "Axes", image: np.ndarray, at: np.ndarray, frame: str) -> None:
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    image = style.displayable(image, 64)
    zoom = _THUMBNAIL * 72 / max(image.shape[:2])
    thumbnail = OffsetImage(image, zoom=zoom, cmap="gray", norm=None, interpolation="nearest")
    thumbnail.image.set_clim(0, 1)
    box = AnnotationBbox(
        thumbnail,
        (at[0], at[1]),
        frameon=True,
        pad=0.12,
        bboxprops={"edgecolor": frame, "linewidth": 1.6},
    )
    axes.add_artist(box)


def _legend(
    figure: "Figure", axes: "Axes", labels: np.ndarray, class_names: Sequence[str] | None
) -> None:
    from matplotlib.lines import Line2D

    present = np.unique(labels)
    listed = present[:20]
    handles = [
        Line2D([], [], marker="o", linestyle="", color=style.color(c), markersize=6) for c in listed
    ]
    names = [str(c) if class_names is None else class_names[c] for c in listed]
    if len(present) > len(listed):
        handles.append(Line2D([], [], linestyle=""))
        names.append(f"and {len(present) - len(listed)} more")
    figure.legend(
        handles, names, loc="upper left", bbox_to_anchor=(1.01, 0.97), bbox_transform=axes.transAxes
    )
