"""SimMIM (Xie et al., CVPR 2022).

    python -m sslax.main --config=configs/simmim.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/simmim.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/simmim.py:imagenet           # ViT-B/16

Expected: imagenet: fine-tuned 83.8 % (ViT-B, 800 epochs, the paper). Its features are
meant for fine-tuning: `python -m sslax.evaluate --workdir=RUN --finetune`. Embedded, ten epochs: a
loss of 0.26 against 0.90 at chance; see README.md. No other variant has been run; cifar10, stl10,
imagenet100 and folder are not the authors'.
"""

from ml_collections import ConfigDict

from sslax.methods.representation.simmim import simmim
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        "model": {"name": "vit_micro", "patch": 7, "blocks": (), "patch_stem": 0},
        "simmim.mask_unit": 7,
        **presets.EMBEDDED_MUON,
    },
    "tiny": {"model": {"width": 1.0, "blocks": (1,), "patch": 4}, "simmim.mask_unit": 4},
    "cifar10": {
        "model": {"name": "vit_tiny", "patch": 4, "small_stem": False},
        "simmim.mask_unit": 4,
        "duration": "800 epochs",
        "optimizer.warmup": "1.25 %",
    },
    "stl10": {
        "model": {"name": "vit_small", "patch": 8, "small_stem": False},
        "simmim.mask_unit": 16,
    },
    "imagenet100": {
        "model.name": "vit_small",
        "duration": "400 epochs",
        "optimizer.warmup": "2.5 %",
    },
    "imagenet": {
        "batch_size": 2048,
        "duration": "800 epochs",
        "model": {"name": "vit_base", "drop_path": 0.1, "layer_scale": 0.1},
        "optimizer.drops": (0.875,),
        "optimizer.warmup": "1.25 %",
    },
    "folder": {
        "model": {"name": "vit_tiny", "width": 1.0, "patch": 8, "small_stem": False},
        "simmim.mask_unit": 16,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "simmim",
        variant,
        VARIANTS,
        augment={"recipe": "simmim"},
        model={"pool": "mean", "mask_token": True},
        optimizer={
            "name": "adamw",
            "learning_rate": 5e-5,
            "weight_decay": 0.05,
            "clip_norm": 5.0,
        },
        simmim=presets.defaults_of(simmim, "mask_unit", "mask_ratio"),
    )
