"""Dense features of images in colors: their first three principal components."""

import os

import numpy as np
from jax.typing import ArrayLike

from sslax import checks
from sslax.figures.grids import task_grid


def patch_features(
    images: ArrayLike,
    features: ArrayLike,
    path: str | os.PathLike,
    *,
    foreground: bool = False,
) -> None:
    """Images beside their dense features in colors: alike where features are alike.

    Args:
        images: `[N, H, W, C]`, uint8 or float in [0, 1].
        features: `[N, h, w, D]`, as `Encoder.patches` returns them.
        path: of the PNG.
        foreground: colors the foreground alone, see `patch_colors`.
    """
    columns = {"image": images, "features": patch_colors(features, foreground=foreground)}
    task_grid(columns, path, title="Dense features")


def patch_colors(features: ArrayLike, *, foreground: bool = False) -> np.ndarray:
    """The first three principal components of dense features, as red, green and blue.

    The components are those of all images together, so that equal things have equal colors in all
    of them. Each is stretched to [0, 1], but for a hundredth at either end.

    Args:
        features: `[N, h, w, D]` with D >= 3.
        foreground: patches are told apart first by the sign of the first component, as DINOv2's
            authors do; the background, which has more of the images' borders, is black, and the
            components are those of the rest.

    Returns:
        `[N, h, w, 3]` in [0, 1], float32.

    Example:
        >>> patch_colors(np.random.default_rng(0).normal(size=(2, 4, 5, 8))).shape
        (2, 4, 5, 3)
    """
    features = np.asarray(features, np.float32)
    checks.assert_rank(features, 4)
    shown = np.ones(features.shape[:3], bool)
    if foreground:
        shown = _components(features.reshape(-1, features.shape[-1]), 1).reshape(shown.shape) > 0
        border = np.ones(shown.shape[1:], bool)
        border[1:-1, 1:-1] = False
        if shown[:, border].mean() > 0.5:
            shown = ~shown
    colors = np.zeros((*shown.shape, 3), np.float32)
    if shown.any():
        parts = _components(features[shown], 3)
        low, high = np.percentile(parts, [1, 99], axis=0)
        colors[shown] = np.clip((parts - low) / np.maximum(high - low, 1e-12), 0, 1)
    return colors


def _components(vectors: np.ndarray, count: int) -> np.ndarray:
    """The first principal components `[M, count]` of vectors `[M, D]`; a sign is arbitrary, and the
    largest weight is positive."""
    centered = vectors - vectors.mean(0)
    _, axes = np.linalg.eigh(centered.T @ centered)
    axes = axes[:, ::-1][:, :count]
    axes = axes * np.sign(np.take_along_axis(axes, np.abs(axes).argmax(0)[None], axis=0))
    return centered @ axes
