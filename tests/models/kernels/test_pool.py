"""Max-pooling: XLA's values and gradients, with ties, at odd and even sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax.models.kernels import pool


@pytest.mark.parametrize("size", [(7, 9), (8, 6), (1, 5)])
def test_gradient_equals_xlas_where_pixels_are_equal(size):
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(2, *size, 3)), 0).round(1).astype(np.float32)  # many zeros

    def weighted(function):
        def total(x):
            y = function(x)
            return jnp.sum(y * jnp.arange(1.0, y.size + 1).reshape(y.shape)), y

        return jax.jit(jax.value_and_grad(total, has_aux=True))

    (_, y), gradient = weighted(pool.max_pool)(x)
    (_, expected), of_xla = weighted(pool._reduce)(x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(gradient, of_xla)
    assert np.count_nonzero(gradient) > y.size / 4
