"""BYOL (Grill et al., NeurIPS 2020).

    python -m sslax.main --config=configs/byol.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/byol.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/byol.py:imagenet

Expected: embedded, see README.md. cifar10: kNN .868 (lightly's benchmark, 200 epochs). stl10:
linear 70.1 % (sthalles/PyTorch-BYOL, 40 epochs). imagenet100: kNN .439 (lightly, ResNet-18).
imagenet: linear 74.3 % (the paper, 1000 epochs).
"""

from ml_collections import ConfigDict

from sslax.methods.representation.byol import byol
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "byol.projector": {"hidden": 512, "outputs": 128},
        "byol.predictor": {"hidden": 512, "outputs": 128},
        "byol.momentum": 0.98,
        "optimizer": {"name": "sgd", "learning_rate": 0.4, "weight_decay": 5e-4},
    },
    "tiny": {
        "byol.projector": {"hidden": 16, "outputs": 8},
        "byol.predictor": {"hidden": 16, "outputs": 8},
    },
    "cifar10": {
        **presets.CIFAR10_VIEWS,
        "byol.projector": {"hidden": 1024},
        "byol.predictor": {"hidden": 1024},
        "byol.momentum": 0.99,
        "optimizer": {"name": "sgd", "learning_rate": 0.12, "weight_decay": 5e-4},
    },
    "stl10": {"byol.momentum": 0.99},
    "imagenet100": {"optimizer.weight_decay": 1e-6},
    "imagenet": {
        "duration": "1000 epochs",
        "optimizer.warmup": "1 %",
    },
    "imagenet_100epochs": {
        "duration": "100 epochs",
        "byol.momentum": 0.99,
        "optimizer.learning_rate": 0.45,
        "optimizer.weight_decay": 1e-6,
    },
    "folder": {"augment.crop_scale": (0.2, 1.0), "byol.momentum": 0.99},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "byol",
        variant,
        VARIANTS,
        augment={"recipe": "byol"},
        optimizer={"name": "lars", "learning_rate": 0.2, "weight_decay": 1.5e-6},
        byol={
            **presets.defaults_of(byol),  # it rises to 1
            "projector": {"layers": 2, "hidden": 4096, "outputs": 256},
            "predictor": {"layers": 2, "hidden": 4096, "outputs": 256},
        },
    )
