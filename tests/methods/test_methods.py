"""What must hold for every method, each test over the whole table."""

import jax
import jax.numpy as jnp
import numpy as np

from sslax import checkpoint, partition


def on(devices, batch):
    """The batch, sharded over the first `devices` devices."""
    mesh = partition.make_mesh(jax.devices()[:devices])
    return jax.device_put(batch, partition.batch_sharding(mesh))


def leaves(tree):
    """Paths and numpy leaves; random keys as their data."""
    return [
        (
            jax.tree_util.keystr(path),
            np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf),
        )
        for path, leaf in jax.tree.leaves_with_path(tree)
    ]


def _is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def test_predict_gives_named_arrays_for_every_image(tiny):
    state = tiny.abstract
    outputs = jax.eval_shape(
        tiny.plan.method.predict, state.params, state.model_state, state.extra, tiny.batch
    )
    assert outputs["features"].ndim == 2
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(outputs)}
    assert sizes == {tiny.config.batch_size}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(outputs))


def test_every_trained_leaf_moves_and_nothing_breaks(tiny):
    state = tiny.state()
    after, metrics = tiny.step(1)(state, on(1, tiny.batch))
    assert all(np.isfinite(value) for value in metrics.values()), metrics
    gradients = dict(leaves(_gradient(tiny)))
    dead = [path for path, value in gradients.items() if not np.any(value)]
    assert not dead
    assert int(after.step) == 1
    assert jax.tree.structure(after) == jax.tree.structure(state)


def _gradient(tiny):
    method, state = tiny.plan.method, tiny.state()

    @jax.jit
    def gradient(state, batch):
        views = method.views(jax.random.key(1), batch)
        return jax.grad(lambda params: method.loss(params, *state[2:4], views, state.rng, 0)[0])(
            state.params
        )

    return gradient(state, tiny.batch)


def test_one_trace_and_a_falling_loss(tiny):
    state, batch = tiny.state(), on(1, tiny.batch)
    losses = []
    for _ in range(12):  # the whole tiny schedule, on the same real images
        state, metrics = tiny.step(1)(state, batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-3:]) < losses[0] - 0.1


def test_one_device_is_eight_devices(tiny):
    alone, together = tiny.state(1), tiny.state(8)
    for _ in range(2):
        alone, ours = tiny.step(1)(alone, on(1, tiny.batch))
        together, theirs = tiny.step(8)(together, on(8, tiny.batch))
        for name, value in ours.items():
            np.testing.assert_allclose(theirs[name], value, rtol=2e-3, atol=2e-5, err_msg=name)
    for (path, ours), (_, theirs) in zip(leaves(alone), leaves(together)):
        np.testing.assert_allclose(theirs, ours, rtol=2e-3, atol=2e-4, err_msg=path)


def test_saved_restored_and_continued_to_the_bit(tiny, tmp_path):
    batch = on(1, tiny.batch)
    state, _ = tiny.step(1)(tiny.state(), batch)
    everywhere = partition.replicated(partition.make_mesh(jax.devices()[:1]))
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, score=0.0)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(checkpoint.abstract_like(tiny.abstract, everywhere))
    (undisturbed, _), (resumed, _) = (tiny.step(1)(s, batch) for s in (state, restored))
    for (path, ours), (_, theirs) in zip(leaves(resumed), leaves(undisturbed)):
        np.testing.assert_array_equal(ours, theirs, err_msg=path)


def test_predictions_do_not_depend_on_the_batch(tiny):
    state = tiny.state()
    predict = jax.jit(tiny.plan.method.predict)
    variables = (state.params, state.model_state, state.extra)
    images = tiny.batch["image"]
    whole = predict(*variables, {"image": images})["features"]
    halves = [predict(*variables, {"image": half})["features"] for half in np.split(images, 2)]
    np.testing.assert_allclose(np.concatenate(halves), whole, rtol=1e-4, atol=1e-5)
