"""Checkpoints: what is kept, damage, other device counts, the config of a resumed run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from sslax.errors import UserError
from sslax.training import checkpoint, sharding
from sslax.types import TrainState


def _state():
    params = {"a": jnp.arange(6.0).reshape(2, 3), "b": {"c": jnp.zeros(3, jnp.bfloat16)}}
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, {}, {"queue": (jnp.ones(2),)}, (), jax.random.key(3))


def _on(mesh):
    return jax.jit(_state, out_shardings=sharding.replicated(mesh))()


def _abstract(mesh):
    return checkpoint.abstract_like(jax.eval_shape(_state), sharding.replicated(mesh))


def _at(state, step):
    return state._replace(step=jnp.asarray(step, jnp.int32))


@pytest.fixture(scope="module")
def one():
    return sharding.make_mesh(jax.devices()[:1])


@pytest.fixture
def saved(tmp_path, one):
    """A run of six checkpoints of which the third scored best."""
    state = _on(one)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        for step in range(1, 7):
            checkpoints.save(step, _at(state, step), score=1.0 if step == 3 else 0.0)
    return tmp_path


def test_nothing_to_restore(tmp_path, one):
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(_abstract(one)) is None
        assert checkpoints.best_step() is None


def test_keeps_the_latest_two_and_the_best(saved, one):
    with checkpoint.Checkpoints(saved) as checkpoints:
        assert checkpoints.steps == [3, 5, 6]
        assert checkpoints.best_step() == 3
        assert int(checkpoints.restore(_abstract(one)).step) == 6
        assert int(checkpoints.restore(_abstract(one), step=3).step) == 3


def test_restores_every_bit_on_another_number_of_devices(saved, one):
    eight = sharding.make_mesh()
    with checkpoint.Checkpoints(saved) as checkpoints:
        restored = checkpoints.restore(_abstract(eight))
    assert all(leaf.sharding.mesh.size == 8 for leaf in jax.tree.leaves(restored))
    expected = _at(_on(one), 6)
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(expected)):
        assert ours.dtype == theirs.dtype
        if jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
            ours, theirs = jax.random.key_data(ours), jax.random.key_data(theirs)
        np.testing.assert_array_equal(ours, theirs)


def _truncate(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_truncated_latest_falls_back_and_can_be_saved_again(saved, one):
    _truncate(saved / "6" / "state")
    said = []
    with checkpoint.Checkpoints(saved) as checkpoints:
        state = checkpoints.restore(_abstract(one), say=said.append)
        assert int(state.step) == 5
        assert len(said) == 1 and "checkpoint of step 6 is damaged" in said[0]
        checkpoints.save(6, _at(state, 6), score=0.0)
    with checkpoint.Checkpoints(saved) as checkpoints:
        assert int(checkpoints.restore(_abstract(one), say=said.append).step) == 6
    assert len(said) == 1


def test_nothing_readable_is_an_error(saved, one):
    for step in (3, 5, 6):
        _truncate(saved / str(step) / "state")
    with (
        checkpoint.Checkpoints(saved) as checkpoints,
        pytest.raises(UserError, match=r"None of the checkpoints of steps \[6, 5, 3\]"),
    ):
        checkpoints.restore(_abstract(one), say=lambda _: None)


@pytest.mark.parametrize(
    "params, said",
    [
        (
            {"a": jnp.zeros((2, 3)), "b": {"d": jnp.zeros(3)}},
            r"b/c is \(3,\) in it, and not in the",
        ),
        (
            {"a": jnp.zeros((2, 4)), "b": {"c": jnp.zeros(3)}},
            r"a is \(2, 3\) in it, and \(2, 4\) in",
        ),
    ],
    ids=["renamed", "resized"],
)
def test_parameters_of_another_version_are_not_called_damage(saved, one, params, said):
    other = _abstract(one)._replace(
        params=checkpoint.abstract_like(params, sharding.replicated(one))
    )
    with checkpoint.Checkpoints(saved) as checkpoints, pytest.raises(UserError, match=said):
        checkpoints.restore(other)


def test_a_changed_config_is_refused_with_its_difference(tmp_path):
    data = {"examples": 10, "image_shape": [4, 4, 1], "classes": None}
    config = ConfigDict({"seed": 0, "optimizer": {"learning_rate": 0.3, "betas": (0.9, 0.99)}})
    checkpoint.keep_description(config, data, tmp_path)
    checkpoint.keep_description(config, data, tmp_path)
    assert checkpoint.read_description(tmp_path)[1] == data
    config.optimizer.learning_rate = 0.1
    with pytest.raises(UserError, match=r"config.optimizer.learning_rate: was 0.3, now 0.1"):
        checkpoint.keep_description(config, data, tmp_path)
    config.optimizer.learning_rate = 0.3
    with pytest.raises(UserError, match=r"data.examples: was 10, now 11"):
        checkpoint.keep_description(config, data | {"examples": 11}, tmp_path)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        checkpoint.read_description(tmp_path)
