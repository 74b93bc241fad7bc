"""Depth and ego-motion on the page: maps over images, point clouds, the trajectory."""

import math
from typing import NamedTuple

import numpy as np

from sslax.report import maps, pictures
from sslax.report.page import Section
from sslax.types import Pictures

_PINHOLE = ((0, 0), (1, 1), (0, 2), (1, 2))  # fx, fy, cx, cy in the intrinsics
_ASSUMED = math.radians(60)  # horizontal field of view of unknown cameras


class Shown(NamedTuple):
    """What is shown of depth and ego-motion.

    Attributes:
        columns: pictures of N examples by title, the image first.
        depth: `[N, H, W]` as predicted, or the inverse of disparity.
        unit: of depth, '' where its scale is unknown.
        intrinsics: `[N, 3, 3]` in pixels, or None.
        trajectories: camera-to-world poses `[n, 4, 4]` by name.
        film_images: consecutive frames `[M, H, W, C]`.
        film_colors: their depth in colors `[M, H, W, 3]`.
        alpha: `[N]` of a wide lens (`ops.UnifiedCamera`), or None.
    """

    columns: Pictures
    depth: np.ndarray
    unit: str
    intrinsics: np.ndarray | None
    trajectories: dict[str, np.ndarray]
    film_images: np.ndarray
    film_colors: np.ndarray
    alpha: np.ndarray | None = None


def sections(shown: Shown) -> list[Section]:
    """A slider between images and maps with a point cloud, the film, the trajectory from above."""
    stride = maps.stride_of(shown.depth)
    height, width = shown.depth.shape[1:]
    cameras = shown.intrinsics
    if cameras is None:
        focal = width / 2 / math.tan(_ASSUMED / 2)
        camera = [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]
        cameras = np.broadcast_to(camera, (len(shown.depth), 3, 3))
    lenses = np.zeros(len(shown.depth)) if shown.alpha is None else shown.alpha
    examples = [
        {
            "layers": layers,
            "inverse_depth": pictures.quantized(_inverse(depth[::stride, ::stride])),
            "camera": [*(float(k[i]) / stride for i in _PINHOLE), float(alpha)],
        }
        for layers, depth, k, alpha in zip(maps.layers(shown.columns), shown.depth, cameras, lenses)
    ]
    section: Section = {
        "id": "maps",
        "type": "maps",
        "title": "Depth",
        "unit": shown.unit,
        "camera_known": shown.intrinsics is not None,
        "examples": examples,
    }
    return [section, *maps.film(shown.film_images, shown.film_colors), *_trajectory(shown)]


def _inverse(depth: np.ndarray) -> np.ndarray:
    """`1 / depth`, NaN where unknown."""
    known = np.isfinite(depth) & (depth > 0)
    return np.where(known, 1 / np.where(known, depth, 1.0), np.nan)


def _trajectory(shown: Shown) -> list[Section]:
    if not shown.trajectories:
        return []
    paths = [
        {"name": name, "x": _rounded(poses[:, 0, 3]), "y": _rounded(poses[:, 2, 3])}
        for name, poses in shown.trajectories.items()
    ]
    title = "Camera trajectory, from above"
    return [{"id": "trajectory", "type": "trajectory", "title": title, "paths": paths}]


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
