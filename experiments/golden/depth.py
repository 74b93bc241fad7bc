"""Golden outputs of depth and pose networks, for tests/models/test_depth.py.

The networks of Monodepth2 and SfMLearner, reimplemented from the papers' tables with PyTorch's
convolutions. Every parameter is drawn by numpy from a seed that depends on its name, so that the
test can draw the same weights and only a few outputs are stored.

    python experiments/golden/depth.py tests/models/golden/depth.npz   # torch
"""

import sys
import zlib

import numpy as np
import torch
import torch.nn.functional as F


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A kernel [a, b, C, K] (He-scaled) or a bias [K] by the name of its layer."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    scale = np.sqrt(2 / np.prod(shape[:3])) if len(shape) == 4 else 0.2
    return (values * scale).astype(np.float32)


def draw(name: str, *shape: int) -> torch.Tensor:
    """A random input, drawn as [N, H, W, C] uniform in [0, 1] and returned as [N, C, H, W]."""
    values = np.random.RandomState(zlib.crc32(name.encode())).rand(*shape).astype(np.float32)
    return torch.from_numpy(values).movedim(-1, 1)


class Layers:
    """Convolutions by name, whose weights are drawn when they are first used."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    def parameters(self, name: str, side: int, inputs: int, outputs: int) -> tuple:
        kernel = fill(f"{self.scope}/{name}/kernel", (side, side, inputs, outputs))
        return torch.from_numpy(kernel), torch.from_numpy(
            fill(f"{self.scope}/{name}/bias", (outputs,))
        )

    def conv(self, x, name, outputs, side=3, stride=1, reflect=False):
        kernel, bias = self.parameters(name, side, x.shape[1], outputs)
        r = side // 2
        x = F.pad(x, (r, r, r, r), mode="reflect" if reflect else "constant")
        return F.conv2d(x, kernel.permute(3, 2, 0, 1), bias, stride=stride)

    def up(self, x, name, outputs, side=3):
        kernel, bias = self.parameters(name, side, x.shape[1], outputs)
        kernel = kernel.permute(2, 3, 0, 1)
        return F.conv_transpose2d(x, kernel, bias, stride=2, padding=side // 2, output_padding=1)


def crop(x, like):
    return x[..., : like[0], : like[1]]


def monodepth2_decoder(layers, features, size, widths, scales, outputs):
    """features: shallow first, of strides 2, 4, 8, ..."""
    y, predictions = features[-1], {}
    for i in range(len(features) - 1, -1, -1):
        y = F.elu(layers.conv(y, f"up{i}", widths[i], reflect=True))
        y = F.interpolate(y, scale_factor=2, mode="nearest")
        if i > 0:
            y = torch.cat([crop(y, features[i - 1].shape[2:]), features[i - 1]], 1)
        else:
            y = crop(y, size)
        y = F.elu(layers.conv(y, f"conv{i}", widths[i], reflect=True))
        if i < scales:
            predictions[i] = torch.sigmoid(layers.conv(y, f"head{i}", outputs, reflect=True))
    return [predictions[i] for i in range(scales)]


def monodepth2_pose(layers, features, width, motions):
    y = torch.cat([F.relu(layers.conv(f, "squeeze", width, side=1)) for f in features], 1)
    y = F.relu(layers.conv(y, "conv1", width))
    y = F.relu(layers.conv(y, "conv2", width))
    y = layers.conv(y, "twists", 6 * motions, side=1)
    return 0.01 * y.mean(3).mean(2).view(-1, motions, 6)


def dispnet(encoder, decoder, x, width):
    down = [int(c * width) for c in (32, 64, 128, 256, 512, 512, 512)]
    up = [int(c * width) for c in (16, 32, 64, 128, 256, 512, 512)]
    size, features, y = x.shape[2:], [], x
    for i, side in enumerate((7, 5, 3, 3, 3, 3, 3)):
        y = F.relu(encoder.conv(y, f"conv{i + 1}", down[i], side=side, stride=2))
        y = F.relu(encoder.conv(y, f"conv{i + 1}b", down[i], side=side))
        features.append(y)
    predictions = []
    for i in range(6, -1, -1):
        to = features[i - 1].shape[2:] if i > 0 else size
        y = crop(F.relu(decoder.up(y, f"up{i}", up[i])), to)
        parts = [y] + ([features[i - 1]] if i > 0 else [])
        if predictions:
            coarse = F.interpolate(
                predictions[0], scale_factor=2, mode="bilinear", align_corners=False
            )
            parts.append(crop(coarse, to))
        y = F.relu(decoder.conv(torch.cat(parts, 1), f"conv{i}", up[i]))
        if i < 4:
            predictions.insert(0, torch.sigmoid(decoder.conv(y, f"head{i}", 1)))
    return predictions


def pose_cnn(layers, x, width, motions):
    widths = [int(c * width) for c in (16, 32, 64, 128, 256, 256, 256)]
    sizes, maps = [], []
    for i, side in enumerate((7, 5, 3, 3, 3, 3, 3)):
        sizes.append(x.shape[2:])
        x = F.relu(layers.conv(x, f"conv{i + 1}", widths[i], side=side, stride=2))
        maps.append(x)
    twists = 0.01 * layers.conv(x, "twists", 6 * motions, side=1).mean((2, 3))
    y, masks = maps[4], []
    for i, side in ((4, 3), (3, 3), (2, 3), (1, 5), (0, 7)):
        y = F.relu(crop(layers.up(y, f"up{i}", widths[i], side=side), sizes[i]))
        if i < 4:
            masks.insert(0, layers.conv(y, f"mask{i}", motions, side=side))
    return twists.view(-1, motions, 6), masks


def last(x: torch.Tensor) -> np.ndarray:
    return x.movedim(1, -1).numpy()


@torch.no_grad()
def main(path: str) -> None:
    golden = {}
    stages = [draw(f"stage{i}", 2, *s) for i, s in enumerate(((11, 15, 3), (6, 8, 5), (3, 4, 7)))]
    maps = monodepth2_decoder(Layers("decoder"), stages, (22, 30), (4, 6, 8), 3, 2)
    golden |= {f"decoder{i}": last(y) for i, y in enumerate(maps)}
    stacked, each = draw("stacked", 2, 3, 4, 5), draw("each", 2 * 3, 3, 4, 5)
    golden["pose"] = monodepth2_pose(Layers("pose"), [stacked], 6, 2).numpy()
    frames = [each.unflatten(0, (2, 3))[:, i] for i in range(3)]
    golden["pose_shared"] = monodepth2_pose(Layers("shared"), frames, 6, 2).numpy()
    images = draw("images", 1, 66, 130, 3)
    maps = dispnet(Layers("dispnet/encoder"), Layers("dispnet/decoder"), images, 0.125)
    golden |= {f"dispnet{i}": last(y)[:, ::3, ::5] for i, y in enumerate(maps)}
    twists, masks = pose_cnn(Layers("posecnn"), draw("frames", 2, 34, 50, 9), 0.25, 2)
    golden["posecnn"] = twists.numpy()
    golden |= {f"mask{i}": last(y)[:, ::3, ::5] for i, y in enumerate(masks)}
    for name, value in golden.items():
        print(name, value.shape, value.mean(), value.std())
    np.savez_compressed(path, **golden)


if __name__ == "__main__":
    main(sys.argv[1])
