"""Published vision transformers: DINOv2's and DINOv3's weights, by our names and shapes.

Files have the names of facebookresearch's code, which DINO's, iBOT's and timm's also have, or those
of transformers. Two tables say what becomes of a name; the rest is reshaping.
"""

import math
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sslax.errors import UserError

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class PublishedViT(NamedTuple):
    """A vision transformer from a file that does not describe it.

    Attributes:
        arrays: float32, by the names that `save_weights` gives them.
        architecture: what the file says of the `model` section of a config: all but its name.
        width: of the tokens.
        head_width: of the heads' queries; None where the file does not say it.
        size: (H, W) in pixels of the images that its positions are for.
        channels: of these images.
    """

    arrays: dict[str, np.ndarray]
    architecture: dict[str, Any]
    width: int
    head_width: int | None
    size: tuple[int, int]
    channels: int


def is_vit_file(tensors: Mapping[str, Any]) -> bool:
    """Whether a state dict is a vision transformer's.

    Example:
        >>> is_vit_file({"backbone.cls_token": 0}), is_vit_file({"conv1.weight": 0})
        (True, False)
    """
    return any(name.endswith("cls_token") for name in tensors)


def read_vit(tensors: Mapping[str, Any], source: str | os.PathLike) -> PublishedViT:
    """Reads the state dict of a vision transformer, and what its shapes say of the network.

    The class token is given its position, and the biases of keys that DINOv3 masks are 0.

    Args:
        tensors: arrays of NumPy or PyTorch by name; `is_vit_file` is True.
        source: where they come from, for messages.

    Raises:
        UserError: there are several networks, or one that lacks parts or has some that `ViT` does
            not have.
    """
    parts = _renamed(_one_network(tensors, source), source)
    depth = max((int(name[5:7]) for name in parts if name.startswith("block")), default=0)
    for i in range(1, depth + 1):
        _fuse(parts, f"block{i:02}/attention/qkv", ("query", "key", "value"))
        _fuse(parts, f"block{i:02}/linear1", ("gate", "value"))
    for name in ("patch_embedding/weight", "block01/linear1/weight", "block01/linear2/weight"):
        if name not in parts:
            raise UserError(f"{source} lacks the weights of {name.removesuffix('/weight')}.")
    kernel, periods = parts["patch_embedding/weight"], parts.pop("periods", None)
    width, channels, patch, _ = kernel.shape
    gated = parts["block01/linear1/weight"].shape[0] == 2 * parts["block01/linear2/weight"].shape[1]
    units = parts["block01/linear2/weight"].shape[1]
    learned, registers = "position" in parts, parts.get("registers", np.zeros((1, 0, width)))
    size = (224 // patch * patch,) * 2
    if learned:
        size = _split_positions(parts, patch, source)
    if periods is not None:
        _check_periods(periods, source)
    architecture = {
        "blocks": (depth,),
        "patch": patch,
        "mlp_ratio": (1.5 if gated else 1.0) * units / width,
        "pool": "cls",
        "position": "learned" if learned else "rope",
        "position_antialias": not learned or registers.shape[1] > 0,
        "class_token": True,
        "mask_token": "mask_token" in parts,
        "registers": registers.shape[1],
        "layer_scale": 1e-5 if "block01/scale1" in parts else 0.0,
        "swiglu": gated,
        "norm_epsilon": 1e-6 if learned else 1e-5,
        **(_IMAGENET if channels == 3 else {}),
    }
    arrays = dict(_shaped(name, array) for name, array in parts.items() if array.size)
    head_width = None if periods is None else 4 * len(periods)
    return PublishedViT(arrays, architecture, width, head_width, size, channels)


# From either code's names to ours, in this order; what is left is the name of a parameter.
_RENAMED = (
    (r"^(embeddings|encoder|model)\.", ""),
    (r"^(blocks|layer)\.(\d+\.)?(?=\d+\.\D)", "block."),  # blocks may be in chunks
    (r"^(pos_embed|position_embeddings)$", "position"),
    (r"^cls_token$", "class_token"),
    (r"^(storage_tokens|register_tokens)$", "registers"),
    (r"^patch_embed(ding)?s?\.(proj(ection)?\.)?", "patch_embedding."),
    (r"^rope_embed\.periods$", "periods"),
    (r"^layernorm\.", "norm."),
    (r"\.(attn|attention)\.(attention\.)?", ".attention."),
    (r"attention\.(proj|o_proj|output\.dense)\.", "attention.projection."),
    (r"attention\.q(uery|_proj)\.", "attention.qkv.query."),
    (r"attention\.k(ey|_proj)\.", "attention.qkv.key."),
    (r"attention\.v(alue|_proj)\.", "attention.qkv.value."),
    (r"\.(ls|layer_scale)([12])\.(gamma|lambda1)$", r".scale\2"),
    (r"\.mlp\.(fc1|w12|weights_in)\.", ".linear1."),
    (r"\.mlp\.(fc2|w3|weights_out|down_proj)\.", ".linear2."),
    (r"\.mlp\.(w1|gate_proj)\.", ".linear1.gate."),
    (r"\.mlp\.(w2|up_proj)\.", ".linear1.value."),
)
_KNOWN = re.compile(
    r"(position|class_token|mask_token|registers|periods|(patch_embedding|norm)/(weight|bias)"
    r"|block\d\d/(scale[12]|(norm[12]|linear2|attention/projection)/(weight|bias)"
    r"|attention/qkv/((query|key|value)/)?(weight|bias)|attention/qkv/bias_mask"
    r"|linear1/((gate|value)/)?(weight|bias)))"
)
# Of classification heads, and DINOv3's norm of small crops, which only its training uses.
_UNUSED = re.compile(r"(head|classifier|local_cls_norm)\.")


def _one_network(tensors: Mapping[str, Any], source: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays beside the class token, whose prefix they share, without it."""
    prefixes = {re.sub(r"(embeddings\.)?cls_token$", "", n) for n in tensors if is_vit_file({n: 0})}
    if len(prefixes) > 1:
        raise UserError(
            f"{source} holds {len(prefixes)} vision transformers, {', '.join(sorted(prefixes))}: "
            "save the state dict of one of them in a file of its own."
        )
    (prefix,) = prefixes
    return {
        name.removeprefix(prefix): _float32(tensor)
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _float32(tensor: Any) -> np.ndarray:
    """An array of NumPy or, in any of its types, of PyTorch."""
    return np.asarray(tensor.float() if hasattr(tensor, "float") else tensor, np.float32)


def _renamed(arrays: Mapping[str, np.ndarray], source: str | os.PathLike) -> dict[str, np.ndarray]:
    found = {}
    for name, array in arrays.items():
        if _UNUSED.match(name):
            continue
        path = name
        for pattern, replacement in _RENAMED:
            path = re.sub(pattern, replacement, path)
        path = re.sub(r"^block\.(\d+)", lambda m: f"block{int(m[1]) + 1:02}", path)
        path = path.replace(".", "/")
        if not _KNOWN.fullmatch(path):
            raise UserError(
                f"{source} holds {name!r}, which `models.ViT` does not have: it is another network "
                "than DINO's, DINOv2's and DINOv3's vision transformers."
            )
        found[path] = array
    return found


def _fuse(parts: dict[str, np.ndarray], layer: str, names: tuple[str, ...]) -> None:
    """Puts linear maps side by side that are one of ours; a missing bias is 0."""
    weights = [parts.pop(f"{layer}/{name}/weight", None) for name in names]
    biases = [parts.pop(f"{layer}/{name}/bias", None) for name in names]
    given = [(weight, bias) for weight, bias in zip(weights, biases) if weight is not None]
    if given:
        parts[f"{layer}/weight"] = np.concatenate([weight for weight, _ in given])
        parts[f"{layer}/bias"] = np.concatenate(
            [np.zeros(len(weight)) if bias is None else bias for weight, bias in given]
        )
    if f"{layer}/weight" not in parts:
        return
    bias = parts.setdefault(f"{layer}/bias", np.zeros(len(parts[f"{layer}/weight"])))
    mask = parts.pop(f"{layer}/bias_mask", np.ones(len(bias)))
    parts[f"{layer}/bias"] = np.where(mask == 0, 0, bias)


def _split_positions(
    parts: dict[str, np.ndarray], patch: int, source: str | os.PathLike
) -> tuple[int, int]:
    """Adds the class token's position to it, and makes a table of the rest; the images' size."""
    first, table = parts["position"][0, 0], parts["position"][0, 1:]
    side = math.isqrt(len(table))
    if side**2 != len(table):
        raise UserError(
            f"{source} holds {len(table)} positions of patches, which make no square; what the "
            "grid of patches is cannot be known from them."
        )
    parts["class_token"] = parts["class_token"] + first
    parts["position"] = table.reshape(side, side, -1)
    return side * patch, side * patch


def _check_periods(periods: np.ndarray, source: str | os.PathLike) -> None:
    """Compares the periods of rotary positions with ours, as exactly as bfloat16 has them."""
    expected = 100.0 ** (np.arange(len(periods)) / len(periods))
    if not np.allclose(periods, expected, rtol=0.01):
        raise UserError(
            f"{source} holds rotary positions with the periods {periods.round(2).tolist()}; those "
            "of `models.rope_angles` have the base 100."
        )


def _shaped(path: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """A parameter by our name, and in our layout."""
    array = np.asarray(array, np.float32)
    if path in ("class_token", "mask_token"):
        array = array.reshape(-1)
    elif path == "registers":
        array = array[0]
    elif path == "patch_embedding/weight":
        array = array.transpose(2, 3, 1, 0).reshape(-1, len(array))
    elif path.endswith("weight") and array.ndim == 2:
        array = array.T
    leaf = "scale" if "norm" in path else "kernel"
    return "params/" + re.sub("weight$", leaf, path), array
