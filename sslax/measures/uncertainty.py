"""How well a predicted uncertainty ranks errors: sparsification curves.

On the host, in float64: every curve is a handful of sorts of one image.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sslax import checks


class Sparsification(NamedTuple):
    """Errors of the pixels that are kept, `[steps + 1]`, as ever more are removed.

    Attributes:
        removed: share of removed pixels, from 0 to 1.
        error: where the most uncertain pixels are removed first; 0 where none is left.
        oracle: where those of the largest error are removed first.
        ause: area between `error` and `oracle`; 0 is perfect.
        aurg: area between a random order, which keeps the error, and `error`; above 0 is better
            than chance.
    """

    removed: np.ndarray
    error: np.ndarray
    oracle: np.ndarray
    ause: float
    aurg: float


def sparsification(
    error: ArrayLike, uncertainty: ArrayLike, *, steps: int = 50, root: bool = False
) -> Sparsification:
    """Curves and areas of one image.

    Step k keeps the pixels whose uncertainty is at most its quantile 1 - k / steps, ties included.

    Args:
        error: `[P]`, of the valid pixels, at least 0; squared if `root`. Not an indicator like
            delta_1, whose oracle the authors order by the ratio behind it.
        uncertainty: `[P]`, larger where an error is expected; only its order matters.
        steps: 50 removes 2 % at a time.
        root: takes the root of each mean, as for the RMSE.

    Returns:
        Curves and areas.

    Raises:
        ValueError: there is no pixel, a value is not finite, or `steps` is not positive.

    Example:
        >>> result = sparsification([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], steps=4)
        >>> result.error.tolist(), result.ause, result.aurg
        ([2.5, 2.0, 1.5, 1.0, 0.0], 0.0, 1.0625)

    Poggi et al., On the uncertainty of self-supervised monocular depth estimation, CVPR 2020,
    https://arxiv.org/abs/2005.06209
    """
    error, uncertainty = np.asarray(error, np.float64), np.asarray(uncertainty, np.float64)
    checks.assert_rank([error, uncertainty], 1)
    checks.assert_equal_shape([error, uncertainty])
    checks.assert_positive(steps=steps)
    if not error.size or not np.isfinite([error, uncertainty]).all():
        raise checks.value_error("Give at least one pixel, and finite errors and uncertainties.")
    removed = np.linspace(0, 1, steps + 1)

    def curve(order: np.ndarray) -> np.ndarray:
        # Of the negative order, as in the authors' code: rounding decides ties the same way.
        kept = [-order >= t for t in np.percentile(-order, 100 * removed[:-1])]
        means = np.array([error[mask].mean() for mask in kept] + [0.0])
        return np.sqrt(means) if root else means

    predicted, oracle = curve(uncertainty), curve(error)
    area = np.trapezoid(predicted, removed)
    ause = area - np.trapezoid(oracle, removed)
    return Sparsification(removed, predicted, oracle, float(ause), float(predicted[0] - area))
