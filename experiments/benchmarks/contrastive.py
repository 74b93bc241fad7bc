"""Speed and memory of NT-Xent with its gradients, against dense forms, optax and lightly.

    python experiments/benchmarks/contrastive.py --peer-python=PATH_TO_PYTHON_WITH_LIGHTLY
    python experiments/benchmarks/contrastive.py --large           # 131,072 embeddings, one step
    python experiments/benchmarks/contrastive.py --devices=8       # memory and traffic per device

The first command times a batch of 4,096 pairs of 128 dimensions, in alternating rounds: the default
loss, the whole matrix at once (`tile` above the batch size) and lightly in another interpreter on
the same cores. Optax is compared at 256 pairs. It prints medians, ratios to the default loss, and
XLA's temporary memory. For a million embeddings on an accelerator, whose tiles are larger, it only
compiles the step and prints the memory. It checks that all values agree. It begins with the memory
of InfoNCE, of its dense forms and of one N x D array.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from unittest import mock

import numpy as np

DIMENSIONS, TEMPERATURE = 128, 0.1
MIB = 2**20


def inputs(pairs: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((pairs, DIMENSIONS), np.float32)
    return [a, a + rng.standard_normal(a.shape, np.float32)]


def compiled(loss, pairs: int):
    import jax

    step = jax.jit(jax.value_and_grad(lambda a, b: loss(a, b).mean(), (0, 1)))
    shape = jax.ShapeDtypeStruct((pairs, DIMENSIONS), np.float32)
    return step.lower(shape, shape).compile()


def nt_xent(tile: int | None = None):
    from sslax import losses

    return lambda a, b: losses.nt_xent(a, b, temperature=TEMPERATURE, tile=tile)


def dense(a, b):
    """NT-Xent in its textbook form: the whole matrix of logits, without its diagonal."""
    import jax
    import jax.numpy as jnp

    z = jnp.concatenate([a, b])
    z /= jnp.linalg.norm(z, axis=1, keepdims=True)
    logits = jnp.where(jnp.eye(len(z), dtype=bool), -jnp.inf, z @ z.T / TEMPERATURE)
    labels = jnp.roll(jnp.arange(len(z)), len(a))
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]


def optax_ntxent(a, b):
    import jax.numpy as jnp
    import optax

    labels = jnp.tile(jnp.arange(len(a)), 2)
    return optax.losses.ntxent(jnp.concatenate([a, b]), labels, temperature=TEMPERATURE)


def serve(pairs: int) -> None:
    """Times one step of lightly for each line read."""
    import torch

    library = torch.library.Library("torchvision", "DEF")  # see experiments/golden
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from lightly.loss import NTXentLoss

    loss = NTXentLoss(temperature=TEMPERATURE)
    leaves = [torch.from_numpy(x).requires_grad_() for x in inputs(pairs)]
    for _ in sys.stdin:
        start = time.perf_counter()
        value = loss(*leaves)
        torch.autograd.grad(value, leaves)
        print(time.perf_counter() - start, value.item(), flush=True)


def timed(step, pairs: int):
    import jax

    arrays = [jax.numpy.asarray(x) for x in inputs(pairs)]

    def run() -> tuple[float, float]:
        start = time.perf_counter()
        value, _ = jax.block_until_ready(step(*arrays))
        return time.perf_counter() - start, float(value)

    return run


def compare(runs: dict, rounds: int) -> None:
    """Prints medians and their ratios to the first."""
    results = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            results[name].append(run())
    first = next(iter(runs))
    base = statistics.median(seconds for seconds, _ in results[first][1:])
    for name, timings in results.items():
        np.testing.assert_allclose(timings[-1][1], results[first][-1][1], rtol=1e-4)
        median = statistics.median(seconds for seconds, _ in timings[1:])
        print(f"  {name:<28}{median * 1e3:10.1f} ms {median / base:8.2f} x")


def small(peer_python: str | None, rounds: int) -> None:
    import sslax.losses.pairwise

    for pairs, others in ((4096, {"dense": dense}), (256, {"optax": optax_ntxent})):
        print(f"{pairs} pairs, {DIMENSIONS} dimensions, value and gradients")
        steps = {"nt_xent": compiled(nt_xent(), pairs)}
        steps |= {name: compiled(loss, pairs) for name, loss in others.items()}
        runs = {name: timed(step, pairs) for name, step in steps.items()}
        if peer_python:
            peer = subprocess.Popen(
                [peer_python, __file__, f"--serve={pairs}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )

            def lightly(peer=peer) -> tuple[float, float]:
                peer.stdin.write("\n")
                peer.stdin.flush()
                seconds, value = peer.stdout.readline().split()
                return float(seconds), float(value)

            runs["lightly"] = lightly
        compare(runs, rounds)
        if peer_python:
            peer.stdin.close()
            peer.wait()
        memory = {name: s.memory_analysis().temp_size_in_bytes for name, s in steps.items()}
        if pairs == 4096:
            memory["optax"] = compiled(optax_ntxent, pairs).memory_analysis().temp_size_in_bytes
        for name, size in memory.items():
            ratio = memory["nt_xent"] / size
            print(f"  {name:<28}{size / MIB:10.1f} MiB temporary; nt_xent takes {ratio:.2%}")

    sslax.losses.pairwise.CPU_TILE = sslax.losses.pairwise.TILE  # as on an accelerator
    memory = compiled(nt_xent(), 2**19).memory_analysis()
    total = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    print(f"1,048,576 embeddings with gradients: {total / 2**30:.2f} GiB in all")


def info_nce_memory() -> None:
    import jax
    import jax.numpy as jnp

    from sslax import losses
    from sslax.losses import pairwise

    def plain(a, b):
        a, b = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        return -jnp.diagonal(jax.nn.log_softmax(a @ b.T / TEMPERATURE))

    def info_nce(a, b):
        return losses.info_nce(a, b, temperature=TEMPERATURE)

    def temporary(loss, rows):
        return compiled(loss, rows).memory_analysis().temp_size_in_bytes / MIB

    for rows in (4096, 16384):
        sizes = {"info_nce": temporary(info_nce, rows), "plain JAX": temporary(plain, rows)}
        with mock.patch.object(pairwise, "CPU_TILE", rows):
            sizes["its dense form"] = temporary(info_nce, rows)
        text = ", ".join(
            f"{name} {size:.1f} ({sizes['info_nce'] / size:.1%})" for name, size in sizes.items()
        )
        one = rows * DIMENSIONS * 4 / MIB
        print(f"info_nce, {rows} rows, MiB temporary: {text}; one array N x D {one:.0f}")


def large() -> None:
    pairs = 2**16
    step = compiled(nt_xent(), pairs)
    seconds, value = timed(step, pairs)()
    size = step.memory_analysis().temp_size_in_bytes / MIB
    print(f"{2 * pairs} embeddings: {seconds:.1f} s, {size:.0f} MiB temporary, loss {value:.4f}")
    print(f"the matrix alone would take {(2 * pairs) ** 2 * 4 / 2**30:.0f} GiB")


def over_devices(devices: int, pairs: int = 4096) -> None:
    """Temporary memory and communication per device, for global arrays and for a ring."""
    import jax
    from jax.sharding import AxisType, NamedSharding
    from jax.sharding import PartitionSpec as P

    from sslax import losses

    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))

    def ring(a, b):
        return jax.lax.pmean(
            losses.nt_xent(a, b, temperature=TEMPERATURE, axis_name="data").mean(), "data"
        )

    ring = jax.shard_map(ring, mesh=mesh, in_specs=(P("data"), P("data")), out_specs=P())
    cases = {"dense": dense, "global arrays": nt_xent(), "ring in shard_map": ring}
    arrays = [jax.device_put(x, NamedSharding(mesh, P("data"))) for x in inputs(pairs)]
    print(f"{pairs} pairs over {devices} devices")
    for name, loss in cases.items():
        step = jax.jit(jax.value_and_grad(lambda a, b, loss=loss: loss(a, b).mean(), (0, 1)))
        step = step.lower(*arrays).compile()
        text = step.as_text()
        kinds = re.findall(r" (all-gather|all-reduce|collective-permute|all-to-all)\(", text)
        messages = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
        size = step.memory_analysis().temp_size_in_bytes / MIB
        _, gradients = step(*arrays)
        spec = gradients[0].sharding.spec
        print(f"  {name:<20}{size:8.1f} MiB temporary, gradients {spec}, {messages}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="an interpreter that has torch and lightly")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--devices", type=int)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
    elif arguments.large:
        large()
    elif arguments.devices:
        import jax

        jax.config.update("jax_num_cpu_devices", arguments.devices)
        over_devices(arguments.devices)
    else:
        info_nce_memory()
        small(arguments.peer_python, arguments.rounds)


if __name__ == "__main__":
    main()
