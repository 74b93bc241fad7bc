"""The sequence loss against its definition, and with partly unknown targets."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import losses

GOLDEN = pathlib.Path(__file__).parent / "golden" / "geometric.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as values:
        return {name: jnp.asarray(values[name]) for name in ("flows", "forward", "sequence")}


def test_sequence_loss_equals_its_definition(golden):
    error, valid = jax.jit(losses.sequence_loss)(golden["flows"], golden["forward"])
    np.testing.assert_allclose(error, golden["sequence"], rtol=1e-5)
    assert valid.all()
    np.testing.assert_allclose(losses.sequence_weights(4), [0.8**3, 0.8**2, 0.8, 1], rtol=1e-6)


def test_unknown_and_too_long_targets_are_ignored(golden):
    flows, target = golden["flows"], golden["forward"]
    target = target.at[0, 0, 0].set(jnp.nan).at[1, 1].set(jnp.inf).at[2, 2].set(300.0)
    mask = jnp.ones(target.shape[:2]).at[3, 3].set(0)

    def loss(flows):
        return losses.masked_mean(*losses.sequence_loss(flows, target, mask=mask))

    value, gradient = jax.value_and_grad(loss)(flows)
    assert jnp.isfinite(value)
    known = np.ones(target.shape[:2], bool)
    known[range(4), range(4)] = False
    np.testing.assert_array_equal((np.asarray(gradient) != 0).all((0, -1)), known)
    np.testing.assert_array_equal(np.asarray(gradient)[:, ~known], 0)
    expected = np.asarray(golden["sequence"])[known].mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    nothing = jax.grad(lambda f: losses.masked_mean(*losses.sequence_loss(f, target * jnp.nan)))(
        flows
    )
    np.testing.assert_array_equal(nothing, 0)


def test_gradient_grows_with_the_iteration_and_is_zero_at_the_target(golden):
    target = golden["forward"]
    loss = lambda f: losses.masked_mean(*losses.sequence_loss(f, target, gamma=0.5))  # noqa: E731
    gradient = jax.grad(loss)(golden["flows"])
    np.testing.assert_allclose(jnp.abs(gradient[1:]), 2 * jnp.abs(gradient[:-1]), rtol=1e-5)
    at_target = jax.grad(loss)(jnp.broadcast_to(target, golden["flows"].shape))
    np.testing.assert_array_equal(at_target, 0)


def test_bfloat16_and_wrong_shapes(golden):
    flows, target = golden["flows"].astype(jnp.bfloat16), golden["forward"]
    assert losses.sequence_loss(flows, target)[0].dtype == jnp.float32
    with pytest.raises(AssertionError, match="sequence_loss expects"):
        losses.sequence_loss(flows[0], target)
