"""What is kept from being computed again."""

import jax
import jax.numpy as jnp
import numpy as np

from sslax.ops.calls import computed_once


def squares(x, y):
    return x * x + y, x - y


def readers(function):
    def total(x, y):
        a, b = function(x, y)
        return jnp.sum(jnp.sin(a)) + jnp.sum(a[1:] * b[:-1])

    return jax.jit(jax.vmap(jax.value_and_grad(total, (0, 1))))


def test_same_values_and_derivatives_and_a_call_that_stays():
    x, y = np.random.default_rng(0).random((2, 3, 8)).astype(np.float32)
    once, plain = readers(computed_once(squares)), readers(squares)
    for a, b in zip(jax.tree.leaves(once(x, y)), jax.tree.leaves(plain(x, y)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    counts = [f.lower(x, y).compile().as_text().count(" call(") for f in (once, plain)]
    # One call forwards, and its transpose.
    assert counts[1] == 0
    assert counts[0] == (2 if jax.default_backend() == "cpu" else 0)
