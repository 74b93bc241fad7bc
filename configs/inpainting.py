"""Inpainting by context encoders (Pathak et al., CVPR 2016).

    python -m sslax.main --config=configs/inpainting.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/inpainting.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/inpainting.py:imagenet

`--config.inpainting.hole=region` hides a random shape instead of the central square;
`--config.inpainting.adversarial_weight=0.0` trains without the discriminator, as the paper does
for its features.

Expected: embedded, see README.md. The paper reports AlexNet on PASCAL VOC (classification 56.5,
segmentation 29.7); there are no published numbers for ResNet-50 on ImageNet.
"""

from ml_collections import ConfigDict

from sslax.methods.representation.inpainting import inpainting
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        "inpainting.overlap": 1,
        "inpainting.decoder": {"bottleneck": 256, "width": 32},
        "inpainting.discriminator": {"width": 32},
    },
    "tiny": {
        "augment.size": 16,
        "inpainting.decoder": {"bottleneck": 16, "width": 4},
        "inpainting.discriminator": {"width": 4},
    },
    "cifar10": {"inpainting.overlap": 1, "inpainting.decoder.bottleneck": 1024},
    "stl10": {"inpainting.overlap": 3},
    "imagenet100": {"augment.size": 128, "data.image_size": 144},
    "imagenet": {"augment.size": 128, "data.image_size": 144, "batch_size": 256},
    "folder": {"inpainting.overlap": 2},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "inpainting",
        variant,
        VARIANTS,
        augment={"recipe": "supervised", "crop_scale": (0.5, 1.0)},
        optimizer={
            "name": "adamw",
            "learning_rate": 2e-3,
            "scaling": "none",
            "momentum": 0.5,
            "weight_decay": 0.0,
            "rates": {"discriminator": 0.1},
        },
        inpainting={
            **presets.defaults_of(
                inpainting, "hole", "overlap", "overlap_weight", "adversarial_weight"
            ),
            "decoder": {"bottleneck": 4000, "width": 64},
            "discriminator": {"width": 64},
        },
    )
