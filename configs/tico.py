"""TiCo (Zhu et al., 2022).

    python -m sslax.main --config=configs/tico.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/tico.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/tico.py:imagenet

Expected: embedded, see README.md. The authors publish no code, and imagenet has the settings of
lightly's benchmark, whose 49.7 % are of another loss: see docs/joint-embedding.md. Only the
embedded variant has been run.
"""

from ml_collections import ConfigDict

from sslax.methods.representation.tico import tico
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "tico.projector": {"hidden": 512, "outputs": 128},
        "tico.momentum": 0.98,
        "optimizer": {"name": "sgd", "learning_rate": 0.4, "weight_decay": 5e-4},
    },
    "tiny": {
        "tico.projector": {"hidden": 16, "outputs": 8},
        # In a dozen steps the loss would rise with the covariance, which starts at zero.
        "tico.covariance_weight": 2.0,
        "tico.covariance_momentum": 0.5,
    },
    "cifar10": {
        **presets.CIFAR10_VIEWS,
        "tico.projector.hidden": 1024,
        "optimizer": {"name": "sgd", "learning_rate": 0.12, "weight_decay": 5e-4},
    },
    "stl10": {},
    "imagenet100": {},
    "imagenet": {"batch_size": 256},
    "folder": {"augment.crop_scale": (0.2, 1.0)},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "tico",
        variant,
        VARIANTS,
        augment={"recipe": "byol"},
        optimizer={"name": "lars", "learning_rate": 0.2, "weight_decay": 1.5e-6},
        tico={
            **presets.defaults_of(tico),
            "projector": {"layers": 2, "hidden": 4096, "outputs": 256},
        },
    )
