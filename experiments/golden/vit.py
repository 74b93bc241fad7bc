"""Golden outputs and gradients of a vision transformer of torch.nn's own modules, in float64, for
tests/models/test_vit.py and test_decoders.py.

Every tensor is drawn by numpy from a seed that depends on its name, as in golden/models.py, so that
the tests can draw the same weights and only a few outputs are stored.

    python experiments/golden/vit.py tests/models/golden/vit.npz   # torch
"""

import math
import sys
import zlib

import numpy as np
import torch
from torch import nn

PATCH, GRID, CHANNELS = 4, (2, 3), 3


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A plausible tensor: matrices scaled by their inputs, scales of norms near 1, small shifts."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = random.standard_normal(shape).astype(np.float32)
    if len(shape) > 1:
        return values * np.float32(1 / np.sqrt(np.prod(shape[1:])))
    if "norm" in name and name.endswith("weight"):
        return 1 + np.float32(0.2) * np.tanh(values)
    return np.float32(0.2) * values


def filled(module: nn.Module, prefix: str) -> nn.Module:
    module = module.double()
    for name, parameter in module.named_parameters():
        value = fill(f"{prefix}.{name}", tuple(parameter.shape))
        parameter.data = torch.from_numpy(value).double()
    return module


def positions(grid: tuple[int, int], width: int) -> torch.Tensor:
    """The table, a number at a time."""
    rows = []
    for y in range(grid[0]):
        for x in range(grid[1]):
            rate = [10000 ** (-k / (width / 4)) for k in range(width // 4)]
            rows.append(
                [math.sin(x * r) for r in rate]
                + [math.cos(x * r) for r in rate]
                + [math.sin(y * r) for r in rate]
                + [math.cos(y * r) for r in rate]
            )
    return torch.tensor(rows, dtype=torch.float64)


def layer(width: int, heads: int) -> nn.Module:
    return nn.TransformerEncoderLayer(
        width,
        heads,
        4 * width,
        dropout=0.0,
        activation="gelu",
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=True,
    )


class Encoder(nn.Module):
    def __init__(self, width: int = 24, heads: int = 3, depth: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(CHANNELS, width, PATCH, PATCH)
        self.class_token = nn.Parameter(torch.zeros(width))
        self.layers = nn.ModuleList([layer(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images: torch.Tensor, keep: torch.Tensor | None = None) -> list:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = x + positions(GRID, x.shape[-1])
        if keep is not None:
            x = torch.stack([tokens[index] for tokens, index in zip(x, keep)])
        x = torch.cat([self.class_token.expand(len(x), 1, -1), x], 1)
        stages = []
        for block in self.layers:
            x = block(x)
            stages.append(x)
        return [*stages, self.norm(x)]


class Decoder(nn.Module):
    def __init__(self, inputs: int = 24, width: int = 16, heads: int = 2, depth: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Linear(inputs, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.layers = nn.ModuleList([layer(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pixels = nn.Linear(width, PATCH**2 * CHANNELS)

    def forward(self, tokens: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        table = positions(GRID, x.shape[-1])
        rows = []
        for example, index in zip(x, keep.tolist()):
            patches = [self.mask_token for _ in table]
            for place, token in zip(index, example[1:]):
                patches[place] = token
            rows.append(torch.cat([example[:1], torch.stack(patches) + table]))
        x = torch.stack(rows)
        for block in self.layers:
            x = block(x)
        return self.pixels(self.norm(x)[:, 1:])


def main(path: str) -> None:
    random = np.random.RandomState(0)
    size = (2, GRID[0] * PATCH, GRID[1] * PATCH, CHANNELS)
    images = random.rand(*size).astype(np.float32)
    keep = np.array([[4, 0, 3], [1, 5, 2]], np.int32)
    pixels = torch.from_numpy(images).double().permute(0, 3, 1, 2)
    encoder, decoder = filled(Encoder(), "encoder"), filled(Decoder(), "decoder")

    golden = {"images": images, "keep": keep, "positions": positions((3, 5), 16).numpy()}
    outputs = encoder(pixels)
    golden["block1"], golden["block2"], golden["tokens"] = (x.detach().numpy() for x in outputs)
    (torch.sin(3 * outputs[-1][:, 0]).sum() + torch.sin(outputs[-1][:, 1:]).sum()).backward()
    for name, parameter in encoder.named_parameters():
        golden[f"gradient/encoder.{name}"] = parameter.grad.numpy()

    encoder.zero_grad()
    predicted = decoder(encoder(pixels, torch.from_numpy(keep).long())[-1], torch.from_numpy(keep))
    golden["predicted"] = predicted.detach().numpy()
    torch.sin(predicted).sum().backward()
    for name, parameter in decoder.named_parameters():
        golden[f"gradient/decoder.{name}"] = parameter.grad.numpy()
    golden["gradient/patches"] = encoder.patches.weight.grad.numpy()
    for name, value in golden.items():
        if name.startswith("gradient/"):  # at most 24 numbers of each
            golden[name] = value.ravel()[:: -(-value.size // 24)].astype(np.float32)
    np.savez_compressed(path, **golden)


if __name__ == "__main__":
    main(sys.argv[1])
