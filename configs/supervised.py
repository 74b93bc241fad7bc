"""Supervised classification, an upper bound beside SupCon: cross-entropy, from random weights.

    python -m sslax.main --config=configs/supervised.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/supervised.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/supervised.py:imagenet

Network, budget and views are those of `simclr`, but each step sees one view of an image;
`--config.augment.count=2` gives it two. imagenet is torchvision's reference training. Expected:
embedded, see README.md. imagenet: 76.13 % (ResNet-50, torchvision, of its classifier). Only the
embedded variant has been run, for ten epochs.
"""

from ml_collections import ConfigDict

from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "optimizer.learning_rate": 0.4,
        "optimizer.weight_decay": 5e-4,
    },
    "tiny": {},
    "cifar10": {
        **presets.CIFAR10_VIEWS,
        "optimizer.learning_rate": 0.12,
        "optimizer.weight_decay": 5e-4,
    },
    "imagenet100": {"optimizer.learning_rate": 0.12},
    "imagenet": {
        "batch_size": 256,
        "duration": "90 epochs",
        "augment": {"recipe": "supervised"},
        "optimizer": {
            "learning_rate": 0.1,
            "drops": (0.33333, 0.66667),
            "spare_vectors": False,
            "warmup": "0 steps",
        },
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
        "supervised",
        variant,
        VARIANTS,
        augment={"recipe": "simclr", "count": 1},
        supervised={"classes": 0},  # as many as the training set has
    )
