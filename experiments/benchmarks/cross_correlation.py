"""Speed of Barlow Twins and VICReg with their gradients, for few and for many embeddings.

    python experiments/benchmarks/cross_correlation.py --peer-python=PATH_TO_PYTHON_WITH_LIGHTLY

For each shape (N embeddings x D dimensions; ours uses N x N matrices for few embeddings, D x D for
many), in alternating rounds: the loss, a plain JAX form with the D x D matrix, and lightly in
another interpreter on the same cores (only for 256 embeddings). For comparison, the time of the
matrix products that any D x D form needs: three for Barlow Twins, and two per view for VICReg,
whose matrices are symmetric. Prints medians, ratios to ours and XLA's temporary memory, after
checking that values agree.
"""

import argparse
import statistics
import subprocess
import sys
import time

import numpy as np

PEER_SHAPE = (256, 8192)
MIB = 2**20


def inputs(count: int, dimensions: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((count, dimensions), np.float32)
    return [a, a + rng.standard_normal(a.shape, np.float32)]


def plain_barlow_twins(a, b):
    import jax.numpy as jnp

    a, b = ((x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5) for x in (a, b))
    c = a.T @ b / len(a)
    diagonal = jnp.diagonal(c)
    off_diagonal = jnp.where(jnp.eye(len(c), dtype=bool), 0, c)
    return ((diagonal - 1) ** 2).sum() + 0.005 * (off_diagonal**2).sum()


def plain_vicreg(a, b):
    import jax
    import jax.numpy as jnp

    loss = 25 * ((a - b) ** 2).mean()
    for x in (a, b):
        x = x - x.mean(0)
        loss += 12.5 * jax.nn.relu(1 - jnp.sqrt(x.var(0, ddof=1) + 1e-4)).mean()
        c = x.T @ x / (len(x) - 1)
        c = jnp.where(jnp.eye(len(c), dtype=bool), 0, c)
        loss += (c**2).sum() / len(c)
    return loss


def serve(case: str) -> None:
    """Times one step of lightly for each line read."""
    import torch

    library = torch.library.Library("torchvision", "DEF")  # see experiments/golden
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from lightly.loss import BarlowTwinsLoss, VICRegLoss

    loss = {"barlow_twins": BarlowTwinsLoss, "vicreg": VICRegLoss}[case]()
    leaves = [torch.from_numpy(x).requires_grad_() for x in inputs(*PEER_SHAPE)]
    for _ in sys.stdin:
        start = time.perf_counter()
        value = loss(*leaves)
        torch.autograd.grad(value, leaves)
        print(time.perf_counter() - start, value.item(), flush=True)


def needed_products(case: str):
    """The matrix products that any form with D x D matrices needs, and their number."""

    def of_two(a, b):
        c = a.T @ b
        return b @ c.T, a @ c

    def of_each(a, b):
        return [x @ (x.T @ x) for x in (a, b)]

    return {"barlow_twins": (of_two, 3), "vicreg": (of_each, 4)}[case]


def compare(case: str, shape: tuple[int, int], peer_python: str | None, rounds: int) -> None:
    import jax

    from sslax import losses

    arrays = [jax.numpy.asarray(x) for x in inputs(*shape)]
    functions = {
        case: {"barlow_twins": losses.barlow_twins, "vicreg": losses.vicreg}[case],
        "plain JAX": {"barlow_twins": plain_barlow_twins, "vicreg": plain_vicreg}[case],
    }
    runs, memory = {}, {}
    for name, function in functions.items():
        step = jax.jit(jax.value_and_grad(function, (0, 1))).lower(*arrays).compile()
        memory[name] = step.memory_analysis().temp_size_in_bytes

        def run(step=step) -> tuple[float, float]:
            start = time.perf_counter()
            value, _ = jax.block_until_ready(step(*arrays))
            return time.perf_counter() - start, float(value)

        runs[name] = run

    products, number = needed_products(case)
    products = jax.jit(products)

    def run_products() -> tuple[float, None]:
        start = time.perf_counter()
        jax.block_until_ready(products(*arrays))
        return time.perf_counter() - start, None

    runs[f"{number} products N D D"] = run_products
    peer = None
    if peer_python and shape == PEER_SHAPE:
        peer = subprocess.Popen(
            [peer_python, __file__, f"--serve={case}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

        def lightly() -> tuple[float, float]:
            peer.stdin.write("\n")
            peer.stdin.flush()
            seconds, value = peer.stdout.readline().split()
            return float(seconds), float(value)

        runs["lightly"] = lightly

    results = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            results[name].append(run())
    if peer:
        peer.stdin.close()
        peer.wait()
    print(f"{case}: {shape[0]} embeddings of {shape[1]} dimensions, value and gradients")
    base = statistics.median(seconds for seconds, _ in results[case][1:])
    for name, timings in results.items():
        if timings[-1][1] is not None:
            np.testing.assert_allclose(timings[-1][1], results[case][-1][1], rtol=1e-3)
        median = statistics.median(seconds for seconds, _ in timings[1:])
        size = f"{memory[name] / MIB:10.1f} MiB" if name in memory else ""
        print(f"  {name:<24}{median * 1e3:10.1f} ms {median / base:8.2f} x{size}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="an interpreter that has torch and lightly")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="+", default=["256x8192", "8192x512", "8192x8192"])
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve)
    for shape in arguments.shapes:
        count, dimensions = map(int, shape.split("x"))
        for case in ("barlow_twins", "vicreg"):
            compare(case, (count, dimensions), arguments.peer_python, arguments.rounds)


if __name__ == "__main__":
    main()
