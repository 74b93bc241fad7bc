"""Presets of data sets, shared by all configs: the data, the network's stem, batch and duration.

For each of its variants, a config names only the values that are particular to its method.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from sslax.errors import UserError, nearest
from sslax.training import configuration

Values = Mapping[str, Any]  # by dotted name

_IMAGENET_COLORS = {"model.mean": (0.485, 0.456, 0.406), "model.std": (0.229, 0.224, 0.225)}

EMBEDDED: Values = {
    "batch_size": 128,
    "duration": "30 epochs",
    "log_every": "20 steps",
    "checkpoint_every": "5 epochs",
    "model.blocks": (1, 1),
    "model.patch_stem": 4,
    "model.mean": (0.286,),
    "model.std": (0.353,),
    "augment.size": 28,
    "optimizer.warmup": "10 %",
}
"""8,000 images of Fashion-MNIST that come with the package: minutes on two cores."""

TINY: Values = {
    "batch_size": 16,
    "duration": "12 steps",
    "log_every": "2 steps",
    "checkpoint_every": "4 steps",
    "model.width": 0.125,
    "augment.size": 12,
    "optimizer.warmup": "17 %",
}
"""On top of `EMBEDDED`: every part of a run in seconds; nothing is learned."""

EMBEDDED_VIEWS: Values = {
    "augment.interpolation": "bilinear",
    "augment.crop_scale": (0.5, 1.0),
    "augment.strength": 0.5,
    "augment.grayscale": 0.0,
    "augment.blur": 0.0,
    "augment.solarize": 0.0,
    "augment.erase": 1.0,
}
"""Random views of the embedded images, chosen by experiments/search_default.py."""

EMBEDDED_MUON: Values = {
    "optimizer.name": "muon",
    "optimizer.learning_rate": 3e-3,
    "optimizer.scaling": "none",
    "optimizer.weight_decay": 0.05,
}
"""Transformers on the embedded images: Muon, which learns more than AdamW in ten epochs."""

CIFAR10_VIEWS: Values = {
    "augment.interpolation": "bilinear",
    "augment.strength": 0.5,
    "augment.blur": 0.0,
}
"""Random views of images of 32 pixels: weaker color jitter, no blur."""

CIFAR10: Values = {
    "batch_size": 512,
    "duration": "200 epochs",
    "log_every": "100 steps",
    "checkpoint_every": "10 epochs",
    "data.source": "npz",
    "model.small_stem": True,
    "model.dtype": "bfloat16",
    "model.mean": (0.4914, 0.4822, 0.4465),
    "model.std": (0.2470, 0.2435, 0.2616),
    "augment.size": 32,
    "optimizer.warmup": "5 %",
}
"""CIFAR-10 in an .npz archive, ResNet-18 with a small stem."""

STL10: Values = {
    "batch_size": 512,
    "duration": "200 epochs",
    "log_every": "100 steps",
    "checkpoint_every": "5 epochs",
    "data.source": "tfds",
    "data.tfds.name": "stl10",
    "data.tfds.train_split": "unlabelled",
    "data.tfds.test_split": "",
    "data.labels": False,
    "evaluate.data.tfds": {"train_split": "train", "test_split": "test"},
    "evaluate.data.labels": True,
    "model.small_stem": True,
    "model.dtype": "bfloat16",
    **_IMAGENET_COLORS,
    "augment.size": 96,
    "optimizer.warmup": "5 %",
}
"""STL-10's 100,000 unlabeled images; its labeled parts are for the evaluation."""

IMAGENET100: Values = {
    "batch_size": 256,
    "duration": "200 epochs",
    "log_every": "100 steps",
    "checkpoint_every": "5 epochs",
    "data.source": "folder",
    "data.image_size": 256,
    "model.dtype": "bfloat16",
    **_IMAGENET_COLORS,
    "augment.size": 224,
    "optimizer.warmup": "5 %",
}
"""A hundred classes of ImageNet as class folders: data.path and data.test_path; ResNet-18."""

IMAGENET: Values = {
    "batch_size": 4096,
    "duration": "100 epochs",
    "log_every": "50 steps",
    "checkpoint_every": "1 epoch",
    "data.source": "tfds",
    "data.tfds.name": "imagenet2012",
    "data.tfds.test_split": "validation",
    "data.image_size": 256,
    "model.name": "resnet50",
    "model.dtype": "bfloat16",
    **_IMAGENET_COLORS,
    "augment.size": 224,
    "optimizer.warmup": "10 %",
}
"""ImageNet, ResNet-50."""

FOLDER: Values = {
    "batch_size": 128,
    "duration": "100 epochs",
    "checkpoint_every": "2 epochs",
    "data.source": "folder",
    "data.image_size": 72,
    "data.labels": False,
    "model.small_stem": True,
    "model.width": 0.5,
    **_IMAGENET_COLORS,
    "augment.size": 64,
    "optimizer.warmup": "5 %",
}
"""Your own images at 64 pixels; with class subfolders, set config.data.labels=True."""

_GEOMETRY: Values = {
    "batch_size": 8,
    "duration": "1500 steps",
    "log_every": "50 steps",
    "checkpoint_every": "500 steps",
    "data.labels": False,
    "model.mean": (0.45, 0.45, 0.45),
    "model.std": (0.225, 0.225, 0.225),
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-4,
    "optimizer.scaling": "none",
    "optimizer.weight_decay": 0.0,
    "optimizer.drops": (0.75,),
}
"""Depth and motion: Adam, whose rate drops to a tenth after three quarters of the run."""

SCENES: Values = {
    **_GEOMETRY,
    "data.source": "scenes",
    "data.size": (64, 128),
    "model.name": "resnet10",
    "model.width": 0.5,
}
"""Rooms that are rendered while training, with exact truth for the test: minutes on two cores."""

MOTORCYCLE: Values = {
    "batch_size": 1,
    "duration": "1000 steps",
    "data.source": "motorcycle",
    "data.size": (160, 224),
}
"""On top of `SCENES`: one real pair with measured disparity, to overfit."""

TINY_RENDERED: Values = {
    "batch_size": 8,
    "duration": "12 steps",
    "log_every": "2 steps",
    "checkpoint_every": "4 steps",
    "data.source": "scenes",
    "data.size": (32, 48),
    "data.scenes.test": 8,
}
"""A dozen steps on the smallest scenes, of depth or of flow."""

TINY_SCENES: Values = {
    **TINY_RENDERED,
    "model.blocks": (1, 1),
    "model.width": 0.125,
    "optimizer.learning_rate": 1e-3,
}
"""On top of `SCENES`: takes seconds, runs everything, learns nothing."""

VIDEO: Values = {
    **_GEOMETRY,
    "batch_size": 12,
    "duration": "20 epochs",
    "log_every": "50 steps",
    "checkpoint_every": "1 epoch",
    "data.source": "video",
    "data.size": (192, 640),
}
"""Your own video: data.path, data.camera.intrinsics, a data.size of its aspect; ResNet-18."""

STEREO: Values = {**VIDEO, "data.source": "stereo"}
"""Your own rectified pairs: data.path, data.camera.intrinsics and .baseline; ResNet-18."""

KITTI: Values = {
    **VIDEO,
    "data.source": "kitti",
    "data.fitting": "stretch",
    "log_every": "100 steps",
    "model.dtype": "bfloat16",
    "evaluate.depth.crop": "garg",
}
"""KITTI's raw drives, Eigen's split: data.path; ResNet-18."""

GEOMETRIC_PRESETS: Mapping[str, Values] = {
    "": SCENES,
    "scenes": SCENES,
    "video": VIDEO,
    "stereo": STEREO,
    "kitti": KITTI,
}
"""What `PRESETS` are for images are these for frames and pairs whose geometry is learned."""

PRESETS: Mapping[str, Values] = {
    "": EMBEDDED,
    "cifar10": CIFAR10,
    "stl10": STL10,
    "imagenet100": IMAGENET100,
    "imagenet": IMAGENET,
    "folder": FOLDER,
}


def config(
    method: str,
    variant: str,
    variants: Mapping[str, Values],
    *,
    presets: Mapping[str, Values] = PRESETS,
    tiny: Values = TINY,
    **sections: dict[str, Any],
) -> ConfigDict:
    """The whole config of a method's variant.

    Later values replace earlier ones: the defaults, the preset whose name is the variant's up to
    its first underscore ("imagenet_vit" takes "imagenet"), the method's `sections`, and what
    `variants` says of the variant. The variant "tiny" is the embedded one with `tiny` and its own
    values upon it.

    Args:
        method: key of `sslax.methods.METHODS`.
        variant: the part of `--config=FILE:VARIANT` after the colon.
        variants: of each variant, the values that are the method's own, by dotted name.
        presets: the sets of data by the variant's name; "" is the embedded one.
        tiny: what makes it a matter of seconds.
        **sections: the method's own section, named as the method, and others that it adds to.

    Raises:
        UserError: there is no such variant; the nearest one is named.

    Example:
        >>> variants = {"": {}, "imagenet": {"optimizer.learning_rate": 0.2}}
        >>> made = config("simclr", "imagenet", variants, augment={"recipe": "simclr"})
        >>> made.model.name, made.optimizer.learning_rate
        ('resnet50', 0.2)
    """
    if variant not in variants:
        known = nearest(variant, [name for name in variants if name])
        raise UserError(f'This config has no variant "{variant}": {known}')
    made = configuration.defaults()
    is_tiny = variant == "tiny"
    with made.unlocked():
        made.method = method
        made.augment = {}
        made.update_from_flattened_dict(presets["" if is_tiny else variant.partition("_")[0]])
        made.update(sections)
    values = configuration.flat(variants[variant])
    if is_tiny:
        values = {**configuration.flat(variants[""]), **tiny, **values}
    with made.augment.unlocked(), made.optimizer.rates.unlocked(), made.evaluate.data.unlocked():
        made.update_from_flattened_dict(values)
    return made


def defaults_of(factory: Callable, *names: str) -> dict[str, Any]:
    """Defaults of a method's knobs, so that its config does not repeat them.

    Args:
        factory: of a method.
        *names: of keyword-only arguments that have a default; none for all of them.

    Raises:
        ValueError: the factory has no such default.

    Example:
        >>> def simclr(encoder, *, augmentation, temperature=0.1): ...
        >>> defaults_of(simclr)
        {'temperature': 0.1}
    """
    parameters = inspect.signature(factory).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    if unknown := [name for name in names if name not in defaults]:
        raise ValueError(f"{factory.__name__} has no default for {unknown[0]!r}.")
    return {name: defaults[name] for name in names} if names else defaults
