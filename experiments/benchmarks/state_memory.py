"""Memory of a training step on each of eight devices: replicated, sharded, and sharded with remat.

    python experiments/benchmarks/state_memory.py [--networks ...] [--devices tpu] [--batch 32]

Nothing runs: the figures are those of the program that XLA compiles, for eight virtual CPU devices
or, where libtpu is installed (the extra `[tpu]`), for a slice v5e:2x4 that need not be there.
"""

import argparse
import importlib.util
import os
import re
import time
from collections import Counter
from pathlib import Path

DEVICES = 8
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Read when libtpu is loaded; it would otherwise ask the machine which TPU it has.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_WORKER_ID", "0")

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", DEVICES)

from jax.experimental import topologies  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from sslax.training import sharding  # noqa: E402
from sslax.training.plan import make_plan  # noqa: E402
from sslax.training.step import compile_step  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "configs"
LARGE = {"model.name": "vit_large"}
HUGE = {"model.name": "vit_large", "model.width": 1.25, "model.blocks": (32,), "model.patch": 14}
NETWORKS = {
    "dino_large": ("dino", LARGE),
    "mae_large": ("mae", LARGE),
    "mae_huge": ("mae", HUGE),
}
MODES = {
    "replicated": {"sharding": "replicated"},
    "fsdp": {"sharding": "fsdp"},
    "fsdp, remat": {"sharding": "fsdp", "model.remat": True},
}
IMAGENET = {"examples": 1281167, "image_shape": (256, 256, 3), "classes": 1000}
_COLLECTIVE = re.compile(
    r"= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1, "u8": 1}


def config_of(method: str, values: dict) -> ConfigDict:
    spec = importlib.util.spec_from_file_location(method, CONFIGS / f"{method}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("imagenet")
    config.update_from_flattened_dict(values)
    return config


def collectives(program: str) -> str:
    """Counts and megabytes of the results of a program's collectives, by kind."""
    count, size = Counter(), Counter()
    for shapes, kind in _COLLECTIVE.findall(program):
        count[kind] += 1
        for dtype, dims in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            elements = 1
            for side in filter(None, dims.split(",")):
                elements *= int(side)
            size[kind] += elements * _BYTES.get(dtype, 4)
    return ", ".join(f"{n} {kind} {size[kind] / 1e6:.0f} MB" for kind, n in sorted(count.items()))


def measure(config: ConfigDict, mesh: jax.sharding.Mesh, dump: str) -> str:
    plan = make_plan(config, **IMAGENET)
    state, over_data = plan.abstract_state(mesh), sharding.batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=over_data)
        for name, leaf in plan.batch.items()
    }
    take, shardings = lambda batch, step: batch, sharding.of(state)
    step = compile_step(plan.method, plan.tx, mesh, take, shardings)
    start = time.monotonic()
    compiled = step.lower(state, batch).compile()
    seconds = time.monotonic() - start
    memory, program = compiled.memory_analysis(), compiled.as_text()
    if dump:
        Path(dump).write_text(program)
    cost = compiled.cost_analysis()["flops"] / 1e12
    parts = (memory.argument_size_in_bytes, memory.temp_size_in_bytes)
    numbers = [f"{part / 2**30:.2f}" for part in (*parts, sum(parts))]
    return " | ".join([*numbers, f"{cost:.2f}", f"{seconds:.0f} s", collectives(program)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=[*NETWORKS], choices=NETWORKS)
    parser.add_argument("--modes", nargs="*", default=[*MODES], choices=MODES)
    parser.add_argument("--devices", choices=("cpu", "tpu"), default="cpu")
    parser.add_argument("--batch", type=int, default=32, help="images a device")
    parser.add_argument("--set", nargs="*", default=[], help="name=value, of a config")
    parser.add_argument("--dump", default="", help="a file for the compiled program")
    options = parser.parse_args()
    devices = jax.devices()
    if options.devices == "tpu":
        topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4")
        devices = topology.devices
    mesh = sharding.make_mesh(devices)
    print(
        "| network | state | arguments, GiB | temporary | sum | TFLOP | compiled in | collectives |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in options.networks:
        method, values = NETWORKS[name]
        for mode in options.modes:
            config = config_of(method, values | MODES[mode])
            config.batch_size = options.batch * DEVICES
            for item in options.set:
                key, _, value = item.partition("=")
                config.update_from_flattened_dict(
                    {key: type(config[key])(value)} if "." not in key else {key: eval(value)}
                )
            print(f"| {name} | {mode} | {measure(config, mesh, options.dump)} |", flush=True)


if __name__ == "__main__":
    main()
