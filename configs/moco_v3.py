"""MoCo v3 (Chen, Xie and He, ICCV 2021).

    python -m sslax.main --config=configs/moco_v3.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/moco_v3.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/moco_v3.py:imagenet_vit    # ViT-S/16; imagenet: ResNet-50

Expected: embedded, see README.md. cifar10: linear 93.10 % (solo-learn, 1000 epochs). imagenet:
linear 68.9 % (ResNet-50, 100 epochs), imagenet_vit: 73.2 % (ViT-S/16, 300 epochs), both from the
authors' repository.
"""

from ml_collections import ConfigDict

from sslax.methods.representation.moco_v3 import moco_v3
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "moco_v3.projector": {"hidden": 512, "outputs": 128},
        "moco_v3.predictor": {"hidden": 512, "outputs": 128},
        "moco_v3.temperature": 0.2,
        "optimizer": {"name": "sgd", "learning_rate": 0.4, "weight_decay": 5e-4},
    },
    "tiny": {
        "moco_v3.projector": {"hidden": 16, "outputs": 8},
        "moco_v3.predictor": {"hidden": 16, "outputs": 8},
    },
    "cifar10": {
        **presets.CIFAR10_VIEWS,
        "moco_v3.temperature": 0.2,
        "optimizer.weight_decay": 1e-6,
    },
    "stl10": {"moco_v3.temperature": 0.2},
    "imagenet100": {"moco_v3.temperature": 0.2},
    "imagenet": {
        "augment.crop_scale": (0.2, 1.0),
        "model.zero_init_residual": True,
        "optimizer.learning_rate": 0.6,
    },
    "imagenet_vit": {
        "duration": "300 epochs",
        "model.name": "vit_small",
        "model.freeze_patch_embedding": True,
        "moco_v3.temperature": 0.2,
        "moco_v3.projector": {"layers": 3},
        "moco_v3.predictor": {"last_norm": "plain"},
        "optimizer": {
            "name": "adamw",
            "learning_rate": 1.5e-4,
            "weight_decay": 0.1,
            "warmup": "13.3333 %",
            "spare_vectors": False,
        },
    },
    "folder": {"moco_v3.temperature": 0.2, "augment.crop_scale": (0.2, 1.0)},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "moco_v3",
        variant,
        VARIANTS,
        augment={"recipe": "moco_v3"},
        optimizer={"name": "lars", "learning_rate": 0.3, "weight_decay": 1e-6},
        moco_v3={
            **presets.defaults_of(moco_v3),
            "projector": {"layers": 2, "hidden": 4096, "outputs": 256, "last_norm": "plain"},
            "predictor": {"layers": 2, "hidden": 4096, "outputs": 256, "last_norm": "none"},
        },
    )
