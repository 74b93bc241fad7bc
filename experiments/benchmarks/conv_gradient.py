"""Time of 3x3 convolutions with both gradients: ours, XLA's own and PyTorch's.

    python experiments/benchmarks/conv_gradient.py --peer-python=PATH_TO_PYTHON_WITH_TORCH

The convolutions of ResNet-18 on 128 images of 32x32, and narrow ones on 512 of 28x28. Rounds
alternate; PyTorch runs in another interpreter, in its default layout and in channels_last, with
as many threads as there are cores. Prints medians in milliseconds of forward and backward together.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import numpy as np

# images, side, input channels, output channels, stride
SHAPES = [
    (128, 32, 64, 64, 1),
    (128, 32, 64, 128, 2),
    (128, 16, 128, 128, 1),
    (128, 8, 256, 256, 1),
    (128, 8, 256, 512, 2),
    (128, 4, 512, 512, 1),
    (512, 28, 16, 16, 1),
    (512, 28, 32, 32, 1),
    (512, 14, 64, 64, 1),
]
PEERS = ["torch", "torch channels_last"]


def arrays(shape):
    """Images, a kernel and the output's gradient, channels last."""
    n, side, c, k, stride = shape
    random = np.random.default_rng(0)
    sizes = (n, side, side, c), (3, 3, c, k), (n, side // stride, side // stride, k)
    return [random.standard_normal(size, np.float32) for size in sizes]


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def jax_runs(shape):
    import jax
    from jax import lax

    from sslax.models import conv2d

    stride = shape[-1]
    values = [jax.device_put(a) for a in arrays(shape)]

    def native(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def runner(function):
        def both(x, kernel, errors):
            y, pull = jax.vjp(function, x, kernel)
            return y, pull(errors)

        compiled = jax.jit(both).lower(*values).compile()
        return lambda: jax.block_until_ready(compiled(*values))

    return {
        "sslax": runner(lambda x, k: conv2d(x, k, stride=stride, padding=1)),
        "XLA": runner(native),
    }


def torch_run(shape, name):
    import torch

    torch.set_num_threads(os.cpu_count())
    x, kernel, errors = (torch.from_numpy(a) for a in arrays(shape))
    x, kernel, errors = (
        x.permute(0, 3, 1, 2),
        kernel.permute(3, 2, 0, 1),
        errors.permute(0, 3, 1, 2),
    )
    layout = torch.channels_last if "channels_last" in name else torch.contiguous_format
    x, kernel, errors = (a.contiguous(memory_format=layout) for a in (x, kernel, errors))
    x.requires_grad_(), kernel.requires_grad_()

    def run():
        y = torch.nn.functional.conv2d(x, kernel, stride=shape[-1], padding=1)
        torch.autograd.grad(y, (x, kernel), errors)

    return run


def serve():
    """Times one run for each line read: the index of a shape and of a peer."""
    made = {}
    for line in sys.stdin:
        key = tuple(map(int, line.split()))
        if key not in made:
            made = {k: v for k, v in made.items() if k[0] == key[0]}
            made[key] = torch_run(SHAPES[key[0]], PEERS[key[1]])
        print(timed(made[key]), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    peer = None
    if arguments.peer_python:
        peer = subprocess.Popen(
            [arguments.peer_python, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(*key):
        peer.stdin.write(" ".join(map(str, key)) + "\n")
        peer.stdin.flush()
        return float(peer.stdout.readline())

    names = ["sslax", "XLA", *(PEERS if peer else [])]
    print(f"{'images, side, in, out, stride':<32}" + "".join(f"{name:>21}" for name in names))
    for i, shape in enumerate(SHAPES):
        runs = jax_runs(shape)
        if peer:
            runs |= {name: lambda i=i, j=j: ask(i, j) for j, name in enumerate(PEERS)}
        times = {name: [] for name in names}
        for _ in range(arguments.rounds + 1):
            for name in names:
                value = timed(runs[name]) if name in ("sslax", "XLA") else runs[name]()
                times[name].append(value)
        medians = [statistics.median(times[name][1:]) for name in names]  # the first warms up
        print(f"{shape!s:<32}" + "".join(f"{m:21.1f}" for m in medians), flush=True)
    if peer:
        peer.stdin.close()
        peer.wait()


if __name__ == "__main__":
    main()
