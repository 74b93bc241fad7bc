"""Golden outputs of DINOv2's and DINOv3's own code, and of transformers' versions of it, for
tests/models/test_published_vits.py.

The networks are tiny; every parameter is drawn by numpy from a seed that depends on its name in the
file of weights, so that the tests can draw the same files and only their names and shapes are
stored beside the outputs.

    git clone https://github.com/facebookresearch/dinov2
    git clone https://github.com/facebookresearch/dinov3
    PYTHONPATH=dinov2:dinov3 python experiments/golden/published_vits.py \\
        tests/models/golden/published_vits.npz   # torch, transformers
"""

import json
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from dinov2.models.vision_transformer import DinoVisionTransformer as DINOv2
from dinov3.models.vision_transformer import DinoVisionTransformer as DINOv3
from torch import nn
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)

TABLE, OTHER = (16, 16), (24, 20)  # images whose grid the table of positions is for, and others
SIZE = {"embed_dim": 192, "depth": 2, "num_heads": 3, "patch_size": 4}
V2 = {**SIZE, "img_size": 16, "init_values": 1.0, "block_chunks": 0}
V3 = {
    **SIZE,
    "layerscale_init": 1e-5,
    "norm_layer": "layernormbf16",
    "mask_k_bias": True,
    "pos_embed_rope_dtype": "fp32",
}
HF = {
    "hidden_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "patch_size": 4,
    "image_size": 16,
}


def authors() -> dict[str, nn.Module]:
    """Like the published ones: plain, with registers and SwiGLU (g), DINOv3, and its largest."""
    largest = {"ffn_layer": "swiglu64", "ffn_ratio": 3, "qkv_bias": False}
    registers = {"interpolate_antialias": True, "interpolate_offset": 0.0}
    models = {
        "dinov2": DINOv2(**V2),
        "dinov2_reg": DINOv2(**V2, num_register_tokens=2, ffn_layer="swiglufused", **registers),
        "dinov3": DINOv3(**V3, n_storage_tokens=2),
        "dinov3_7b": DINOv3(
            **V3, n_storage_tokens=2, untie_global_and_local_cls_norm=True, **largest
        ),
    }
    for name in ("dinov3", "dinov3_7b"):
        models[name].init_weights()  # the mask of the keys' biases
    return models


def transformers() -> dict[str, nn.Module]:
    registers = {"num_register_tokens": 2}
    gated = {"use_gated_mlp": True, "hidden_act": "silu", "intermediate_size": 256}
    return {
        "hf_dinov2": Dinov2Model(Dinov2Config(**HF, use_swiglu_ffn=True)),
        "hf_dinov2_reg": Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**HF, **registers)),
        "hf_dinov3": DINOv3ViTModel(DINOv3ViTConfig(**HF, **registers, **gated)),
    }


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A plausible tensor: matrices scaled by their inputs, scales of norms near 1, small shifts."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = random.standard_normal(shape).astype(np.float32)
    if len(shape) > 1 and name.endswith("weight"):
        return values * np.float32(1 / np.sqrt(np.prod(shape[1:])))
    if "norm" in name and name.endswith("weight"):
        return 1 + np.float32(0.2) * np.tanh(values)
    return np.float32(0.2) * values


def filled(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Parameters drawn by their names; buffers as they are."""
    buffers = ("bias_mask", "periods")
    return {
        name: tensor
        if name.endswith(buffers)
        else torch.from_numpy(fill(name, tuple(tensor.shape)))
        for name, tensor in state.items()
    }


def of_file(model: nn.Module) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """The model of transformers from a file of drawn weights, which has names of its own."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        file = Path(folder) / "model.safetensors"
        state = filled(safetensors.torch.load_file(file))
        safetensors.torch.save_file(state, file, {"format": "pt"})
        return type(model).from_pretrained(folder), state


def main(path: str) -> None:
    random = np.random.RandomState(0)
    golden, shapes = {}, {}
    images = {size: random.standard_normal((2, *size, 3)) for size in (TABLE, OTHER)}
    models = {}
    for name, model in authors().items():
        state = filled(model.state_dict())
        model.load_state_dict(state)
        models[name] = model, state
    models |= {name: of_file(model) for name, model in transformers().items()}
    for name, (model, state) in models.items():
        shapes[name] = {key: list(tensor.shape) for key, tensor in state.items()}
        model.double().eval()
        for size, pixels in images.items():
            if name == "hf_dinov2" and size == OTHER:
                continue  # it resizes positions unlike the authors' code
            x = torch.from_numpy(pixels).permute(0, 3, 1, 2)
            with torch.no_grad():
                if name.startswith("hf"):
                    tokens = model(x).last_hidden_state
                    registers = getattr(model.config, "num_register_tokens", 0)
                    cls, patches = tokens[:, 0], tokens[:, 1 + registers :]
                else:
                    out = model.forward_features(x)
                    cls, patches = out["x_norm_clstoken"], out["x_norm_patchtokens"]
            key = f"{name}/{size[0]}x{size[1]}"
            golden[f"{key}/features"] = cls.numpy()[:, ::8].astype(np.float32)
            golden[f"{key}/patches"] = patches.numpy()[:, :, ::32].astype(np.float32)
    for size, pixels in images.items():
        golden[f"images/{size[0]}x{size[1]}"] = pixels.astype(np.float32)
    table = random.standard_normal((7, 7, 4))
    golden["table"] = table
    for antialias in (False, True):
        for grid in ((3, 5), (9, 16), (7, 6)):
            size = {"size": grid}
            if not antialias:
                size = {"scale_factor": tuple((n + 0.1) / 7 for n in grid)}
            x = torch.from_numpy(table).permute(2, 0, 1)[None]
            x = nn.functional.interpolate(x, mode="bicubic", antialias=antialias, **size)
            golden[f"resized/{int(antialias)}/{grid[0]}x{grid[1]}"] = x[0].permute(1, 2, 0).numpy()
    np.savez_compressed(path, shapes=json.dumps(shapes), **golden)


if __name__ == "__main__":
    main(sys.argv[1])
