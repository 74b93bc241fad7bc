"""Speed of the warps against torch.nn.functional.grid_sample and jax map_coordinates.

    python experiments/benchmarks/warp.py --peer-python=PATH_TO_PYTHON_WITH_TORCH

Rounds alternate with torch's, which runs in another interpreter with as many threads as there are
cores. Its threads sleep while they wait, so that the two do not compete for a shared machine's
cores. Every derivative is timed together with the forward pass, as in training: with respect to the
coordinates, or to the coordinates and the image. Prints lower quartiles in milliseconds, since
other work on the machine only adds time, and the ratio of torch's to ours (above 1: ours is
faster).

glibc returns the temporary memory of a step to the system where it exceeds 32 MiB, and the system
clears it again. `MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=68719476736` in front of the command
avoids that.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import numpy as np

SHAPES = [(4, 192, 640, 3), (4, 48, 160, 32)]
TASKS = ["forward", "coordinates", "coordinates and image"]


def inputs(shape):
    """An image, a smooth flow and a cotangent; the 1-D warp takes the flow's first component."""
    rng = np.random.default_rng(0)
    image, cotangent = rng.random(shape, np.float32), rng.random(shape, np.float32)
    batch, height, width, _ = shape
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    flow = np.stack([-width / 16 * (1.5 + np.sin(y / 9)), height / 16 * np.sin(x / 9)], axis=-1)
    flow = flow + rng.random((batch, height, width, 2))
    return image, flow.astype(np.float32), cotangent


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def ours():
    """{(name, shape, task): function}."""
    import jax

    from sslax import ops

    def by_flow(image, flow):
        return ops.warp_flow(image, flow)[0]

    def by_rows(image, flow):
        return ops.warp_disparity(image, flow[..., 0], direction=1)[0]

    def by_map_coordinates(image, flow):
        coords = ops.pixel_grid(*flow.shape[1:3]) + flow

        def one(channel, coords):
            coords = [coords[..., 1], coords[..., 0]]
            return jax.scipy.ndimage.map_coordinates(channel, coords, order=1, mode="nearest")

        return jax.vmap(jax.vmap(one, in_axes=(2, None), out_axes=2))(image, coords)

    def task(warp, name):
        def run(image, flow, cotangent):
            if name == "forward":
                return warp(image, flow)
            if name == "coordinates":
                value, vjp = jax.vjp(lambda flow: warp(image, flow), flow)
            else:
                value, vjp = jax.vjp(warp, image, flow)
            return value, vjp(cotangent)

        return jax.jit(run)

    functions = {}
    warps = {
        "warp_flow": by_flow,
        "warp_disparity": by_rows,
        "map_coordinates": by_map_coordinates,
    }
    for shape in SHAPES:
        arguments = jax.device_put(inputs(shape))
        for name, warp in warps.items():
            for t in TASKS:
                run = task(warp, t)
                functions[name, shape, t] = lambda run=run, arguments=arguments: (
                    jax.block_until_ready(run(*arguments))
                )
    return functions


def peers():
    """torch's {(shape, task): function}, whose rounds the parent process requests."""
    import torch

    torch.set_num_threads(os.cpu_count())

    def task(shape, name):
        image, flow, cotangent = (torch.tensor(x) for x in inputs(shape))
        _, height, width, _ = shape
        image, cotangent = (x.permute(0, 3, 1, 2).contiguous() for x in (image, cotangent))
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        scale = 2 / torch.tensor([width - 1, height - 1])
        pixels = torch.stack([x, y], dim=-1)
        flow.requires_grad_(name != "forward")
        image.requires_grad_(name == "coordinates and image")

        def run():
            grid = (pixels + flow) * scale - 1
            out = torch.nn.functional.grid_sample(
                image, grid, padding_mode="border", align_corners=True
            )
            if name != "forward":
                wanted = [flow, image] if image.requires_grad else [flow]
                torch.autograd.grad(out, wanted, cotangent)

        return run

    return {(shape, t): task(shape, t) for shape in SHAPES for t in TASKS}


def serve():
    functions = list(peers().values())
    for function in functions:
        function()
    print("ready", flush=True)
    for line in sys.stdin:
        print(timed(functions[int(line)]), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--serve", action="store_true")
    args = parser.parse_args()
    if args.serve:
        return serve()

    functions = ours()
    for function in functions.values():
        function()
    command = [args.peer_python, __file__, "--serve"]
    times = {}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=os.environ | {"OMP_WAIT_POLICY": "passive"},
    ) as peer:
        assert peer.stdout.readline().strip() == "ready"
        for _ in range(args.rounds):
            for index, key in enumerate((shape, t) for shape in SHAPES for t in TASKS):
                peer.stdin.write(f"{index}\n")
                times.setdefault(("torch", *key), []).append(float(peer.stdout.readline()))
                for name in ["warp_flow", "warp_disparity", "map_coordinates"]:
                    times.setdefault((name, *key), []).append(timed(functions[name, *key]))
        peer.stdin.close()

    quartiles = {key: statistics.quantiles(values)[0] for key, values in times.items()}
    for shape in SHAPES:
        print(f"\n{'x'.join(map(str, shape))}, ms (torch / this)")
        for t in TASKS:
            reference = quartiles["torch", shape, t]
            row = [f"torch {reference:6.2f}"]
            for name in ["warp_flow", "warp_disparity", "map_coordinates"]:
                value = quartiles[name, shape, t]
                row.append(f"{name} {value:6.2f} ({reference / value:.2f})")
            print(f"  {t:22s}" + "   ".join(row))


if __name__ == "__main__":
    main()
