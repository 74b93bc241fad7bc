"""Golden features of torchvision's and timm's networks with exported weights, for
tests/exporting/test_torch.py.

Needs sslax with the extra [test], torch, torchvision and timm.

    python experiments/golden/export.py tests/exporting/golden/torch.npz
"""

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))


def load_config(name: str, variant: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


def features_of(folder: Path, images: np.ndarray) -> np.ndarray:
    """What PyTorch's network makes of normalized images `[N, C, H, W]`."""
    names: dict[str, Any] = {}
    exec("\n".join(json.loads((folder / "model.json").read_text())["build"]), names)
    model = names["model"].eval()
    model.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy()


def main(path: str) -> None:
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):  # declared for wheels without the compiled operators
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import exported

    from sslax.exporting import export

    golden = {}
    for name, section in exported.ENCODERS.items():
        folder = Path(tempfile.mkdtemp())
        run = exported.write_encoder_run(folder / "run", load_config, name)
        export(run, folder / "out", format="torch")
        mean, std = (np.float32(section[part]) for part in ("mean", "std"))
        images = (exported.photographs() / np.float32(255) - mean) / std
        golden[name] = features_of(folder / "out", images.transpose(0, 3, 1, 2).copy())
        print(name, golden[name].shape, golden[name].std())
    np.savez(path, **golden)


if __name__ == "__main__":
    main(sys.argv[1])
