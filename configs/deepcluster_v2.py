"""DeepCluster v2 (Caron et al., NeurIPS 2020).

    python -m sslax.main --config=configs/deepcluster_v2.py    # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/deepcluster_v2.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/deepcluster_v2.py:imagenet

Expected: embedded, see README.md. imagenet: linear 75.2 % (the paper, ResNet-50, 800 epochs).
"""

from ml_collections import ConfigDict

from sslax.methods.representation.deepcluster_v2 import deepcluster_v2
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "augment.local": {"count": 2, "size": 16, "crop_scale": (0.2, 0.5), "erase": 0.0},
        "deepcluster_v2.projector": {"hidden": 512},
        "deepcluster_v2.prototypes": 100,
        "optimizer": {"name": "sgd", "learning_rate": 0.4, "weight_decay": 5e-4},
    },
    "tiny": {
        "augment.local": {"count": 2, "size": 8},
        "deepcluster_v2.projector": {"hidden": 16, "outputs": 8},
        "deepcluster_v2.prototypes": 8,
    },
    "cifar10": {
        **presets.CIFAR10_VIEWS,
        "augment.crop_scale": (0.08, 1.0),
        "augment.local": {"count": 0},
        "deepcluster_v2.prototypes": 512,
        "optimizer": {"name": "sgd", "learning_rate": 0.12, "weight_decay": 5e-4},
    },
    "stl10": {"augment.local": {"count": 4, "size": 40}, "deepcluster_v2.prototypes": 1000},
    "imagenet100": {"optimizer": {"name": "sgd", "learning_rate": 0.6, "weight_decay": 1e-6}},
    "imagenet": {
        "duration": "800 epochs",
        "optimizer.warmup": "1.25 %",
        "optimizer.spare_vectors": False,
    },
    "folder": {"augment.local": {"count": 4, "size": 32}, "deepcluster_v2.prototypes": 300},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "deepcluster_v2",
        variant,
        VARIANTS,
        augment={"recipe": "swav", "local": {"count": 6, "size": 96}},
        optimizer={
            "name": "lars",
            "learning_rate": 0.3,
            "weight_decay": 1e-6,
            "final_fraction": 0.001,
        },
        deepcluster_v2={
            **presets.defaults_of(deepcluster_v2),
            "examples": 0,  # as many as the training set has
            "projector": {"layers": 2, "hidden": 2048, "outputs": 128, "last_bias": True},
        },
    )
