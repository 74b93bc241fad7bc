"""Time of flow networks: RAFT against torchvision's, PWC-Net against the same network in PyTorch.

    python experiments/benchmarks/flow.py --peer-python=PATH_TO_PYTHON_WITH_TORCHVISION
    python experiments/benchmarks/flow.py --networks raft_large --size 440 1024 --dtype=bfloat16

One direction, random weights, float32, twelve iterations. Inference is the network alone, with all
its flow outputs, on a pair of 256 x 448. A training step is the forward pass, an L1 loss of every
flow (RAFT's sequence loss; PWC-Net's at each level), gradients and Adam's update, on a pair of 128
x 256. The peer runs in another interpreter with as many threads as there are cores, always in
float32 on the CPU, in PyTorch's default layout and in channels_last; rounds alternate. Prints
medians, pairs per second and the ratio of the peer's time to ours (above 1: ours is faster).
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import numpy as np

NETWORKS = ("raft_small", "raft_large", "pwc")
SIZES = {"inference": (256, 448), "training": (128, 256)}
LAYOUTS = ("default", "channels_last")
MOTION = (-2.0, 0.0)  # of every pixel, from the first frame to the second
GAMMA = 0.8


def frames(batch: int, size: tuple[int, int]) -> np.ndarray:
    """Pairs [B, 2, H, W, 3] in [0, 1]: coarse blocks with noise, the second moved by `MOTION`."""
    height, width = size
    rng = np.random.default_rng(0)
    coarse = rng.random((batch, -(-height // 8), -(-width // 8) + 1, 3))
    wide = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height]
    images = np.stack([wide[:, :, i : i + width] for i in (0, 2)], axis=1)
    return (0.9 * images + 0.1 * rng.random(images.shape)).astype(np.float32)


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def ours(network: str, mode: str, options: argparse.Namespace):
    """A function that runs one training step or one inference."""
    import jax
    import jax.numpy as jnp
    import optax

    from sslax import losses, models
    from sslax.models.pwc import PWCNet
    from sslax.models.raft import RAFT

    knobs = {"both": False, "dtype": jnp.dtype(options.dtype)}
    if network == "pwc":
        module = PWCNet(level_dropout=0.0, **knobs)
    else:
        module = RAFT(small=network == "raft_small", iterations=options.iterations, **knobs)
    model, tx = models.from_linen(module), optax.adam(1e-4)
    images = jnp.asarray(frames(options.batch, options.size))
    motion = jnp.array(MOTION)
    params, state = jax.jit(model.init)(jax.random.key(0), images)

    def loss(params, state):
        flows, state = model.apply(params, state, images, True)
        if network == "pwc":
            errors = [jnp.mean(jnp.abs(f - motion / 2 ** (i + 2))) for i, f in enumerate(flows)]
            return sum(errors), state
        flows = jnp.moveaxis(flows[:, 0], 1, 0)
        target = jnp.broadcast_to(motion, flows.shape[1:])
        return losses.masked_mean(*losses.sequence_loss(flows, target, gamma=GAMMA)), state

    def step(carry):
        params, state, opt_state = carry
        (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(params, state)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), value

    if mode == "inference":
        infer = jax.jit(lambda *carry: model.apply(*carry, images, False)[0])
        compiled = infer.lower(params, state).compile()
        return lambda: jax.block_until_ready(compiled(params, state))
    carry = params, state, tx.init(params)
    compiled = jax.jit(step, donate_argnums=0).lower(carry).compile()

    def run():
        nonlocal carry
        carry, value = compiled(carry)
        assert np.isfinite(value)

    return run


def torch_pwc():
    """The network of `sslax.models.pwc.PWCNet`, in PyTorch."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    def conv(inputs, outputs, stride=1, dilation=1):
        layer = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation)
        return nn.Sequential(layer, nn.LeakyReLU(0.1, inplace=True))

    def standardized(x):
        x = x - x.mean((1, 2, 3), True)
        return x * torch.rsqrt(x.square().mean((1, 2, 3), True) + 1e-6)

    def correlation(first, second):
        first, second = standardized(first), F.pad(standardized(second), (4, 4, 4, 4))
        h, w = first.shape[2:]
        shifts = [(y, x) for y in range(9) for x in range(9)]
        costs = [(first * second[:, :, y : y + h, x : x + w]).mean(1) for y, x in shifts]
        return F.leaky_relu(torch.stack(costs, 1), 0.1)

    def warp(x, flow):
        h, w = x.shape[2:]
        row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        place = torch.stack([column, row]) + flow
        grid = 2 * place.permute(0, 2, 3, 1) / torch.tensor([w - 1, h - 1]) - 1
        return F.grid_sample(x, grid, align_corners=True)

    class PWC(nn.Module):
        def __init__(self):
            super().__init__()
            pyramid = [(3, 32), *[(32, 32)] * 4]
            self.pyramid = nn.ModuleList(
                nn.Sequential(conv(a, b, 2), conv(b, b), conv(b, b)) for a, b in pyramid
            )
            self.decoders, self.heads, self.ups = (nn.ModuleList() for _ in range(3))
            for level in range(4):
                inputs, layers = 81 + 32 + (34 if level < 3 else 0), nn.ModuleList()
                for outputs in (128, 128, 96, 64, 32):
                    layers.append(conv(inputs, outputs))
                    inputs += outputs
                self.decoders.append(layers)
                self.heads.append(nn.Conv2d(32, 2, 3, padding=1))
                if level < 3:
                    self.ups.append(nn.ConvTranspose2d(32, 32, 4, 2, 1, bias=False))
            channels = (34, 128, 128, 128, 96, 64, 32)
            layers = [
                conv(a, b, 1, d) for a, b, d in zip(channels, channels[1:], (1, 2, 4, 8, 16, 1))
            ]
            self.context = nn.Sequential(*layers, nn.Conv2d(32, 2, 3, padding=1))

        def forward(self, first, second):
            x, n, features = 2 * torch.cat([first, second]) - 1, len(first), []
            for layers in self.pyramid:
                x = layers(x)
                features.append((x[:n], x[n:]))
            flows, flow, y = [], None, None
            for level in reversed(range(4)):
                first, second = features[level + 1]
                known = []
                if flow is not None:
                    up = {"scale_factor": 2, "mode": "bilinear", "align_corners": False}
                    flow = 2 * F.interpolate(flow, **up)
                    second = warp(second, flow)
                    known = [self.ups[level](y), flow]
                x = torch.cat([*known, correlation(first, second), first], 1)
                for layer in self.decoders[level]:
                    y = layer(x)
                    x = torch.cat([x, y], 1)
                update = self.heads[level](y)
                flow = update if flow is None else flow + update
                if level == 0:
                    flow = flow + self.context(torch.cat([y, flow], 1))
                flows.insert(0, flow)
            return flows

    return PWC()


def torchvision_raft(name: str, iterations: int):
    from torchvision.models import optical_flow

    network = getattr(optical_flow, name)()
    return network, lambda a, b: network(2 * a - 1, 2 * b - 1, num_flow_updates=iterations)


def theirs(network: str, mode: str, options: argparse.Namespace, layout: str):
    """The same in PyTorch."""
    import torch

    torch.manual_seed(0)
    if network == "pwc":
        module = apply = torch_pwc()
    else:
        module, apply = torchvision_raft(network, options.iterations)
    images = torch.from_numpy(frames(options.batch, options.size)).permute(1, 0, 4, 2, 3)
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    pair = [image.contiguous(memory_format=form) for image in images]
    module.to(memory_format=form).train(mode == "training")
    optimizer = torch.optim.Adam(module.parameters(), 1e-4)
    motion = torch.tensor(MOTION).reshape(1, 2, 1, 1)

    def infer():
        with torch.inference_mode():
            apply(*pair)

    def step():
        flows, loss = apply(*pair), 0.0
        for i, flow in enumerate(flows):
            if network == "pwc":
                loss = loss + (flow - motion / 2 ** (i + 2)).abs().mean()
            else:
                loss = loss + GAMMA ** (len(flows) - 1 - i) * (flow - motion).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss.detach())

    return infer if mode == "inference" else step


def serve(network: str, mode: str, options: argparse.Namespace) -> None:
    """Runs in the peer's interpreter: times one step for each line read, which names the layout."""
    import torch

    torch.set_num_threads(os.cpu_count())
    steps = {layout: theirs(network, mode, options, layout) for layout in LAYOUTS}
    for line in sys.stdin:
        print(timed(steps[line.strip()]), flush=True)


def measure(network: str, mode: str, options: argparse.Namespace) -> dict[str, float]:
    """Median times in milliseconds: ours, and the peer's for each layout."""
    peer = None
    if options.peer_python:
        command = [options.peer_python, __file__, "--serve", "--networks", network, "--modes", mode]
        command += ["--batch", options.batch, "--size", *options.size]
        command += ["--iterations", options.iterations]
        command = [str(part) for part in command]
        peer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(layout: str) -> float:
        peer.stdin.write(layout + "\n")
        peer.stdin.flush()
        return float(peer.stdout.readline())

    run, times = ours(network, mode, options), {}
    for i in range(options.rounds + 2):  # the first two warm up
        found = {"sslax": timed(run)}
        if peer:
            found |= {f"torch {layout}": ask(layout) for layout in LAYOUTS}
        for name, milliseconds in found.items() if i >= 2 else ():
            times.setdefault(name, []).append(milliseconds)
    if peer:
        peer.stdin.close()
        peer.wait()
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="interpreter with torch and torchvision")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--modes", nargs="+", default=[*SIZES], choices=[*SIZES])
    parser.add_argument("--size", type=int, nargs=2, help="height and width, of both modes")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=12, help="of RAFT")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.networks, *options.modes, options)
        return
    print(
        "| network | mode | size | program | ms | pairs/s | ratio |\n|---|---|---|---|---|---|---|"
    )
    given = options.size
    for network in options.networks:
        for mode in options.modes:
            options.size = tuple(given or SIZES[mode])
            size = " x ".join(map(str, (options.batch, *options.size)))
            medians = measure(network, mode, options)
            for name, median in medians.items():
                print(
                    f"| {network} | {mode} | {size} | {name} | {median:.0f} "
                    f"| {1e3 * options.batch / median:.2f} | {median / medians['sslax']:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
