"""State dicts with the names and shapes of torchvision's ResNets, written out."""

import zlib

import numpy as np

from sslax.models import ResNet

RESNET18 = ResNet()
BOTTLENECKS = ResNet(blocks=(1, 1, 1, 1), bottleneck=True)


def fill(name, shape):
    """As in experiments/golden/models.py, which made the golden numbers from the same weights."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = random.standard_normal(shape).astype(np.float32)
    if len(shape) == 4:
        return values * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    if name.endswith(("weight", "running_var")):
        return 1 + np.float32(0.2) * np.tanh(values)
    return np.float32(0.2) * values


def state_dict(module):
    """The names and shapes that torchvision's network has, filled."""
    expansion = 4 if module.bottleneck else 1
    tensors = {"conv1.weight": (64, 3, 7, 7)}

    def norm(name, channels):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{name}.{leaf}"] = (channels,)

    norm("bn1", 64)
    inputs = 64
    for i, count in enumerate(module.blocks):
        channels = 64 * 2**i
        for j in range(count):
            block, outputs = f"layer{i + 1}.{j}", channels * expansion
            sizes = [(channels, 1), (channels, 3), (outputs, 1)]
            sizes = sizes if module.bottleneck else [(channels, 3), (channels, 3)]
            last = inputs
            for n, (out, side) in enumerate(sizes, start=1):
                tensors[f"{block}.conv{n}.weight"] = (out, last, side, side)
                norm(f"{block}.bn{n}", out)
                last = out
            if inputs != outputs or (i > 0 and j == 0):
                tensors[f"{block}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                norm(f"{block}.downsample.1", outputs)
            inputs = outputs
    return {name: fill(name, shape) for name, shape in tensors.items()}
