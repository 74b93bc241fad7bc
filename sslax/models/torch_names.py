"""Names and layouts of weights in PyTorch: torchvision's ResNets and timm's vision transformers.

Each renaming stands here once, as a pair, and serves both directions.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from sslax.models.vit import ViT, sincos_positions

# (PyTorch's, ours), of names whose parts are separated by dots.
_SHORTCUT = (("downsample.0", "downsample_conv"), ("downsample.1", "downsample_bn"))
_STATISTICS = (("running_mean", "mean"), ("running_var", "var"))
_TRANSFORMER = (
    ("patch_embed.proj.", "patch_embedding."),
    ("cls_token", "class_token"),
    ("reg_token", "registers"),
    ("attn.qkv.", "attention.qkv."),
    ("attn.proj.", "attention.projection."),
    ("mlp.fc1.", "linear1."),
    ("mlp.fc2.", "linear2."),
    ("ls1.gamma", "scale1"),
    ("ls2.gamma", "scale2"),
)


def from_torchvision(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a `ResNet` by the paths of its variables, from torchvision's state dict."""
    arrays = {}
    for name, tensor in tensors.items():
        if name.startswith("fc.") or name.endswith("num_batches_tracked"):
            continue
        array = np.asarray(tensor, np.float32)
        path = _resnet_path(name, array.ndim)
        arrays[path] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    return arrays


def to_torchvision(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `from_torchvision`, without what that drops.

    Example:
        >>> arrays = {"params/layer1_0/conv1/kernel": np.zeros((3, 3, 8, 16))}
        >>> {name: array.shape for name, array in to_torchvision(arrays).items()}
        {'layer1.0.conv1.weight': (16, 8, 3, 3)}
    """
    tensors = {}
    for path, array in arrays.items():
        array = np.asarray(array, np.float32)
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        tensors[_resnet_name(path)] = np.ascontiguousarray(array)
    return tensors


def to_timm(
    arrays: Mapping[str, Any], module: ViT, size: tuple[int, int], channels: int
) -> dict[str, np.ndarray]:
    """The state dict of timm's `VisionTransformer` with the weights of a `ViT`.

    The table of positions, also of sines and cosines, gets a row of zeros for each token that has
    none here. The mask token, which only training knows, is left out.

    Args:
        arrays: of the module, by their paths.
        module: the network. timm has no post-norm blocks.
        size: height and width of the images.
        channels: of the images.

    Returns:
        Arrays by name.
    """
    grid = size[0] // module.patch, size[1] // module.patch
    by_name = {path.partition("/")[2]: np.asarray(a, np.float32) for path, a in arrays.items()}
    by_name.pop("mask_token", None)
    positions = by_name.pop("position", None)
    if positions is None:
        positions = sincos_positions(grid, module.width)
    tokens = int(module.class_token) + module.registers
    table = np.pad(positions.reshape(-1, module.width), ((tokens, 0), (0, 0)))
    kernel = by_name.pop("patch_embedding/kernel")
    kernel = kernel.reshape(module.patch, module.patch, channels, -1).transpose(3, 2, 0, 1)
    tensors = {"pos_embed": table[None], "patch_embed.proj.weight": kernel}
    for path, array in by_name.items():
        name = _transformer_name(path)
        if name.endswith("_token"):
            array = array.reshape(1, -1, module.width)
        tensors[name] = array.T if path.endswith("kernel") else array
    return {name: np.ascontiguousarray(array) for name, array in tensors.items()}


def _resnet_path(name: str, rank: int) -> str:
    """'layer1.0.downsample.1.weight' -> 'params/layer1_0/downsample_bn/scale'."""
    collection = "batch_stats" if ".running_" in name else "params"
    for theirs, ours in (*_SHORTCUT, *_STATISTICS):
        name = name.replace(theirs, ours)
    name = re.sub(r"^(layer\d+)\.(\d+)\.", r"\1_\2.", name)
    name = re.sub("weight$", "kernel" if rank == 4 else "scale", name)
    return "/".join([collection, *name.split(".")])


def _resnet_name(path: str) -> str:
    """The inverse of `_resnet_path`; the path may begin with 'model_state/'.

    Example:
        >>> _resnet_name("params/layer1_0/downsample_bn/scale")
        'layer1.0.downsample.1.weight'
    """
    name = re.sub(r"^(model_state/)?(params|batch_stats)/", "", path).replace("/", ".")
    for theirs, ours in _SHORTCUT:
        name = name.replace(ours, theirs)
    for theirs, ours in _STATISTICS:
        name = re.sub(rf"\b{ours}$", theirs, name)
    name = re.sub(r"^(layer\d+)_(\d+)\.", r"\1.\2.", name)
    return re.sub("(kernel|scale)$", "weight", name)


def _transformer_name(path: str) -> str:
    """'block01/attention/qkv/kernel' -> 'blocks.0.attn.qkv.weight'."""
    name = re.sub(r"^block(\d+)", lambda m: f"blocks.{int(m[1]) - 1}", path).replace("/", ".")
    for theirs, ours in _TRANSFORMER:
        name = name.replace(ours, theirs)
    return re.sub(r"\.(kernel|scale)$", ".weight", name)
