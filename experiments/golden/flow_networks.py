"""Golden outputs of torchvision's RAFT, for tests/models/test_raft.py.

Every tensor of the state dict is drawn by numpy from a seed that depends on its name, so that the
test can draw the same weights and only a part of the last flows is stored.

    python experiments/golden/flow_networks.py tests/models/golden/raft.npz   # torch, torchvision
"""

import sys
import zlib

import numpy as np

HEIGHT, WIDTH = 128, 136


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A plausible tensor: He-scaled kernels, scales and variances near 1, small shifts."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = random.standard_normal(shape).astype(np.float32)
    if name.startswith("update_block.flow_head.conv2"):  # so small that flows stay in the frame
        values *= np.float32(0.1)
    if len(shape) == 4:
        return values * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    if name.endswith(("weight", "running_var")):
        return 1 + np.float32(0.2) * np.tanh(values)
    return np.float32(0.2) * values


def images() -> np.ndarray:
    """Two smooth images `[2, H, W, 3]` in [0, 1], the second moved by (5, -3) pixels."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    pair = []
    for dx, dy in ((0, 0), (5, -3)):
        waves = [
            np.sin(0.11 * (i + 2) * (x - dx) + 0.07 * (5 - i) * (y - dy) + i) for i in range(3)
        ]
        pair.append(0.5 + 0.4 * np.stack(waves, axis=-1))
    return np.stack(pair).astype(np.float32)


def main(path: str) -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):  # declared for wheels without the compiled operators
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision.models import optical_flow

    golden = {}
    first, second = torch.from_numpy(2 * images().transpose(0, 3, 1, 2) - 1)[:, None]
    for name in ("raft_large", "raft_small"):
        model = getattr(optical_flow, name)().eval()
        state = {
            key: torch.from_numpy(fill(key, tuple(value.shape)))
            for key, value in model.state_dict().items()
            if value.ndim > 0
        }
        model.load_state_dict(state, strict=False)
        with torch.no_grad():
            flows = model(first, second, num_flow_updates=12)
        for i in (0, 1, 11):
            flow = flows[i][0].numpy().transpose(1, 2, 0)
            golden[f"{name}_{i}"] = flow if "--all" in sys.argv else flow[::7, ::7]
            print(name, i, flow.mean(), flow.std(), np.abs(flow).max())
    np.savez(path, **golden)


if __name__ == "__main__":
    main(sys.argv[1])
