"""Barlow Twins (Zbontar et al., ICML 2021).

    python -m sslax.main --config=configs/barlow_twins.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/barlow_twins.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/barlow_twins.py:imagenet

Expected: embedded, see README.md. cifar10: kNN .842 at batch 128, .819 at 512 (lightly's benchmark,
200 epochs). imagenet100: kNN .465 (lightly, ResNet-18). imagenet: linear 71.4 % (the authors'
repository, 300 epochs; 73.5 % at 1000).
"""

from ml_collections import ConfigDict

from sslax.methods.representation.barlow_twins import barlow_twins
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "barlow_twins.projector": {"layers": 2, "hidden": 512, "outputs": 512},
        "barlow_twins.scale": 0.02,
        "optimizer": {"name": "sgd", "learning_rate": 0.4, "weight_decay": 5e-4},
    },
    "tiny": {"barlow_twins.projector": {"hidden": 16, "outputs": 16}},
    "cifar10": {
        **presets.CIFAR10_VIEWS,
        "batch_size": 128,
        "barlow_twins.projector": {"hidden": 2048, "outputs": 2048},
        "barlow_twins.scale": 0.1,
        "optimizer.learning_rate": 0.3,
        "optimizer.vector_rate": 1.0,
        "optimizer.weight_decay": 1e-4,
        "optimizer.trust_coefficient": 0.02,
    },
    "stl10": {"barlow_twins.projector": {"hidden": 2048, "outputs": 2048}},
    "imagenet100": {
        "barlow_twins.projector": {"hidden": 2048, "outputs": 2048},
        "optimizer.learning_rate": 0.3,
    },
    "imagenet": {
        "batch_size": 2048,
        "duration": "300 epochs",
        "optimizer.warmup": "3.3333 %",
        "model.zero_init_residual": True,
        "optimizer.final_fraction": 0.001,
    },
    "folder": {
        "augment.crop_scale": (0.2, 1.0),
        "barlow_twins.projector": {"hidden": 2048, "outputs": 2048},
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "barlow_twins",
        variant,
        VARIANTS,
        augment={"recipe": "barlow_twins"},
        # Biases and norms have a rate of their own, 0.0048 where weights have 0.2.
        optimizer={
            "name": "lars",
            "learning_rate": 0.2,
            "vector_rate": 0.024,
            "weight_decay": 1e-6,
        },
        barlow_twins={
            **presets.defaults_of(barlow_twins),
            "projector": {"layers": 3, "hidden": 8192, "outputs": 8192},
        },
    )
