"""Golden values of tests/augment, from torchvision on photographs.

    python experiments/golden/augment.py tests/augment/golden/augment.npz

needs torch, torchvision and scikit-image, and not this package.
"""

import itertools
import random
import sys

import numpy as np
import torch

# Some builds of torchvision come without their compiled detection operators, and without their
# declarations its import fails; nothing here uses them.
LIBRARY = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from skimage import data  # noqa: E402
from torchvision.transforms.v2 import RandomResizedCrop  # noqa: E402
from torchvision.transforms.v2 import functional as F  # noqa: E402

BOXES = [  # photograph, (top, left, height, width), size
    ("astronaut", (0, 0, 64, 64), (24, 24)),
    ("astronaut", (5, 17, 40, 31), (24, 20)),
    ("chelsea", (12, 30, 11, 9), (24, 24)),
    ("chelsea", (0, 2, 60, 7), (16, 24)),
    ("coffee", (40, 66, 10, 9), (24, 24)),
    ("coffee", (3, 1, 24, 24), (24, 24)),
]
POINTWISE = [  # name, argument
    ("adjust_brightness", 0.3),
    ("adjust_brightness", 1.7),
    ("adjust_contrast", 0.3),
    ("adjust_contrast", 1.8),
    ("adjust_saturation", 0.0),
    ("adjust_saturation", 1.8),
    ("adjust_hue", -0.5),
    ("adjust_hue", -0.13),
    ("adjust_hue", 0.2),
    ("adjust_hue", 0.45),
]
BLURS = [(3, 0.1), (3, 1.5), (9, 1.0), (23, 2.0)]  # kernel size, sigma
BOX_SHAPES = [(32, 32), (224, 300), (20, 100)]
BOX_DRAWS = 20_000


def photographs() -> dict[str, np.ndarray]:
    return {
        "astronaut": data.astronaut()[::8, ::8],
        "chelsea": data.chelsea()[::5, ::6],
        "coffee": data.coffee()[::8, ::8],
    }


def to_torch(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def to_numpy(image: torch.Tensor) -> np.ndarray:
    image = image.permute(1, 2, 0).numpy()
    return image if image.dtype == np.uint8 else image.astype(np.float16)


def main(path: str) -> None:
    torch.manual_seed(0)
    random.seed(0)
    images = photographs()
    golden = {}
    for i, (name, box, size) in enumerate(BOXES):
        bytes_ = to_torch(images[name])
        golden[f"crop_{i}"] = to_numpy(F.resized_crop(bytes_ / 255, *box, list(size)))
        golden[f"crop_bytes_{i}"] = to_numpy(F.resized_crop(bytes_, *box, list(size)))

    small = to_torch(images["coffee"][20:44, 20:44])
    for name, argument in POINTWISE:
        golden[f"{name}_{argument}"] = to_numpy(getattr(F, name)(small / 255, argument))
    golden["to_grayscale"] = to_numpy(F.rgb_to_grayscale(small / 255, num_output_channels=3))
    golden["solarize_bytes"] = to_numpy(F.solarize(small, 128))
    golden["solarize"] = to_numpy(F.solarize(small / 255, 0.5))
    for kernel_size, sigma in BLURS:
        blurred = F.gaussian_blur(small / 255, [kernel_size] * 2, [sigma] * 2)
        golden[f"blur_{kernel_size}_{sigma}"] = to_numpy(blurred)
    for name in ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue"):
        golden[f"{name}_gray"] = to_numpy(getattr(F, name)(small[:1] / 255, 0.4))

    operations = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    arguments = (1.6, 1.7, 1.8, 0.2)
    orders = []
    for order in itertools.permutations(range(4)):
        image = small[:, :12, :12] / 255
        for operation in order:
            image = operations[operation](image, arguments[operation])
        orders.append(to_numpy(image))
    golden["jitter_orders"] = np.stack(orders)

    for height, width in BOX_SHAPES:
        sampler = RandomResizedCrop(size=32)
        image = torch.zeros(3, height, width)
        draws = [sampler.make_params([image]) for _ in range(BOX_DRAWS)]
        for side, count in (("height", height), ("width", width), ("top", height), ("left", width)):
            values = np.array([draw[side] for draw in draws])
            # Distribution function on 0, 1, ..., count.
            histogram = np.bincount(values, minlength=count + 1)
            golden[f"box_{height}_{width}_{side}"] = np.cumsum(histogram / BOX_DRAWS)
        area = np.array([draw["height"] * draw["width"] for draw in draws]) / (height * width)
        aspect = np.array([draw["width"] / draw["height"] for draw in draws])
        golden[f"box_{height}_{width}_area"] = np.quantile(area, np.linspace(0.05, 0.95, 19))
        golden[f"box_{height}_{width}_aspect"] = np.quantile(aspect, np.linspace(0.05, 0.95, 19))
    for key, value in golden.items():
        if value.dtype == np.float64:
            golden[key] = value.astype(np.float32)
    np.savez_compressed(path, **golden)


if __name__ == "__main__":
    main(sys.argv[1])
