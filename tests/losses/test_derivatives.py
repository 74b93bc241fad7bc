"""Derivatives against central differences, of losses whose own tests do not check them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import losses


def random(*shape, scale=1.0, seed=0):
    return scale * np.random.default_rng(seed).standard_normal(shape)


RESIDUALS = np.array([0.0, 0.02, -0.3, 2.0])
FLOW, OTHER_FLOW = random(2, 1, 3, 4, 2)
DISPARITY = 1 + np.abs(random(2, 1, 3, 5))
ERRORS = np.abs(random(2, 3, 4))
TARGET = random(2, 2, 2, seed=1)
VECTORS = random(3, 4, 5)

# Function, arguments, highest order of derivative that exists.
CASES = {
    "charbonnier": (lambda x: losses.charbonnier(x, epsilon=0.1), [RESIDUALS], 2),
    "robust_l1": (lambda x: losses.robust_l1(x, epsilon=0.1), [RESIDUALS], 2),
    # Without zero, where it has a kink.
    "robust_power": (lambda x: losses.robust_power(x, epsilon=0.1), [RESIDUALS[1:]], 2),
    "explainability": (losses.explainability_regularization, [RESIDUALS], 2),
    "masked_mean": (losses.masked_mean, [ERRORS[0], ERRORS[1]], 2),
    "l2_normalize": (losses.l2_normalize, [VECTORS[0]], 2),
    "triplet": (losses.triplet, list(VECTORS), 1),
    "smooth triplet": (lambda *x: losses.triplet(*x, margin=None), list(VECTORS), 2),
    "minimum_reprojection": (
        lambda e: losses.minimum_reprojection(e, identity_errors=e[::-1])[0],
        [ERRORS],
        1,
    ),
    "sequence_loss": (
        lambda flows, target: losses.sequence_loss(flows, target)[0],
        [random(3, 2, 2, 2), TARGET],
        1,
    ),
    "disparity_consistency": (
        lambda a, b: jnp.stack([error for error, _ in losses.disparity_consistency(a, b)]),
        list(DISPARITY),
        1,
    ),
    "forward_backward_error": (
        lambda f, b: losses.forward_backward_error(f, b, epsilon=0.1)[0],
        [FLOW, OTHER_FLOW],
        2,
    ),
    "masked_reconstruction": (
        lambda p, t: losses.masked_reconstruction(p, t, jnp.ones(p.shape[:2]), normalize=True),
        [random(2, 2, 4), random(2, 2, 4, seed=1)],
        2,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equal_finite_differences(check_derivatives, name):
    function, arguments, order = CASES[name]
    check_derivatives(function, *arguments, order=order, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-5, 1.0, 1e20, 1e37])
def test_vectors_of_any_length_are_normalized(scale):
    """Their squares overflow or vanish in float32."""
    x = np.float32(VECTORS[0]) * np.float32(scale)
    exact = np.float64(x)
    epsilon = 1e-25
    length = np.maximum(np.linalg.norm(exact, axis=-1, keepdims=True), epsilon)
    normalize = partial(losses.l2_normalize, epsilon=epsilon)
    ours = jax.jit(normalize)(x)
    np.testing.assert_allclose(ours, exact / length, rtol=1e-6)
    # d/dx of <w, x / |x|> is (w - y <w, y>) / |x|, in units of 1 / |x|.
    weights = VECTORS[1]
    gradient = jax.jit(jax.grad(lambda x: (normalize(x) * weights).sum()))(x)
    unit = exact / length
    expected = weights - unit * (unit * weights).sum(-1, keepdims=True)
    if 1e-20 <= scale <= 1e20:  # or it has subnormal numbers, or 1 / epsilon
        np.testing.assert_allclose(np.float64(gradient) * length, expected, rtol=1e-4, atol=1e-5)


def test_normalized_vectors_have_unit_length_and_zero_stays_zero():
    x = np.float32(VECTORS[0])
    x[1] = 0
    lengths = np.linalg.norm(jax.jit(losses.l2_normalize)(x), axis=-1)
    np.testing.assert_allclose(lengths, [1, 0, 1, 1], rtol=1e-6)
