"""Jigsaw puzzles (Noroozi and Favaro, ECCV 2016).

    python -m sslax.main --config=configs/jigsaw.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/jigsaw.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/jigsaw.py:imagenet

Expected: embedded, see README.md. imagenet: linear 46.7 % (ResNet-50, 2,000 permutations, VISSL),
44.6 % in Kolesnikov et al. 2019; an intermediate stage is best. Small images are enlarged
first, to make room for nine tiles with gaps between them.
"""

from ml_collections import ConfigDict

from sslax.methods.representation.jigsaw import jigsaw
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        "augment.size": 48,
        "augment.grayscale": 0.0,
        "jigsaw": {"permutations": 64, "tile": 12, "jitter": 2},
        "jigsaw.classifier": {"embed": 128, "hidden": 512},
        "optimizer.learning_rate": 0.2,
        "optimizer.weight_decay": 5e-4,
    },
    "tiny": {
        "augment.size": 24,
        "jigsaw": {"permutations": 8, "tile": 6, "jitter": 1},
        "jigsaw.classifier": {"embed": 16, "hidden": 32},
        "model.patch_stem": 2,
    },
    "cifar10": {
        "augment.size": 48,
        "jigsaw": {"permutations": 100, "tile": 12, "jitter": 2},
        "jigsaw.classifier": {"embed": 256, "hidden": 1024},
    },
    "stl10": {"jigsaw": {"permutations": 100, "tile": 24, "jitter": 4}},
    "imagenet100": {"data.image_size": 292, "augment.size": 255},
    "imagenet": {
        "duration": "105 epochs",
        "optimizer.warmup": "4.7619 %",
        "batch_size": 256,
        "data.image_size": 292,
        "augment.size": 255,
        "jigsaw.permutations": 2000,
        "optimizer.drops": (0.2857, 0.5714, 0.8571, 0.9524),
    },
    "folder": {
        "data.image_size": 96,
        "augment.size": 84,
        "jigsaw": {"tile": 20, "jitter": 4},
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "jigsaw",
        variant,
        VARIANTS,
        augment={"recipe": "supervised", "crop_scale": (0.5, 1.0), "grayscale": 0.66},
        optimizer={"learning_rate": 0.1, "weight_decay": 1e-4},
        model={"mean": (), "std": ()},  # tiles are standardized one by one
        jigsaw={
            "permutations": 1000,
            **presets.defaults_of(jigsaw),
            "classifier": {"embed": 1000, "hidden": 4096},
        },
    )
