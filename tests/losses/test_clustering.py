"""SwAV's loss against lightly, MSN's against NumPy, on one device and on eight."""

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
    some = np.arange(queued) % 3 == 0
    masked = loss(scores, queue=queue, queue_mask=some)
    np.testing.assert_allclose(masked, loss(scores, queue=queue[some]), rtol=1e-5)
    none = loss(scores, queue=queue, queue_mask=np.zeros(queued, bool))
    np.testing.assert_allclose(none, loss(scores), rtol=1e-5)


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


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


@pytest.mark.parametrize("iterations", [0, 3])
def test_msn_equals_numpy(x64, iterations):
    """Sinkhorn-Knopp starts from sharpened targets, each of which sums to 1."""
    rng = np.random.default_rng(0)
    anchors, targets = rng.uniform(-1, 1, (5, 2, 4)), rng.uniform(-1, 1, (5, 4))
    q = softmax(targets / 0.1) ** 4
    q /= q.sum(1, keepdims=True)
    for _ in range(iterations):
        q /= q.sum(0)
        q /= q.sum(1, keepdims=True)
    p = softmax(anchors / 0.1)
    mean = p.mean((0, 1))
    entropy = -(mean * np.log(mean)).sum()
    expected = -(q[:, None] * np.log(p)).sum(-1).mean() + 0.7 * (np.log(4) - entropy)
    loss = jax.jit(partial(losses.msn, entropy_weight=0.7, iterations=iterations))
    np.testing.assert_allclose(loss(anchors, targets), expected, rtol=1e-9)


def test_derivatives_of_msn(check_derivatives):
    rng = np.random.default_rng(0)
    anchors, targets = rng.uniform(-1, 1, (3, 2, 4)), rng.uniform(-1, 1, (3, 4))
    check_derivatives(lambda x: losses.msn(x, targets, temperature=0.4), anchors, order=2)
    gradient = jax.jit(jax.grad(lambda t: losses.msn(anchors, t)))(targets)
    assert not gradient.any()


def test_msn_of_uniform_and_of_one_prototype():
    """Chance is log K; one prototype for all images costs log K as well."""
    step = jax.jit(jax.value_and_grad(partial(losses.msn, iterations=0)))
    same = np.zeros((4, 2, 1024), np.float32)
    value, gradient = step(same, same[:, 0])
    np.testing.assert_allclose(value, 6.931, atol=1e-3)
    assert np.isfinite(gradient).all()
    same[..., 0] = 100  # the probabilities of the others are 0 in float32
    value, gradient = step(same, same[:, 0])
    np.testing.assert_allclose(value, np.log(1024), rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_msn_on_one_device_equals_eight(check_parallel):
    rng = np.random.default_rng(0)
    a, b = np.float32(rng.standard_normal((2, 16, 4)))

    def loss(temperature, weights, a, b, axis_name):
        anchors = jnp.tanh(jnp.stack([a @ weights, b @ weights], axis=1))
        targets = jnp.tanh(a[:, ::-1] @ weights)
        return losses.msn(anchors, targets, temperature=temperature, axis_name=axis_name)

    check_parallel(loss, a, b)


def test_errors():
    with pytest.raises(ValueError, match="msn: sharpening must be positive"):
        losses.msn(jnp.ones((4, 2, 3)), jnp.ones((4, 3)), sharpening=0.0)
    with pytest.raises(AssertionError, match="msn expects"):
        losses.msn(jnp.ones((4, 2, 3)), jnp.ones((4, 2)))
    scores = jnp.ones((4, 2, 3))
    with pytest.raises(ValueError, match="two views"):
        losses.swapped_prediction(scores[:, :1], code_views=1)
    with pytest.raises(ValueError, match="swapped_prediction: a single image has no balanced"):
        losses.swapped_prediction(jnp.ones((1, 2, 4)))
    with pytest.raises(ValueError, match="queue_mask is given without a queue"):
        losses.swapped_prediction(np.ones((2, 2, 3)), queue_mask=np.ones(2, bool))
    with pytest.raises(ValueError, match="code_views is 3 of 2 views"):
        losses.swapped_prediction(scores, code_views=3)
    with pytest.raises(AssertionError, match="swapped_prediction expects"):
        losses.swapped_prediction(scores, queue=jnp.ones((5, 1, 3)))
