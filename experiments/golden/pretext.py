"""Golden values of tests/augment/test_patches.py: patches made smaller and large again by PyTorch.

    python experiments/golden/pretext.py tests/augment/golden/pretext.npz

needs torch, and not this package.
"""

import sys

import numpy as np
import torch
from torch.nn.functional import interpolate

SMALL = [(1, 1), (4, 3), (10, 8), (17, 14), (23, 19)]  # height, width in pixels


def main(path: str) -> None:
    patch = np.random.default_rng(0).random((24, 20, 3))
    image = torch.from_numpy(patch).permute(2, 0, 1)[None]
    golden = {}
    for height, width in SMALL:
        small = interpolate(image, (height, width), mode="bilinear", antialias=True)
        large = interpolate(small, image.shape[2:], mode="bilinear", antialias=True)
        golden[f"down_up_{height}_{width}"] = large[0].permute(1, 2, 0).numpy().astype(np.float32)
    np.savez_compressed(path, **golden)


if __name__ == "__main__":
    main(sys.argv[1])
