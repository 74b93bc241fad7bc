"""Colorization (Zhang, Isola and Efros, ECCV 2016).

    python -m sslax.main --config=configs/colorization.py              # photographs, CPU
    python -m sslax.main --config=configs/colorization.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/colorization.py:imagenet

The embedded images are gray, so the default trains on crops of the photographs that come with
scikit-image and scikit-learn, and is evaluated on the embedded set.

Expected: default, see README.md. imagenet: linear 40.1 % (ResNet-50, VISSL's conversion).
"""

from ml_collections import ConfigDict

from sslax.methods.representation.colorization import colorization
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        "data": {"source": "photographs", "labels": False, "image_size": 40},
        "evaluate.data": {"source": "embedded", "labels": True, "image_size": 0},
        "colorization.decoder": {"width": 64, "stages": ("stage1", "stage2")},
    },
    "tiny": {
        "data.image_size": 16,
        "colorization.decoder.width": 8,
        "colorization.bin": 40,
    },
    "cifar10": {"augment.crop_scale": (0.6, 1.0)},
    "stl10": {},
    "imagenet100": {},
    "imagenet": {"batch_size": 256},
    "folder": {},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "colorization",
        variant,
        VARIANTS,
        augment={"recipe": "supervised", "crop_scale": (0.5, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "scaling": "none",
            "weight_decay": 1e-3,
        },
        model={"mean": (0.5,), "std": (0.25,)},  # of the lightness
        colorization={
            "bin": 10,
            **presets.defaults_of(colorization),
            "decoder": {"width": 256, "stages": ("stage1", "stage2", "stage3", "stage4")},
        },
    )
