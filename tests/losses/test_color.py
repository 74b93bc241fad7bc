"""Class rebalancing of colorization."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from sslax import losses

GOLDEN = pathlib.Path(__file__).parent / "golden" / "geometric.npz"


def test_weights_equal_the_formula_and_have_mean_one():
    with np.load(GOLDEN) as values:
        golden = dict(values)
    counts = jnp.asarray(golden["counts"])
    weights = losses.class_rebalancing_weights(counts)
    np.testing.assert_allclose(weights, golden["color"], rtol=1e-5)
    np.testing.assert_allclose((weights * counts).sum() / counts.sum(), 1, rtol=1e-6)
    strong = losses.class_rebalancing_weights(counts, gamma=0.1, alpha=0.7)
    np.testing.assert_allclose(strong, golden["color_strong"], rtol=1e-5)


def test_limits():
    counts = jnp.array([8.0, 2.0, 0.0])
    for options in ({"gamma": 1.0}, {"alpha": 0.0}):
        np.testing.assert_allclose(
            losses.class_rebalancing_weights(counts, **options), 1, rtol=1e-6
        )
    # With gamma = 0 the weights are inverse frequencies, and an empty bin gets 0.
    inverse = losses.class_rebalancing_weights(counts, gamma=0.0)
    np.testing.assert_allclose(inverse, [0.5 / 0.8, 0.5 / 0.2, 0], rtol=1e-6)
    with pytest.raises(ValueError, match="must be in"):
        losses.class_rebalancing_weights(counts, gamma=2.0)
    with pytest.raises(AssertionError, match="class_rebalancing_weights expects"):
        losses.class_rebalancing_weights(counts[None])
