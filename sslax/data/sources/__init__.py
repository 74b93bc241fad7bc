"""The sources of images, one module each.

A source's module has `load(config) -> Dataset`, where `config` is the `data` section of a run, and,
where it has keys of its own, the class `Section`: names, ranges and defaults of `data.NAME`.
"""

from types import ModuleType

from sslax.data.sources import (
    cityscapes,
    embedded,
    flying_chairs,
    folder,
    hf,
    kitti,
    kitti_flow,
    motorcycle,
    npz,
    photographs,
    rendered,
    sintel,
    stereo,
    tfds,
    video,
    webdataset,
)

SOURCES: dict[str, ModuleType] = {
    "embedded": embedded,
    "folder": folder,
    "npz": npz,
    "photographs": photographs,
    "tfds": tfds,
    "hf": hf,
    "webdataset": webdataset,
    # Video and stereo
    "motorcycle": motorcycle,
    "scenes": rendered,
    "video": video,
    "stereo": stereo,
    "kitti": kitti,
    "cityscapes": cityscapes,
    # Flow
    "flying_chairs": flying_chairs,
    "sintel": sintel,
    "kitti_flow": kitti_flow,
}
