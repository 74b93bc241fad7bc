"""Coding rates against NumPy, with D x D and N x N matrices, at collapse, on eight devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import losses


def embeddings(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def numpy_rate(z, epsilon):
    n, dimensions = z.shape
    matrix = np.eye(dimensions) + dimensions / (n * epsilon) * z.T @ z
    return np.log(np.linalg.eigvalsh(matrix)).sum() / 2


@pytest.mark.parametrize("dimensions", [3, 12])
def test_values_equal_numpy(x64, dimensions):
    z = embeddings(6, 2, dimensions)
    rate, loss = jax.jit(
        lambda z: (losses.total_coding_rate(z[:, 0], epsilon=0.3), losses.emp_ssl(z))
    )(z)
    np.testing.assert_allclose(rate, numpy_rate(z[:, 0], 0.3), rtol=1e-10)
    z = unit(z)
    cosines = (z * unit(z.mean(1, keepdims=True))).sum(-1)
    rates = [numpy_rate(z[:, v], 0.2) for v in range(2)]
    np.testing.assert_allclose(loss, -np.mean(rates) - 200 * cosines.mean(), rtol=1e-10)


@pytest.mark.parametrize("dimensions", [3, 7])
def test_derivatives(check_derivatives, dimensions):
    loss = partial(losses.emp_ssl, invariance_weight=2.0)
    check_derivatives(loss, embeddings(4, 2, dimensions))


def test_collapsed_and_spread_embeddings():
    """At the size of the authors' CIFAR experiments."""
    rate = jax.jit(losses.total_coding_rate)
    collapsed = np.eye(1, 1024, dtype=np.float32).repeat(100, 0)
    np.testing.assert_allclose(rate(collapsed), 4.27, atol=0.01)
    spread = np.eye(100, 1024, dtype=np.float32)
    np.testing.assert_allclose(rate(spread), 50 * np.log(1 + 1024 / 20), rtol=1e-5)


def test_equal_and_zero_embeddings_have_finite_gradients():
    total = jax.jit(jax.value_and_grad(losses.emp_ssl))
    for z in (np.ones((4, 2, 3), np.float32), np.zeros((4, 2, 3), np.float32)):
        value, gradient = total(z)
        assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("dimensions", [3, 20])
def test_one_device_equals_eight(check_parallel, dimensions):
    a, b = np.float32(embeddings(2, 16, dimensions))

    def loss(temperature, weights, a, b, axis_name):
        z = jnp.stack([a @ weights, b @ weights / temperature + 1], axis=1)
        return losses.emp_ssl(z, invariance_weight=3.0, axis_name=axis_name)

    check_parallel(loss, a, b)


def test_errors():
    with pytest.raises(ValueError, match="emp_ssl: epsilon must be positive"):
        losses.emp_ssl(jnp.ones((4, 2, 3)), epsilon=0.0)
    with pytest.raises(AssertionError, match="total_coding_rate expects"):
        losses.total_coding_rate(jnp.ones((4, 2, 3)))
