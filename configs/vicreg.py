"""VICReg (Bardes, Ponce and LeCun, ICLR 2022).

    python -m sslax.main --config=configs/vicreg.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/vicreg.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/vicreg.py:imagenet

Expected: embedded, see README.md. cifar10: linear 92.07 % (solo-learn, 1000 epochs). imagenet100:
linear 79.4 % (solo-learn, ResNet-18, 400 epochs). imagenet: linear 73.2 % (the paper, 1000 epochs;
63.0 % in lightly's benchmark of 100 epochs at batch 256).
"""

from ml_collections import ConfigDict

from sslax.methods.representation.vicreg import vicreg
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "vicreg.projector": {"layers": 2, "hidden": 512, "outputs": 512},
        "optimizer": {"name": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4},
    },
    "tiny": {"vicreg.projector": {"hidden": 16, "outputs": 16}},
    "cifar10": {
        **presets.CIFAR10_VIEWS,
        "vicreg.projector": {"hidden": 2048, "outputs": 2048},
        "optimizer.learning_rate": 0.3,
        "optimizer.weight_decay": 1e-4,
        "optimizer.trust_coefficient": 0.02,
    },
    "stl10": {"vicreg.projector": {"hidden": 2048, "outputs": 2048}},
    "imagenet100": {
        "duration": "400 epochs",
        "optimizer.warmup": "2.5 %",
        "vicreg.projector": {"hidden": 2048, "outputs": 2048},
        "optimizer.learning_rate": 0.3,
        "optimizer.weight_decay": 1e-4,
    },
    "imagenet": {
        "batch_size": 2048,
        "duration": "1000 epochs",
        "optimizer.warmup": "1 %",
        "model.zero_init_residual": True,
        "optimizer.final_fraction": 0.001,
    },
    "folder": {
        "augment.crop_scale": (0.2, 1.0),
        "vicreg.projector": {"hidden": 2048, "outputs": 2048},
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "vicreg",
        variant,
        VARIANTS,
        augment={"recipe": "byol"},
        optimizer={"name": "lars", "learning_rate": 0.2, "weight_decay": 1e-6},
        vicreg={
            **presets.defaults_of(vicreg),
            "projector": {"layers": 3, "hidden": 8192, "outputs": 8192},
        },
    )
