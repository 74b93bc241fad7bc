"""Context prediction (Doersch, Gupta and Efros, ICCV 2015).

    python -m sslax.main --config=configs/context_prediction.py      # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/context_prediction.py:cifar10 --config.data.path=FILE
    python -m sslax.main --config=configs/context_prediction.py:imagenet

Expected: embedded, see README.md. imagenet: linear 51.2 % from the fourth stage, 40.4 % from the
last (ResNet-50, 70 epochs, mmselfsup's variant). Small images are enlarged first, to make room for
patches with gaps between them.
"""

from ml_collections import ConfigDict

from sslax.methods.representation.context_prediction import context_prediction
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        "augment.size": 56,
        "context_prediction": {"patch": 12, "gap": 4, "jitter": 1, "smallest": 36},
        "context_prediction.classifier": {"embed": 256, "hidden": 256},
        "optimizer.learning_rate": 0.2,
        "optimizer.weight_decay": 5e-4,
    },
    "tiny": {
        "augment.size": 24,
        "context_prediction": {"pairs": 2, "patch": 6, "gap": 1, "jitter": 1, "smallest": 9},
        "context_prediction.classifier": {"embed": 16, "hidden": 16},
        "model.patch_stem": 2,
    },
    "cifar10": {
        "augment.size": 64,
        "context_prediction": {"patch": 14, "gap": 4, "jitter": 2, "smallest": 49},
        "context_prediction.classifier": {"embed": 512, "hidden": 512},
    },
    "stl10": {"context_prediction": {"patch": 24, "gap": 8, "jitter": 2, "smallest": 64}},
    "imagenet100": {
        "data.image_size": 384,
        "augment.size": 360,
        "optimizer.learning_rate": 0.1,
    },
    "imagenet": {
        "duration": "70 epochs",
        "optimizer.warmup": "14.2857 %",
        "batch_size": 256,
        "data.image_size": 448,
        "augment.size": 416,
    },
    "folder": {
        "data.image_size": 96,
        "augment.size": 84,
        "context_prediction": {"patch": 20, "gap": 6, "jitter": 2, "smallest": 64},
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "context_prediction",
        variant,
        VARIANTS,
        augment={"recipe": "supervised", "crop_scale": (0.5, 1.0), "flip": 0.0},
        optimizer={"learning_rate": 0.1, "weight_decay": 1e-4},
        model={"mean": (), "std": ()},  # patches are standardized one by one
        context_prediction={
            **presets.defaults_of(context_prediction),
            "classifier": {"embed": 4096, "hidden": 4096},
        },
    )
