"""Consistency of disparities and flows against loops over pixels in float64."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import losses

GOLDEN = pathlib.Path(__file__).parent / "golden" / "geometric.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as values:
        return {name: np.asarray(value) for name, value in values.items()}


def test_disparity_consistency_equals_loops(golden):
    disparity = jnp.asarray(golden["disparity"])[:, None]
    both = jax.jit(losses.disparity_consistency)(*disparity)
    for (error, valid), name in zip(both, ("left_error", "right_error")):
        expected = golden[name]
        np.testing.assert_array_equal(valid[0], np.isfinite(expected))
        ours = np.where(valid[0], error[0], np.nan)
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_constant_disparity_is_consistent_inside_the_image():
    disparity = np.full((1, 4, 10), 3.0, np.float32)
    both = jax.jit(losses.disparity_consistency)(disparity, disparity)
    (left, valid_left), (right, valid_right) = both
    np.testing.assert_array_equal(left, 0)
    np.testing.assert_array_equal(right, 0)
    np.testing.assert_array_equal(valid_left[0, 0], np.arange(10) >= 3)
    np.testing.assert_array_equal(valid_right[0, 0], np.arange(10) < 7)


def test_disparity_gradient_reaches_both_maps_and_is_finite_at_zero(golden):
    def loss(left, right):
        return sum(losses.masked_mean(*pair) for pair in losses.disparity_consistency(left, right))

    left, right = jnp.asarray(golden["disparity"])[:, None]
    gradients = jax.jit(jax.grad(loss, (0, 1)))
    for gradient in gradients(left, right):
        assert np.isfinite(gradient).all()
        assert np.mean(np.asarray(gradient) != 0) > 0.5
    zeros = np.zeros_like(left)
    for gradient in gradients(zeros, zeros):
        assert np.isfinite(gradient).all()


def test_forward_backward_error_equals_loops(golden):
    flows = (jnp.asarray(golden[name])[None] for name in ("forward", "backward"))
    error, valid = jax.jit(losses.forward_backward_error)(*flows)
    expected = golden["consistency"]
    np.testing.assert_array_equal(valid[0], np.isfinite(expected))
    np.testing.assert_allclose(np.where(valid[0], error[0], np.nan), expected, rtol=1e-4)


def test_forward_backward_gradient_is_zero_for_consistent_flows():
    def loss(forward, backward):
        return losses.masked_mean(*losses.forward_backward_error(forward, backward))

    gradients = jax.jit(jax.grad(loss, (0, 1)))
    for shift in (0.0, 1.5):
        flow = np.full((1, 5, 6, 2), shift, np.float32)
        for gradient in gradients(flow, -flow):
            np.testing.assert_allclose(gradient, 0, atol=1e-6)
        for gradient in gradients(flow, -flow + 0.5):
            assert np.isfinite(gradient).all()
            assert (np.asarray(gradient) != 0).any()
