"""Weights in and out, and equality with torchvision's networks."""

import re
import sys
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from sslax.models import (
    ResNet,
    conv,
    from_linen,
    load_safetensors,
    load_torchvision_resnet,
    save_safetensors,
)

GOLDEN = np.load(Path(__file__).parent / "golden" / "torchvision.npz")
RESNET18 = ResNet()
BOTTLENECKS = ResNet(blocks=(1, 1, 1, 1), bottleneck=True)


def fill(name, shape):
    """As in experiments/golden/models.py, which made the golden numbers from the same weights."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = random.standard_normal(shape).astype(np.float32)
    if len(shape) == 4:
        return values * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    if name.endswith(("weight", "running_var")):
        return 1 + np.float32(0.2) * np.tanh(values)
    return np.float32(0.2) * values


def state_dict(module):
    """The names and shapes that torchvision's network has, filled."""
    expansion = 4 if module.bottleneck else 1
    tensors = {"conv1.weight": (64, 3, 7, 7)}

    def norm(name, channels):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{name}.{leaf}"] = (channels,)

    norm("bn1", 64)
    inputs = 64
    for i, count in enumerate(module.blocks):
        channels = 64 * 2**i
        for j in range(count):
            block, outputs = f"layer{i + 1}.{j}", channels * expansion
            sizes = [(channels, 1), (channels, 3), (outputs, 1)]
            sizes = sizes if module.bottleneck else [(channels, 3), (channels, 3)]
            last = inputs
            for n, (out, side) in enumerate(sizes, start=1):
                tensors[f"{block}.conv{n}.weight"] = (out, last, side, side)
                norm(f"{block}.bn{n}", out)
                last = out
            if inputs != outputs or (i > 0 and j == 0):
                tensors[f"{block}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                norm(f"{block}.downsample.1", outputs)
            inputs = outputs
    return {name: fill(name, shape) for name, shape in tensors.items()}


@pytest.mark.parametrize("name, module", [("resnet18", RESNET18), ("bottlenecks", BOTTLENECKS)])
def test_outputs_equal_torchvision(name, module, monkeypatch):
    monkeypatch.setattr(conv, "_large", lambda *_: name == "bottlenecks")
    params, state = load_torchvision_resnet(state_dict(module), module)
    images = np.random.RandomState(0).rand(2, 64, 64, 3).astype(np.float32)
    model = from_linen(module)
    features = jax.jit(lambda p, s: model.apply(p, s, images, False)[0].features)(params, state)
    golden = GOLDEN[name]
    np.testing.assert_allclose(features[:, ::64], golden, atol=1e-4 * golden.std())


def test_torchvision_file_and_classifier_are_accepted(tmp_path):
    module = ResNet(blocks=(1, 1))
    tensors = state_dict(module)
    expected = load_torchvision_resnet(tensors, module)
    tensors["fc.weight"], tensors["fc.bias"] = np.zeros((10, 128)), np.zeros(10)
    tensors["bn1.num_batches_tracked"] = np.array(3)
    safetensors.numpy.save_file(tensors, tmp_path / "r.safetensors")
    np.savez(tmp_path / "r.npz", **tensors)
    for file in ("r.safetensors", "r.npz"):
        loaded = load_torchvision_resnet(tmp_path / file, module)
        assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), loaded, expected))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.update({"conv1.weight": np.zeros((64, 3, 3, 3))}), "conv1/kernel"),
        (lambda t: t.pop("layer1.0.bn2.running_var"), "lacks 'batch_stats/layer1_0/bn2/var'"),
        (lambda t: t.update({"layer3.0.conv1.weight": np.zeros((1, 1, 1, 1))}), "layer3_0"),
    ],
)
def test_mismatch_names_the_tensor(change, message):
    module = ResNet(blocks=(1,))
    tensors = state_dict(module)
    change(tensors)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_torchvision_resnet(tensors, module)


def test_torch_file_without_torch_says_how_to_convert(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="convert the file"):
        load_torchvision_resnet(tmp_path / "resnet.pth", ResNet(blocks=(1,)))


def test_saved_weights_come_back(tmp_path):
    model = from_linen(ResNet(blocks=(1,), width=0.125, small_stem=True))
    params, state = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    save_safetensors(tmp_path / "w.safetensors", params, state)
    names = safetensors.numpy.load_file(tmp_path / "w.safetensors").keys()
    assert {"params/conv1/kernel", "model_state/batch_stats/bn1/mean"} <= names
    like = jax.eval_shape(model.init, jax.random.key(1), jnp.zeros((1, 8, 8, 3)))
    loaded = load_safetensors(tmp_path / "w.safetensors", like)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), loaded, (params, state)))
    wide = from_linen(ResNet(blocks=(1,), width=0.25, small_stem=True))
    like = jax.eval_shape(wide.init, jax.random.key(1), jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(ValueError, match=r"is .* but .* in the model"):
        load_safetensors(tmp_path / "w.safetensors", like)
