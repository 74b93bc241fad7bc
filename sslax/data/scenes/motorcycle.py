"""A real stereo pair with measured disparity: Middlebury's motorcycle, from scikit-image."""

import numpy as np

from sslax.data import fitting
from sslax.data.files import images, installed

# Calibration at scikit-image's resolution, 500 x 741 pixels.
FOCAL, CENTER = 994.978, (311.193, 254.877)  # pixels
DOFFS = 31.086  # cx of the right camera minus cx of the left, pixels
BASELINE = 0.193001  # meters


def motorcycle(size: tuple[int, int] = (160, 224)) -> dict[str, np.ndarray]:
    """The pair as stereo, as flow, and as two frames with known motion.

    The right view is cropped so that its principal point agrees with the left one's: both have the
    same intrinsics, and infinitely far points have disparity 0. Then both are cropped to the
    largest central part with the wanted aspect ratio, and resized by an antialiased bilinear
    filter.

    Args:
        size: height H and width W.

    Returns:
        'image' `[2, H, W, 3]` uint8, left and right; 'disparity' `[H, W]` of the left, in pixels of
        this size, +inf where unknown; 'known' `[H, W]` (bool); 'depth' `[H, W]` in meters, 0 where
        unknown; 'flow' `[H, W, 2]` from left to right, `(-disparity, 0)`; 'pose' `[4, 4]` from the
        left camera to the right; 'intrinsics' `[3, 3]`; 'baseline' `[]` in meters. Occlusions are
        not known.

    Raises:
        DataError: scikit-image's files are missing.

    Example:
        >>> pair = motorcycle((32, 48))
        >>> pair["image"].shape, bool(abs(pair["disparity"][16, 24] - 4.6) < 1)
        ((2, 32, 48, 3), True)

    Scharstein et al., "High-Resolution Stereo Datasets with Subpixel-Accurate Ground Truth", 2014.
    """
    left, right = (
        images.decode(installed.installed_file("skimage", f"data/motorcycle_{side}.png"))
        for side in ("left", "right")
    )
    with np.load(installed.installed_file("skimage", "data/motorcycle_disp.npz")) as archive:
        measured = archive["arr_0"]
    fit = fitting.fit((left.shape[0], left.shape[1] - DOFFS), size)
    shifted = fit._replace(box=tuple(np.add(fit.box, (DOFFS, 0, DOFFS, 0)).tolist()))
    disparity = fit.scale[0] * (fitting.fit_values(measured, fit) + DOFFS)
    known = np.isfinite(disparity)
    stored = np.array([[FOCAL, 0.0, CENTER[0]], [0.0, FOCAL, CENTER[1]], [0.0, 0.0, 1.0]])
    intrinsics = fitting.fit_intrinsics(stored, fit)
    pose = np.eye(4, dtype=np.float32)
    pose[0, 3] = -BASELINE
    return {
        "image": np.stack([fitting.fit_image(left, fit), fitting.fit_image(right, shifted)]),
        "disparity": disparity.astype(np.float32),
        "known": known,
        "depth": np.where(known, BASELINE * intrinsics[0, 0] / disparity, 0.0).astype(np.float32),
        "flow": np.stack([-disparity, np.zeros_like(disparity)], axis=-1).astype(np.float32),
        "pose": pose,
        "intrinsics": intrinsics.astype(np.float32),
        "baseline": np.float32(BASELINE),
    }
