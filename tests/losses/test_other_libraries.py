"""The same losses in plain JAX, Flax NNX and Equinox: equal values and gradients.

Equinox is not a dependency; its test runs where it is installed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sslax import losses

LOSSES = {
    "nt_xent": lambda a, b: losses.nt_xent(a, b, temperature=0.2).mean(),
    "info_nce": lambda a, b: losses.info_nce(a, jax.lax.stop_gradient(b)).mean(),
    "barlow_twins": losses.barlow_twins,
}


@pytest.fixture(scope="module", params=LOSSES)
def plain(request):
    """A loss, two views, the weights and bias of a linear layer, and results in plain JAX."""
    rng = np.random.default_rng(0)
    a, b = jnp.float32(rng.standard_normal((2, 16, 8)))
    weights, bias = jnp.float32(rng.standard_normal((8, 4))), jnp.float32(rng.standard_normal(4))
    loss = LOSSES[request.param]

    @jax.jit
    @jax.value_and_grad
    def step(parameters, a, b):
        weights, bias = parameters
        return loss(a @ weights + bias, b @ weights + bias)

    value, gradients = step((weights, bias), a, b)
    assert all(jnp.abs(g).max() > 1e-3 for g in gradients[:1])
    return loss, (a, b), (weights, bias), value, gradients


def check(ours, theirs):
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_flax_nnx(plain):
    try:
        from flax import nnx
    except Exception as error:  # some versions of Flax and JAX are incompatible
        pytest.skip(f"flax.nnx does not import: {error}")
    loss, views, (weights, bias), value, gradients = plain
    model = nnx.Linear(8, 4, rngs=nnx.Rngs(0))
    model.kernel[...], model.bias[...] = weights, bias
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, a, b):
        value, gradients = nnx.value_and_grad(lambda model: loss(model(a), model(b)))(model)
        optimizer.update(model, gradients)
        return value, gradients

    ours, slopes = train_step(model, optimizer, *views)
    check([ours, slopes["kernel"][...], slopes["bias"][...]], [value, *gradients])
    moved = [p - 0.1 * g for p, g in zip((weights, bias), gradients)]
    check([model.kernel[...], model.bias[...]], moved)


def test_equinox(plain):
    eqx = pytest.importorskip("equinox")
    loss, views, (weights, bias), value, gradients = plain
    model = eqx.nn.Linear(8, 4, key=jax.random.key(0))
    model = eqx.tree_at(lambda m: (m.weight, m.bias), model, (weights.T, bias))

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def step(model, a, b):
        return loss(jax.vmap(model)(a), jax.vmap(model)(b))

    ours, slopes = step(model, *views)
    check([ours, slopes.weight.T, slopes.bias], [value, *gradients])
