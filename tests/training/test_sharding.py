"""Meshes, and where the training state lies on them."""

import socket
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from sslax.errors import UserError
from sslax.training import sharding

WHOLE = PartitionSpec()


@pytest.mark.parametrize(
    "shape, axis",
    [
        ((1024, 3072), 1),
        ((4096, 1024), 0),
        ((1024, 1024), 1),  # of axes of one length the last
        ((3, 3, 512, 512), 3),
        ((1001, 1024), 1),
        ((1024, 1001), 0),  # the longest that eight divide, not the longest
        ((1001, 1001), None),
        ((65536,), 0),
        ((65535,), None),  # small
        ((256, 255), None),
        ((), None),
        ((0, 8), None),
    ],
)
def test_the_longest_axis_that_the_devices_divide_is_sharded(shape, axis):
    assert sharding.sharded_axis(shape, 8) == axis


def test_nothing_is_sharded_over_more_devices_than_it_has_rows():
    assert sharding.sharded_axis((4, 4), 8, smallest=1) is None
    assert sharding.sharded_axis((4, 4), 4, smallest=1) == 1


def test_a_device_holds_an_eighth_of_a_sharded_state():
    mesh = sharding.make_mesh()
    state = {
        "step": jnp.zeros((), jnp.int32),
        "rng": jax.random.key(0),
        "kernel": jnp.arange(2.0**18).reshape(256, 1024),
        "bias": jnp.zeros(1024),
    }
    for layout, spec, share in (("replicated", WHOLE, 1), ("fsdp", PartitionSpec(None, "data"), 8)):
        shardings = sharding.shardings_of(state, mesh, layout)
        assert {name: s.spec for name, s in shardings.items()} == {
            "step": WHOLE,
            "rng": WHOLE,
            "kernel": spec,
            "bias": WHOLE,
        }
        placed = jax.device_put(state, shardings)
        assert placed["kernel"].addressable_shards[3].data.size == 2**18 // share
        assert (sharding.of(placed) is None) == (share == 1)
        np.testing.assert_array_equal(sharding.to_host(placed["kernel"]), state["kernel"])


def test_gathered_arrays_and_their_gradients_are_whole():
    mesh = sharding.make_mesh()
    kernel = jnp.arange(64.0).reshape(8, 8)
    parts = jax.device_put(kernel, sharding.shardings_of(kernel, mesh, "fsdp", smallest=1))

    def square(kernel):
        return jnp.sum(sharding.gather(kernel, mesh) ** 2)

    compiled = jax.jit(jax.value_and_grad(square)).lower(parts).compile()
    assert "all-gather" in compiled.as_text()
    value, gradient = compiled(parts)
    assert value == jnp.sum(kernel**2)
    np.testing.assert_array_equal(gradient, 2 * kernel)


@dataclass(frozen=True)
class Chip:
    """A device of a slice that is not there."""

    id: int
    slice_index: int
    process_index: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5e"


def test_slices_are_contiguous_and_keep_their_order():
    mesh = sharding.make_mesh([Chip(i, slice_index=i % 2) for i in range(8)])
    assert [chip.id for chip in mesh.devices] == [0, 2, 4, 6, 1, 3, 5, 7]
    mesh = sharding.make_mesh([Chip(i, slice_index=0) for i in (3, 1, 2, 0)])
    assert [chip.id for chip in mesh.devices] == [3, 1, 2, 0]
    assert list(sharding.make_mesh().devices) == jax.devices()  # which know of no slice


@pytest.mark.parametrize(
    ("coordinator", "process", "message"),
    [
        ("nowhere", 0, "--coordinator=nowhere is not HOST:PORT; write"),
        (":1234", 0, "--coordinator=:1234 is not HOST:PORT"),
        ("host:0", 0, "--coordinator=host:0 is not HOST:PORT"),
        ("host:1234", 2, "--process_id=2: with --num_processes=2 the last process is 1"),
    ],
)
def test_mistakes_about_the_processes_are_named(coordinator, process, message):
    with pytest.raises(UserError, match=message):
        sharding.initialize_distributed(coordinator, process, 2)


def test_a_coordinator_that_does_not_answer_and_one_that_cannot_listen(monkeypatch, capsys):
    monkeypatch.setattr(sharding, "PATIENCE", 0.5)
    with socket.socket() as closed:  # bound, so that no one else takes the port; it does not listen
        closed.bind(("127.0.0.1", 0))
        coordinator = "{}:{}".format(*closed.getsockname())
        with pytest.raises(UserError, match=r"Nothing answered at .*refused.*: start process 0"):
            sharding.initialize_distributed(coordinator, 1, 2)
    assert f"Waiting for process 0 at {coordinator}" in capsys.readouterr().err

    def refuse(*_, **__):
        raise jax.errors.JaxRuntimeError("UNKNOWN: Failed to start RPC server")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(UserError, match=r"Process 0 of 2 could not join .*: UNKNOWN: .* the port"):
        sharding.initialize_distributed(coordinator, 0, 2)
