"""Calls that are not inlined."""

import jax
import jax.numpy as jnp
import numpy as np

from sslax.ops.no_inline import no_inline


def squares(x, y):
    return x * x + y, x - y


def readers(function):
    def total(x, y):
        a, b = function(x, y)
        return jnp.sum(jnp.sin(a)) + jnp.sum(a[1:] * b[:-1])

    return jax.jit(jax.vmap(jax.value_and_grad(total, (0, 1))))


def test_values_and_derivatives_are_the_same_and_the_call_remains():
    x, y = np.random.default_rng(0).random((2, 3, 8)).astype(np.float32)
    once, plain = readers(no_inline(squares)), readers(squares)
    for a, b in zip(jax.tree.leaves(once(x, y)), jax.tree.leaves(plain(x, y)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    counts = [f.lower(x, y).compile().as_text().count(" call(") for f in (once, plain)]
    # The call and its transpose.
    assert counts[1] == 0
    assert counts[0] == 2
