"""Golden outputs of torchvision's residual networks, for tests/models/test_weights.py.

Every tensor of the state dict is drawn by numpy from a seed that depends on its name, so that the
test can draw the same weights and only a few outputs are stored.

    python experiments/golden/models.py tests/models/golden/torchvision.npz   # torch, torchvision
"""

import sys
import zlib

import numpy as np


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A plausible tensor: He-scaled kernels, scales and variances near 1, small shifts."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = random.standard_normal(shape).astype(np.float32)
    if len(shape) == 4:
        return values * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    if name.endswith(("weight", "running_var")):
        return 1 + np.float32(0.2) * np.tanh(values)
    return np.float32(0.2) * values


def images() -> np.ndarray:
    return np.random.RandomState(0).rand(2, 64, 64, 3).astype(np.float32)


def main(path: str) -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):  # declared for wheels without the compiled operators
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

    golden = {}
    models = {
        "resnet18": torchvision.models.resnet18(),
        "resnet50": torchvision.models.resnet50(),
        "bottlenecks": torchvision.models.ResNet(
            torchvision.models.resnet.Bottleneck, [1, 1, 1, 1]
        ),
    }
    for name, model in models.items():
        model.eval()
        model.fc = torch.nn.Identity()
        state = {
            key: torch.from_numpy(fill(key, tuple(value.shape)))
            for key, value in model.state_dict().items()
            if value.ndim > 0
        }
        model.load_state_dict(state, strict=False)
        with torch.no_grad():
            features = model(torch.from_numpy(images().transpose(0, 3, 1, 2).copy())).numpy()
        golden[name] = features
        print(name, features.shape, features.std())
    if "--all" not in sys.argv:
        golden = {name: features[:, ::64] for name, features in golden.items()}
    np.savez(path, **golden)


if __name__ == "__main__":
    main(sys.argv[1])
