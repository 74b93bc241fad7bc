"""Disparity, depth and flow in colors, and trajectories from above."""

import os
from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from sslax import checks
from sslax.figures import style
from sslax.types import Array, FlowField, InverseDepth

# The flow wheel: its primary colors, and the number of steps from each to the next: red, yellow,
# green, cyan, blue, magenta, and back to red.
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


def colorize(column: Array | InverseDepth | FlowField) -> np.ndarray:
    """A column of a method's visualization as images.

    Args:
        column: images `[B, h, w, C]`; or `InverseDepth`, where each map spans from its least value
            to its 95th percentile; or `FlowField`, where each map spans its own maximum speed
            unless `max_radius` is given.

    Returns:
        Images as they are; maps as RGB `[B, h, w, 3]`, uint8.

    Example:
        >>> colorize(FlowField(np.array([[[[2.0, 0.0], [0.0, 0.0]]]]))).tolist()
        [[[[255, 0, 0], [255, 255, 255]]]]
    """
    if isinstance(column, InverseDepth):
        return np.stack([disparity_colors(values) for values in np.asarray(column.values)])
    if isinstance(column, FlowField):
        if column.max_radius is None:
            return np.stack([flow_colors(values) for values in np.asarray(column.values)])
        return flow_colors(column.values, max_radius=column.max_radius)
    return np.asarray(column)


def flow_colors(
    flow: ArrayLike, *, mask: ArrayLike | None = None, max_radius: ArrayLike | None = None
) -> np.ndarray:
    """Flow on the color wheel of the Middlebury benchmark.

    Hue encodes direction: right is red, down yellow, left cyan-blue, up blue-violet. Saturation
    encodes speed, from white at 0 to full at `max_radius`; faster pixels are darkened by a quarter.
    Unknown flow is black.

    Args:
        flow: `[..., 2]`, `(x, y)` in pixels.
        mask: `[...]`, 1 where known. Flow that is not finite or beyond 1e9 is always unknown.
        max_radius: speed of full saturation, broadcastable to `[...]`; by default the maximum known
            speed of the whole array. Set it to make figures comparable.

    Returns:
        `[..., 3]`, uint8, RGB.

    Example:
        >>> flow_colors(np.array([[[2.0, 0.0], [0.0, 0.0], [np.nan, 0.0]]])).tolist()
        [[[255, 0, 0], [255, 255, 255], [0, 0, 0]]]

    Baker et al., A Database and Evaluation Methodology for Optical Flow, IJCV 2011.
    """
    vectors = np.asarray(flow, np.float64)
    checks.assert_axis_dimension(vectors, -1, 2)
    known = np.all(np.abs(vectors) <= _UNKNOWN_FLOW, axis=-1)  # False for NaN
    if mask is not None:
        checks.assert_shape(mask, known.shape)
        known = known & np.asarray(mask, bool)
    x, y = np.moveaxis(np.where(known[..., None], vectors, 0.0), -1, 0)
    speed = np.hypot(x, y)
    largest = np.asarray(speed.max(initial=0.0) if max_radius is None else max_radius, np.float64)
    radius = (speed / np.where(largest > 0, largest, 1.0))[..., None]

    wheel = flow_wheel()
    # atan2(-y, -x) runs from -pi, pointing right, through down, left and up back to right. A
    # negative zero y would jump from the first color to the last; + 0.0 makes it positive.
    position = (np.arctan2(-(y + 0.0), -x) / np.pi + 1) / 2 * (len(wheel) - 1)
    first = np.floor(position).astype(int)
    blend = (position - first)[..., None]
    hue = (1 - blend) * wheel[first] + blend * wheel[(first + 1) % len(wheel)]
    # A radius computed in float32 may round below the fastest pixel's speed; do not darken that.
    inside = radius <= 1 + 1e-5
    color = np.where(inside, 255 - np.minimum(radius, 1.0) * (255 - hue), 0.75 * hue)
    return np.where(known[..., None], np.floor(color), 0).astype(np.uint8)


def flow_legend(size: int = 151) -> np.ndarray:
    """The color wheel as a legend: each pixel has the color of the flow from the center to it.

    Args:
        size: side length in pixels.

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
    disparity: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    lowest: float | None = None,
    highest: float | None = None,
    colormap: str = "magma",
) -> np.ndarray:
    """Disparity or inverse depth in colors: near is bright, unknown is gray.

    Args:
        disparity: `[...]`.
        mask: `[...]`, 1 where known. Values that are not finite are always unknown.
        lowest: disparity of the darkest color; by default the known minimum.
        highest: disparity of the brightest color; by default the 95th percentile of the known
            values, so that one near object does not darken the rest (as Monodepth2 does).
        colormap: of Matplotlib; 'magma' is perceptually uniform and contains no gray.

    Returns:
        `[..., 3]`, uint8, RGB.

    Example:
        >>> disparity_colors(np.array([[1.0, 1.0, np.inf]])).tolist()
        [[[0, 0, 3], [0, 0, 3], [128, 128, 128]]]
    """
    from matplotlib import colormaps

    values = np.asarray(disparity, np.float64)
    known = np.isfinite(values)
    if mask is not None:
        checks.assert_shape(mask, known.shape)
        known &= np.asarray(mask, bool)
    if not known.any():
        return np.full((*values.shape, 3), _GRAY, np.uint8)
    low = float(values[known].min() if lowest is None else lowest)
    high = float(np.percentile(values[known], 95) if highest is None else highest)
    shade = (np.where(known, values, low) - low) / max(high - low, 1e-12)
    colors = np.asarray(colormaps[colormap](np.clip(shade, 0, 1), bytes=True))[..., :3]
    return np.where(known[..., None], colors, np.uint8(_GRAY))


def depth_colors(
    depth: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    nearest: float | None = None,
    farthest: float | None = None,
    colormap: str = "magma",
) -> np.ndarray:
    """Depth in the colors of its inverse: near is bright, infinity darkest, unknown gray.

    Args:
        depth: `[...]`; not positive, or NaN, where unknown.
        mask: `[...]`, 1 where known.
        nearest: depth of the brightest color; by default as in `disparity_colors`.
        farthest: depth of the darkest color.
        colormap: of Matplotlib.

    Returns:
        `[..., 3]`, uint8, RGB.

    Example:
        >>> colors = depth_colors(np.array([[1.0, 2.0, np.inf, 0.0]]), nearest=1.0)
        >>> colors[0, :, 0].tolist()
        [251, 182, 0, 128]
    """
    values = np.asarray(depth, np.float64)
    known = values > 0
    if mask is not None:
        known &= np.asarray(mask, bool)
    return disparity_colors(
        1 / np.where(known, values, 1.0),
        mask=known,
        lowest=None if farthest is None else 1 / farthest,
        highest=None if nearest is None else 1 / nearest,
        colormap=colormap,
    )


def trajectories(
    poses: Mapping[str, ArrayLike], path: str | os.PathLike, *, title: str = "Camera trajectory"
) -> None:
    """Trajectories from above: x to the right, z (the first camera's viewing direction) upwards.

    Both axes have the same scale. A dot marks the start of each trajectory.

    Args:
        poses: by name in the legend, positions `[N, 3]` or camera-to-world poses `[N, 4, 4]`. The
            first, usually the ground truth, is drawn in black. Align the others to it first, by
            `sslax.measures.pose.align_trajectory`.
        path: of the PNG.
        title: heading of the page.
    """
    positions = {}
    for name, trajectory in poses.items():
        values = np.asarray(trajectory, np.float64)
        checks.assert_shape(values, (None, 3) if values.ndim == 2 else (None, 4, 4))
        positions[name] = (values if values.ndim == 2 else values[:, :3, 3])[:, [0, 2]]
    with style.page(path, 5.6, 5.8) as figure:
        style.heading(figure, title)
        axes = figure.add_axes((0.12, 0.09, 0.84, 0.79))
        for number, (name, position) in enumerate(positions.items()):
            color = style.INK if number == 0 else style.color(number - 1)
            axes.plot(*position.T, color=color, label=name, zorder=2 + number)
            axes.plot(*position[:1].T, "o", color=color, markersize=4, zorder=2 + number)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel("x")
        axes.set_ylabel("z")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(positions))


def flow_wheel() -> np.ndarray:
    """The 55 colors around the wheel, `[55, 3]`, integers in [0, 255]."""
    primaries = np.array(_WHEEL_COLORS)
    arcs = []
    for start, end, steps in zip(primaries, np.roll(primaries, -1, 0), _WHEEL_STEPS):
        change = 255 * np.arange(steps)[:, None] // steps  # integers, as in the original
        arcs.append(start + np.sign(end - start) * change)
    return np.concatenate(arcs)
