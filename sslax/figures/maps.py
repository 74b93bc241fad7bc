"""Disparity, depth and flow as colors, and trajectories seen from above."""

import os
from collections.abc import Mapping

import chex
import numpy as np

from sslax.figures import style
from sslax.types import Array

# Colors of the flow wheel from each primary to the next, and into how many steps that is divided:
# red, yellow, green, cyan, blue, magenta, and back to red.
_WHEEL_STEPS = (15, 6, 4, 11, 13, 6)
_WHEEL_COLORS = (
    (255, 0, 0),
    (255, 255, 0),
    (0, 255, 0),
    (0, 255, 255),
    (0, 0, 255),
    (255, 0, 255),
)
_UNKNOWN_FLOW = 1e9
_GRAY = 128


def flow_colors(
    flow: Array, *, mask: Array | None = None, max_radius: float | None = None
) -> np.ndarray:
    """Flow in the colors of the Middlebury benchmark.

    The hue is the direction: right is red, down yellow, left cyan-blue, up blue-violet. White does
    not move, and color saturates with speed, up to `max_radius`; beyond it colors are darkened by
    a quarter. Unknown is black.

    Args:
        flow: `[..., 2]`, `(x, y)` in pixels.
        mask: `[...]`, 1 where known; always unknown is what is not finite or beyond 1e9.
        max_radius: the speed of full saturation; by default the greatest known one of all that is
            given. Set it to compare pictures: by default each has its own.

    Returns:
        `[..., 3]`, uint8, RGB.

    Example:
        >>> flow_colors(np.array([[[2.0, 0.0], [0.0, 0.0], [np.nan, 0.0]]])).tolist()
        [[[255, 0, 0], [255, 255, 255], [0, 0, 0]]]

    Baker et al., A Database and Evaluation Methodology for Optical Flow, IJCV 2011.
    """
    flow = np.asarray(flow, np.float64)
    chex.assert_axis_dimension(flow, -1, 2)
    known = (np.abs(flow) <= _UNKNOWN_FLOW).all(-1)  # False for NaN
    if mask is not None:
        chex.assert_shape(mask, known.shape)
        known &= np.asarray(mask, bool)
    x, y = np.where(known[..., None], flow, 0.0).transpose(-1, *range(flow.ndim - 1))
    radius = np.hypot(x, y)
    largest = radius.max(initial=0.0) if max_radius is None else max_radius
    radius = (radius / largest if largest > 0 else radius)[..., None]

    wheel = flow_wheel()
    # atan2(-y, -x) runs from -pi, which points right, by down and left and up back to right. The
    # sign of a zero y would jump from the first color to the last: + 0.0 takes it away.
    place = (np.arctan2(-(y + 0.0), -x) / np.pi + 1) / 2 * (len(wheel) - 1)
    first = np.floor(place).astype(int)
    blend = (place - first)[..., None]
    hue = (1 - blend) * wheel[first] + blend * wheel[(first + 1) % len(wheel)]
    color = np.where(radius <= 1, 255 - radius * (255 - hue), 0.75 * hue)
    return np.where(known[..., None], np.floor(color), 0).astype(np.uint8)


def flow_legend(size: int = 151) -> np.ndarray:
    """The wheel of flow colors: at each place, the color of the flow from the center to there.

    Args:
        size: pixels a side.

    Returns:
        `[size, size, 3]`, uint8, white outside the circle.

    Example:
        >>> flow_legend(5)[2].tolist()[-1]
        [255, 0, 0]
    """
    line = np.linspace(-1.0, 1.0, size)
    flow = np.stack(np.meshgrid(line, line), -1)
    outside = np.hypot(flow[..., 0], flow[..., 1]) > 1
    colors = flow_colors(flow, max_radius=1.0)
    colors[outside] = 255
    return colors


def disparity_colors(
    disparity: Array,
    *,
    mask: Array | None = None,
    lowest: float | None = None,
    highest: float | None = None,
    colors: str = "magma",
) -> np.ndarray:
    """Disparity, or inverse depth, as colors: near is bright, unknown is gray.

    Args:
        disparity: `[...]`.
        mask: `[...]`, 1 where known; always unknown is what is not finite.
        lowest: disparity of the darkest color; by default the least known one.
        highest: of the brightest; by default the 95th percentile of the known, so that one near
            object does not darken the rest (as Monodepth2 draws it).
        colors: a color map of matplotlib's; 'magma' grows brighter evenly to the eye, and has no
            gray.

    Returns:
        `[..., 3]`, uint8, RGB.

    Example:
        >>> disparity_colors(np.array([[1.0, 1.0, np.inf]])).tolist()
        [[[0, 0, 3], [0, 0, 3], [128, 128, 128]]]
    """
    from matplotlib import colormaps

    disparity = np.asarray(disparity, np.float64)
    known = np.isfinite(disparity)
    if mask is not None:
        chex.assert_shape(mask, known.shape)
        known &= np.asarray(mask, bool)
    if not known.any():
        return np.full((*disparity.shape, 3), _GRAY, np.uint8)
    lowest = disparity[known].min() if lowest is None else lowest
    highest = np.percentile(disparity[known], 95) if highest is None else highest
    shade = (np.where(known, disparity, lowest) - lowest) / max(highest - lowest, 1e-12)
    picture = colormaps[colors](np.clip(shade, 0, 1), bytes=True)[..., :3]
    return np.where(known[..., None], picture, np.uint8(_GRAY))


def depth_colors(
    depth: Array,
    *,
    mask: Array | None = None,
    nearest: float | None = None,
    farthest: float | None = None,
    colors: str = "magma",
) -> np.ndarray:
    """Depth as colors of its inverse: near is bright, infinity darkest, unknown gray.

    Args:
        depth: `[...]`; not positive or NaN where unknown.
        mask: `[...]`, 1 where known.
        nearest: depth of the brightest color; by default as in `disparity_colors`.
        farthest: depth of the darkest.
        colors: a color map of matplotlib's.

    Returns:
        `[..., 3]`, uint8, RGB.

    Example:
        >>> picture = depth_colors(np.array([[1.0, 2.0, np.inf, 0.0]]), nearest=1.0)
        >>> picture[0, :, 0].tolist()
        [251, 182, 0, 128]
    """
    depth = np.asarray(depth, np.float64)
    known = depth > 0
    if mask is not None:
        known &= np.asarray(mask, bool)
    return disparity_colors(
        1 / np.where(known, depth, 1.0),
        mask=known,
        lowest=None if farthest is None else 1 / farthest,
        highest=None if nearest is None else 1 / nearest,
        colors=colors,
    )


def trajectories(
    paths: Mapping[str, Array], path: str | os.PathLike, *, title: str = "The way of the camera"
) -> None:
    """Camera paths seen from above, x to the right and z, where the first camera looks, upwards.

    Both axes have one scale. A dot marks where each path begins.

    Args:
        paths: by the name in the legend, positions `[N, 3]` or camera-to-world poses `[N, 4, 4]`;
            the first, the ground truth if there is one, is drawn in black. Align the others to it
            before: `sslax.measures.pose.align_trajectory`.
        path: of the PNG.
        title: heading of the page.
    """
    places = {}
    for name, poses in paths.items():
        poses = np.asarray(poses, np.float64)
        chex.assert_shape(poses, (None, 3) if poses.ndim == 2 else (None, 4, 4))
        places[name] = (poses if poses.ndim == 2 else poses[:, :3, 3])[:, [0, 2]]
    with style.page(path, 5.6, 5.8) as figure:
        style.heading(figure, title)
        axes = figure.add_axes((0.12, 0.09, 0.84, 0.79))
        for number, (name, place) in enumerate(places.items()):
            color = style.INK if number == 0 else style.color(number - 1)
            axes.plot(*place.T, color=color, label=name, zorder=2 + number)
            axes.plot(*place[:1].T, "o", color=color, markersize=4, zorder=2 + number)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel("x")
        axes.set_ylabel("z")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(places))


def flow_wheel() -> np.ndarray:
    """The 55 colors around the wheel, `[55, 3]`, whole numbers of 255."""
    ends = np.array(_WHEEL_COLORS)
    pieces = []
    for start, end, steps in zip(ends, np.roll(ends, -1, 0), _WHEEL_STEPS):
        change = 255 * np.arange(steps)[:, None] // steps  # whole numbers, as in the original
        pieces.append(start + np.sign(end - start) * change)
    return np.concatenate(pieces)
