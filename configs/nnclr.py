"""NNCLR (Dwibedi et al., ICCV 2021).

    python -m sslax.main --config=configs/nnclr.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/nnclr.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/nnclr.py:imagenet

Expected: embedded, see README.md. cifar10: linear 91.88 % (solo-learn, 1000 epochs). imagenet100:
kNN .453 (lightly, ResNet-18). imagenet: linear 75.6 % (the paper). The authors publish no code: see
docs/joint-embedding.md. Only the embedded variant has been run.
"""

from ml_collections import ConfigDict

from sslax.methods.representation.nnclr import nnclr
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "nnclr.projector": {"layers": 2, "hidden": 512, "outputs": 128},
        "nnclr.predictor": {"hidden": 512, "outputs": 128},
        "nnclr.queue_size": 4096,
        "optimizer": {"name": "sgd", "learning_rate": 0.4, "weight_decay": 5e-4},
    },
    "tiny": {
        "nnclr.projector": {"hidden": 16, "outputs": 8},
        "nnclr.predictor": {"hidden": 16, "outputs": 8},
        "nnclr.queue_size": 64,
    },
    "cifar10": {
        "batch_size": 256,
        "duration": "1000 epochs",
        "augment.blur": 0.0,
        "nnclr.temperature": 0.2,
        "nnclr.queue_size": 65536,
        "optimizer": {"learning_rate": 0.4, "weight_decay": 1e-5, "trust_coefficient": 0.02},
        "optimizer.warmup": "1 %",
    },
    "stl10": {"nnclr.queue_size": 65536},
    "imagenet100": {"nnclr.queue_size": 65536},
    "imagenet": {
        "duration": "1000 epochs",
        "optimizer.warmup": "1 %",
    },
    "folder": {"augment.crop_scale": (0.2, 1.0), "nnclr.queue_size": 4096},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "nnclr",
        variant,
        VARIANTS,
        augment={"recipe": "byol"},
        optimizer={"name": "lars", "learning_rate": 0.3, "weight_decay": 1e-6},
        nnclr={
            **presets.defaults_of(nnclr),
            "projector": {"layers": 3, "hidden": 2048, "outputs": 256, "last_norm": "affine"},
            "predictor": {"layers": 2, "hidden": 4096, "outputs": 256, "last_bias": True},
        },
    )
