"""Speed of the photometric losses with their gradients, against the same in PyTorch.

    python experiments/benchmarks/photometric.py --peer-python=PATH_TO_PYTHON_WITH_TORCH

Three cases, 4 images of 192 x 640:
  stack        monodepth2's loss: 4 scales x 2 sources warped by depth and pose, 0.85 dissimilarity
               + 0.15 absolute difference, minimum reprojection with automask, edge-aware
               smoothness; gradients to the disparities and poses
  photometric  `photometric_error` of one reconstruction; gradient to the reconstruction
  census       `census_error`, 7 x 7; gradient to the reconstruction

The peer is written like the reference codes: average pooling of the reflected images, `grid_sample`
at the border, unfolded 7 x 7 patches; axis-angle by kornia. It runs in another interpreter on the
same cores, in rounds that alternate with ours. Prints medians, and ratios of the peer's to ours,
after checking that values agree.
"""

import argparse
import statistics
import subprocess
import sys
import time

import numpy as np

BATCH, HEIGHT, WIDTH, SCALES = 4, 192, 640, 4
CASES = ["stack", "photometric", "census"]


def inputs() -> dict[str, np.ndarray]:
    """Smooth images with noise, sources shifted by a few pixels, a small motion."""
    rng = np.random.default_rng(0)
    coarse = rng.random((BATCH, HEIGHT // 8, WIDTH // 8 + 1, 3))
    wide = coarse.repeat(8, axis=1).repeat(8, axis=2)
    images = [wide[:, :, i : i + WIDTH] for i in (2, 0, 4)]
    images = [0.9 * image + 0.1 * rng.random(image.shape) for image in images]
    disparities = {
        f"disparity{i}": 0.3 + 0.2 * rng.random((BATCH, HEIGHT >> i, WIDTH >> i))
        for i in range(SCALES)
    }
    values = {
        "target": images[0],
        "sources": np.stack(images[1:]),
        "rotation": 0.01 * rng.normal(size=(2, BATCH, 3)),
        "translation": 0.05 * rng.normal(size=(2, BATCH, 3)),
        **disparities,
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


def intrinsics() -> np.ndarray:
    matrix = [[0.58 * WIDTH, 0, WIDTH / 2], [0, 1.92 * HEIGHT, HEIGHT / 2], [0, 0, 1]]
    return np.tile(np.float32(matrix), (BATCH, 1, 1))


def ours(case: str):
    import jax
    import jax.numpy as jnp

    from sslax import losses, ops

    arrays = {name: jnp.asarray(value) for name, value in inputs().items()}
    target, sources = arrays.pop("target"), arrays.pop("sources")
    pyramid = ops.image_pyramid(target, SCALES)
    camera = jnp.asarray(intrinsics())

    def stack(arrays, target, sources, pyramid):
        poses = jax.vmap(ops.rigid_transform)(
            ops.so3_exp(arrays["rotation"]), arrays["translation"]
        )
        identity = losses.photometric_error(target, sources)
        loss = 0.0
        for i in range(SCALES):
            disparity = arrays[f"disparity{i}"]
            full = ops.resize(disparity[..., None], (HEIGHT, WIDTH))[..., 0]
            depth = 1 / (0.01 + 9.99 * full)
            warped = [
                ops.warp_flow(source, ops.rigid_flow(depth, pose, camera)[0])[0]
                for source, pose in zip(sources, poses)
            ]
            errors = losses.photometric_error(target, jnp.stack(warped))
            error, automask = losses.minimum_reprojection(errors, identity_errors=identity)
            smoothness = losses.edge_aware_smoothness(disparity, pyramid[i], mean_normalize=True)
            loss += (automask * error).mean() + 1e-3 * smoothness / 2**i
        return loss / SCALES

    def photometric(source, target):
        return losses.photometric_error(target, source).mean()

    def census(source, target):
        return losses.census_error(target, source)[0][:, 3:-3, 3:-3].mean()

    if case == "stack":
        step, operands = jax.jit(jax.value_and_grad(stack)), (arrays, target, sources, pyramid)
    else:
        function = {"photometric": photometric, "census": census}[case]
        step, operands = jax.jit(jax.value_and_grad(function)), (sources[0], target)
    return lambda: float(jax.block_until_ready(step(*operands))[0])


def torch_photometric(target, source):
    import torch
    import torch.nn.functional as F

    absolute = (target - source).abs().mean(1, True)
    x, y = (F.pad(image, (1, 1, 1, 1), mode="reflect") for image in (source, target))
    mean = lambda image: F.avg_pool2d(image, 3, 1)  # noqa: E731
    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x**2) - mean_x**2, mean(y**2) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
    ssim = numerator / ((mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2))
    return 0.85 * torch.clamp((1 - ssim) / 2, 0, 1).mean(1, True) + 0.15 * absolute


def torch_census(target, source):
    import torch
    import torch.nn.functional as F

    luma = torch.tensor([0.299, 0.587, 0.114])[None, :, None, None]

    def transform(image):
        gray = 255 * (image * luma).sum(1, keepdim=True)
        patches = F.unfold(gray, 7, padding=3).view(len(image), 49, *image.shape[2:])
        difference = patches - gray
        return difference / torch.sqrt(0.81 + difference**2)

    squared = (transform(target) - transform(source)) ** 2
    return (squared / (0.1 + squared)).sum(1)[:, 3:-3, 3:-3]


def peer(case: str):
    import torch
    import torch.nn.functional as F
    from kornia.geometry.conversions import axis_angle_to_rotation_matrix

    values = {name: torch.from_numpy(value) for name, value in inputs().items()}
    target = values.pop("target").permute(0, 3, 1, 2).contiguous()
    sources = values.pop("sources").permute(0, 1, 4, 2, 3).contiguous()
    pyramid = [F.avg_pool2d(target, 2**i) if i else target for i in range(SCALES)]
    leaves = [value.requires_grad_() for value in values.values()]
    camera = torch.from_numpy(intrinsics())
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)]).float().reshape(1, 3, -1)
    rays = torch.linalg.inv(camera) @ pixels

    def warp(source, depth, rotation, translation):
        points = depth.reshape(BATCH, 1, -1) * rays
        points = camera @ (rotation @ points + translation[..., None])
        coords = points[:, :2] / (points[:, 2:] + 1e-7)
        size = torch.tensor([WIDTH - 1, HEIGHT - 1]).reshape(1, 2, 1)
        grid = (2 * coords / size - 1).reshape(BATCH, 2, HEIGHT, WIDTH).permute(0, 2, 3, 1)
        return F.grid_sample(source, grid, padding_mode="border", align_corners=True)

    def stack():
        identity = torch.cat([torch_photometric(target, source) for source in sources], 1)
        least_identity = identity.min(1).values
        rotations = axis_angle_to_rotation_matrix(values["rotation"].reshape(-1, 3))
        rotations = rotations.reshape(2, BATCH, 3, 3)
        loss = 0.0
        for i in range(SCALES):
            disparity = values[f"disparity{i}"][:, None]
            full = F.interpolate(disparity, (HEIGHT, WIDTH), mode="bilinear", align_corners=False)
            depth = 1 / (0.01 + 9.99 * full)
            errors = [
                torch_photometric(target, warp(source, depth, rotation, translation))
                for source, rotation, translation in zip(sources, rotations, values["translation"])
            ]
            error = torch.cat(errors, 1).min(1).values
            image, field = pyramid[i], disparity / (disparity.mean((2, 3), True) + 1e-7)
            along_x, along_y = field.diff(dim=3).abs(), field.diff(dim=2).abs()
            weight_x = torch.exp(-image.diff(dim=3).abs().mean(1, True))
            weight_y = torch.exp(-image.diff(dim=2).abs().mean(1, True))
            smoothness = (weight_x * along_x).mean() + (weight_y * along_y).mean()
            loss = loss + ((error <= least_identity) * error).mean() + 1e-3 * smoothness / 2**i
        return loss / SCALES

    source = sources[0].clone().requires_grad_()
    functions = {
        "stack": stack,
        "photometric": lambda: torch_photometric(target, source).mean(),
        "census": lambda: torch_census(target, source).mean(),
    }

    def run() -> float:
        for leaf in [*leaves, source]:
            leaf.grad = None
        loss = functions[case]()
        loss.backward()
        return float(loss.detach())

    return run


def timed(function) -> tuple[float, float]:
    start = time.perf_counter()
    value = function()
    return time.perf_counter() - start, value


def serve() -> None:
    """Runs in the peer's interpreter: times one round for each line, which names a case."""
    running = {}
    for line in sys.stdin:
        case = line.strip()
        if case not in running:
            running[case] = peer(case)
            running[case]()
        print("round", *timed(running[case]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="interpreter with torch and kornia")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    server = None
    if options.peer_python:
        server = subprocess.Popen(
            [options.peer_python, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(case: str) -> tuple[float, float]:
        server.stdin.write(case + "\n")
        server.stdin.flush()
        for line in server.stdout:
            if line.startswith("round"):
                return tuple(float(x) for x in line.split()[1:])
        raise RuntimeError(f"the peer's interpreter ended while timing {case}.")

    for case in CASES:
        run = ours(case)
        compile_seconds, value = timed(run)
        if server:
            _, theirs = ask(case)
            np.testing.assert_allclose(value, theirs, rtol=1e-3)
        seconds, peer_seconds = [], []
        for _ in range(options.rounds):
            seconds.append(timed(run)[0])
            if server:
                peer_seconds.append(ask(case)[0])
        ours_ms = 1e3 * statistics.median(seconds)
        line = f"{case:12} sslax {ours_ms:7.1f} ms (compiled in {compile_seconds:.1f} s)"
        if server:
            peer_ms = 1e3 * statistics.median(peer_seconds)
            line += f"   torch {peer_ms:7.1f} ms   {peer_ms / ours_ms:.2f} x"
        print(line, flush=True)


if __name__ == "__main__":
    main()
