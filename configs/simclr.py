"""SimCLR (Chen et al., ICML 2020).

    python -m sslax.main --config=configs/simclr.py              # embedded Fashion-MNIST, CPU
    python -m sslax.main --config=configs/simclr.py:cifar10 --config.data.path=cifar10.npz
    python -m sslax.main --config=configs/simclr.py:stl10        # see docs/data.md
    python -m sslax.main --config=configs/simclr.py:imagenet
    python -m sslax.main --config=configs/simclr.py:folder --config.data.path=DIR

Expected: see the table in README.md.
"""

from ml_collections import ConfigDict

from sslax import configuration

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant: '' (embedded), cifar10, stl10, imagenet, folder or tiny."""
    variants = {
        "": embedded,
        "cifar10": cifar10,
        "stl10": stl10,
        "imagenet": imagenet,
        "folder": folder,
        "tiny": tiny,
    }
    config = configuration.defaults()
    with config.unlocked():
        config.method = "simclr"
        config.augment = {"recipe": "simclr"}
        config.simclr = {
            "temperature": 0.2,
            "projector": {"layers": 2, "hidden": 256, "outputs": 128},
        }
        configuration.choose(variants, variant)(config)
    return config


def embedded(config: ConfigDict) -> None:
    """8,000 images of Fashion-MNIST, minutes on two cores; see experiments/search_default.py."""
    config.batch_size = 128
    config.duration = "30 epochs"
    config.log_every = "20 steps"
    config.checkpoint_every = "5 epochs"
    config.model.update(blocks=(1, 1), patch_stem=4, mean=(0.286,), std=(0.353,))
    config.augment.update(
        size=28, crop_scale=(0.5, 1.0), strength=0.5, grayscale=0.0, blur=0.0, erase=1.0
    )
    config.simclr.temperature = 0.1
    config.optimizer.update(learning_rate=0.4, warmup="3 epochs", weight_decay=5e-4)


def cifar10(config: ConfigDict) -> None:
    """CIFAR-10 with a ResNet-18: 200 epochs, kNN near .85."""
    config.batch_size = 512
    config.duration = "200 epochs"
    config.log_every = "100 steps"
    config.checkpoint_every = "10 epochs"
    config.data.source = "npz"
    config.model.update(
        name="resnet18",
        small_stem=True,
        dtype="bfloat16",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    )
    config.augment.update(size=32, strength=0.5, blur=0.0)
    config.simclr.temperature = 0.1
    config.simclr.projector.update(hidden=512, outputs=128)
    config.optimizer.update(learning_rate=0.12, warmup="10 epochs", weight_decay=5e-4)


def stl10(config: ConfigDict) -> None:
    """STL-10's 100,000 unlabelled images; its labelled parts serve the evaluation."""
    config.batch_size = 512
    config.duration = "200 epochs"
    config.log_every = "100 steps"
    config.checkpoint_every = "5 epochs"
    config.data.update(
        source="tfds", name="stl10", train_split="unlabelled", test_split="", labels=False
    )
    config.evaluate.data = {"train_split": "train", "test_split": "test", "labels": True}
    config.model.update(
        name="resnet18", small_stem=True, dtype="bfloat16", mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    config.augment.update(size=96, strength=0.5)
    config.simclr.projector.update(hidden=512, outputs=128)
    config.optimizer.update(learning_rate=0.3, warmup="10 epochs")


def imagenet(config: ConfigDict) -> None:
    """The paper's: ResNet-50, batch 4096, LARS, 100 epochs; linear probe 64.5 %."""
    config.batch_size = 4096
    config.duration = "100 epochs"
    config.log_every = "50 steps"
    config.checkpoint_every = "1 epoch"
    config.data.update(source="tfds", name="imagenet2012", test_split="validation", image_size=256)
    config.model.update(name="resnet50", dtype="bfloat16", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    config.augment.update(size=224)
    config.simclr.temperature = 0.1
    config.simclr.projector.update(layers=3, hidden=2048, outputs=128)
    config.optimizer.update(name="lars", learning_rate=0.3, warmup="10 epochs", weight_decay=1e-4)


def folder(config: ConfigDict) -> None:
    """Images of one's own at 64 pixels; with class subfolders set config.data.labels=True."""
    config.batch_size = 128
    config.duration = "100 epochs"
    config.checkpoint_every = "2 epochs"
    config.data.update(source="folder", image_size=72, labels=False)
    config.model.update(small_stem=True, width=0.5, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    config.augment.update(size=64, crop_scale=(0.2, 1.0), strength=0.5)
    config.simclr.temperature = 0.1
    config.optimizer.update(learning_rate=0.12, warmup="5 epochs", weight_decay=5e-4)


def tiny(config: ConfigDict) -> None:
    """Seconds: the whole machinery, nothing learned."""
    embedded(config)
    config.batch_size = 16
    config.duration = "12 steps"
    config.log_every = "2 steps"
    config.checkpoint_every = "4 steps"
    config.model.update(blocks=(1, 1), width=0.125)
    config.augment.update(size=12)
    config.simclr.projector.update(hidden=16, outputs=8)
    config.optimizer.update(warmup="2 steps")
