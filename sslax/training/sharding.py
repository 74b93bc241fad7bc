"""Devices: one mesh with one axis, `data`, over every device of every process.

The batch is sharded over the axis. The training state is replicated, or, as `config.sharding` says,
its large arrays are sharded over the same axis. The compiler places the collectives, so the code of
methods and losses is written for the global batch and for whole parameters.
"""

import math
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sslax.errors import UserError
from sslax.types import PyTree

AXIS = "data"
PATIENCE = 300.0  # seconds to wait for the first process
SMALLEST = 2**16  # elements of an array that is worth sharding: 256 KiB in float32

Layout = Literal["replicated", "fsdp"]
"""Where the training state lies: whole on every device, or large arrays sharded (fully sharded data
parallelism)."""


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A one-dimensional mesh over `devices` (default: all devices of all processes).

    The devices of a slice are neighbors, so that collectives cross the slow network between slices
    as rarely as they can; otherwise the order is that of `devices`.
    """
    devices = jax.devices() if devices is None else devices
    by_slice = sorted(devices, key=lambda device: getattr(device, "slice_index", 0))
    return Mesh(np.asarray(by_slice), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding that puts a whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding that splits an array's first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def sharded_axis(shape: Sequence[int], devices: int, *, smallest: int = SMALLEST) -> int | None:
    """The axis of an array that is sharded: the longest of those that the devices divide.

    Of axes of the same length it is the last.

    Args:
        shape: of the array.
        devices: how many there are.
        smallest: an array with fewer elements stays whole.

    Returns:
        The axis; None for an array that stays whole.

    Example:
        >>> sharded_axis((1024, 4096), 8), sharded_axis((1000, 4094), 8), sharded_axis((4096,), 8)
        (1, 0, None)
    """
    axes = [axis for axis, length in enumerate(shape) if length and length % devices == 0]
    if math.prod(shape) < smallest or not axes:
        return None
    return max(axes, key=lambda axis: (shape[axis], axis))


def shardings_of(state: PyTree, mesh: Mesh, layout: Layout, *, smallest: int = SMALLEST) -> PyTree:
    """The sharding of each leaf of a training state.

    Args:
        state: arrays, or their shapes.
        mesh: the devices.
        layout: `replicated`, or `fsdp`: each leaf is sharded along its `sharded_axis`.
        smallest: as in `sharded_axis`.

    Returns:
        A `NamedSharding` for each leaf.
    """

    def sharding(leaf: Any) -> NamedSharding:
        axis = sharded_axis(leaf.shape, mesh.size, smallest=smallest)
        if layout == "replicated" or axis is None:
            return replicated(mesh)
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))

    return jax.tree.map(sharding, state)


def of(state: PyTree) -> PyTree | None:
    """The shardings of the leaves of a state; None where every device has the whole state."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    whole = all(sharding.is_fully_replicated for sharding in jax.tree.leaves(shardings))
    return None if whole else shardings


def gather(tree: PyTree, mesh: Mesh) -> PyTree:
    """The whole arrays, inside a compiled function; so are their gradients, before they are summed.

    Left to itself, the compiler may shard activations as the parameters are, and gather the batch
    instead.
    """
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def to_host(tree: PyTree) -> PyTree:
    """NumPy copies of arrays, sharded or not, over all processes, each of which must call this.

    Leaves are gathered one after another, so that no device holds more than one of them whole.
    """
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda leaf: multihost_utils.process_allgather(leaf, tiled=True), tree)


def initialize_distributed(coordinator: str, process_id: int, processes: int) -> None:
    """Joins the processes of one run; must be called before anything touches a device.

    With an empty `coordinator` the cluster is detected (SLURM, GKE and Cloud TPU pods, Open MPI);
    otherwise the three values are taken as given, the same `coordinator` ("host:port") everywhere.

    Raises:
        UserError: no cluster was detected and no coordinator given, the coordinator has no port, or
            not all processes came together there.
    """
    if coordinator:
        _check_by_hand(coordinator, process_id, processes)
        if process_id > 0:
            _wait_for(coordinator)
        try:
            jax.distributed.initialize(
                coordinator, processes, process_id, cluster_detection_method="deactivate"
            )
        except jax.errors.JaxRuntimeError as error:
            raise UserError(
                f"Process {process_id} of {processes} could not join the others at {coordinator}: "
                f"{str(error).splitlines()[0]}. If another program uses the port of --coordinator, "
                "name another one, in all processes."
            ) from error
        return
    try:
        jax.distributed.initialize()
    except ValueError as error:
        raise UserError(
            "--distributed found no cluster (SLURM, GKE, Cloud TPU or Open MPI); name it by hand: "
            "--coordinator=HOST:PORT --process_id=I --num_processes=N."
        ) from error


def _wait_for(coordinator: str) -> None:
    """Waits until process 0 listens; JAX itself would end the process without a Python error."""
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + PATIENCE
    told = False
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"Nothing answered at --coordinator={coordinator} for {PATIENCE:g} seconds "
                    f"({error}): start process 0 there, and make sure that this machine reaches it."
                ) from error
            if not told:
                print(f"Waiting for process 0 at {coordinator} ({error}).", file=sys.stderr)
                told = True
        time.sleep(1)


def _check_by_hand(coordinator: str, process_id: int, processes: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 2**16):
        raise UserError(
            f"--coordinator={coordinator} is not HOST:PORT; write an address and a free port of "
            "process 0, such as 10.0.0.1:1234."
        )
    if process_id >= processes:
        raise UserError(
            f"--process_id={process_id}: with --num_processes={processes} the last process is "
            f"{processes - 1}, since they are counted from 0."
        )
