"""W-MSE (Ermolov et al., ICML 2021).

    python -m sslax.main --config=configs/w_mse.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/w_mse.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/w_mse.py:imagenet100 --config.data.path=DIR

Expected: embedded, see README.md. cifar10: linear 88.67 %, imagenet100: 67.60 % (solo-learn's W-MSE
with its own settings; the variants here have the authors'). cifar10_4views is W-MSE 4. Only the
embedded variant has been run; folder is not the authors'.
"""

from ml_collections import ConfigDict

from sslax.methods.representation.w_mse import w_mse
from sslax.training import presets

_CIFAR10 = {
    "duration": "1000 epochs",
    "model.std": (0.2023, 0.1994, 0.2010),
    "model.dtype": "float32",
    "optimizer.learning_rate": 3e-3,
    "optimizer.warmup": "0.5155 %",  # 500 steps, as everywhere
    "optimizer.drops": (0.95, 0.975),  # 50 and 25 epochs before the end
}

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "w_mse.projector": {"hidden": 512, "outputs": 32},
        "w_mse.group_size": 64,
        "optimizer.drops": (0.8, 0.9),
    },
    "tiny": {"w_mse.projector": {"hidden": 16, "outputs": 3}, "w_mse.group_size": 8},
    "cifar10": _CIFAR10,
    "cifar10_4views": {
        **_CIFAR10,
        "batch_size": 256,
        "augment.count": 4,
        "optimizer.warmup": "0.2564 %",
    },
    "stl10": {
        "duration": "2000 epochs",
        "model.mean": (0.43, 0.42, 0.39),
        "model.std": (0.27, 0.26, 0.27),
        "model.dtype": "float32",
        "augment.size": 64,
        "w_mse.projector.outputs": 128,
        "w_mse.group_size": 256,
        "w_mse.iterations": 4,
        "optimizer.warmup": "0.1282 %",
        "optimizer.drops": (0.975, 0.9875),
    },
    "imagenet100": {
        "batch_size": 512,
        "duration": "240 epochs",
        "model.dtype": "float32",
        "augment.strength": 1.0,
        "augment.crop_scale": (0.08, 1.0),
        "augment.grayscale": 0.2,
        "augment.blur": 0.5,
        "w_mse.projector.outputs": 128,
        "w_mse.group_size": 256,
        "optimizer.warmup": "0.8435 %",
        "optimizer.drops": (190 / 240, 215 / 240),
    },
    "folder": {
        "w_mse.projector.outputs": 32,
        "w_mse.group_size": 64,
        "optimizer.drops": (0.8, 0.9),
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "w_mse",
        variant,
        VARIANTS,
        augment={
            "recipe": "simclr",
            "count": 2,
            "strength": 0.5,
            "crop_scale": (0.2, 1.0),
            "grayscale": 0.1,
            "blur": 0.0,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 2e-3,
            "scaling": "none",
            "weight_decay": 1e-6,
            "spare_vectors": False,
            "drop_factor": 0.2,
        },
        w_mse={
            **presets.defaults_of(w_mse),
            "projector": {"layers": 2, "hidden": 1024, "outputs": 64},
        },
    )
