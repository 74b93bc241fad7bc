"""What a step has to know of a data set, where the data set is not here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sslax import data
from sslax.errors import UserError
from sslax.training.plan import describe

ASSUMED = 2**17  # examples of a set whose number is not known


class Published(NamedTuple):
    """A set as its authors publish it; None for what a config decides, or its owner.

    Attributes:
        name: of the set.
        examples: in the training set.
        classes: None where it has no labels.
        size: height and width of its images.
    """

    name: str
    examples: int | None = None
    classes: int | None = None
    size: tuple[int, int] | None = None


IMAGES: Mapping[str, Published] = {
    "cifar10": Published("CIFAR-10", 50_000, 10, (32, 32)),
    "stl10": Published("STL-10, unlabeled", 100_000, None, (96, 96)),
    "imagenet100": Published("ImageNet-100", 126_689, 100),
    "imagenet": Published("ImageNet", 1_281_167, 1_000),
    "imagenet_minimal": Published("Imagenette", 9_469, 10),
}
"""By the variant of a config, or by what precedes its first underscore."""

FRAMES: Mapping[str, Published] = {
    "kitti": Published("KITTI, the split of Eigen and Zhou", 39_810),
    "flying_chairs": Published("FlyingChairs", 22_232, None, (384, 512)),
    "sintel": Published("MPI Sintel's test scenes", 552, None, (436, 1024)),
    "kitti_flow": Published("KITTI 2015, multi-view", 4_000, None, (375, 1242)),
}
"""By `data.source`."""

CALIBRATED = ("video", "stereo", "kitti", "cityscapes")  # sources whose records have intrinsics
AT_HAND = ("embedded", "scenes", "motorcycle", "photographs")  # sources that read no path


class Contents(NamedTuple):
    """The contents of a training set.

    Attributes:
        spec: as `training.plan.make_plan` takes it, and `training.plan.describe` gives it.
        origin: where it is from, for the report.
        source: what generates the records on the device; None where they are stored.
        known: whether the number of examples is.
    """

    spec: dict[str, Any]
    origin: str
    source: Any = None
    known: bool = True

    def feed(self, config: ConfigDict, mesh: Mesh) -> data.AbstractFeed:
        """The feed of a run, without data."""
        spec = self.spec
        records = {"image": jax.ShapeDtypeStruct(tuple(spec["image_shape"]), np.uint8)}
        if spec["classes"] is not None:
            records["label"] = jax.ShapeDtypeStruct((), np.int32)
        for name, (dtype, shape) in spec.get("others", {}).items():
            records[name] = jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype))
        mode = config.data.device
        return data.abstract_feed(
            records if self.source is None else self.source,
            length=spec["examples"],
            batch_size=config.batch_size,
            mesh=mesh,
            mode="stream" if mode == "auto" and not self.known else mode,
            resident_bytes=config.data.resident_bytes,
        )


def contents_of(
    config: ConfigDict,
    variant: str,
    *,
    image: Sequence[int] = (),
    examples: int | None = None,
    classes: int | None = None,
) -> Contents:
    """The contents of the training set of a config: read, or as published, or as the user says.

    Where the user says nothing, a set that comes with the package, or that `config.data.path` has,
    is opened; no image but the first is read.

    Args:
        config: a whole config.
        variant: of its file.
        image: the user's word: shape of the stored images, `[H, W, C]` or `[V, H, W, C]`.
        examples: likewise, the size of the training set.
        classes: likewise, the number of classes.

    Raises:
        UserError: what a step depends on is not known; the flag that says it is named.
    """
    section = config.data
    is_here = section.source in AT_HAND or (section.path and Path(section.path).exists())
    if is_here and not (image or examples or classes):
        return _read(section)
    frames = section.frames > 1 or section.stereo
    if frames:
        published = FRAMES.get(section.source)
    else:
        published = IMAGES.get(variant) or IMAGES.get(variant.partition("_")[0])
    shape = tuple(image) or _image_shape(section, published, frames)
    if not shape:
        raise UserError(
            "The shape of the images is not known: say it by --image=H,W,C (or V,H,W,C for V "
            f"frames of a sample), or set config.data.{'size' if frames else 'image_size'}."
        )
    classes = classes or (published and published.classes)
    if section.labels and not frames and classes is None:
        raise UserError(
            "The number of classes is not known: say it by --classes=N, or set "
            "config.data.labels=False."
        )
    number = examples or (published and published.examples)
    spec: dict[str, Any] = {
        "examples": number or max(ASSUMED, config.batch_size),
        "image_shape": list(shape),
        "classes": classes if section.labels and not frames else None,
    }
    if frames:
        spec["others"] = _others(section, shape[0])
    origin = published.name if published else f"data.source={section.source!r}"
    return Contents(spec, origin, known=number is not None)


def _read(section: ConfigDict) -> Contents:
    """The contents of a set that is here."""
    section = section.copy_and_resolve_references()
    section.device = "stream"  # nothing is read into memory
    section.scenes.test = 0
    dataset = data.load(section)
    source = dataset.train if data.is_generated(dataset.train) else None
    return Contents(describe(dataset), section.path or f"data.source={section.source!r}", source)


def _image_shape(section: ConfigDict, published: Published | None, frames: bool) -> tuple[int, ...]:
    """The shape of a record's image as the config and the set have it; () where they do not."""
    channels = section.channels or 3
    if frames:
        size = tuple(section.size) or (published and published.size)
        return (section.frames + section.stereo, *size, channels) if size else ()
    size = (section.image_size,) * 2 if section.image_size else published and published.size
    return (*size, channels) if size else ()


def _others(section: ConfigDict, views: int) -> dict[str, list]:
    """What else a record of frames holds."""
    others: dict[str, list] = {}
    if section.source in CALIBRATED:
        others["intrinsics"] = ["float32", [3, 3]]
        if section.stereo:
            others["baseline"] = ["float32", []]
    if section.distances:
        others["distance"] = ["float32", [views - section.stereo]]
    return others
