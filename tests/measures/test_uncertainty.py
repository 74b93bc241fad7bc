"""Sparsification against an independent count of the pixels that are left."""

from itertools import pairwise

import numpy as np
import pytest

from sslax.measures.uncertainty import sparsification


def reference(error, order, root):
    """Distinct uncertainties: keep the P - floor(k (P - 1) / 50 rounded up) most certain pixels."""
    ranked = error[np.argsort(order)]
    curve = []
    for k in range(50):
        kept = len(error) - -(-k * (len(error) - 1) // 50)
        mean = sum(ranked[:kept]) / kept
        curve.append(mean**0.5 if root else mean)
    return np.array([*curve, 0.0])


def area(curve):
    return sum((a + b) / 2 for a, b in pairwise(curve)) / 50


@pytest.mark.parametrize("root", [False, True])
def test_curves_and_areas(root):
    rng = np.random.default_rng(0)
    error = rng.exponential(size=977)
    uncertainty = error + rng.exponential(size=977)
    result = sparsification(error, uncertainty, root=root)
    expected, oracle = reference(error, uncertainty, root), reference(error, error, root)
    np.testing.assert_allclose(result.error, expected, rtol=1e-12)
    np.testing.assert_allclose(result.oracle, oracle, rtol=1e-12)
    np.testing.assert_allclose(result.ause, area(expected) - area(oracle), rtol=1e-9)
    np.testing.assert_allclose(result.aurg, expected[0] - area(expected), rtol=1e-9)
    assert 0 < result.ause < sparsification(error, -error, root=root).ause


def test_no_pixel_and_nan_are_refused():
    for error in ([], [np.nan]):
        with pytest.raises(ValueError, match="at least one pixel"):
            sparsification(error, error)
