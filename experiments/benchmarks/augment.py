"""Speed of the SimCLR views, two of each image, against torchvision and kornia.

    python experiments/benchmarks/augment.py --peer-python=PATH_TO_PYTHON_WITH_TORCH

Rounds alternate with the peers', which run in another interpreter (torch, torchvision, kornia) on
the same cores: torchvision v2 image by image on uint8 tensors, in one single-threaded process per
core, as in a data loader; kornia on the whole batch, with threads and parameters drawn per example.
Prints medians, and ratios of the peers' to ours.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import numpy as np

# images, side of the image, side of the view
CASES = [(256, 32, 32), (32, 256, 224)]


def kernel_size(size: int) -> int:
    return size // 10 // 2 * 2 + 1


def photographs(count: int, size: int) -> np.ndarray:
    """Smooth random colors with noise; no operation's speed depends on the content."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, size // 8, size // 8, 3))
    image = coarse.repeat(8, axis=1).repeat(8, axis=2) + rng.integers(
        -20, 21, (count, size, size, 3)
    )
    return image.clip(0, 255).astype(np.uint8)


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ours(count: int, source: int, size: int):
    import jax

    from sslax import augment

    views = jax.jit(augment.make_views(augment.get_view_recipes("simclr", size=size)))
    batch = {"image": photographs(count, source), "index": np.arange(count)}
    batch = jax.device_put(batch)
    rng = jax.random.key(0)
    return lambda: jax.block_until_ready(views(rng, batch)["image"])


def import_torchvision():
    import torch

    # Some builds of torchvision lack their compiled detection operators; nothing here uses them.
    library = torch.library.Library("torchvision", "DEF")
    try:
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")
    except RuntimeError:
        pass
    from torchvision.transforms import v2

    return torch, v2, library


def torchvision_worker(source: int, size: int, count: int):
    torch, v2, _ = import_torchvision()
    torch.set_num_threads(1)
    jitter = v2.ColorJitter(0.8, 0.8, 0.8, 0.2)
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.08, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([jitter], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(kernel_size(size), (0.1, 2.0))], 0.5),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    images = torch.from_numpy(photographs(count, source)).permute(0, 3, 1, 2).contiguous()
    return lambda: torch.stack([transform(image) for image in images for _ in range(2)])


def torchvision_process(pipe, source: int, size: int, count: int) -> None:
    run = torchvision_worker(source, size, count)
    try:
        while pipe.recv():
            run()
            pipe.send(True)
    except EOFError:
        return  # the benchmark has ended


def peer_torchvision(count: int, source: int, size: int):
    import multiprocessing

    cores = os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    pipes = []
    for _ in range(cores):
        here, there = context.Pipe()
        arguments = (there, source, size, count // cores)
        context.Process(target=torchvision_process, args=arguments, daemon=True).start()
        pipes.append(here)

    def run() -> None:
        for pipe in pipes:
            pipe.send(True)
        for pipe in pipes:
            pipe.recv()

    return run


def peer_kornia(count: int, source: int, size: int):
    torch, _, _ = import_torchvision()
    import kornia.augmentation as K

    transform = K.AugmentationSequential(
        K.RandomResizedCrop((size, size), scale=(0.08, 1.0)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur((kernel_size(size), kernel_size(size)), (0.1, 2.0), p=0.5),
        data_keys=["input"],
        same_on_batch=False,
    )
    images = torch.from_numpy(photographs(count, source)).permute(0, 3, 1, 2).contiguous()

    def run() -> None:
        with torch.no_grad():
            x = images.float() / 255
            torch.stack([transform(x), transform(x)], dim=1)

    return run


def serve() -> None:
    """In the peers' interpreter: one timed round for each line 'name case'."""
    make = {"torchvision": peer_torchvision, "kornia": peer_kornia}
    running = {}
    for line in sys.stdin:
        name, case = line.split()
        if line not in running:
            running[line] = make[name](*CASES[int(case)])
            running[line]()
        print("seconds", timed(running[line]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="interpreter with torch, torchvision and kornia")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return

    peers = []
    if options.peer_python:
        server = subprocess.Popen(
            [options.peer_python, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        peers = ["torchvision", "kornia"]

    def ask(name: str, case: int) -> float:
        server.stdin.write(f"{name} {case}\n")
        server.stdin.flush()
        for line in server.stdout:
            if line.startswith("seconds"):
                return float(line.split()[1])
        raise RuntimeError(f"The peers' interpreter ended while timing {name}.")

    for case, (count, source, size) in enumerate(CASES):
        run = ours(count, source, size)
        compile_seconds = timed(run)
        for name in peers:
            ask(name, case)
        seconds = {name: [] for name in ["sslax", *peers]}
        for _ in range(options.rounds):
            seconds["sslax"].append(timed(run))
            for name in peers:
                seconds[name].append(ask(name, case))
        print(
            f"{count} images of {source} px, 2 views of {size} px; "
            f"compiled in {compile_seconds:.1f} s"
        )
        base = statistics.median(seconds["sslax"])
        for name, values in seconds.items():
            median = statistics.median(values)
            print(
                f"  {name:12s}{median * 1e3:9.1f} ms {count / median:9.0f} images/s"
                f"{median / base:8.2f} x ours"
            )
    if peers:
        server.stdin.close()
        server.terminate()


if __name__ == "__main__":
    main()
