"""A real stereo pair with measured disparity: Middlebury's motorcycle, part of scikit-image."""

import numpy as np

from sslax.data import images, photographs

# Calibration at the resolution that scikit-image brings, 500 x 741 pixels.
FOCAL, CENTRE = 994.978, (311.193, 254.877)  # pixels
DOFFS = 31.086  # cx of the right camera minus cx of the left, pixels
BASELINE = 0.193001  # metres


def motorcycle(size: tuple[int, int] = (160, 224)) -> dict[str, np.ndarray]:
    """The pair at a size, as stereo, as flow, and as two frames of a known motion.

    The right view is cut where its principal point agrees with the left one's, so that both have
    the same intrinsics and what is infinitely far has disparity 0. Of that the largest central part
    of the wanted shape is resized by an antialiased bilinear filter.

    Args:
        size: height H and width W.

    Returns:
        'image' `[2, H, W, 3]` uint8, left and right; 'disparity' `[H, W]` of the left, in pixels of
        this size, +inf where unknown; 'known' `[H, W]` (bool); 'depth' `[H, W]` in metres, 0 where
        unknown; 'flow' `[H, W, 2]` from left to right, `(-disparity, 0)`; 'pose' `[4, 4]` from the
        left camera to the right; 'intrinsics' `[3, 3]`; 'baseline' `[]` in metres. Which pixels the
        right camera sees is not known.

    Raises:
        DataError: if scikit-image's files are missing.

    Example:
        >>> pair = motorcycle((32, 48))
        >>> pair["image"].shape, bool(abs(pair["disparity"][16, 24] - 4.6) < 1)
        ((2, 32, 48, 3), True)

    Scharstein et al., "High-Resolution Stereo Datasets with Subpixel-Accurate Ground Truth", 2014.
    """
    left, right = (
        images.decode(photographs.installed_file("skimage", f"data/motorcycle_{side}.png"))
        for side in ("left", "right")
    )
    with np.load(photographs.installed_file("skimage", "data/motorcycle_disp.npz")) as archive:
        measured = archive["arr_0"]
    box = _box(left.shape[0], left.shape[1] - DOFFS, size)
    scale = size[1] / (box[2] - box[0])
    shifted = (box[0] + DOFFS, box[1], box[2] + DOFFS, box[3])
    disparity = scale * (_nearest(measured, box, size) + DOFFS)
    known = np.isfinite(disparity)
    focal = scale * FOCAL
    centre = [(c + 0.5 - first) * scale - 0.5 for c, first in zip(CENTRE, box)]
    pose = np.eye(4, dtype=np.float32)
    pose[0, 3] = -BASELINE
    return {
        "image": np.stack([_resized(left, box, size), _resized(right, shifted, size)]),
        "disparity": disparity.astype(np.float32),
        "known": known,
        "depth": np.where(known, BASELINE * focal / disparity, 0.0).astype(np.float32),
        "flow": np.stack([-disparity, np.zeros_like(disparity)], axis=-1).astype(np.float32),
        "pose": pose,
        "intrinsics": np.array(
            [[focal, 0.0, centre[0]], [0.0, focal, centre[1]], [0.0, 0.0, 1.0]], np.float32
        ),
        "baseline": np.float32(BASELINE),
    }


def _box(height: float, width: float, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, upper, right and lower edge of the largest central part of the size's shape."""
    scale = max(size[0] / height, size[1] / width)
    rows, columns = size[0] / scale, size[1] / scale
    left, top = (width - columns) / 2, (height - rows) / 2
    return left, top, left + columns, top + rows


def _resized(
    pixels: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]
) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(pixels)
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR, box=box))


def _nearest(
    values: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]
) -> np.ndarray:
    """The values nearest to the new pixels' centres: between a near and a far one is neither."""
    height, width = size
    x = box[0] + (np.arange(width) + 0.5) * (box[2] - box[0]) / width
    y = box[1] + (np.arange(height) + 0.5) * (box[3] - box[1]) / height
    return values[np.floor(y).astype(int)[:, None], np.floor(x).astype(int)]
