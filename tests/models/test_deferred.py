"""Weights are read when a program is compiled, not when its shapes are asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax.errors import UserError
from sslax.models.deferred import start_from
from sslax.training import sharding
from sslax.types import Model

KEY, X = jax.random.key(0), jnp.zeros((1, 3))


def linear():
    def init(rng, x):
        return {"kernel": jax.random.normal(rng, (x.shape[1], 2))}, {"mean": jnp.zeros(2)}

    return Model(init, lambda params, state, x, train: (x @ params["kernel"], state))


def test_weights_are_read_once_and_only_where_they_are_needed():
    calls = []

    def read(like):
        calls.append(jax.tree.map(jnp.shape, like))
        return {"kernel": np.full((3, 2), 2.0)}, {"mean": np.ones(2)}  # float64

    model = start_from(linear(), read)
    shapes = jax.eval_shape(model.init, KEY, X)
    assert shapes == jax.eval_shape(linear().init, KEY, X)
    assert calls == []

    @jax.jit
    def init(rng):
        params, state = model.init(rng, X)
        return params, jax.tree.map(lambda leaf: 3 * leaf, state)

    for _ in range(2):
        params, state = init(KEY)
        np.testing.assert_array_equal(params["kernel"], np.full((3, 2), 2.0, np.float32))
        np.testing.assert_array_equal(state["mean"], 3.0)
    assert calls == [({"kernel": (3, 2)}, {"mean": (2,)})]
    params, _ = model.init(KEY, X)  # not compiled
    np.testing.assert_array_equal(params["kernel"], 2.0)


def test_every_device_has_them():
    mesh = sharding.make_mesh()
    assert mesh.size > 1
    model = start_from(linear(), lambda like: jax.tree.map(lambda x: np.ones(x.shape), like))
    init = jax.jit(model.init, out_shardings=sharding.replicated(mesh))
    params, _ = init(KEY, X)
    assert len(params["kernel"].sharding.device_set) == mesh.size
    np.testing.assert_array_equal(params["kernel"], 1.0)


def test_a_mistake_reaches_the_caller_as_it_is():
    def read(like):
        raise UserError("no such file")

    model = start_from(linear(), read)
    jax.eval_shape(model.init, KEY, X)
    for init in (model.init, jax.jit(model.init)):
        with pytest.raises(UserError, match="no such file"):
            init(KEY, X)
