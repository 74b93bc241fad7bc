"""Shared by depth and flow on the page: layers over images, maps as arrays, films."""

import math
from typing import Any

import numpy as np

from sslax import figures
from sslax.report import pictures
from sslax.report.page import Section
from sslax.types import Pictures

_SIDE = 192  # of maps as arrays, pixels
_FILM_SIDE = 320


def layers(columns: Pictures) -> list[list[dict[str, str]]]:
    """Each example's pictures, by their titles, as data URIs."""
    colored = {title: figures.colorize(column) for title, column in columns.items()}
    count = len(next(iter(colored.values())))
    return [
        [{"name": title, "uri": pictures.data_uri(images[i])} for title, images in colored.items()]
        for i in range(count)
    ]


def stride_of(maps: np.ndarray) -> int:
    """Every how many pixels of maps `[N, H, W, ...]` are kept as numbers."""
    return math.ceil(max(maps.shape[1:3]) / _SIDE)


def film(images: np.ndarray, colors: np.ndarray) -> list[Section]:
    """A film of images `[N, H, W, C]` beside their maps in colors; none without images."""
    if not len(images):
        return []

    def uris(frames: np.ndarray) -> list[str]:
        return [pictures.data_uri(frame, side=_FILM_SIDE) for frame in frames]

    section: dict[str, Any] = {"id": "film", "type": "film", "title": "Film"}
    return [section | {"images": uris(images), "maps": uris(colors)}]
