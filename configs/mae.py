"""Masked autoencoders (He et al., CVPR 2022).

    python -m sslax.main --config=configs/mae.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/mae.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/mae.py:imagenet

Expected: embedded, see README.md. imagenet: linear 68.0 %, fine-tuned 83.6 % (ViT-B, 1600 epochs,
the paper); fine-tuned 81.6 % after 100 epochs (solo-learn). Its features are meant for fine-tuning:
`python -m sslax.evaluate --workdir=RUN --finetune`.
"""

from ml_collections import ConfigDict

from sslax.methods.representation.mae import mae
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        "augment.interpolation": "bilinear",
        "model": {"name": "vit_micro", "patch": 4, "blocks": (), "patch_stem": 0, "pool": "mean"},
        "mae.decoder": {"width": 64, "depth": 1, "heads": 4},
        **presets.EMBEDDED_MUON,
    },
    "tiny": {
        "model": {"width": 1.0, "blocks": (1,)},
        "mae.decoder": {"width": 16, "depth": 1, "heads": 2},
    },
    "cifar10": {
        "model": {"name": "vit_tiny", "patch": 4, "small_stem": False},
        "duration": "800 epochs",
        "optimizer.warmup": "1.25 %",
        "mae.decoder": {"width": 192, "depth": 4, "heads": 3},
    },
    "stl10": {"model": {"name": "vit_small", "patch": 8, "small_stem": False}},
    "imagenet100": {
        "model.name": "vit_small",
        "duration": "400 epochs",
        "optimizer.warmup": "2.5 %",
    },
    "imagenet": {
        "model.name": "vit_base",
        "duration": "1600 epochs",
        "optimizer.warmup": "2.5 %",
    },
    "folder": {
        "model": {"name": "vit_tiny", "width": 1.0, "patch": 8, "small_stem": False},
        "mae.decoder": {"width": 192, "depth": 4, "heads": 3},
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "mae",
        variant,
        VARIANTS,
        augment={"recipe": "mae"},
        optimizer={
            "name": "adamw",
            "learning_rate": 1.5e-4,
            "beta2": 0.95,
            "weight_decay": 0.05,
        },
        mae={
            **presets.defaults_of(mae, "mask_ratio", "normalize"),
            "decoder": {"width": 512, "depth": 8, "heads": 16},
        },
    )
