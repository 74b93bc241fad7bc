"""I-JEPA (Assran et al., CVPR 2023).

    python -m sslax.main --config=configs/ijepa.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/ijepa.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/ijepa.py:imagenet

Expected: embedded, see README.md; ten epochs are too few to beat the network before training.
imagenet: linear 72.9 % (ViT-B/16, 600 epochs, the paper). The loss falls, and may then rise slowly
while the features still improve. The authors' warm-up starts at 2e-4, ours near 0.
"""

from ml_collections import ConfigDict

from sslax import augment
from sslax.methods.representation.ijepa import ijepa
from sslax.training import presets

_BLOCKS = ("targets", "target_scale", "target_aspect", "context_scale", "min_context")

VARIANTS: dict[str, presets.Values] = {
    "": {
        "model": {"name": "vit_micro", "patch": 4, "blocks": (), "patch_stem": 0},
        "ijepa.predictor": {"width": 64, "depth": 2, "heads": 4},
        "ijepa.momentum": 0.98,
        **presets.EMBEDDED_MUON,
        "optimizer.final_decay_fraction": 1.0,
    },
    "tiny": {
        "model": {"width": 1.0, "blocks": (1,)},
        "ijepa.predictor": {"width": 16, "depth": 1, "heads": 2},
        "ijepa.blocks.min_context": 2,
    },
    "cifar10": {
        "model": {"name": "vit_tiny", "patch": 4, "small_stem": False},
        "duration": "800 epochs",
        "optimizer.warmup": "1.25 %",
        "ijepa.predictor": {"width": 96, "depth": 4, "heads": 3},
    },
    "stl10": {
        "model": {"name": "vit_small", "patch": 8, "small_stem": False},
        "ijepa.predictor": {"width": 192, "heads": 6},
    },
    "imagenet100": {
        "model.name": "vit_small",
        "duration": "400 epochs",
        "ijepa.predictor": {"width": 192, "heads": 6},
    },
    "imagenet": {
        "batch_size": 2048,
        "duration": "600 epochs",
        "model.name": "vit_base",
        "optimizer.warmup": "6.6667 %",
    },
    "folder": {
        "model": {"name": "vit_tiny", "width": 1.0, "patch": 8, "small_stem": False},
        "ijepa.predictor": {"width": 96, "depth": 4, "heads": 3},
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "ijepa",
        variant,
        VARIANTS,
        augment={"recipe": "ijepa"},
        model={"pool": "mean", "class_token": False},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "scaling": "none",
            "weight_decay": 0.04,
            "final_decay_fraction": 10.0,
            "final_fraction": 0.001,
        },
        ijepa={
            **presets.defaults_of(ijepa, "momentum"),  # it rises to 1, linearly
            "blocks": presets.defaults_of(augment.random_token_blocks, *_BLOCKS),
            "predictor": {"width": 384, "depth": 6, "heads": 12},
        },
    )
