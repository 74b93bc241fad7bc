"""What must hold for every method, each test over the whole table."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from collectives import assert_modest
from jax import export
from layouts import ONE_AND_EIGHT, SHARDED

from sslax import figures
from sslax.planning import hlo
from sslax.tasks import TASKS
from sslax.training import checkpoint, sharding
from sslax.training.step import train_step
from sslax.types import Features, FlowField, InverseDepth


@pytest.fixture(scope="module", autouse=True)
def uncached():
    """To write programs to the cache of compiled ones takes a tenth as long as to compile them, and
    no other test has those of the table."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, float("inf"))
    yield
    jax.config.update(name, before)


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


def test_every_trained_leaf_moves_and_nothing_breaks(tiny):
    step, state, batch = tiny.run()
    after, metrics = step(state, batch)
    assert "loss_at_chance" in metrics
    assert all(np.isfinite(value) for value in metrics.values()), metrics
    after, _ = step(after, batch)  # some start behind a zero matrix
    still = [
        path
        for (path, new), (_, old) in zip(leaves(after.params), leaves(state.params))
        if np.array_equal(new, old)
    ]
    assert not still
    assert int(after.step) == 2
    # So that it is compiled once; with weak types and shardings.
    assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, state)


def test_the_loss_falls(tiny):
    step, state, batch = tiny.run()
    losses = []
    start = state.step
    for _ in range(12):  # the same views of the same real images, since the clock stands still
        state, metrics = step(state._replace(step=start), batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-3:]) < losses[0] - 0.003 * np.abs(losses[0]), losses


@pytest.mark.parametrize("tiny", ONE_AND_EIGHT, indirect=True)
def test_one_device_is_eight_devices(tiny):
    state = tiny.state(1)
    for _ in range(2):  # from the same state: steps magnify how sums are rounded
        together = jax.device_put(state, jax.tree.leaves(tiny.state(8))[0].sharding)
        state, ours = tiny.step(1)(state, tiny.on(1))
        together, theirs = tiny.step(8)(together, tiny.on(8))
        for name, value in ours.items():
            np.testing.assert_allclose(theirs[name], value, rtol=2e-3, atol=2e-5, err_msg=name)
        for (path, one), (_, eight) in zip(leaves(state), leaves(together)):
            np.testing.assert_allclose(eight, one, rtol=2e-3, atol=2e-4, err_msg=path)


def test_devices_exchange_gradients_and_no_images(tiny):
    assert_modest(hlo.Program(tiny.step(8).as_text()), tiny.plan)


@pytest.mark.parametrize("tiny", SHARDED, indirect=True)
def test_a_sharded_step_is_the_replicated_one(tiny, tmp_path):
    """Inside the loss the two are alike: whole parameters, and an eighth of the batch. From a
    checkpoint of the state on one device."""
    batch, mesh = tiny.on(8), sharding.make_mesh()
    shardings = sharding.shardings_of(tiny.plan.shapes, mesh, "fsdp", smallest=1)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, tiny.state(1), score=0.0)
    parts = checkpoint.restore(tmp_path, checkpoint.abstract_like(tiny.plan.shapes, shardings))
    assert any(not s.is_fully_replicated for s in jax.tree.leaves(sharding.of(parts).params))
    step = partial(train_step, tiny.plan.method, tiny.plan.tx, shardings=shardings)
    step = jax.jit(step, out_shardings=(shardings, sharding.replicated(mesh)))
    sharded, theirs = step(parts, batch)
    replicated, ours = tiny.step(8)(tiny.state(8), batch)
    for name, value in ours.items():
        np.testing.assert_allclose(theirs[name], value, rtol=2e-3, atol=2e-5, err_msg=name)
    for (path, whole), (_, part) in zip(leaves(replicated), leaves(sharded)):
        np.testing.assert_allclose(part, whole, rtol=2e-3, atol=2e-4, err_msg=path)


def test_saved_restored_and_continued_to_the_bit_and_on_eight_devices(tiny, tmp_path):
    step, start, batch = tiny.run()
    state, _ = step(start, batch)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, score=0.0)

    def restored(devices):
        mesh = sharding.make_mesh(jax.devices()[:devices])
        like = checkpoint.abstract_like(tiny.plan.shapes, sharding.replicated(mesh))
        return checkpoint.restore(tmp_path, like)

    (undisturbed, _), (resumed, _) = (step(s, batch) for s in (state, restored(tiny.devices)))
    for (path, ours), (_, theirs) in zip(leaves(resumed), leaves(undisturbed)):
        np.testing.assert_array_equal(ours, theirs, err_msg=path)
    elsewhere, _ = tiny.step(8)(restored(8), tiny.on(8))
    for (path, ours), (_, theirs) in zip(leaves(elsewhere), leaves(undisturbed)):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4, err_msg=path)


def test_predictions_are_of_single_images_and_the_pictures_can_be_drawn(tiny):
    state, images = tiny.state(1), tiny.batch["image"]
    task = tiny.plan.method.task
    prediction, pictures = tiny.look(state, tiny.batch)
    assert type(prediction) is TASKS[type(task)].prediction
    shapes = {path: leaf.shape for path, leaf in leaves(prediction)}
    assert shapes == expected_shapes(prediction, task, images)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(prediction))

    half = len(images) // 2
    changed = np.concatenate([images[:half], 255 - images[half:]])
    others, _ = tiny.look(state, {**tiny.batch, "image": changed})
    for (path, ours), (_, theirs) in zip(leaves(others), leaves(prediction)):
        np.testing.assert_allclose(ours[:half], theirs[:half], rtol=1e-4, atol=1e-5, err_msg=path)
        if "visible" not in path:  # everything is, before anything moves
            assert np.abs(ours[half:] - theirs[half:]).max() > 1e-6, path

    for title, column in pictures.items():
        if not isinstance(column, InverseDepth | FlowField):
            assert column.min() >= 0.0 and column.max() <= 1.0, title
        drawn = figures.maps.colorize(column)
        assert drawn.ndim == 4 and drawn.shape[0] == len(images), title
        assert drawn.shape[-1] in (1, 3), title


def test_one_export_predicts_on_every_platform_for_any_batch(tiny):
    (size,) = export.symbolic_shape("b")
    batch = {
        name: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype)
        for name, leaf in tiny.plan.batch.items()
    }
    exported = export.export(tiny.predict, platforms=("cpu", "cuda", "tpu"))(
        tiny.plan.shapes.variables, batch
    )
    expected = jax.tree.leaves(jax.eval_shape(tiny.predict, tiny.plan.shapes.variables, tiny.batch))
    assert [leaf.shape[1:] for leaf in exported.out_avals] == [leaf.shape[1:] for leaf in expected]
    assert all(leaf.shape[0] == size for leaf in exported.out_avals)
    if tiny.name in ("mae", "monodepth2"):  # the others would be compiled again for nothing else
        variables = jax.device_get(tiny.state(1).variables)
        rows = jax.tree.map(lambda leaf: leaf[:3], tiny.batch)
        whole, _ = tiny.look(tiny.state(1), tiny.batch)
        for ours, theirs in zip(leaves(exported.call(variables, rows)), leaves(whole)):
            np.testing.assert_allclose(ours[1], theirs[1][:3], rtol=1e-3, atol=1e-4)


def expected_shapes(prediction, task, images):
    """Shapes of a prediction's leaves by path, as the types of predictions document them."""
    count, *_, height, width, _ = images.shape
    if isinstance(prediction, Features):
        widths = {name: stage.shape[-1] for name, stage in prediction.stages.items()}
        shapes = {f".stages['{name}']": (count, width) for name, width in widths.items()}
        return {".features": (count, prediction.features.shape[-1]), **shapes}
    shapes = {
        ".depth": (count, height, width),
        ".disparity": (count, height, width),
        ".pose": (count, getattr(task, "frames", 1), 4, 4),
        ".flow": (count, height, width, 2),
        ".backward": (count, height, width, 2),
        ".visible": (count, height, width),
    }
    predicted = [name for name, leaf in prediction._asdict().items() if leaf is not None]
    return {f".{name}": shapes[f".{name}"] for name in predicted}
