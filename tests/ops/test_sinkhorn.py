"""Sinkhorn-Knopp against the multiplicative form in float64, large scores, eight devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import ops

sinkhorn = jax.jit(ops.sinkhorn, static_argnames=("epsilon", "iterations"))
SCORES = np.random.default_rng(0).uniform(-1, 1, (16, 5))


def multiplicative_sinkhorn(scores, epsilon, iterations):
    q = np.exp(scores / epsilon)
    for _ in range(iterations):
        q = q / q.sum(0)
        q = q / q.sum(1, keepdims=True)
    return q


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.05, 3), (0.5, 1), (0.2, 12)])
def test_equals_the_multiplicative_form(epsilon, iterations):
    ours = sinkhorn(np.float32(SCORES), epsilon=epsilon, iterations=iterations)
    expected = multiplicative_sinkhorn(SCORES, epsilon, iterations)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_samples_that_do_not_count_have_no_influence():
    """As if they were not there, whatever they are; their own rows are still assignments."""
    counts = np.arange(16) % 3 > 0
    scores = np.where(counts[:, None], SCORES, 1e4)
    ours = np.asarray(sinkhorn(np.float32(scores), weights=counts, epsilon=0.2))
    expected = multiplicative_sinkhorn(SCORES[counts], 0.2, 3)
    np.testing.assert_allclose(ours[counts], expected, atol=1e-5)
    np.testing.assert_allclose(ours.sum(1), 1, rtol=1e-5)
    nothing = sinkhorn(np.float32(scores), weights=0 * counts)
    assert np.isfinite(nothing).all()


def test_is_balanced():
    ours = np.asarray(sinkhorn(np.float32(SCORES), epsilon=0.1, iterations=100))
    np.testing.assert_allclose(ours.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(ours.sum(0), 16 / 5, rtol=1e-3)


def test_large_scores_do_not_overflow():
    scores = np.float32(SCORES) * 1000
    assert not jnp.isfinite(jnp.exp(scores / 0.05)).all()
    ours = np.asarray(sinkhorn(scores, epsilon=0.05, iterations=3))
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours.sum(1), 1, rtol=1e-5)
    equal = sinkhorn(np.zeros((4, 2)))
    np.testing.assert_allclose(equal, 0.5, rtol=1e-6)


@pytest.mark.parametrize("iterations", [3, 12])
def test_one_device_equals_eight(iterations):
    scores, balanced = np.float32(SCORES), partial(ops.sinkhorn, iterations=iterations)

    def total(scores, weights, axis_name=None):
        return (balanced(scores, axis_name=axis_name) * weights).sum()

    weights = np.arange(80, dtype=np.float32).reshape(16, 5)
    expected = jax.jit(balanced)(scores), jax.jit(jax.grad(total))(scores, weights)
    parts = scores.reshape(8, 2, 5), weights.reshape(8, 2, 5)
    ours = jax.pmap(partial(balanced, axis_name="data"), axis_name="data")(parts[0])
    gradient = jax.pmap(jax.grad(partial(total, axis_name="data")), axis_name="data")(*parts)
    np.testing.assert_allclose(ours.reshape(16, 5), expected[0], atol=1e-6)
    np.testing.assert_allclose(gradient.reshape(16, 5), expected[1], atol=1e-2)
    assert np.abs(expected[1]).max() > 1


def test_gradient_equals_finite_differences(x64):
    scores, weights = SCORES, np.arange(80.0).reshape(16, 5)

    def total(scores):
        return (ops.sinkhorn(scores, epsilon=0.3) * weights).sum()

    direction = np.random.default_rng(1).standard_normal((16, 5))
    value, gradient = jax.jit(total), jax.jit(jax.grad(total))
    slope = np.vdot(gradient(scores), direction)
    difference = value(scores + 1e-6 * direction) - value(scores - 1e-6 * direction)
    np.testing.assert_allclose(slope, difference / 2e-6, rtol=1e-6)
