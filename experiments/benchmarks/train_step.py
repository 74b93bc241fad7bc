"""Time of a SimCLR training step: ResNet-18 with the small stem, 64 images as 128 views of 32x32.

    python experiments/benchmarks/train_step.py --peer-python=PATH_TO_PYTHON_WITH_TORCH
    python experiments/benchmarks/train_step.py --networks       # compares small networks of ours

Forward, NT-Xent, backward and an SGD update on views prepared in advance, float32. Rounds alternate
between ours, with `--native` the same network on XLA's own convolutions, and PyTorch (in its
default layout and in channels_last) in another interpreter with as many threads as there are cores.
Prints medians in milliseconds and the ratio of each to ours (above 1: ours is faster).

By default glibc returns freed memory to the system after each step, and the next step waits while
the system clears it again. `MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=68719476736` in front of the
command avoids that, for all peers as well.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import numpy as np


def views(images: int, size: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).random((2 * images, size, size, channels), np.float32)


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def jax_step(module, x, *, native=False):
    """A function that runs one training step of a linen encoder."""
    import jax
    import jax.numpy as jnp
    import optax
    from jax import lax

    from sslax import losses, models
    from sslax.models import conv

    encoder, projector = models.from_linen(module), models.from_linen(models.Projector())
    tx = optax.sgd(1e-3, momentum=0.9)
    x = jnp.asarray(x)

    def forward(params, state, x):
        encoding, encoder_state = encoder.apply(params[0], state[0], x, True)
        z, projector_state = projector.apply(params[1], state[1], encoding.features, True)
        return z, (encoder_state, projector_state)

    def init(rng):
        params, state = encoder.init(rng, x)
        head, head_state = projector.init(rng, encoder.apply(params, state, x, False)[0].features)
        params = params, head
        return params, (state, head_state), tx.init(params)

    def step(carry, x):
        params, state, opt_state = carry

        def loss(params):
            z, new_state = forward(params, state, x)
            return jnp.mean(losses.nt_xent(z[0::2], z[1::2], temperature=0.1)), new_state

        (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), value

    def native_conv(x, kernel, *, stride=1, padding=0, reflect=False):
        assert not reflect
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    ours = conv.conv2d
    conv.conv2d = native_conv if native else ours
    try:
        carry = jax.jit(init)(jax.random.key(0))
        compiled = jax.jit(step, donate_argnums=0).lower(carry, x).compile()
    finally:
        conv.conv2d = ours

    def run():
        nonlocal carry
        carry, value = compiled(carry, x)
        assert np.isfinite(value)

    return run


def torch_step(x, *, channels_last):
    """The same step in PyTorch."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.shortcut = nn.Identity()
            if stride > 1:
                down = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.shortcut = nn.Sequential(down, nn.BatchNorm2d(outputs))

        def forward(self, x):
            y = F.relu(self.bn1(self.conv1(x)), inplace=True)
            return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x), inplace=True)

    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    inputs = 64
    for i, outputs in enumerate((64, 128, 256, 512)):
        for j in range(2):
            layers.append(Block(inputs, outputs, 2 if i > 0 and j == 0 else 1))
            inputs = outputs
    head = [nn.Linear(512, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(inplace=True)]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*layers, *pool, *head, nn.Linear(512, 128, bias=False)).train()
    x = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    itself, positive = torch.eye(len(x), dtype=torch.bool), torch.arange(len(x)) ^ 1

    def run():
        z = F.normalize(model(x))
        logits = (z @ z.T / 0.1).masked_fill(itself, float("-inf"))
        loss = F.cross_entropy(logits, positive)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss.detach())

    return run


def serve():
    """Times one step for each line read, which names the layout."""
    import torch

    torch.set_num_threads(os.cpu_count())
    x = views(64, 32, 3)
    steps = {
        "torch": torch_step(x, channels_last=False),
        "torch channels_last": torch_step(x, channels_last=True),
    }
    for line in sys.stdin:
        print(timed(steps[line.strip()]), flush=True)


def compare(peer_python, rounds, native):
    from sslax import models

    x = views(64, 32, 3)
    steps = {"sslax": jax_step(models.ResNet(small_stem=True), x)}
    if native:
        steps["sslax, XLA's convolutions"] = jax_step(
            models.ResNet(small_stem=True), x, native=True
        )
    if peer_python:
        peer = subprocess.Popen(
            [peer_python, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

        def ask(name):
            peer.stdin.write(name + "\n")
            peer.stdin.flush()
            return float(peer.stdout.readline())
    else:
        ask = None
    times = {}
    for i in range(rounds + 2):  # the first two warm up
        results = {name: timed(step) for name, step in steps.items()}
        if ask:
            results |= {name: ask(name) for name in ("torch", "torch channels_last")}
        if i >= 2:
            for name, value in results.items():
                times.setdefault(name, []).append(value)
    if ask:
        peer.stdin.close()
        peer.wait()
    ours = statistics.median(times["sslax"])
    print(f"{'training step':<28}{'ms':>8}{'best':>8}{'ratio':>8}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:<28}{median:8.0f}{min(values):8.0f}{median / ours:8.2f}")


def networks(rounds):
    """Training steps of small networks on 256 images of 28x28x1, two views each."""
    from sslax.models import ResNet

    x = views(256, 28, 1)
    small = {"small_stem": True}
    choices = {
        "blocks 1111, width 0.25, small stem": {"blocks": (1, 1, 1, 1), "width": 0.25} | small,
        "blocks 1111, width 0.5, small stem": {"blocks": (1, 1, 1, 1), "width": 0.5} | small,
        "blocks 111, width 0.5, small stem": {"blocks": (1, 1, 1), "width": 0.5} | small,
        "blocks 2222, width 0.25, small stem": {"width": 0.25} | small,
        "blocks 2222, width 0.5, small stem": {"width": 0.5} | small,
        "blocks 2222, width 0.25": {"width": 0.25},
        "blocks 2222, width 0.5": {"width": 0.5},
        "blocks 2222, width 1": {},
        "blocks 1111, width 0.5, 2x2 patches": {
            "blocks": (1, 1, 1, 1),
            "width": 0.5,
            "patch_stem": 2,
        },
        "blocks 111, width 1, 2x2 patches": {"blocks": (1, 1, 1), "width": 1.0, "patch_stem": 2},
        "blocks 222, width 1, 4x4 patches": {"blocks": (2, 2, 2), "width": 1.0, "patch_stem": 4},
    }
    print(f"{'network':<40}{'features':>9}{'ms':>8}")
    for name, fields in choices.items():
        step = jax_step(ResNet(**fields), x)
        times = [timed(step) for _ in range(rounds + 2)][2:]
        blocks = fields.get("blocks", (2, 2, 2, 2))
        features = round(64 * fields.get("width", 1.0)) * 2 ** (len(blocks) - 1)
        print(f"{name:<40}{features:>9}{statistics.median(times):8.0f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--native", action="store_true", help="time XLA's own convolutions too")
    parser.add_argument("--networks", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
    elif arguments.networks:
        networks(arguments.rounds)
    else:
        compare(arguments.peer_python, arguments.rounds, arguments.native)


if __name__ == "__main__":
    main()
