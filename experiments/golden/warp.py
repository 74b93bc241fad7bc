"""Golden values of tests/ops/test_warp.py, from PyTorch, SciPy and OpenCV in float64.

    python experiments/golden/warp.py tests/ops/golden/warp.npz

Needs torch, scipy and opencv-python-headless beside numpy.
"""

import sys

import cv2
import numpy as np
import torch
from scipy.ndimage import map_coordinates


def coordinates(rng, height, width):
    """Inside, and outside by several sizes; odd multiples of 1/32, exact in OpenCV's table."""
    generic = rng.integers(-2 * 32 * width, 3 * 32 * width, (24, 2)) // 2 * 2 + 1
    inside = rng.integers(0, 16 * (height - 1), (16, 2)) * 2 + 1
    return np.concatenate([generic, inside]) / 32.0


def torch_sample(image, coords, cotangent, padding, align_corners):
    height, width, _ = image.shape
    size = np.array([width, height])
    grid = coords / (size - 1) * 2 - 1 if align_corners else (2 * coords + 1) / size - 1
    x = torch.tensor(image).permute(2, 0, 1)[None].requires_grad_()
    grid = torch.tensor(grid)[None, None].requires_grad_()
    out = torch.nn.functional.grid_sample(
        x, grid, padding_mode=padding, align_corners=align_corners
    )
    out[0, :, 0].T.backward(torch.tensor(cotangent))
    scale = 2 / (size - 1) if align_corners else 2 / size
    return (
        out[0, :, 0].T.detach().numpy(),
        x.grad[0].permute(1, 2, 0).numpy(),
        grid.grad[0, 0].numpy() * scale,
    )


def main(path):
    rng = np.random.default_rng(0)
    height, width, channels = 6, 8, 2
    image = rng.random((height, width, channels))
    coords = coordinates(rng, height, width)
    cotangent = rng.standard_normal((len(coords), channels))
    golden = {"image": image, "coords": coords, "cotangent": cotangent}

    for name, padding, align_corners in [
        ("border", "border", True),
        ("border_half_pixel", "border", False),
        ("zeros", "zeros", True),
        ("zeros_half_pixel", "zeros", False),
        ("reflection", "reflection", True),
        ("symmetric", "reflection", False),
    ]:
        sampled = torch_sample(image, coords, cotangent, padding, align_corners)
        for part, value in zip(["values", "image_gradient", "coords_gradient"], sampled):
            golden[f"torch_{name}_{part}"] = value

    for name, mode in [
        ("border", "nearest"),
        ("zeros", "grid-constant"),
        ("reflection", "mirror"),
        ("symmetric", "reflect"),
    ]:
        golden[f"scipy_{name}_values"] = np.stack(
            [
                map_coordinates(image[..., c], coords.T[::-1], order=1, mode=mode)
                for c in range(channels)
            ],
            axis=-1,
        )

    maps = coords.astype(np.float32)[:, None]
    for name, border in [("border", cv2.BORDER_REPLICATE), ("zeros", cv2.BORDER_CONSTANT)]:
        remapped = cv2.remap(image, maps, None, cv2.INTER_LINEAR, borderMode=border)
        golden[f"opencv_{name}_values"] = remapped[:, 0]

    np.savez_compressed(path, **golden)


if __name__ == "__main__":
    main(sys.argv[1])
