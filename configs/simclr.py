"""SimCLR (Chen et al., ICML 2020).

    python -m sslax.main --config=configs/simclr.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/simclr.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/simclr.py:stl10        # see docs/data.md
    python -m sslax.main --config=configs/simclr.py:imagenet
    python -m sslax.main --config=configs/simclr.py:folder --config.data.path=DIR

Expected: embedded, see README.md. cifar10: kNN .848 (lightly's benchmark, 200 epochs). stl10:
linear 74.5 % (sthalles/SimCLR, 100 epochs). imagenet100: kNN .469 (lightly, 200 epochs, ResNet-18).
imagenet: linear 64.5 % (the authors' repository).
"""

from ml_collections import ConfigDict

from sslax.methods.representation.simclr import simclr
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "optimizer.learning_rate": 0.4,
        "optimizer.weight_decay": 5e-4,
    },
    "tiny": {"simclr.projector.hidden": 16, "simclr.projector.outputs": 8},
    "cifar10": {
        **presets.CIFAR10_VIEWS,
        "simclr.projector.hidden": 512,
        "optimizer.learning_rate": 0.12,
        "optimizer.weight_decay": 5e-4,
    },
    "stl10": {
        "augment.strength": 0.5,
        "simclr.temperature": 0.2,
        "simclr.projector.hidden": 512,
    },
    "imagenet100": {
        "simclr.temperature": 0.2,
        "simclr.projector.hidden": 512,
        "optimizer.learning_rate": 0.12,
    },
    "imagenet": {
        "simclr.projector": {"layers": 3, "hidden": 2048},
        "model.zero_init_residual": True,
        "optimizer": {"name": "lars", "learning_rate": 0.075, "scaling": "sqrt"},
    },
    "folder": {
        "augment.crop_scale": (0.2, 1.0),
        "augment.strength": 0.5,
        "optimizer.learning_rate": 0.12,
        "optimizer.weight_decay": 5e-4,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "simclr",
        variant,
        VARIANTS,
        augment={"recipe": "simclr"},
        simclr={
            **presets.defaults_of(simclr),
            "projector": {"layers": 2, "hidden": 256, "outputs": 128},
        },
    )
