"""Supervised contrastive learning (Khosla et al., NeurIPS 2020), the upper bound.

    python -m sslax.main --config=configs/sup_con.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/sup_con.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/sup_con.py:imagenet

Expected: embedded, see README.md. cifar10: linear 93.82 % (solo-learn, 1000 epochs). imagenet100:
linear 84.40 % (solo-learn, ResNet-18, 400 epochs).
"""

from ml_collections import ConfigDict

from sslax.methods.representation.sup_con import sup_con
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "optimizer.learning_rate": 0.4,
        "optimizer.weight_decay": 5e-4,
    },
    "tiny": {"sup_con.projector.hidden": 16, "sup_con.projector.outputs": 8},
    "cifar10": {
        **presets.CIFAR10_VIEWS,
        "sup_con.projector.hidden": 512,
        "optimizer.learning_rate": 0.12,
        "optimizer.weight_decay": 5e-4,
    },
    "imagenet100": {"sup_con.projector.hidden": 512, "optimizer.learning_rate": 0.12},
    "imagenet": {
        "sup_con.projector": {"layers": 2, "hidden": 2048},
        "optimizer.name": "lars",
        "optimizer.weight_decay": 1e-4,
    },
    "folder": {
        "data.labels": True,
        "augment.crop_scale": (0.2, 1.0),
        "augment.strength": 0.5,
        "optimizer.learning_rate": 0.12,
        "optimizer.weight_decay": 5e-4,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "sup_con",
        variant,
        VARIANTS,
        augment={"recipe": "simclr"},
        sup_con={
            **presets.defaults_of(sup_con),
            "projector": {"layers": 2, "hidden": 256, "outputs": 128},
        },
    )
