"""What accelerators can do, by their makers' data sheets."""

import os
from typing import NamedTuple

import jax

GIB = 2**30


class Chip(NamedTuple):
    """An accelerator; numbers are of a chip, which is one device of JAX.

    Attributes:
        name: what people call it.
        memory: bytes on it.
        usable: the part of `memory` that a program can have: the rest is the compiler's on a TPU;
            on a GPU JAX leaves a quarter to others unless XLA_PYTHON_CLIENT_MEM_FRACTION says more.
        operations: a second, floating-point, at most, of matrix products in bfloat16; None where
            it is not known, and likewise below.
        bandwidth: bytes a second between chip and memory.
        link: bytes a second that it can send to its neighbors, over all links.
        clock: hertz of the clock that the compiler counts cycles of.
        kinds: what `jax.Device.device_kind` calls it.
    """

    name: str
    memory: float
    usable: float = 1.0
    operations: float | None = None
    bandwidth: float | None = None
    link: float | None = None
    clock: float | None = None
    kinds: tuple[str, ...] = ()


TPUS = {
    "v4": Chip("TPU v4", 32 * GIB, 0.98, 275e12, 1228e9, 270e9, 1.05e9, ("TPU v4",)),
    "v5e": Chip("TPU v5e", 16 * GIB, 0.98, 197e12, 819e9, 180e9, 1.5e9, ("TPU v5 lite", "TPU v5e")),
    "v5p": Chip("TPU v5p", 95 * GIB, 0.98, 459e12, 2765e9, 540e9, 1.75e9, ("TPU v5", "TPU v5p")),
    "v6e": Chip(
        "TPU v6e", 32 * GIB, 0.98, 918e12, 1640e9, 360e9, 1.75e9, ("TPU v6 lite", "TPU v6e")
    ),
}
"""Links: 45 GB/s each way on v4 and v5e, 90 on v5p and v6e; six of a chip in a torus of three
dimensions, four in one of two."""

GPUS = {
    "a100": Chip(
        "A100 80 GB", 79.2 * GIB, 0.75, 312e12, 2039e9, 300e9, kinds=("NVIDIA A100-SXM4-80GB",)
    ),
    "h100": Chip(
        "H100 80 GB", 79.1 * GIB, 0.75, 989e12, 3352e9, 450e9, kinds=("NVIDIA H100 80GB HBM3",)
    ),
    "h200": Chip("H200", 139.8 * GIB, 0.75, 989e12, 4800e9, 450e9, kinds=("NVIDIA H200",)),
}

CHIPS = {**TPUS, **GPUS}


def of_device(device: jax.Device, devices: int) -> Chip:
    """The chip of a device that is here.

    Args:
        device: one of them.
        devices: how many share this machine's memory, if they are its CPU.

    Returns:
        The chip of the tables, if it has it; otherwise one whose speed is not known.
    """
    for chip in CHIPS.values():
        if device.device_kind in chip.kinds:
            return chip
    if device.platform == "cpu":
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Chip("CPU", total / devices)
    limit = (device.memory_stats() or {}).get("bytes_limit", 0)
    return Chip(device.device_kind, limit)
