"""Devices: one mesh with one axis, `data`, over every device of every process.

The batch is sharded over the axis and everything else is replicated; the compiler places the
collectives, so the code of methods and losses is written for the global batch.
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sslax.errors import UserError

AXIS = "data"


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A one-dimensional mesh over `devices` (default: all devices of all processes)."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding that puts a whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding that splits an array's first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def initialize_distributed(coordinator: str, process_id: int, processes: int) -> None:
    """Joins the processes of one run; must be called before anything touches a device.

    With an empty `coordinator` the cluster is detected (SLURM, GKE and Cloud TPU pods, Open MPI);
    otherwise the three values are taken as given, the same `coordinator` ("host:port") everywhere.

    Raises:
        UserError: no cluster was detected and no coordinator given.
    """
    by_hand = {
        "coordinator_address": coordinator,
        "process_id": process_id,
        "num_processes": processes,
        "cluster_detection_method": "deactivate",
    }
    try:
        jax.distributed.initialize(**(by_hand if coordinator else {}))
    except ValueError as error:
        raise UserError(
            "--distributed found no cluster (SLURM, GKE, Cloud TPU or Open MPI); name it by hand: "
            "--coordinator=HOST:PORT --process_id=I --num_processes=N."
        ) from error
