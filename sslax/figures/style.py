"""The common style of all figures: colors, type, and a page to draw on.

Pages are `matplotlib.figure.Figure` objects rather than pyplot's, so drawing leaves no global state
and needs no display.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#222222"
FAINT = "#8a8a8a"
RIGHT = "#1b9e57"
WRONG = "#d1393b"
LINE = "#2b6cb0"
# Ten hues, distinguishable to most color-blind readers in this order; then they repeat.
PALETTE = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#ee9933",
    "#777777",
    "#88ccaa",
    "#885522",
)
DPI = 120
_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.4,
    "figure.facecolor": "white",
    "legend.frameon": False,
}


@contextmanager
def page(path: str | os.PathLike, width: float, height: float) -> Iterator["Figure"]:
    """An empty figure of `width` by `height` inches; on exit it is written to `path` as a PNG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI)
        FigureCanvasAgg(figure)
        yield figure
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")


def color(label: int) -> str:
    """The color of a class label."""
    return PALETTE[label % len(PALETTE)]


def heading(figure: "Figure", title: str, note: str = "") -> None:
    """Title at the top left of the page, with a fainter note below it."""
    inches = figure.get_figheight()
    figure.text(0.15 / figure.get_figwidth(), 1 - 0.13 / inches, title, size=12, va="top")
    if note:
        figure.text(
            0.15 / figure.get_figwidth(), 1 - 0.37 / inches, note, size=9, va="top", color=FAINT
        )


def draw_image(axes: "Axes", image: np.ndarray, frame: str | None = None) -> None:
    """Draws an image without ticks, framed in the given color, if any."""
    axes.imshow(displayable(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(frame is not None)
        spine.set_color(frame or FAINT)
        spine.set_linewidth(2.2)


def displayable(image: np.ndarray, side: int | None = None) -> np.ndarray:
    """An image as Matplotlib takes it: float in [0, 1], `[H, W]` or `[H, W, 3]`.

    Args:
        image: `[H, W]` or `[H, W, C]`, uint8 or float in [0, 1]; unless there are 3, channels are
            averaged.
        side: larger images are subsampled to about this side length in pixels.
    """
    image = np.asarray(image)
    image = image / 255.0 if image.dtype == np.uint8 else image.astype(np.float64)
    if image.ndim == 3 and image.shape[-1] != 3:
        image = image.mean(-1)
    if side is not None:
        stride = max(1, round(max(image.shape[:2]) / side))
        image = image[::stride, ::stride]
    return np.clip(np.nan_to_num(image), 0.0, 1.0)
