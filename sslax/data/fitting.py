"""Center crop and resize, applied to images, intrinsics and measured maps alike.

An image is cropped to a central part and resized by s along each axis. Intrinsics follow in
float64: `f → s f` and `c → (c + 0.5 - edge) s - 0.5`.
"""

from typing import NamedTuple

import numpy as np

from sslax.data.records import DataError

# Limits of `check_intrinsics`.
_OFF_CENTER = 1.15  # ratio of twice the center to the side, along both axes
_OUTERMOST = 0.2  # and along one: the center is in the outermost tenth
_SHORTEST, _LONGEST = 0.1, 50.0  # focal lengths, in sides of the image
_SMALLEST = 8  # pixels of an image that is suggested
TRUST = "data.camera.check_intrinsics=False"
FITTINGS = ("cover", "stretch", "window")


class Fit(NamedTuple):
    """A crop and a size to resize it to.

    Attributes:
        box: left, top, right and bottom edge of the crop in stored pixels; the edges of the first
            pixel are at 0 and 1.
        size: height and width of the result.
    """

    box: tuple[float, float, float, float]
    size: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """New pixels per stored pixel, along x and y."""
        left, top, right, bottom = self.box
        return self.size[1] / (right - left), self.size[0] / (bottom - top)


def fit(
    stored: tuple[int, int],
    size: tuple[int, int] = (),
    *,
    cut_bottom: float = 0.0,
    fitting: str = "cover",
) -> Fit:
    """How an image is brought to a size.

    Args:
        stored: height and width of the image.
        size: wanted height and width; () keeps those stored.
        cut_bottom: fraction of the rows to crop at the bottom first, such as a car's hood.
        fitting: "cover", the largest central crop with the aspect ratio of `size`, resized;
            "stretch", the whole image, resized along each axis by itself; or "window", the central
            pixels, not resized.

    Returns:
        The crop and its new size.

    Raises:
        DataError: the image is smaller than its window.

    Example:
        >>> fit((100, 400), (20, 40))
        Fit(box=(100.0, 0.0, 300.0, 100.0), size=(20, 40))
        >>> fit((100, 400), (20, 40), fitting="stretch")
        Fit(box=(0.0, 0.0, 400.0, 100.0), size=(20, 40))
        >>> fit((100, 400), (20, 40), fitting="window")
        Fit(box=(180.0, 40.0, 220.0, 60.0), size=(20, 40))
    """
    height, width = stored[0] - round(cut_bottom * stored[0]), stored[1]
    if not size or fitting == "stretch":
        return Fit((0.0, 0.0, float(width), float(height)), tuple(size) or (height, width))
    if fitting == "window":
        if size[0] > height or size[1] > width:
            raise DataError(
                f"an image of {width} x {height} pixels has no window of {size[1]} x {size[0]}: "
                "set data.size to at most the smallest image's, or data.fitting to 'cover'"
            )
        left, top = float((width - size[1]) // 2), float((height - size[0]) // 2)
        return Fit((left, top, left + size[1], top + size[0]), tuple(size))
    scale = max(size[0] / height, size[1] / width)
    rows, columns = size[0] / scale, size[1] / scale
    left, top = (width - columns) / 2, (height - rows) / 2
    return Fit((left, top, left + columns, top + rows), tuple(size))


def fit_image(pixels: np.ndarray, fit: Fit) -> np.ndarray:
    """Crops and resizes uint8 `[h, w, 1 or 3]` by an antialiased bilinear filter."""
    from PIL import Image

    if fit.box == (0, 0, pixels.shape[1], pixels.shape[0]) and fit.size == pixels.shape[:2]:
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image = image.resize(fit.size[::-1], Image.Resampling.BILINEAR, box=fit.box)
    return np.asarray(image).reshape(*fit.size, pixels.shape[-1])


def fit_intrinsics(intrinsics: np.ndarray, fit: Fit) -> np.ndarray:
    """Intrinsics `[..., 3, 3]` after the crop and resize, float64.

    Example:
        >>> stored = np.array([[100.0, 0, 199.5], [0, 100, 49.5], [0, 0, 1]])
        >>> fit_intrinsics(stored, fit((100, 400), (20, 40))).round(6).tolist()
        [[20.0, 0.0, 19.5], [0.0, 20.0, 9.5], [0.0, 0.0, 1.0]]
    """
    (x, y), (left, top, _, _) = fit.scale, fit.box
    change = np.array(
        [
            [x, 0.0, (0.5 - left) * x - 0.5],
            [0.0, y, (0.5 - top) * y - 0.5],
            [0.0, 0.0, 1.0],
        ]
    )
    return change @ np.asarray(intrinsics, np.float64)


def fit_values(values: np.ndarray, fit: Fit) -> np.ndarray:
    """Crops and resizes a dense map `[h, w, ...]` by nearest neighbor.

    Interpolation would invent depths between a near and a far surface. Values in pixels (disparity,
    flow) remain to be multiplied by `fit.scale`.
    """
    height, width = fit.size
    left, top, right, bottom = fit.box
    x = left + (np.arange(width) + 0.5) * (right - left) / width
    y = top + (np.arange(height) + 0.5) * (bottom - top) / height
    return values[np.floor(y).astype(int)[:, None], np.floor(x).astype(int)]


def check_size(what: str, shape: tuple[int, ...], stored: tuple[int, int]) -> None:
    """Refuses ground truth of another size than its image's.

    Args:
        what: its file's name, for messages.
        shape: its height and width.
        stored: the image's height and width.

    Raises:
        DataError: naming both sizes.
    """
    if shape != stored:
        (height, width), (h, w) = shape, stored
        raise DataError(f"{what} has {width} x {height} pixels, but its image {w} x {h}")


def fit_points(x: np.ndarray, y: np.ndarray, depth: np.ndarray, fit: Fit) -> np.ndarray:
    """Draws points with depth into a sparse map: the nearest in each pixel, 0 where there is none.

    Args:
        x: `[N]`, in stored pixels.
        y: `[N]`, in stored pixels.
        depth: `[N]`; points that are not in front of the camera are left out.
        fit: crop and resize of the image.

    Returns:
        float32 `[H, W]`.

    Example:
        >>> fit_points(*np.array([[0.0, 1, 3], [0, 0, 0], [5, 4, 7]]), fit((2, 4), (1, 2))).tolist()
        [[4.0, 7.0]]
    """
    height, width = fit.size
    # Pixel centers are at integers, so pixel x covers [x - 0.5, x + 0.5).
    column = np.floor((x + 0.5 - fit.box[0]) * fit.scale[0])
    row = np.floor((y + 0.5 - fit.box[1]) * fit.scale[1])
    inside = (depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    nearest = np.full((height, width), np.inf, np.float32)
    pixels = row[inside].astype(int), column[inside].astype(int)
    np.minimum.at(nearest, pixels, depth[inside].astype(np.float32))
    return np.where(np.isfinite(nearest), nearest, np.float32(0))


def check_intrinsics(
    intrinsics: np.ndarray,
    stored: tuple[int, int],
    what: str,
    *,
    trusted: bool = False,
    remedy: str = f"set {TRUST}",
) -> None:
    """Refuses intrinsics `[..., 3, 3]` that belong to images of another size.

    The principal point of a camera is near the center of its images. Where it is off by more than
    15 % along both axes, or in the outermost tenth along one, the intrinsics are those of other
    images: of twice the size, of half of it, or turned. A focal length is neither less than a tenth
    of the image's side (a field of view of 157 degrees) nor more than 50 times as long.

    Args:
        intrinsics: in pixels.
        stored: height and width of the image.
        what: the name of the images, for messages.
        trusted: they are intrinsics of such images, wherever the center is.
        remedy: what to do where they are, for messages.

    Raises:
        DataError: they are not intrinsics, or not those of such images; the message names the size
            that they suggest.
    """
    focal = np.stack([intrinsics[..., 0, 0], intrinsics[..., 1, 1]], axis=-1)
    if not (np.isfinite(intrinsics).all() and (focal > 0).all()):
        raise DataError(
            f"{what} has invalid intrinsics: fx and fy, at [0, 0] and [1, 1], must be positive and "
            "all entries finite"
        )
    if trusted:
        return
    height, width = stored
    sides = np.array([width, height])
    suggested = 2 * intrinsics[..., :2, 2] + 1  # the sides of images with this center
    ratio = suggested / sides
    off = ((ratio < 1 / _OFF_CENTER) | (ratio > _OFF_CENTER)).all(-1)
    extreme = ((ratio < _OUTERMOST) | (ratio > 2 - _OUTERMOST)).any(-1)
    if (wrong := (off | extreme).ravel()).any():
        w, h = suggested.reshape(-1, 2)[wrong][0]
        x, y = (w - 1) / 2, (h - 1) / 2
        inside = 0 <= x <= width - 1 and 0 <= y <= height - 1
        raise DataError(
            f"{what}: the principal point ({x:g}, {y:g}) is "
            f"{'far from the center of' if inside else 'outside'} the images of {width} x {height} "
            f"pixels{_suggestion(w, h)}: give the intrinsics for images of this size, in pixels, "
            f"or, where images are cropped off center, {remedy}"
        )
    fraction = (focal / sides).reshape(-1, 2)
    if (wrong := ((fraction < _SHORTEST) | (fraction > _LONGEST)).any(-1)).any():
        fx, fy = focal.reshape(-1, 2)[wrong][0]
        view = np.degrees(2 * np.arctan(sides / (2 * np.array([fx, fy]))))
        raise DataError(
            f"{what}: focal lengths of {fx:g} and {fy:g} pixels in images of {width} x {height} "
            f"pixels are a field of view of {view[0]:.3g} x {view[1]:.3g} degrees: give focal "
            f"lengths in pixels (from fractions, times {width} and {height})"
        )


def _suggestion(width: float, height: float) -> str:
    """A clause that names the size of images with a center, if it is a size."""
    if min(width, height) < _SMALLEST:
        return ""
    return f", and suggests images of about {width:.0f} x {height:.0f}"
