"""Encoders as state dicts of torchvision's and timm's networks.

The golden features are those of PyTorch's own networks with the exported weights, made by
experiments/golden/export.py; where PyTorch is installed, they are computed again.
"""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import formulas
import numpy as np
import pytest
import safetensors.numpy
from exported import ENCODERS, loader, photographs, write_encoder_run
from torchvision_names import BOTTLENECKS, RESNET18, state_dict

import sslax
from sslax.errors import UserError
from sslax.exporting import export, torch
from sslax.models import encoder_module
from sslax.models.torch_names import from_torchvision, to_torchvision

GOLDEN = Path(__file__).parent / "golden" / "torch.npz"


@pytest.fixture(scope="module", params=ENCODERS)
def written(request, tmp_path_factory, load_config):
    """`(name, the run, what was exported of it)`."""
    folder = tmp_path_factory.mktemp(request.param)
    run = write_encoder_run(folder / "run", load_config, request.param)
    export(run, folder / "out", format="torch")
    return request.param, run, folder / "out"


def test_features_equal_those_of_torchs_networks(written):
    name, run, _ = written
    features = sslax.load(run)(photographs())
    golden = np.load(GOLDEN)[name]
    assert features.shape == golden.shape and golden.std() > 1e-2
    np.testing.assert_allclose(features, golden, atol=2e-5 * np.abs(golden).max())


def test_torch_loads_it_and_computes_the_same(written):
    pytorch = pytest.importorskip("torch", reason="PyTorch, which is in no extra")
    pytest.importorskip("timm" if "vit" in written[0] else "torchvision", reason="in no extra")
    name, run, out = written
    about = json.loads((out / "model.json").read_text())
    names = {}
    exec("\n".join(about["build"]), names)
    model = names["model"].eval()
    tensors = safetensors.numpy.load_file(out / about["file"])
    model.load_state_dict({n: pytorch.from_numpy(t) for n, t in tensors.items()}, strict=True)
    model.load_state_dict(pytorch.load(out / "model.pth", weights_only=True), strict=True)
    mean, std = (np.float32(ENCODERS[name][part]) for part in ("mean", "std"))
    images = ((photographs() / np.float32(255) - mean) / std).transpose(0, 3, 1, 2).copy()
    with pytorch.no_grad():
        features = model(pytorch.from_numpy(images)).numpy()
    assert list(features.shape[1:]) == about["outputs"]["features"]["shape"][1:]
    expected = sslax.load(run)(photographs())
    np.testing.assert_allclose(features, expected, atol=2e-5 * np.abs(expected).max())


def test_what_is_written_says_what_to_do(written):
    *_, out = written
    about = json.loads((out / "model.json").read_text())
    assert about["input"] == {"shape": ["b", 3, 32, 32], "dtype": "float32"}
    steps = ["divide by 255", "subtract [0.45, 0.4, 0.4], divide by [0.2, 0.25, 0.2]"]
    assert about["before"] == steps
    assert (out / "model.pth").exists() == (importlib.util.find_spec("torch") is not None)


def test_torchvisions_networks_have_all_the_names_that_are_written():
    """A ResNet-18 as the docs load it."""
    code = loader("torch")
    assert "resnet18(weights=None)" in code and "model.fc = torch.nn.Identity()" in code
    for module in (RESNET18, BOTTLENECKS):
        tensors = state_dict(module)
        written = to_torchvision(from_torchvision(tensors))
        assert written.keys() == tensors.keys()
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(written[name], tensor, err_msg=name)


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, []),
        (
            {"small_stem": True},
            [
                "model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)",
                "model.maxpool = nn.Identity()",
            ],
        ),
        (
            {"patch_stem": 4},
            [
                "model.conv1 = nn.Conv2d(3, 64, 4, 4, 0, bias=False)",
                "model.maxpool = nn.Identity()",
            ],
        ),
    ],
)
def test_other_stems_are_put_into_torchvisions_network(load_config, changes, lines):
    build = torch._build(*network(load_config, "resnet", changes))
    assert build[2:] == [
        "model = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1])",
        "model.fc = nn.Identity()",
        *lines,
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0.5}, "config.model.width = 0.5, and torchvision and timm have ResNets of wid"),
        ({"blocks": (1, 1)}, r"config.model.blocks = \(1, 1\), and .* ResNets of four stages"),
        ({"post_norm": True}, "post_norm = True, and torchvision and timm have pre-norm"),
    ],
)
def test_networks_that_torch_does_not_have_are_named(load_config, changes, message):
    with pytest.raises(UserError, match=message):
        torch._build(*network(load_config, "vit" if "post_norm" in changes else "resnet", changes))


def network(load_config, name, changes):
    """What `torch._build` takes of a run: its config, its module, size and channels."""
    config = load_config("simclr", "tiny")
    config.model.update(ENCODERS[name] | changes)
    trained = SimpleNamespace(config=config)
    return trained, encoder_module(config.model), (32, 32), 3


def test_maps_are_refused(tmp_path):
    with formulas.runs(tmp_path) as runs, pytest.raises(UserError, match="this run learned flow"):
        export(runs / "pairs", tmp_path / "out", format="torch")


def test_an_encoder_has_no_poses(tmp_path, load_config):
    run = write_encoder_run(tmp_path / "run", load_config, "vit")
    with pytest.raises(UserError, match="--poses is for runs that learned ego-motion; simclr did"):
        export(run, tmp_path / "out", format="torch", poses=True)
