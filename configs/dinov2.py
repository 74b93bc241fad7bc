"""DINOv2 (Oquab et al., TMLR 2024).

    python -m sslax.main --config=configs/dinov2.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/dinov2.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/dinov2.py:imagenet           # ViT-L/16, the short recipe

Expected: imagenet: kNN 81.6 %, linear 82.9 % (ViT-L/16, vitl16_short.yaml, the authors'
README). No variant has been run yet; cifar10, stl10, imagenet100 and folder are not the authors'.
"""

from ml_collections import ConfigDict

from sslax.methods.representation.dinov2 import dinov2
from sslax.training import presets

_HEAD = {"layers": 3, "hidden": 2048, "bottleneck": 256}

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "augment.local": {"count": 2, "size": 14, "crop_scale": (0.2, 0.5), "erase": 0.0},
        "model": {"name": "vit_micro", "patch": 7, "blocks": (), "patch_stem": 0},
        "model.drop_path": 0.0,
        "model.layer_scale": 0.1,
        "model.registers": 2,
        "dinov2.projector": {"hidden": 512, "bottleneck": 128, "outputs": 1024},
        "dinov2.patch_projector": {"hidden": 512, "bottleneck": 128, "outputs": 1024},
        "dinov2.iterations": 3,
        "dinov2.momentum": 0.98,
        "dinov2.teacher_warmup": 0.0375,
        "optimizer": {"learning_rate": 1e-3, "scaling": "none", "final_decay_fraction": 1.0},
        "optimizer.layer_decay": 1.0,
    },
    "tiny": {
        "model": {"width": 1.0, "blocks": (1,), "patch": 4, "registers": 1},
        "augment.local": {"count": 2, "size": 8},
        "dinov2.projector": {"hidden": 16, "bottleneck": 8, "outputs": 16},
        "dinov2.patch_projector": {"hidden": 16, "bottleneck": 8, "outputs": 12},
        "dinov2.momentum": 0.9,
        "dinov2.koleo_group": 4,
    },
    "cifar10": {
        **presets.CIFAR10_VIEWS,
        "augment.local": {"count": 0},
        "model": {"name": "vit_tiny", "patch": 4, "small_stem": False, "drop_path": 0.1},
        "duration": "800 epochs",
        "dinov2.projector.outputs": 2048,
    },
    "stl10": {
        "augment.local": {"count": 4, "size": 40},
        "model": {"name": "vit_small", "patch": 8, "small_stem": False, "drop_path": 0.1},
        "dinov2.projector.outputs": 4096,
    },
    "imagenet100": {
        "model": {"name": "vit_small", "drop_path": 0.1},
        "duration": "400 epochs",
        "dinov2.projector.outputs": 4096,
    },
    "imagenet": {
        "batch_size": 2048,
        "duration": "125000 steps",  # 100 of what the authors count as epochs
        "checkpoint_every": "2500 steps",
        "model.name": "vit_large",
        "optimizer.final_fraction": 0.00017678,  # 1e-6, of 5.66e-3
    },
    "folder": {
        "augment.local": {"count": 4, "size": 32},
        "model": {"name": "vit_tiny", "width": 1.0, "patch": 8, "small_stem": False},
        "model.drop_path": 0.1,
        "dinov2.projector.outputs": 4096,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "dinov2",
        variant,
        VARIANTS,
        augment={"recipe": "dinov2", "local": {"count": 8, "size": 96}},
        model={
            "position": "learned",
            "mask_token": True,
            "drop_path": 0.3,
            "drop_path_uniform": True,
            "layer_scale": 1e-5,
        },
        optimizer={
            "name": "adamw",
            "learning_rate": 1.25e-4,  # 4e-3 at a batch of 1024
            "scaling": "sqrt",
            "weight_decay": 0.04,
            "final_decay_fraction": 10.0,
            "final_fraction": 0.0002,
            "clip_norm": 3.0,
            "layer_decay": 0.9,
        },
        dinov2={
            **presets.defaults_of(dinov2, "student_temperature", "momentum", "center_momentum"),
            **presets.defaults_of(dinov2, "mask_ratio", "mask_probability", "iterations"),
            **presets.defaults_of(dinov2, "koleo_weight", "koleo_group"),
            "teacher_temperature": (0.04, 0.07),  # it rises over the first part of the run:
            "teacher_warmup": 0.3,
            "freeze": 0.01,  # the last layer's first part of the run: one epoch of 100
            "projector": {**_HEAD, "outputs": 65536},
            "patch_projector": {**_HEAD, "outputs": 0},  # 0: patches share the head
        },
    )
