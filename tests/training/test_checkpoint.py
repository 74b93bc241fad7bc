"""Checkpoints: what is kept, damage, other device counts, and who may write."""

import os
import resource
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

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
    assert checkpoint.restore(tmp_path, _abstract(one)) is None
    assert checkpoint.best_step(tmp_path) is None


def test_keeps_the_latest_two_and_the_best(saved, one):
    assert checkpoint.steps(saved) == [3, 5, 6]
    assert checkpoint.best_step(saved) == 3
    assert int(checkpoint.restore(saved, _abstract(one)).step) == 6
    assert int(checkpoint.restore(saved, _abstract(one), which="best").step) == 3


def test_saving_from_eight_devices_compiles_nothing_for_small_arrays(tmp_path):
    state = _on(sharding.make_mesh())._replace(rng=())  # keys are unwrapped by a program
    large = jax.device_put(np.zeros((8, 2**18), np.float32), state.step.sharding)
    compiled = []

    def listen(name, seconds, **_):
        if "backend_compile" in name:
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for extra in ({}, {"large": large}):
            compiled.clear()
            with checkpoint.Checkpoints(tmp_path) as checkpoints:
                checkpoints.save(len(extra), state._replace(extra=extra), score=0.0)
            assert bool(compiled) == bool(extra)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_a_run_that_goes_on_keeps_its_best(saved, one):
    state = _on(one)
    with checkpoint.Checkpoints(saved, start=6) as checkpoints:
        for step in (7, 8):
            checkpoints.save(step, _at(state, step), score=0.5)
    assert checkpoint.steps(saved) == [3, 7, 8]


def test_restores_every_bit_on_another_number_of_devices(saved, one):
    restored = checkpoint.restore(saved, _abstract(sharding.make_mesh()))
    assert all(leaf.sharding.mesh.size == 8 for leaf in jax.tree.leaves(restored))
    expected = _at(_on(one), 6)
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(expected)):
        assert ours.dtype == theirs.dtype
        if jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
            ours, theirs = jax.random.key_data(ours), jax.random.key_data(theirs)
        np.testing.assert_array_equal(ours, theirs)


def _files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _truncate(folder):
    for path in _files(folder):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_truncated_latest_falls_back_and_can_be_saved_again(saved, one):
    _truncate(saved / "6" / "state")
    said = []
    state = checkpoint.restore(saved, _abstract(one), say=said.append)
    assert int(state.step) == 5
    assert len(said) == 1 and "checkpoint of step 6 is damaged" in said[0]
    with checkpoint.Checkpoints(saved, start=5) as checkpoints:
        checkpoints.save(6, _at(state, 6), score=0.0)
    assert int(checkpoint.restore(saved, _abstract(one), say=said.append).step) == 6
    assert len(said) == 1


def test_what_cannot_be_read_is_not_counted_among_the_latest(saved, one):
    """A run that goes on from step 5 keeps it until two others are whole."""
    _truncate(saved / "6" / "state")
    with checkpoint.Checkpoints(saved, start=5) as checkpoints:
        checkpoints.save(7, _at(_on(one), 7), score=0.0)
    assert checkpoint.steps(saved) == [3, 5, 7]


def test_a_flipped_bit_is_never_loaded(saved, one):
    """Each file of the latest checkpoint, at many of its bits."""
    said = []
    for path in _files(saved / "6"):
        whole = path.read_bytes()
        for bit in np.linspace(0, 8 * len(whole) - 1, 14, dtype=int) if whole else []:
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(checkpoint.Damaged):
                checkpoint._verify(saved / "6")
        state = checkpoint.restore(saved, _abstract(one), say=said.append)
        assert int(state.step) == (5 if whole else 6), path
        path.write_bytes(whole)
    assert said and all("checkpoint of step 6 is damaged" in line for line in said)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"1\n1", b"\xff\n\xfe", b'0\n{"a": 1}'])
def test_a_damaged_manifest_is_a_damaged_checkpoint(saved, one, content):
    (saved / "6" / "manifest.json").write_bytes(content)
    said = []
    assert int(checkpoint.restore(saved, _abstract(one), say=said.append).step) == 5
    assert len(said) == 1
    assert checkpoint.best_step(saved) == 3


def test_a_damaged_best_leaves_the_next_best(saved, one):
    _truncate(saved / "3")
    said = []
    state = checkpoint.restore(saved, _abstract(one), which="best", say=said.append)
    assert int(state.step) == 6


def test_nothing_readable_is_an_error(saved, one):
    for step in (3, 5, 6):
        _truncate(saved / str(step) / "state")
    with pytest.raises(UserError, match=r"None of the checkpoints of steps \[6, 5, 3\] .* whole"):
        checkpoint.restore(saved, _abstract(one), say=lambda _: None)


def test_reading_writes_nothing(saved, one):
    unfinished = saved / "7.unfinished.orbax-checkpoint-tmp" / "state"
    unfinished.mkdir(parents=True)
    before = {path: path.stat().st_mtime_ns for path in saved.rglob("*")}
    checkpoint.restore(saved, _abstract(one))
    checkpoint.restore(saved, _abstract(one), which="best")
    assert {path: path.stat().st_mtime_ns for path in saved.rglob("*")} == before
    with checkpoint.Checkpoints(saved):
        assert not unfinished.exists()


def test_saves_leave_no_thread_and_no_file_open(tmp_path, one):
    state, counts = _on(one), []
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        for step in range(1, 13):
            checkpoints.save(step, _at(state, step), score=0.0)
            checkpoints.wait()
            counts.append((len(os.listdir("/proc/self/fd")), threading.active_count()))
    assert set(counts[2:]) == {counts[2]}


def test_one_trainer_holds_the_lock_and_a_killed_one_leaves_none(tmp_path):
    code = (
        "import sys, time, pathlib; from sslax.training import checkpoint\n"
        "with checkpoint.locked(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True), time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        env=runs.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"is in use: process {holder.pid} on .* trains there"):
        checkpoint.locked(tmp_path / "run").__enter__()
    holder.kill()
    holder.communicate()
    with checkpoint.locked(tmp_path / "run"):
        pass


def test_a_save_that_the_system_refuses_is_one_sentence_and_loses_nothing(saved, one):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = _on(one)._replace(extra={"big": jnp.asarray(np.random.default_rng(0).normal(size=9999))})
    checkpoints = checkpoint.Checkpoints(saved, start=6)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(UserError, match=r"checkpoint of step 7 in .* is not saved: .* larger"):
            checkpoints.save(7, _at(big, 7), score=0.0)
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    checkpoints.wait()
    assert int(checkpoint.restore(saved, _abstract(one)).step) == 6


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
    with pytest.raises(UserError, match=said):
        checkpoint.restore(saved, other)
