"""A peer on the same clock: lightly's SimCLR, BYOL or VICReg, with its settings for CIFAR-10.

    PEER/bin/python experiments/speedrun/peers.py simclr --cifar10=FILE.npz --minutes=5 --seed=0 \\
        --output=features.npz

Runs in an environment of its own, with PyTorch, torchvision, and lightly 1.6. Network, heads,
losses, views, batch (128) and SGD (0.06, momentum 0.9, weight decay 5e-4) are those of lightly's
benchmark for CIFAR-10. VICReg, which it does not have, has the head, the loss and the optimizer of
its benchmark for Imagenette: LARS, 0.3 for a batch of 256, weight decay 1e-4, a warm-up in the
first tenth. The cosine of the rate ends with the time, not after 200 epochs, which is better for
the peer. Views are made in the process that trains while PyTorch uses both cores. Channels last is
PyTorch's faster layout here.
"""

import argparse
import copy
import json
import math

import cifar
import numpy as np
import torch
from PIL import Image
from torch import nn

# Some builds of torchvision come without their compiled detection operators, and without their
# declarations its import fails; nothing here uses them.
LIBRARY = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lightly.loss import NegativeCosineSimilarity, NTXentLoss, VICRegLoss  # noqa: E402
from lightly.models import ResNetGenerator, modules  # noqa: E402
from lightly.models.utils import deactivate_requires_grad, update_momentum  # noqa: E402
from lightly.transforms import SimCLRTransform  # noqa: E402
from lightly.utils.lars import LARS  # noqa: E402
from torchvision import transforms  # noqa: E402

BATCH = 128
NORMALIZE = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


class SimCLR(nn.Module):
    warm_up = 0.0  # of the time

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = modules.SimCLRProjectionHead(512, 512, 128)
        self.criterion = NTXentLoss()

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.criterion(self.head(self.backbone(a)), self.head(self.backbone(b)))

    def optimizer(self) -> torch.optim.Optimizer:
        return sgd(self)


class VICReg(SimCLR):
    warm_up = 0.1

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.head = modules.BarlowTwinsProjectionHead(512, 2048, 2048)
        self.criterion = VICRegLoss()

    def optimizer(self) -> torch.optim.Optimizer:
        rate = 0.3 * BATCH / 256
        return LARS(self.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)


class BYOL(nn.Module):
    warm_up = 0.0

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = modules.BYOLProjectionHead(512, 1024, 256)
        self.predictor = modules.BYOLPredictionHead(256, 1024, 256)
        self.target = nn.Sequential(copy.deepcopy(backbone), copy.deepcopy(self.head))
        deactivate_requires_grad(self.target)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        for online, target in zip((self.backbone, self.head), self.target):
            update_momentum(online, target, 0.99)
        predicted = [self.predictor(self.head(self.backbone(x))) for x in (a, b)]
        with torch.no_grad():
            wanted = [self.target(x) for x in (b, a)]
        return sum(self.criterion(p, z) for p, z in zip(predicted, wanted)) / 2

    def optimizer(self) -> torch.optim.Optimizer:
        return sgd(self)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(trained, lr=0.06, momentum=0.9, weight_decay=5e-4)


METHODS = {"simclr": SimCLR, "byol": BYOL, "vicreg": VICReg}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--cifar10", type=cifar.existing, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=cifar.writable, required=True)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    images = cifar.images(arguments.cifar10, "train")
    resnet = ResNetGenerator("resnet-18")
    backbone = nn.Sequential(*list(resnet.children())[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = METHODS[arguments.method](backbone).to(memory_format=torch.channels_last)
    steps = train(model, images, 60 * arguments.minutes)
    about = {"name": f"lightly {arguments.method}", "minutes": arguments.minutes}
    about |= {"seed": arguments.seed, "seconds": round(cifar.seconds_since_start(), 1)}
    about |= {"steps": steps}
    print(about, flush=True)
    test = cifar.images(arguments.cifar10, "test")
    arrays = {"train": features(backbone, images), "test": features(backbone, test)}
    np.savez(arguments.output, about=json.dumps(about), **arrays)


def train(model: nn.Module, images: np.ndarray, budget: float) -> int:
    """Trains until `budget` seconds since the start are over; the number of steps."""
    views = SimCLRTransform(input_size=32, gaussian_blur=0.0)
    optimizer = model.optimizer()
    peak = optimizer.param_groups[0]["lr"]
    began, duration, count = cifar.seconds_since_start(), 0.0, 0
    order: list[int] = []
    while (now := cifar.seconds_since_start()) + duration < budget:
        if len(order) < BATCH:
            order = torch.randperm(len(images)).tolist()
        batch, order = order[:BATCH], order[BATCH:]
        pairs = [views(Image.fromarray(images[i])) for i in batch]
        a, b = (
            torch.stack(view).contiguous(memory_format=torch.channels_last) for view in zip(*pairs)
        )
        progress = (now - began) / (budget - began)
        for group in optimizer.param_groups:
            group["lr"] = peak * rate_at(progress, model.warm_up)
        optimizer.zero_grad()
        loss = model(a, b)
        loss.backward()
        optimizer.step()
        count, duration = count + 1, cifar.seconds_since_start() - now
        if count % 10 == 1:
            print(f"{now:5.0f} s  step {count}  loss {loss.item():.3f}", flush=True)
    return count


def rate_at(progress: float, warm_up: float) -> float:
    """The part of the peak rate: a linear warm-up, and a cosine to zero."""
    if progress < warm_up:
        return progress / warm_up
    return (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up))) / 2


@torch.no_grad()
def features(backbone: nn.Module, images: np.ndarray) -> np.ndarray:
    backbone.eval()
    normalize = transforms.Normalize(**NORMALIZE)
    parts = []
    for i in range(0, len(images), 500):
        part = torch.from_numpy(images[i : i + 500]).permute(0, 3, 1, 2).float() / 255
        parts.append(backbone(normalize(part).contiguous(memory_format=torch.channels_last)))
    return torch.cat(parts).numpy()


if __name__ == "__main__":
    main()
