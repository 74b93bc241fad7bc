"""SwAV (Caron et al., NeurIPS 2020).

    python -m sslax.main --config=configs/swav.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/swav.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/swav.py:imagenet

Expected: embedded, see README.md. cifar10: kNN .842 (lightly's benchmark, 200 epochs, two crops).
imagenet100: kNN .678 (lightly, ResNet-18). imagenet: linear 75.3 % (the paper, 800 epochs).
"""

from ml_collections import ConfigDict

from sslax.methods.representation.swav import swav
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "augment.local": {"count": 2, "size": 16, "crop_scale": (0.2, 0.5), "erase": 0.0},
        "swav.projector": {"hidden": 512},
        "swav.prototypes": 100,
        "optimizer": {"name": "sgd", "learning_rate": 0.4, "weight_decay": 5e-4},
    },
    "tiny": {
        "augment.local": {"count": 2, "size": 8},
        "swav.projector": {"hidden": 16, "outputs": 8},
        "swav.prototypes": 8,
        "swav.queue_size": 32,
    },
    "cifar10": {
        **presets.CIFAR10_VIEWS,
        "augment.crop_scale": (0.08, 1.0),
        "augment.local": {"count": 0},
        "swav.prototypes": 512,
        "optimizer": {"name": "sgd", "learning_rate": 0.12, "weight_decay": 5e-4},
    },
    "stl10": {"augment.local": {"count": 4, "size": 40}, "swav.prototypes": 1000},
    "imagenet100": {
        "swav.queue_size": 3840,
        "swav.queue_start": 0.04,
        "optimizer": {"name": "sgd", "learning_rate": 0.6, "weight_decay": 1e-6},
    },
    "imagenet": {
        "duration": "800 epochs",
        "optimizer.warmup": "1.25 %",
        "optimizer.spare_vectors": False,
    },
    "folder": {"augment.local": {"count": 4, "size": 32}, "swav.prototypes": 300},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "swav",
        variant,
        VARIANTS,
        augment={"recipe": "swav", "local": {"count": 6, "size": 96}},
        optimizer={
            "name": "lars",
            "learning_rate": 0.3,
            "weight_decay": 1e-6,
            "final_fraction": 0.001,
        },
        swav={
            **presets.defaults_of(swav, "temperature", "epsilon", "iterations"),
            "prototypes": 3000,
            "freeze": 0.00125,  # of the run: one epoch of 800
            **presets.defaults_of(swav, "queue_size"),
            "queue_start": 0.0,  # of the run
            "projector": {"layers": 2, "hidden": 2048, "outputs": 128, "last_bias": True},
        },
    )
