"""MoCo v1 and v2 (He et al., CVPR 2020; Chen et al., 2020).

    python -m sslax.main --config=configs/moco.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/moco.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/moco.py:imagenet       # v2; imagenet_v1: v1

Expected: embedded, see README.md. cifar10: kNN 82.6 % (85.3 % with moco.symmetric), the authors'
notebook. imagenet100: kNN .560 (lightly, ResNet-18). imagenet: linear 67.5 %, imagenet_v1: 60.6 %
(the authors' repository, 200 epochs). Batch statistics are those of groups of 32 images, as on the
papers' eight devices.
"""

from ml_collections import ConfigDict

from sslax.methods.representation.moco import moco
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "moco.queue_size": 4096,
        "moco.temperature": 0.1,
        "moco.momentum": 0.99,
        "moco.norm_groups": 4,
        "optimizer.learning_rate": 0.4,
        "optimizer.weight_decay": 5e-4,
    },
    "tiny": {
        "moco.queue_size": 64,
        "moco.projector.hidden": 16,
        "moco.projector.outputs": 8,
        "moco.norm_groups": 2,
    },
    "cifar10": {
        "augment.blur": 0.0,
        "augment.crop_scale": (0.08, 1.0),
        "moco.queue_size": 4096,
        "moco.temperature": 0.1,
        "moco.momentum": 0.99,
        "moco.projector": {"layers": 1},
        "optimizer.learning_rate": 0.03,
        "optimizer.weight_decay": 5e-4,
    },
    "stl10": {"moco.queue_size": 16384, "moco.momentum": 0.99},
    "imagenet100": {"moco.queue_size": 16384, "moco.momentum": 0.99},
    "imagenet": {
        "batch_size": 256,
        "duration": "200 epochs",
        "optimizer.warmup": "0 steps",
        "optimizer.spare_vectors": False,
    },
    "imagenet_v1": {
        "batch_size": 256,
        "duration": "200 epochs",
        "augment.recipe": "moco_v1",
        "moco.temperature": 0.07,
        "moco.projector": {"layers": 1},
        "optimizer.drops": (0.6, 0.8),
        "optimizer.warmup": "0 steps",
        "optimizer.spare_vectors": False,
    },
    "folder": {"moco.queue_size": 4096, "moco.momentum": 0.99, "moco.norm_groups": 4},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "moco",
        variant,
        VARIANTS,
        augment={"recipe": "moco_v2"},
        optimizer={"learning_rate": 0.03, "weight_decay": 1e-4},
        moco={
            **presets.defaults_of(moco),
            "norm_groups": 8,
            "projector": {
                "layers": 2,
                "hidden": 2048,
                "outputs": 128,
                "norm": False,
                "last_bias": True,
            },
        },
    )
