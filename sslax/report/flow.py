"""Optical flow on the page: maps over images, arrows, the color wheel, a film."""

from typing import NamedTuple

import numpy as np

from sslax import figures
from sslax.report import maps, pictures
from sslax.report.page import Section
from sslax.types import Pictures


class Shown(NamedTuple):
    """What is shown of optical flow.

    Attributes:
        columns: pictures of N examples by title, the image first.
        flow: `[N, H, W, 2]` in pixels, as predicted.
        film_images: consecutive frames `[M, H, W, C]`.
        film_colors: their flow in colors `[M, H, W, 3]`.
    """

    columns: Pictures
    flow: np.ndarray
    film_images: np.ndarray
    film_colors: np.ndarray


def sections(shown: Shown) -> list[Section]:
    """A slider between images and maps with arrows, the color wheel, and the film."""
    stride = maps.stride_of(shown.flow)
    examples = [
        {
            "layers": layers,
            "flow": [pictures.quantized(flow[::stride, ::stride, axis]) for axis in (0, 1)],
            "stride": stride,
        }
        for layers, flow in zip(maps.layers(shown.columns), shown.flow)
    ]
    section: Section = {
        "id": "maps",
        "type": "maps",
        "title": "Optical flow",
        "examples": examples,
        "wheel": pictures.data_uri(figures.flow_legend(121)),
    }
    return [section, *maps.film(shown.film_images, shown.film_colors)]
