"""Time of a Monodepth2 training step: ResNet-18, three frames, 4 examples of 192 x 640, float32.

    python experiments/benchmarks/monodepth2.py --peer-python=PATH_TO_PYTHON_WITH_TORCH
    python experiments/benchmarks/monodepth2.py --batch=12 --dtype=bfloat16        # on a GPU

Depth network, pose network on two pairs, four scales at full resolution, minimum reprojection with
automask, smoothness, gradients and Adam's update, on images prepared in advance and not augmented.
The peer is the same computation in PyTorch, written like the reference (batched over the two
sources, `grid_sample` at the border), in another interpreter with as many threads as there are
cores. The two alternate in turns of several steps; the first step of a turn is not counted, since
caches and memory are still as the other left them. Prints medians, the ratio of the peer's to ours,
and how long 20 epochs of KITTI's 39,810 snippets would take at that speed.
"""

import argparse
import os
import runpy
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HEIGHT, WIDTH, SCALES, EPOCH = 192, 640, 4, 39_810
CONFIG = Path(__file__).parents[2] / "configs" / "monodepth2.py"


def frames(batch: int) -> np.ndarray:
    """Three frames [B, 3, H, W, 3] uint8: smooth images with noise, shifted by two pixels."""
    rng = np.random.default_rng(0)
    coarse = rng.random((batch, HEIGHT // 8, WIDTH // 8 + 1, 3))
    wide = coarse.repeat(8, axis=1).repeat(8, axis=2)
    images = np.stack([wide[:, :, i : i + WIDTH] for i in (0, 2, 4)], axis=1)
    return (255 * (0.9 * images + 0.1 * rng.random(images.shape))).astype(np.uint8)


def camera(batch: int) -> np.ndarray:
    matrix = [[0.58 * WIDTH, 0, WIDTH / 2], [0, 1.92 * HEIGHT, HEIGHT / 2], [0, 0, 1]]
    return np.tile(np.float32(matrix), (batch, 1, 1))


def turn(function, steps: int) -> float:
    """Milliseconds per step over `steps` steps, after one that is not counted."""
    function()
    start = time.perf_counter()
    for _ in range(steps):
        function()
    return 1e3 * (time.perf_counter() - start) / steps


def ours(batch: int, dtype: str):
    """One compiled training step with donated state, and the memory it needs in bytes."""
    import jax

    from sslax.training.plan import make_plan
    from sslax.training.step import train_step

    config = runpy.run_path(str(CONFIG))["get_config"]("kitti")
    config.batch_size, config.model.dtype = batch, dtype
    config.augment.recipe = "identity"
    others = {"intrinsics": ("float32", (3, 3))}
    shape = (3, HEIGHT, WIDTH, 3)
    plan = make_plan(config, examples=EPOCH, image_shape=shape, classes=None, others=others)
    data = {
        "image": frames(batch),
        "intrinsics": camera(batch),
        "index": np.arange(batch, dtype=np.int32),
    }
    data = jax.device_put(data)
    state = jax.jit(plan.initial_state)()

    def step(state, data):
        return train_step(plan.method, plan.tx, state, data)

    compiled = jax.jit(step, donate_argnums=0).lower(state, data).compile()
    memory = compiled.memory_analysis()

    def run():
        nonlocal state
        state, metrics = compiled(state, data)
        assert np.isfinite(metrics["loss"])

    return run, memory.temp_size_in_bytes + memory.argument_size_in_bytes


def theirs(batch: int):
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

    class Encoder(nn.Module):
        """ResNet-18 on the channels of one or two images; all five stages."""

        def __init__(self, images):
            super().__init__()
            self.stem = nn.Sequential(
                nn.Conv2d(3 * images, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(True)
            )
            layers, inputs = [], 64
            for i, outputs in enumerate((64, 128, 256, 512)):
                first = Block(inputs, outputs, 1 if i == 0 else 2)
                layers.append(nn.Sequential(first, Block(outputs, outputs, 1)))
                inputs = outputs
            self.layers = nn.ModuleList(layers)

        def forward(self, x):
            stages = [self.stem((x - 0.45) / 0.225)]
            x = F.max_pool2d(stages[0], 3, 2, 1)
            for layer in self.layers:
                x = layer(x)
                stages.append(x)
            return stages

    def reflected(inputs, outputs):
        return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            widths, of_stage = (16, 32, 64, 128, 256), (64, 64, 128, 256, 512)
            self.up, self.join, self.head = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
            for i, width in enumerate(widths):
                inputs = of_stage[4] if i == 4 else widths[i + 1]
                self.up.append(reflected(inputs, width))
                self.join.append(reflected(width + (of_stage[i - 1] if i else 0), width))
                if i < SCALES:
                    self.head.append(reflected(width, 1))

        def forward(self, stages):
            x, outputs = stages[4], {}
            for i in reversed(range(5)):
                x = F.interpolate(F.elu(self.up[i](x)), scale_factor=2, mode="nearest")
                x = torch.cat([x, stages[i - 1]], 1) if i else x
                x = F.elu(self.join[i](x))
                if i < SCALES:
                    outputs[i] = torch.sigmoid(self.head[i](x))
            return outputs

    encoder, decoder, pose_encoder = Encoder(1), Decoder(), Encoder(2)
    pose_decoder = nn.Sequential(
        nn.Conv2d(512, 256, 1),
        nn.ReLU(True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(True),
        nn.Conv2d(256, 6, 1),
    )
    network = nn.ModuleList([encoder, decoder, pose_encoder, pose_decoder]).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)

    recorded = torch.from_numpy(frames(batch)).permute(1, 0, 4, 2, 3).contiguous()
    matrix = torch.from_numpy(camera(batch)).repeat(2, 1, 1)
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)]).float().reshape(1, 3, -1)
    rays = torch.linalg.inv(matrix[:1]) @ pixels
    size = torch.tensor([WIDTH - 1, HEIGHT - 1]).reshape(1, 2, 1)

    def photometric(target, source):
        absolute = (target - source).abs().mean(1)
        x, y = (F.pad(image, (1, 1, 1, 1), mode="reflect") for image in (source, target))
        mean_x, mean_y = F.avg_pool2d(x, 3, 1), F.avg_pool2d(y, 3, 1)
        var_x = F.avg_pool2d(x**2, 3, 1) - mean_x**2
        var_y = F.avg_pool2d(y**2, 3, 1) - mean_y**2
        covariance = F.avg_pool2d(x * y, 3, 1) - mean_x * mean_y
        numerator = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
        ssim = numerator / ((mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2))
        return 0.85 * torch.clamp((1 - ssim) / 2, 0, 1).mean(1) + 0.15 * absolute

    def rotation(vector):
        angle = vector.norm(dim=1, keepdim=True)[..., None]
        a, b, c = (vector / (angle[..., 0] + 1e-7)).unbind(1)
        zero = torch.zeros_like(a)
        cross = torch.stack([zero, -c, b, c, zero, -a, -b, a, zero], 1).reshape(-1, 3, 3)
        return torch.eye(3) + torch.sin(angle) * cross + (1 - torch.cos(angle)) * cross @ cross

    def poses(before, target, after):
        """Poses from the target's camera to that of the previous and of the next frame."""
        pairs = torch.cat([torch.cat([before, target], 1), torch.cat([target, after], 1)])
        motion = 0.01 * pose_decoder(pose_encoder(pairs)[-1]).mean((2, 3))
        turn, shift = rotation(motion[:, :3]), motion[:, 3:, None]
        turn_back = turn[:batch].transpose(1, 2)
        backward = turn_back, -turn_back @ shift[:batch]
        return [torch.cat(pair) for pair in zip(backward, (turn[batch:], shift[batch:]))]

    def run():
        before, target, after = recorded.float() / 255
        sources, twice = torch.cat([before, after]), target.repeat(2, 1, 1, 1)
        identity = photometric(twice, sources).reshape(2, batch, HEIGHT, WIDTH)
        pyramid = [F.avg_pool2d(target, 2**i) if i else target for i in range(SCALES)]
        outputs = decoder(encoder(target))
        turn, shift = poses(before, target, after)
        loss = 0.0
        for i, disparity in outputs.items():
            full = F.interpolate(disparity, (HEIGHT, WIDTH), mode="bilinear", align_corners=False)
            depth = (1 / (0.01 + 9.99 * full)).reshape(batch, 1, -1)
            points = matrix @ (turn @ (depth * rays).repeat(2, 1, 1) + shift)
            grid = 2 * points[:, :2] / (points[:, 2:] + 1e-7) / size - 1
            grid = grid.reshape(2 * batch, 2, HEIGHT, WIDTH).permute(0, 2, 3, 1)
            warped = F.grid_sample(sources, grid, padding_mode="border", align_corners=True)
            errors = photometric(twice, warped).reshape(identity.shape)
            noise = 1e-5 * torch.randn(identity.shape)
            error = torch.cat([identity + noise, errors]).min(0).values
            field, image = disparity / (disparity.mean((2, 3), True) + 1e-7), pyramid[i]
            weight_x = torch.exp(-image.diff(dim=3).abs().mean(1, True))
            weight_y = torch.exp(-image.diff(dim=2).abs().mean(1, True))
            smoothness = (weight_x * field.diff(dim=3).abs()).mean()
            smoothness = smoothness + (weight_y * field.diff(dim=2).abs()).mean()
            loss = loss + (error.mean() + 1e-3 * smoothness / 2**i) / SCALES
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss.detach())

    return run


def serve(batch: int, steps: int) -> None:
    """Runs in the peer's interpreter: a turn for each line read."""
    import torch

    torch.set_num_threads(os.cpu_count())
    run = theirs(batch)
    for _ in sys.stdin:
        print(turn(run, steps), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="interpreter with torch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="of a turn")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.batch, options.steps)
        return
    peer = None
    if options.peer_python:
        knobs = [f"--batch={options.batch}", f"--steps={options.steps}"]
        command = [options.peer_python, __file__, "--serve", *knobs]
        peer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask() -> float:
        peer.stdin.write("\n")
        peer.stdin.flush()
        return float(peer.stdout.readline())

    run, bytes_needed = ours(options.batch, options.dtype)
    times, peer_times = [], []
    for i in range(options.rounds + 1):  # the first warms up
        for ask_one, found in ((lambda: turn(run, options.steps), times), (ask, peer_times)):
            if ask_one is ask and not peer:
                continue
            milliseconds = ask_one()
            if i >= 1:
                found.append(milliseconds)
    median = statistics.median(times)
    hours = 20 * EPOCH / options.batch * median / 3.6e6
    print(
        f"sslax {median:.0f} ms a step, {1e3 * options.batch / median:.1f} snippets/s, "
        f"{bytes_needed / 2**30:.2f} GiB; 20 epochs of {EPOCH} snippets: {hours:.0f} h"
    )
    if peer:
        theirs_median = statistics.median(peer_times)
        print(f"torch {theirs_median:.0f} ms a step, {theirs_median / median:.2f} x")


if __name__ == "__main__":
    main()
