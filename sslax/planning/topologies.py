"""Devices to compile for: those that are here, or those of a topology that is not."""

import importlib.util
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from sslax.errors import UserError, nearest
from sslax.planning import chips
from sslax.planning.chips import Chip

EXAMPLES = "v5e:8x16, v5p:4x4x2, v6e:4x8, v4:4x4x4, h100:8, cpu:8"
HOST_GPUS = 8  # of a machine
SPECS = "https://github.com/openxla/xla/tree/main/xla/backends/gpu/target_config/specs"

# libtpu looks for the machine that it runs on, which here is not the one that it compiles for.
_ALONE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class Topology(NamedTuple):
    """Devices, and what each is.

    Attributes:
        name: as the user wrote it.
        devices: of all processes.
        chip: each of them.
    """

    name: str
    devices: Sequence[Any]
    chip: Chip

    @property
    def platform(self) -> str:
        """`tpu`, `gpu` or `cpu`."""
        return {"cuda": "gpu"}.get(self.devices[0].platform, self.devices[0].platform)

    @property
    def is_here(self) -> bool:
        """Whether programs can run on them, rather than be compiled for them alone."""
        return self.devices[0] in jax.devices()

    @property
    def hosts(self) -> int:
        """How many machines the devices are in."""
        return len({device.process_index for device in self.devices})


def here() -> Topology:
    """The devices that are here."""
    devices = jax.devices()
    return Topology("the devices here", devices, chips.of_device(devices[0], len(devices)))


def find(name: str, *, target_config: str | Path = "") -> Topology:
    """The devices of a topology, which need not be here.

    Call it before anything else asks for a device: arrays of this process are kept on its CPU.

    Args:
        name: a kind of chip and how they are arranged: `v5e:8x16`, `v5p:4x4x2`; or how many:
            `h100:8`, and `cpu:8` for virtual devices.
        target_config: for a GPU that is not here, the file that describes it to the compiler.

    Raises:
        UserError: there is no such chip or arrangement, or the compiler for it is not installed.
    """
    kind, _, shape = name.partition(":")
    if kind != "cpu" and kind not in chips.CHIPS:
        raise UserError(
            f"--topology={name} is of no known chip: {nearest(kind, [*chips.CHIPS, 'cpu'])}"
        )
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*" if kind in chips.TPUS else r"[1-9]\d*", shape):
        raise UserError(f"--topology={name} is not of a form such as {EXAMPLES}.")
    if kind == "cpu":
        return _cpus(name, int(shape))
    jax.config.update("jax_platforms", "cpu")
    if kind in chips.TPUS:
        return Topology(name, _tpus(name, shape), chips.TPUS[kind])
    return Topology(name, _gpus(name, int(shape), target_config), chips.GPUS[kind])


def _cpus(name: str, count: int) -> Topology:
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX has begun; there may be enough of them
        pass
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(
            f"--topology={name}: JAX has begun with {len(devices)} CPU devices; set "
            f"JAX_NUM_CPU_DEVICES={count}."
        )
    return Topology(name, devices[:count], chips.of_device(devices[0], count))


def _tpus(name: str, shape: str) -> Sequence[Any]:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--topology={name} needs the TPU's compiler, libtpu; run pip install 'sslax[tpu]'."
        )
    for variable, value in _ALONE.items():
        os.environ.setdefault(variable, value)
    kind, sides = name.partition(":")[0], [int(side) for side in shape.split("x")]
    options: dict[str, Any] = {"chip_config_name": "megacore"} if kind == "v4" else {}
    if math.prod(sides) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except jax.errors.JaxRuntimeError as error:
        dimensions = "two" if kind in ("v5e", "v6e") else "three"
        raise UserError(
            f"--topology={name} is not an arrangement of TPU {kind}, which has {dimensions} "
            f"dimensions, such as in {EXAMPLES}: {str(error).splitlines()[0]}"
        ) from error
    return found.devices


def _gpus(name: str, count: int, target_config: str | Path) -> Sequence[Any]:
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        raise UserError(
            f"--topology={name} needs the GPU's compiler; run pip install 'sslax[cuda]', or see "
            "docs/pods.md for less."
        )
    if not target_config:
        raise UserError(
            f"--topology={name} needs --target_config=FILE, the description of the GPU for the "
            f"compiler; XLA has them in {SPECS}."
        )
    file = Path(target_config)
    if not file.is_file():
        raise UserError(f"--target_config={target_config}: there is no such file.")
    hosts, rest = divmod(count, HOST_GPUS)
    if rest and hosts:
        raise UserError(f"--topology={name}: more than {HOST_GPUS} come in multiples of it.")
    shape = f"1x{hosts}x{HOST_GPUS}" if hosts else f"1x1x{count}"
    try:
        found = topologies.get_topology_desc(
            "any", platform="cuda", topology=shape, target_config=file.read_text()
        )
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"--target_config={target_config} is not the description of a GPU: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return found.devices
