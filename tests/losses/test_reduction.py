"""The masked mean, with invalid values and with empty masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import losses


def test_masked_values_are_ignored():
    values = jnp.array([[1.0, jnp.nan], [5.0, jnp.inf]])
    mask = jnp.array([[True, False], [True, False]])
    value, gradient = jax.jit(jax.value_and_grad(losses.masked_mean))(values, mask)
    assert value == 3
    np.testing.assert_array_equal(gradient, [[0.5, 0], [0.5, 0]])


def test_masks_may_be_weights():
    mean = jax.jit(losses.masked_mean)(jnp.array([1.0, 5.0]), jnp.array([0.75, 0.25]))
    np.testing.assert_allclose(mean, 2.0)


def test_empty_masks_give_zero_with_zero_gradient():
    total = jax.jit(jax.value_and_grad(losses.masked_mean, (0, 1)))
    value, gradients = total(np.ones(3), np.zeros(3))
    assert value == 0
    assert all((np.asarray(g) == 0).all() for g in gradients)


def test_bfloat16_is_summed_in_float32():
    values = jnp.ones(1000, jnp.bfloat16)  # a sum in bfloat16 stays at 256
    mean = jax.jit(losses.masked_mean)(values, jnp.ones(1000, bool))
    assert mean == 1 and mean.dtype == jnp.float32


def test_shapes_must_be_equal():
    with pytest.raises(ValueError, match="broadcast_to"):
        losses.masked_mean(jnp.ones((2, 3)), jnp.ones((2, 1)))
