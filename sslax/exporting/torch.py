"""A trained encoder as weights of torchvision's or timm's network of the same architecture."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from sslax import models, paths
from sslax.errors import UserError
from sslax.exporting.program import (
    FEATURES,
    check_poses,
    describe,
    encoder_size,
    origin,
    preparation,
)
from sslax.inference.encoder import Trained
from sslax.models import ResNet, ViT, torch_names
from sslax.models.weights import flatten
from sslax.types import Batch, Representation

FILE, TORCH_FILE = "model.safetensors", "model.pth"


def write(trained: Trained, folder: Path, poses: bool) -> list[Path]:
    """Writes `model.safetensors`, `model.json` and, where PyTorch is installed, `model.pth`.

    Raises:
        UserError: neither torchvision nor timm has the encoder, or the run learned none.
    """
    _check_task(trained)
    check_poses(trained, poses)
    size, channels = encoder_size(trained), trained.channels
    module = models.encoder_module(trained.config.model)
    build = _build(trained, module, size, channels)
    arrays = flatten({"params": trained.params, **trained.model_state})
    if isinstance(module, ViT):
        tensors = torch_names.to_timm(arrays, module, size, channels)
    else:
        tensors = torch_names.to_torchvision(arrays)
    file = folder / FILE
    with paths.replacing(file) as unfinished:
        safetensors.numpy.save_file(tensors, unfinished)
    width = jax.eval_shape(trained.method.predict, trained.variables, _example(trained)).features
    about = origin(trained) | {
        "input": {"shape": ["b", channels, *size], "dtype": "float32"},
        "before": preparation(trained),
        "outputs": {"features": {"shape": ["b", width.shape[-1]], "meaning": FEATURES}},
    }
    description = describe(folder, "torch", about, file=FILE, build=build)
    return [file, *_write_pth(tensors, folder), description]


def _example(trained: Trained) -> Batch:
    return {"image": jax.ShapeDtypeStruct((1, *trained.image_shape), jnp.uint8)}


def _check_task(trained: Trained) -> None:
    if not isinstance(trained.method.task, Representation):
        task = type(trained.method.task).__name__.lower()
        raise UserError(
            f"--format=torch writes encoders alone, and this run learned {task}: use "
            "--format=onnx or --format=stablehlo."
        )


def _write_pth(tensors: dict[str, np.ndarray], folder: Path) -> list[Path]:
    try:
        import torch
    except ImportError:
        return []
    file = folder / TORCH_FILE
    with paths.replacing(file) as unfinished:
        torch.save({n: torch.from_numpy(np.array(t)) for n, t in tensors.items()}, unfinished)
    return [file]


def _build(trained: Trained, module: Any, size: tuple[int, int], channels: int) -> list[str]:
    """Lines of Python that make PyTorch's network.

    Raises:
        UserError: there is none.
    """
    if isinstance(module, ViT):
        return _build_timm(trained, module, size, channels)
    if isinstance(module, ResNet):
        return _build_torchvision(trained, module, channels)
    raise _unknown(trained, f'config.model.name = "{trained.config.model.name}"', "any network")


def _build_torchvision(trained: Trained, module: ResNet, channels: int) -> list[str]:
    if module.width != 1:
        raise _unknown(trained, f"config.model.width = {module.width:g}", "ResNets of width 1")
    if len(module.blocks) != 4:
        blocks = tuple(module.blocks)
        raise _unknown(trained, f"config.model.blocks = {blocks}", "ResNets of four stages")
    block = "Bottleneck" if module.bottleneck else "BasicBlock"
    lines = [
        "from torch import nn",
        "from torchvision.models import resnet",
        f"model = resnet.ResNet(resnet.{block}, {list(module.blocks)})",
        "model.fc = nn.Identity()",
    ]
    side, stride, padding = 7, 2, 3
    if module.patch_stem:
        side, stride, padding = module.patch_stem, module.patch_stem, 0
    elif module.small_stem:
        side, stride, padding = 3, 1, 1
    if side != 7 or channels != 3:
        numbers = f"{channels}, 64, {side}, {stride}, {padding}"
        lines.append(f"model.conv1 = nn.Conv2d({numbers}, bias=False)")
    if module.patch_stem or module.small_stem:
        lines.append("model.maxpool = nn.Identity()")
    return lines


def _build_timm(trained: Trained, module: ViT, size: tuple[int, int], channels: int) -> list[str]:
    if module.post_norm:
        raise _unknown(trained, "config.model.post_norm = True", "pre-norm transformers")
    knobs = {
        "img_size": size,
        "patch_size": module.patch,
        "in_chans": channels,
        "num_classes": 0,
        "embed_dim": module.width,
        "depth": module.depth,
        "num_heads": module.heads,
        "mlp_ratio": module.mlp_ratio,
        "global_pool": "token" if module.pool == "cls" else "avg",
        "class_token": module.class_token,
        "fc_norm": False,
    }
    knobs |= {"reg_tokens": module.registers} if module.registers else {}
    knobs |= {"init_values": module.layer_scale} if module.layer_scale else {}
    given = [f"{name}={value!r}" for name, value in knobs.items()]
    lines = ["from timm.models.vision_transformer import VisionTransformer"]
    if module.swiglu:
        units = trained.params["block01"]["linear1"]["kernel"].shape[-1]
        given = [entry for entry in given if not entry.startswith("mlp_ratio")]
        given += [f"mlp_ratio={units} / {module.width}", "mlp_layer=SwiGLUPacked"]
        given.append('act_layer="silu"')
        lines.append("from timm.layers import SwiGLUPacked")
    return [*lines, f"model = VisionTransformer({', '.join(given)})"]


def _unknown(trained: Trained, setting: str, known: str) -> UserError:
    return UserError(
        f"This run's encoder has {setting}, and torchvision and timm have {known} alone: use "
        "--format=onnx or --format=stablehlo."
    )
