"""SimSiam (Chen and He, CVPR 2021).

    python -m sslax.main --config=configs/simsiam.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/simsiam.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/simsiam.py:imagenet

Expected: embedded, see README.md. cifar10: kNN .764 (lightly's benchmark, 200 epochs; .904 at 800).
imagenet100: kNN .534 (lightly, ResNet-18). imagenet: linear 68.3 % (mmselfsup, 100 epochs). The
paper holds the predictor's learning rate constant; here it follows the cosine of the rest.
"""

from ml_collections import ConfigDict

from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.EMBEDDED_VIEWS,
        "simsiam.projector": {"layers": 2, "hidden": 512, "outputs": 512},
        "simsiam.predictor": {"hidden": 128, "outputs": 512},
        "optimizer": {"learning_rate": 0.2, "weight_decay": 5e-4},
    },
    "tiny": {
        "simsiam.projector": {"hidden": 16, "outputs": 16},
        "simsiam.predictor": {"hidden": 8, "outputs": 16},
    },
    "cifar10": {
        **presets.CIFAR10_VIEWS,
        "simsiam.projector": {"layers": 2},
        "optimizer.learning_rate": 0.03,
        "optimizer.weight_decay": 5e-4,
    },
    "stl10": {},
    "imagenet100": {"optimizer.learning_rate": 0.12},
    "imagenet": {
        "batch_size": 512,
        "model.zero_init_residual": True,
        "optimizer.warmup": "0 steps",
        "optimizer.spare_vectors": False,
    },
    "folder": {"optimizer.learning_rate": 0.12, "optimizer.weight_decay": 5e-4},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "simsiam",
        variant,
        VARIANTS,
        augment={"recipe": "moco_v2"},
        optimizer={"learning_rate": 0.05, "weight_decay": 1e-4},
        simsiam={
            "projector": {"layers": 3, "hidden": 2048, "outputs": 2048, "last_norm": "plain"},
            "predictor": {"layers": 2, "hidden": 512, "outputs": 2048, "last_bias": True},
        },
    )
