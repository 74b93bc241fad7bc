"""iBOT (Zhou et al., ICLR 2022).

    python -m sslax.main --config=configs/ibot.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/ibot.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/ibot.py:imagenet           # ViT-S/16

Expected: imagenet: kNN 75.2 %, linear 77.9 %, fine-tuned 82.3 % (ViT-S/16, 800 epochs, the
authors' README). No variant has been run yet; cifar10, stl10, imagenet100 and folder are not the
authors'.
"""

from ml_collections import ConfigDict

from sslax.methods.representation.ibot import ibot
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "augment.local": {"count": 2, "size": 14, "crop_scale": (0.2, 0.5), "erase": 0.0},
        "model": {"name": "vit_micro", "patch": 7, "blocks": (), "patch_stem": 0},
        "ibot.projector": {"hidden": 512, "bottleneck": 128, "outputs": 1024},
        "ibot.momentum": 0.98,
        "optimizer": {"learning_rate": 1e-3, "scaling": "none", "final_decay_fraction": 1.0},
    },
    "tiny": {
        "model": {"width": 1.0, "blocks": (1,), "patch": 4},
        "augment.local": {"count": 2, "size": 8},
        "ibot.projector": {"hidden": 16, "bottleneck": 8, "outputs": 16},
        "ibot.momentum": 0.9,
    },
    "cifar10": {
        **presets.CIFAR10_VIEWS,
        "augment.local": {"count": 0},
        "model": {"name": "vit_tiny", "patch": 4, "small_stem": False},
        "duration": "800 epochs",
        "ibot.projector.outputs": 2048,
    },
    "stl10": {
        "augment.local": {"count": 4, "size": 40},
        "model": {"name": "vit_small", "patch": 8, "small_stem": False},
        "ibot.projector.outputs": 4096,
    },
    "imagenet100": {
        "model": {"name": "vit_small", "drop_path": 0.1},
        "duration": "400 epochs",
        "ibot.projector.outputs": 4096,
    },
    "imagenet": {
        "batch_size": 1024,
        "duration": "800 epochs",
        "model": {"name": "vit_small", "drop_path": 0.1},
        "optimizer.warmup": "1.25 %",
        "optimizer.final_fraction": 0.0005,  # 1e-6, of 2e-3
    },
    "folder": {
        "augment.local": {"count": 4, "size": 32},
        "model": {"name": "vit_tiny", "width": 1.0, "patch": 8, "small_stem": False},
        "ibot.projector.outputs": 4096,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "ibot",
        variant,
        VARIANTS,
        augment={"recipe": "ibot", "local": {"count": 10, "size": 96}},
        model={"position": "learned", "mask_token": True},
        optimizer={
            "name": "adamw",
            "learning_rate": 5e-4,
            "weight_decay": 0.04,
            "final_decay_fraction": 10.0,
            "final_fraction": 0.002,
            "clip_norm": 3.0,
        },
        ibot={
            **presets.defaults_of(ibot, "student_temperature", "momentum", "center_momentum"),
            **presets.defaults_of(ibot, "mask_ratio", "mask_probability"),
            "teacher_temperature": (0.04, 0.07),  # it rises over the first part of the run:
            "teacher_warmup": 0.0375,
            "freeze": 0.00125,  # the last layer's first part of the run: one epoch of 800
            "projector": {
                "layers": 3,
                "hidden": 2048,
                "bottleneck": 256,
                "outputs": 8192,
            },
        },
    )
