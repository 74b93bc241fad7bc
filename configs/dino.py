"""DINO (Caron et al., ICCV 2021).

    python -m sslax.main --config=configs/dino.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/dino.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/dino.py:imagenet           # ViT-S/16; imagenet_resnet50

Expected: embedded, see README.md. cifar10: kNN .813 at batch 512, .840 at 128 (lightly's benchmark,
200 epochs, ResNet-18). imagenet100: kNN .518 (lightly, ResNet-18). imagenet: linear 77.0 %, kNN
74.5 % (ViT-S/16, 800 epochs), imagenet_resnet50: linear 75.3 % (the paper).
"""

from ml_collections import ConfigDict

from sslax.methods.representation.dino import dino
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "augment.local": {"count": 2, "size": 16, "crop_scale": (0.2, 0.5), "erase": 0.0},
        "dino.projector": {"hidden": 512, "bottleneck": 128, "outputs": 1024, "norm": True},
        "dino.momentum": 0.98,
        "optimizer": {"name": "sgd", "learning_rate": 0.4, "weight_decay": 5e-4},
        "optimizer.final_decay_fraction": 1.0,
    },
    "tiny": {
        "augment.local": {"count": 2, "size": 8},
        "dino.projector": {"hidden": 16, "bottleneck": 8, "outputs": 16},
        "dino.momentum": 0.9,
    },
    "cifar10": {
        **presets.CIFAR10_VIEWS,
        "augment.crop_scale": (0.08, 1.0),
        "augment.local": {"count": 0},
        "dino.projector": {"outputs": 2048, "norm": True},
        "optimizer": {"name": "sgd", "learning_rate": 0.12, "weight_decay": 5e-4},
        "optimizer.final_decay_fraction": 1.0,
    },
    "stl10": {
        "augment.local": {"count": 4, "size": 40},
        "dino.projector": {"outputs": 8192, "norm": True},
        "optimizer": {"name": "sgd", "learning_rate": 0.12, "weight_decay": 1e-4},
        "optimizer.final_decay_fraction": 1.0,
    },
    "imagenet100": {
        "dino.projector": {"outputs": 8192, "norm": True},
        "optimizer": {"name": "sgd", "learning_rate": 0.12, "weight_decay": 1e-4},
        "optimizer.final_decay_fraction": 1.0,
    },
    "imagenet": {
        "batch_size": 1024,
        "duration": "800 epochs",
        "optimizer.warmup": "1.25 %",
        "model.name": "vit_small",
        "model.position": "learned",
        "model.drop_path": 0.1,
        "optimizer.final_fraction": 0.0005,  # 1e-6, of 2e-3
    },
    "imagenet_resnet50": {
        "batch_size": 4096,  # the paper: 4080, which divides over 16 devices at most
        "duration": "800 epochs",
        "optimizer.warmup": "1.25 %",
        "augment.crop_scale": (0.14, 1.0),
        "augment.local": {"count": 6, "size": 96, "crop_scale": (0.05, 0.14)},
        "dino.projector": {"outputs": 60000, "norm": True},
        "optimizer": {"name": "lars", "learning_rate": 0.3, "weight_decay": 1e-6},
        "optimizer.final_decay_fraction": 1.0,
        "optimizer.final_fraction": 0.001,
    },
    "folder": {
        "augment.local": {"count": 4, "size": 32},
        "dino.projector": {"outputs": 4096, "norm": True},
        "optimizer": {"name": "sgd", "learning_rate": 0.12, "weight_decay": 1e-4},
        "optimizer.final_decay_fraction": 1.0,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "dino",
        variant,
        VARIANTS,
        augment={"recipe": "dino", "local": {"count": 10, "size": 96}},
        optimizer={
            "name": "adamw",
            "learning_rate": 5e-4,
            "weight_decay": 0.04,
            "final_decay_fraction": 10.0,
            "final_fraction": 0.002,
            "clip_norm": 3.0,
        },
        dino={
            **presets.defaults_of(
                dino, "student_temperature", "momentum", "center_momentum"
            ),  # momentum rises to 1
            "teacher_temperature": (0.04, 0.07),  # it rises over the first part of the run:
            "teacher_warmup": 0.0375,
            "freeze": 0.00125,  # the last layer's first part of the run: one epoch of 800
            "projector": {
                "layers": 3,
                "hidden": 2048,
                "bottleneck": 256,
                "outputs": 65536,
                "norm": False,
            },
        },
    )
