"""VISReg (Wu, Balestriero and Levine, 2026).

    python -m sslax.main --config=configs/visreg.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/visreg.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/visreg.py:imagenet            # ViT-B/16
    python -m sslax.main --config=configs/visreg.py:imagenet_minimal    # ViT-S/8 on Imagenette

Expected: embedded, see README.md. imagenet: linear 75.7 % (the authors, 400 epochs). Only the
embedded variant has been run; cifar10, stl10, imagenet100 and folder are not the authors'.
"""

from ml_collections import ConfigDict

from sslax.methods.representation.visreg import visreg
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "augment.local": {"count": 2, "size": 16, "crop_scale": (0.2, 0.5), "erase": 0.0},
        "augment.count": 2,
        "visreg.slices": 256,
        "visreg.projector": {"hidden": 512, "outputs": 64},
        "optimizer.learning_rate": 2e-3,
    },
    "tiny": {
        "augment.local.count": 0,
        "visreg.slices": 8,
        "visreg.projector": {"hidden": 16, "outputs": 8},
    },
    "cifar10": {
        **presets.CIFAR10_VIEWS,
        "augment.crop_scale": (0.08, 1.0),
        "augment.local": {"count": 0},
        "visreg.weight": 0.6,
        "visreg.projector.outputs": 128,
        "optimizer.learning_rate": 2e-3,
    },
    "stl10": {"augment.local": {"count": 4, "size": 40}},
    "imagenet100": {},
    "imagenet": {
        "batch_size": 128,
        "duration": "400 epochs",
        "model": {"name": "vit_base", "position": "learned", "drop_path": 0.1},
        "visreg.projector.activation": "gelu",
        "optimizer.warmup": "1.25 %",  # five epochs
    },
    "imagenet_minimal": {
        "batch_size": 64,
        "duration": "800 epochs",
        "checkpoint_every": "20 epochs",
        "data.tfds.name": "imagenette/160px-v2",
        "data.image_size": 160,
        "model": {"name": "vit_small", "patch": 8, "position": "learned", "drop_path": 0.1},
        "augment.size": 128,
        "augment.crop_scale": (0.08, 1.0),
        "augment.brightness": 0.8,
        "augment.contrast": 0.8,
        "augment.saturation": 0.8,
        "augment.hue": 0.2,
        "augment.local": {"count": 0},
        "visreg.weight": 0.6,
        "visreg.projector.outputs": 128,
        "optimizer.learning_rate": 1e-3,
        "optimizer.warmup": "0.125 %",  # one epoch
    },
    "folder": {"augment.count": 2, "augment.local": {"count": 4, "size": 32}},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "visreg",
        variant,
        VARIANTS,
        augment={
            "recipe": "lejepa",
            "count": 4,
            "interpolation": "bicubic",
            "blur_kernel_size": 9,
            "local": {"count": 6, "size": 96},
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 9e-4,
            "scaling": "none",
            "weight_decay": 0.05,
            "final_fraction": 0.001,
            "clip_norm": 1.0,
        },
        visreg={
            **presets.defaults_of(visreg, "weight", "slices"),
            "projector": {
                "layers": 3,
                "hidden": 2048,
                "outputs": 256,
                "last_bias": True,
                "activation": "relu",
            },
        },
    )
