"""Memory of a training step on each of eight devices: replicated, sharded, and sharded with remat.

    python experiments/benchmarks/state_memory.py [--networks mae_large] [--devices tpu] [--batch 9]

Nothing runs: the figures are those of the program that XLA compiles, for eight virtual CPU devices
or, where libtpu is installed (the extra `[tpu]`), for a slice v5e:2x4 that need not be there.
`JAX_OPTIMIZATION_LEVEL=O1` makes the latter several times faster.
"""

import argparse
import importlib.util
import os
from pathlib import Path

DEVICES = 8
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Read when libtpu is loaded; it would otherwise ask the machine which TPU it has.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_WORKER_ID", "0")

import jax  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from sslax.planning import hlo  # noqa: E402
from sslax.training import sharding  # noqa: E402
from sslax.training.plan import make_plan  # noqa: E402
from sslax.training.step import compile_step  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "configs"
LARGE = {"model.name": "vit_large"}
HUGE = {"model.name": "vit_large", "model.width": 1.25, "model.blocks": (32,), "model.patch": 14}
NETWORKS = {
    "mae_large": ("mae", LARGE),
    "mae_huge": ("mae", HUGE),
    "dino_large": ("dino", LARGE),
}
MODES = {
    "replicated": {},
    "fsdp": {"sharding": "fsdp"},
    "fsdp, remat": {"sharding": "fsdp", "model.remat": True},
    "fsdp, remat, 4 micro-batches": {"sharding": "fsdp", "model.remat": True, "accumulate": 4},
}
IMAGENET = {"examples": 1281167, "image_shape": (256, 256, 3), "classes": 1000}


def config_of(method: str, values: dict) -> ConfigDict:
    """The method's config for ImageNet, with other values by dotted name."""
    spec = importlib.util.spec_from_file_location(method, CONFIGS / f"{method}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("imagenet")
    config.update_from_flattened_dict(values)
    return config


def measure(config: ConfigDict, mesh: jax.sharding.Mesh) -> str:
    """The cells of a row: GiB of arguments, temporary arrays, and both; operations; collectives."""
    plan = make_plan(config, **IMAGENET)
    state, over_data = plan.abstract_state(mesh), sharding.batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=over_data)
        for name, leaf in plan.batch.items()
    }
    step = compile_step(
        *(plan.method, plan.tx, mesh, lambda batch, step: batch),
        accumulate=plan.accumulate,
        shardings=sharding.of(state),
    )
    compiled = step.lower(state, batch).compile()
    memory = compiled.memory_analysis()
    parts = (memory.argument_size_in_bytes, memory.temp_size_in_bytes)
    numbers = [f"{part / 2**30:.2f}" for part in (*parts, sum(parts))]
    operations = f"{compiled.cost_analysis()['flops'] / 1e12:.2f}"
    totals = hlo.totals(hlo.Program(compiled.as_text()).collectives)
    moved = [f"{count} {kind} {size / 1e6:.0f} MB" for kind, (count, size) in totals.items()]
    return " | ".join([*numbers, operations, ", ".join(moved)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=[*NETWORKS], choices=NETWORKS)
    parser.add_argument("--modes", nargs="*", default=[*MODES], choices=MODES)
    parser.add_argument("--devices", choices=("cpu", "tpu"), default="cpu")
    parser.add_argument("--batch", type=int, default=64, help="images a device")
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", DEVICES)
    devices = jax.devices()
    if options.devices == "tpu":
        topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4")
        devices = topology.devices
    mesh = sharding.make_mesh(devices)
    print("| network | state | arguments, GiB | temporary | sum | TFLOP | collectives |")
    print("|---|---|---|---|---|---|---|")
    for name in options.networks:
        method, values = NETWORKS[name]
        for mode in options.modes:
            config = config_of(method, values | MODES[mode])
            config.batch_size = options.batch * DEVICES
            print(f"| {name} | {mode} | {measure(config, mesh)} |", flush=True)


if __name__ == "__main__":
    main()
