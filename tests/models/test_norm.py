"""Batch normalisation against Flax's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax.models.norm import BatchNorm


def images(scale=3.0, shift=2.0):
    values = np.random.RandomState(0).standard_normal((4, 3, 3, 5))
    return jnp.asarray(scale * values + shift, jnp.float32)


@pytest.fixture(scope="module")
def variables():
    x = images()
    variables = BatchNorm(train=True).init(jax.random.key(0), x)
    expected = nn.BatchNorm(use_running_average=False).init(jax.random.key(0), x)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), variables, expected))
    draw = np.random.RandomState(1)
    return jax.tree.map(lambda v: jnp.asarray(draw.rand(*v.shape) + 0.5, jnp.float32), variables)


@pytest.mark.parametrize("train", [True, False])
def test_output_statistics_and_gradients_equal_flax(variables, train):
    x = images()

    def run(module):
        def function(params, x):
            y, updated = module.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y)), (y, updated)

        return jax.jit(jax.grad(function, argnums=(0, 1), has_aux=True))(variables["params"], x)

    theirs = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)
    ours, expected = run(BatchNorm(train=train)), run(theirs)
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_constant_channels_are_finite_with_their_gradient():
    x, module = jnp.full((4, 2, 2, 3), 7.0), BatchNorm(train=True, affine=False)

    def function(x):
        return jnp.sum(module.apply({}, x, mutable=["batch_stats"])[0] ** 2)

    assert np.all(np.isfinite(function(x))) and np.all(np.isfinite(jax.grad(function)(x)))


def test_plain_form_has_no_parameters_and_bfloat16_keeps_float32_statistics(variables):
    assert "params" not in BatchNorm(train=True, affine=False).init(jax.random.key(0), images())
    module = BatchNorm(train=True, dtype=jnp.bfloat16)
    y, updated = module.apply(variables, images().astype(jnp.bfloat16), mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updated))
