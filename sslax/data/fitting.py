"""One size for images and for what is measured of them: the center cut out, then resized.

Depth and flow live by intrinsics, so nothing is stretched: of an image of another shape the largest
central part of the wanted shape is kept, and what happened to the pixels happens to the intrinsics,
in float64: `f → s f` and `c → (c + 0.5 - edge) s - 0.5`.
"""

from typing import NamedTuple

import numpy as np

from sslax.data.records import DataError


class Fit(NamedTuple):
    """How an image becomes one of another size.

    Attributes:
        box: left, upper, right and lower edge of what is kept, in stored pixels; the edges of the
            first pixel are at 0 and 1.
        size: height and width of the result.
    """

    box: tuple[float, float, float, float]
    size: tuple[int, int]

    @property
    def scale(self) -> float:
        """New pixels a stored one."""
        return self.size[1] / (self.box[2] - self.box[0])


def fit(stored: tuple[int, int], size: tuple[int, int] = (), *, cut_bottom: float = 0.0) -> Fit:
    """The largest central part of an image that has a size's shape.

    Args:
        stored: height and width of the image.
        size: wanted height and width; () for those stored.
        cut_bottom: fraction of the rows that is left out first, at the bottom: a car's bonnet.

    Returns:
        What to keep and its new size.

    Example:
        >>> fit((100, 400), (20, 40))
        Fit(box=(100.0, 0.0, 300.0, 100.0), size=(20, 40))
    """
    height, width = stored[0] - round(cut_bottom * stored[0]), stored[1]
    if not size:
        return Fit((0.0, 0.0, float(width), float(height)), (height, width))
    scale = max(size[0] / height, size[1] / width)
    rows, columns = size[0] / scale, size[1] / scale
    left, top = (width - columns) / 2, (height - rows) / 2
    return Fit((left, top, left + columns, top + rows), tuple(size))


def fit_image(pixels: np.ndarray, fit: Fit) -> np.ndarray:
    """Pixels uint8 `[h, w, C]`, C 1 or 3, to `[H, W, C]` by an antialiased bilinear filter."""
    from PIL import Image

    if fit.box == (0, 0, pixels.shape[1], pixels.shape[0]) and fit.size == pixels.shape[:2]:
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image = image.resize(fit.size[::-1], Image.Resampling.BILINEAR, box=fit.box)
    return np.asarray(image).reshape(*fit.size, pixels.shape[-1])


def fit_intrinsics(intrinsics: np.ndarray, fit: Fit) -> np.ndarray:
    """Intrinsics `[..., 3, 3]` of a stored image to those of the fitted one, float64.

    Example:
        >>> stored = np.array([[100.0, 0, 199.5], [0, 100, 49.5], [0, 0, 1]])
        >>> fit_intrinsics(stored, fit((100, 400), (20, 40))).round(6).tolist()
        [[20.0, 0.0, 19.5], [0.0, 20.0, 9.5], [0.0, 0.0, 1.0]]
    """
    scale, (left, top, _, _) = fit.scale, fit.box
    change = np.array(
        [
            [scale, 0.0, (0.5 - left) * scale - 0.5],
            [0.0, scale, (0.5 - top) * scale - 0.5],
            [0.0, 0.0, 1.0],
        ]
    )
    return change @ np.asarray(intrinsics, np.float64)


def fit_values(values: np.ndarray, fit: Fit) -> np.ndarray:
    """A dense map `[h, w, ...]` to `[H, W, ...]`: the nearest values, because the mean of a near
    and a far one is neither. Lengths in pixels are still to be multiplied by `fit.scale`."""
    height, width = fit.size
    left, top, right, bottom = fit.box
    x = left + (np.arange(width) + 0.5) * (right - left) / width
    y = top + (np.arange(height) + 0.5) * (bottom - top) / height
    return values[np.floor(y).astype(int)[:, None], np.floor(x).astype(int)]


def fit_points(x: np.ndarray, y: np.ndarray, depth: np.ndarray, fit: Fit) -> np.ndarray:
    """Depths at points of a stored image to a sparse map, the nearest of each pixel, 0 elsewhere.

    Args:
        x: `[N]`, stored pixels.
        y: `[N]`.
        depth: `[N]`; points with a depth of 0 or less are left out.
        fit: of the image.

    Returns:
        float32 `[H, W]`.

    Example:
        >>> fit_points(*np.array([[0.0, 1, 3], [0, 0, 0], [5, 4, 7]]), fit((2, 4), (1, 2))).tolist()
        [[4.0, 7.0]]
    """
    height, width = fit.size
    # Of the pixels' areas, not of their centers: `floor` of edges is `round` of centers.
    column = np.floor((x + 0.5 - fit.box[0]) * fit.scale)
    row = np.floor((y + 0.5 - fit.box[1]) * fit.scale)
    seen = (depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    nearest = np.full((height, width), np.inf, np.float32)
    at = row[seen].astype(int), column[seen].astype(int)
    np.minimum.at(nearest, at, depth[seen].astype(np.float32))
    return np.where(np.isfinite(nearest), nearest, np.float32(0))


def check_intrinsics(intrinsics: np.ndarray, stored: tuple[int, int], what: str) -> None:
    """Refuses intrinsics `[..., 3, 3]` of images of another size.

    Raises:
        DataError: if they are no intrinsics, or their center is outside the image.
    """
    focal = np.stack([intrinsics[..., 0, 0], intrinsics[..., 1, 1]])
    if not (np.isfinite(intrinsics).all() and (focal > 0).all()):
        raise DataError(
            f"{what} has intrinsics that are none: fx and fy, at [0, 0] and [1, 1], must be "
            "positive and all entries finite"
        )
    center = intrinsics[..., :2, 2]
    if (center < 0).any() or (center > np.array([stored[1], stored[0]]) - 1).any():
        x, y = center.reshape(-1, 2)[0]
        raise DataError(
            f"{what}: the intrinsics' center ({x:g}, {y:g}) is outside the images of {stored[1]} x "
            f"{stored[0]} pixels: give the intrinsics of images of this size, in pixels"
        )
