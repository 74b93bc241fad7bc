"""Weights in and out, and equality with torchvision's networks."""

import re
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from torchvision_names import BOTTLENECKS, RESNET18, state_dict

from sslax.errors import UserError
from sslax.models import (
    ResNet,
    build_encoder,
    build_pose_network,
    conv,
    defaults,
    fit_weights,
    from_linen,
    load_torchvision_resnet,
    read_variables,
    save_weights,
)
from sslax.models.compose import Network

GOLDEN = np.load(Path(__file__).parent / "golden" / "torchvision.npz")


def same(one, other):
    one, other = jax.device_get((one, other))
    return jax.tree.all(jax.tree.map(lambda a, b: bool(np.all(a == b)), one, other))


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
        assert same(loaded, expected)


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
    encoder = build_encoder(section(_written(tmp_path / "resnet.pth")))
    with pytest.raises(UserError, match="convert the file"):
        encoder.init(jax.random.key(0), IMAGE)


def test_saved_weights_come_back(tmp_path):
    model = from_linen(ResNet(blocks=(1,), width=0.125, small_stem=True))
    params, state = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    file = tmp_path / "w.safetensors"
    save_weights(file, params, state, {"step": 3, "size": [8, 8]})
    names = safetensors.numpy.load_file(file).keys()
    assert {"params/conv1/kernel", "model_state/batch_stats/bn1/mean"} <= names
    *loaded, metadata = read_variables(file)
    assert metadata == {"step": 3, "size": [8, 8]}
    assert same(tuple(loaded), (params, state))
    like = jax.eval_shape(model.init, jax.random.key(1), jnp.zeros((1, 8, 8, 3)))
    assert same(fit_weights(loaded, like, file), (params, state))
    wide = from_linen(ResNet(blocks=(1,), width=0.25, small_stem=True))
    like = jax.eval_shape(wide.init, jax.random.key(1), jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(UserError, match=r"is .* but .* in the model"):
        fit_weights(loaded, like, file)


def test_a_network_comes_back_with_its_empty_states(tmp_path):
    params = {"encoder": {"kernel": np.ones((2, 3), np.float32)}, "head": {"b": np.zeros(1)}}
    state = {"encoder": {"batch_stats": {"mean": np.zeros(2)}}, "head": {}}
    save_weights(tmp_path / "network.safetensors", params, state)
    loaded = read_variables(tmp_path)
    assert jax.tree.structure(loaded) == jax.tree.structure((params, state, {}))
    assert same(loaded, (params, state, {}))


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "w.safetensors"
    save_weights(file, {"b": np.zeros(1)}, {})

    def stop(arrays, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.numpy, "save_file", stop)
    with pytest.raises(KeyboardInterrupt):
        save_weights(file, {"b": np.ones(1)}, {})
    assert read_variables(file)[0] == {"b": 0}


def truncated(path):
    save_weights(path, {"b": np.zeros(100)}, {})
    path.write_bytes(path.read_bytes()[:-100])
    return path


def of_torchvision(path):
    safetensors.numpy.save_file(state_dict(ResNet(blocks=(1,))), path)
    return path


def without_arrays(path):
    safetensors.numpy.save_file({}, path)
    return path


@pytest.mark.parametrize(
    "make, message",
    [
        (truncated, "It is damaged"),
        (of_torchvision, "was not written by sslax: it has 'bn1.bias'"),
        (without_arrays, "was not written by sslax"),
        (lambda path: path, "There is no file or folder"),
        (lambda path: path.parent, "There is no network.safetensors in"),
    ],
)
def test_variables_that_cannot_be_read_say_why(tmp_path, make, message):
    source = make(tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=re.escape(message)):
        read_variables(source)


def section(source, **changes):
    """A small ResNet that starts from weights."""
    config = defaults()
    config.update({"name": "resnet10", "blocks": (1, 1), "encoder_from": str(source), **changes})
    return config


IMAGE = jnp.zeros((1, 32, 32, 3))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder, and the encoder in it."""
    folder = tmp_path_factory.mktemp("run")
    found = load_torchvision_resnet(state_dict(ResNet(blocks=(1, 1))), ResNet(blocks=(1, 1)))
    save_weights(folder / "encoder.safetensors", *found)
    return folder, found


def test_encoder_starts_from_a_run_a_file_or_torchvision(run, tmp_path, monkeypatch):
    folder, expected = run
    safetensors.numpy.save_file(state_dict(ResNet(blocks=(1, 1))), tmp_path / "r.safetensors")
    np.savez(tmp_path / "r.npz", **state_dict(ResNet(blocks=(1, 1))))
    encoder = build_encoder(section(tmp_path / "r.npz"))
    for source in (folder, folder / "encoder.safetensors", tmp_path / "r.safetensors"):
        assert same(build_encoder(section(source)).init(jax.random.key(0), IMAGE), expected)
    assert same(jax.jit(encoder.init)(jax.random.key(0), IMAGE), expected)
    (tmp_path / "r.npz").unlink()  # read once, in the first call of init
    assert same(encoder.init(jax.random.key(1), IMAGE), expected)


def test_networks_with_the_encoder_start_from_its_weights(run):
    folder, expected = run
    network = Network({"encoder": build_encoder(section(folder), stem_stage=True)})
    forward = lambda net, x: net.encoder(x)  # noqa: E731
    variables = jax.jit(partial(network.init, forward))(jax.random.key(0), IMAGE)
    assert same(network.encoder(variables), expected)
    pose = build_pose_network(section(folder), decoder_width=4)
    params, _ = jax.jit(pose.init)(jax.random.key(0), np.zeros((1, 32, 32, 6)))
    kernel = expected[0]["conv1"]["kernel"]
    np.testing.assert_array_equal(
        params["encoder"]["conv1"]["kernel"], np.concatenate([kernel, kernel], 2) / 2
    )
    other = build_pose_network(section(folder, blocks=()), name="resnet18", decoder_width=4)
    jax.eval_shape(other.init, jax.random.key(0), jnp.zeros((1, 32, 32, 6)))


def test_equal_frames_give_what_one_of_them_gives(run):
    folder, _ = run
    encoder = build_encoder(section(folder, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)))
    image = np.random.RandomState(0).rand(1, 32, 32, 3).astype(np.float32)
    frames = np.tile(image, (1, 1, 1, 3))

    @jax.jit
    def features(x):
        return encoder.apply(*encoder.init(jax.random.key(0), x), x, False)[0].features

    one = features(image)
    np.testing.assert_allclose(features(frames), one, rtol=1e-4)
    frames[..., :3] = 0
    assert not np.allclose(features(frames), one, rtol=1e-2)


@pytest.mark.parametrize(
    "make, changes, message",
    [
        (lambda p: p / "missing", {}, "There is no file or folder"),
        (lambda p: p, {}, "There is no encoder.safetensors in"),
        (lambda p: p, {}, ".save("),
        (lambda p: _written(p / "w.txt"), {}, "is no file of weights"),
        (lambda p: _written(p / "w.safetensors"), {}, "cannot be read"),
        (lambda p: _written(p / "w.npz"), {}, "cannot be read"),
        (None, {"width": 0.5}, "'model_state/batch_stats/bn1/mean' is (64,) in"),
        (None, {"width": 0.5}, "config.model (name, blocks, width"),
        (None, {"small_stem": True}, "'params/conv1/kernel' is (7, 7, 3, 64) in"),
        (None, {"blocks": (1, 1, 1)}, "lacks 'model_state/batch_stats/layer3_0/bn1/mean'"),
        (None, {"blocks": (1,)}, "holds 'model_state/batch_stats/layer2_0/bn1/mean'"),
    ],
)
def test_weights_that_do_not_fit_say_why(run, tmp_path, make, changes, message):
    source = make(tmp_path) if make else run[0]
    encoder = build_encoder(section(source, **changes))  # reads nothing yet
    with pytest.raises(UserError, match=re.escape(message)):
        encoder.init(jax.random.key(0), IMAGE)


def _written(path):
    path.write_text("nothing of use")
    return path


def test_weights_of_other_channels_are_refused(run):
    encoder = build_encoder(section(run[0]))
    with pytest.raises(UserError, match=re.escape("but (7, 7, 4, 64) in the model")):
        encoder.init(jax.random.key(0), jnp.zeros((1, 32, 32, 4)))
