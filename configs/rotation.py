"""Rotation prediction (Gidaris, Singh and Komodakis, ICLR 2018).

    python -m sslax.main --config=configs/rotation.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/rotation.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/rotation.py:imagenet

Expected: embedded, see README.md. imagenet: linear 48.2 % (ResNet-50, 105 epochs, VISSL), 55.4 %
with the widest network (Kolesnikov et al. 2019); an intermediate stage is best. Nothing can be
learned this way from images without a canonical orientation, such as aerial ones.
"""

from ml_collections import ConfigDict

from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {"optimizer.learning_rate": 0.2, "optimizer.weight_decay": 5e-4},
    "tiny": {},
    "cifar10": {
        "batch_size": 128,
        "optimizer": {
            "learning_rate": 0.2,
            "nesterov": True,
            "weight_decay": 5e-4,
            "drops": (0.3, 0.6, 0.8),
            "drop_factor": 0.2,
            "warmup": "0 steps",
        },
    },
    "stl10": {},
    "imagenet100": {"duration": "105 epochs", "optimizer.warmup": "9.5238 %"},
    "imagenet": {
        "duration": "105 epochs",
        "batch_size": 256,
        "augment.crop_scale": (0.08, 1.0),
        "optimizer.drops": (0.2857, 0.5714, 0.8571, 0.9524),
        "optimizer.warmup": "0 steps",
    },
    "folder": {},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "rotation",
        variant,
        VARIANTS,
        augment={"recipe": "supervised", "crop_scale": (0.5, 1.0)},
        optimizer={"learning_rate": 0.1, "weight_decay": 1e-4},
    )
