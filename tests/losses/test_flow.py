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
    target, mask = np.array(target), np.ones(target.shape[:2], np.float32)
    target[0, 0, 0], target[1, 1], target[2, 2], mask[3, 3] = np.nan, np.inf, 300.0, 0
    target, mask = jnp.asarray(target), jnp.asarray(mask)

    def loss(flows):
        return losses.masked_mean(*losses.sequence_loss(flows, target, mask=mask))

    value, gradient = jax.jit(jax.value_and_grad(loss))(flows)
    assert np.isfinite(value)
    known = np.ones(target.shape[:2], bool)
    known[range(4), range(4)] = False
    np.testing.assert_array_equal((np.asarray(gradient) != 0).all((0, -1)), known)
    np.testing.assert_array_equal(np.asarray(gradient)[:, ~known], 0)
    expected = np.asarray(golden["sequence"])[known].mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    unknown = lambda f: losses.masked_mean(*losses.sequence_loss(f, target * jnp.nan))  # noqa: E731
    np.testing.assert_array_equal(jax.jit(jax.grad(unknown))(flows), 0)


def test_gradient_grows_with_the_iteration_and_is_zero_at_the_target(golden):
    target = golden["forward"]
    loss = lambda f: losses.masked_mean(*losses.sequence_loss(f, target, gamma=0.5))  # noqa: E731
    slope = jax.jit(jax.grad(loss))
    gradient = np.abs(slope(golden["flows"]))
    np.testing.assert_allclose(gradient[1:], 2 * gradient[:-1], rtol=1e-5)
    at_target = slope(np.broadcast_to(target, golden["flows"].shape))
    np.testing.assert_array_equal(at_target, 0)


def test_bfloat16_and_wrong_shapes(golden):
    flows, target = golden["flows"].astype(jnp.bfloat16), golden["forward"]
    assert jax.jit(losses.sequence_loss)(flows, target)[0].dtype == jnp.float32
    with pytest.raises(AssertionError, match="sequence_loss expects"):
        losses.sequence_loss(flows[0], target)
