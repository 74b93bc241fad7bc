"""SwAV's loss against lightly, with a queue and a small crop, on one device and on eight."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sslax import losses


def test_equals_reference(check_golden, representation):
    scores, queue = representation["scores"], representation["queue_scores"]
    check_golden(
        lambda scores, queue: losses.swapped_prediction(scores, queue=queue),
        "swapped_prediction",
        scores,
        queue,
    )


def test_codes_are_constants(check_derivatives):
    """With one code view, its scores have no gradient, and those of the other view have that of
    the predictions alone."""
    scores = np.float32(np.random.default_rng(0).uniform(-1, 1, (4, 2, 3)))
    total = jax.jit(jax.grad(lambda s: losses.swapped_prediction(s, code_views=1).sum()))
    gradient = np.asarray(total(scores))
    assert (gradient[:, 0] == 0).all() and np.abs(gradient[:, 1]).max() > 0
    first = scores[:, :1]

    def predictions(second):
        both = jnp.concatenate([first, second], axis=1)
        return losses.swapped_prediction(both, code_views=1)

    check_derivatives(predictions, scores[:, 1:], order=2)


def test_one_device_equals_eight(check_parallel):
    rng = np.random.default_rng(0)
    a, b = np.float32(rng.standard_normal((2, 16, 4)))

    def loss(temperature, weights, a, b, axis_name):
        scores = jnp.stack([jnp.tanh(a @ weights), jnp.tanh(b @ weights)], axis=1)
        return losses.swapped_prediction(scores, temperature=temperature, axis_name=axis_name)

    check_parallel(loss, a, b)


@pytest.mark.parametrize("queued", [5, 16, 24])
def test_a_queue_joins_the_balance(queued):
    """As if its samples were images of the batch; the loss is that of the batch alone."""
    rng = np.random.default_rng(1)
    scores, queue = (np.float32(rng.uniform(-1, 1, (n, 2, 3))) for n in (8, queued))
    loss = jax.jit(partial(losses.swapped_prediction, epsilon=0.3))
    ours = np.asarray(loss(scores, queue=queue))
    joined = np.asarray(loss(np.concatenate([scores, queue])))
    np.testing.assert_allclose(ours, joined[:8], rtol=1e-5)
    assert np.abs(ours - loss(scores)).max() > 0.01


def test_a_queue_moves_nothing_between_devices():
    """The scores of a batch on eight devices, and of a queue that each of them holds."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    scores, queue = (
        jax.ShapeDtypeStruct((n, 2, 6), jnp.float32, sharding=NamedSharding(mesh, spec))
        for n, spec in ((16, P("data")), (48, P()))
    )
    step = jax.jit(jax.grad(lambda s, q: losses.swapped_prediction(s, queue=q).mean()))
    text = step.lower(scores, queue).compile().as_text()
    assert "all-reduce" in text
    for name in ("all-gather", "all-to-all", "collective-permute"):
        assert name not in text


def test_equal_scores_and_sharp_codes_stay_finite():
    total = jax.jit(jax.value_and_grad(lambda scores: losses.swapped_prediction(scores).sum()))
    for scores in (np.zeros((4, 2, 4)), 100 * np.eye(4)[:, None].repeat(2, 1)):
        value, gradient = total(scores)
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_errors():
    scores = jnp.ones((4, 2, 3))
    with pytest.raises(ValueError, match="two views"):
        losses.swapped_prediction(scores[:, :1], code_views=1)
    with pytest.raises(ValueError, match="swapped_prediction: a single image has no balanced"):
        losses.swapped_prediction(jnp.ones((1, 2, 4)))
    with pytest.raises(ValueError, match="code_views is 3 of 2 views"):
        losses.swapped_prediction(scores, code_views=3)
    with pytest.raises(AssertionError, match="swapped_prediction expects"):
        losses.swapped_prediction(scores, queue=jnp.ones((5, 1, 3)))
