"""DINOv2's and DINOv3's files of weights: outputs of the authors' code and of transformers."""

import json
import re
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from sslax import models
from sslax.errors import UserError
from sslax.models import weights

GOLDEN = np.load(Path(__file__).parent / "golden" / "published_vits.npz")
SHAPES = json.loads(str(GOLDEN["shapes"]))
TABLE, OTHER = "16x16", "24x20"  # the grid of the table of positions, and another


# Files drawn as in experiments/golden/published_vits.py.


def fill(name, shape):
    if name.endswith("periods"):
        return np.float32(100.0 ** (np.arange(shape[0]) / shape[0]))
    if name.endswith("bias_mask"):
        return np.repeat(np.float32([1, 0, 1]), shape[0] // 3)
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = random.standard_normal(shape).astype(np.float32)
    if len(shape) > 1 and name.endswith("weight"):
        return values * np.float32(1 / np.sqrt(np.prod(shape[1:])))
    if "norm" in name and name.endswith("weight"):
        return 1 + np.float32(0.2) * np.tanh(values)
    return np.float32(0.2) * values


def tensors_of(name):
    return {key: fill(key, shape) for key, shape in SHAPES[name].items()}


def written(path, tensors):
    safetensors.numpy.save_file(tensors, path)
    return path


def network_of(module, variables):
    """Class tokens and patches of images that are normalized already."""

    @jax.jit
    def run(images):
        out = module.encoder.apply(variables, images, train=False)
        return out.features, out.stages["tokens"][:, 1:]

    return run


LIKE = {
    "dinov2": {"position": "learned", "position_antialias": False, "registers": 0},
    "dinov2_reg": {"position_antialias": True, "registers": 2, "swiglu": True, "mlp_ratio": 4.0},
    "dinov3": {"position": "rope", "registers": 2, "norm_epsilon": 1e-5, "mlp_ratio": 4.0},
    "dinov3_7b": {"position": "rope", "swiglu": True, "mlp_ratio": 3.0},
    "hf_dinov2": {"position_antialias": False, "swiglu": True},
    "hf_dinov2_reg": {"position_antialias": True, "registers": 2, "swiglu": False},
    "hf_dinov3": {"position": "rope", "registers": 2, "swiglu": True, "mlp_ratio": 2.0},
}


@pytest.mark.parametrize("name", LIKE)
def test_outputs_are_those_of_the_code_that_wrote_the_file(tmp_path, name):
    module, variables, description = models.load_encoder(
        written(tmp_path / "model.safetensors", tensors_of(name))
    )
    section = description.architecture
    common = {"name": "vit_tiny", "blocks": (2,), "patch": 4, "mask_token": True}
    assert {key: section[key] for key in common | LIKE[name]} == common | LIKE[name]
    assert description.size == ((16, 16) if section["position"] == "learned" else (224, 224))
    assert description.mean == (0.485, 0.456, 0.406) and description.channels == 3
    run = network_of(module, variables)
    sizes = [size for size in (TABLE, OTHER) if f"{name}/{size}/features" in GOLDEN]
    assert len(sizes) == (1 if name == "hf_dinov2" else 2)
    for size in sizes:
        features, patches = run(GOLDEN[f"images/{size}"])
        for found, kind in ((features[:, ::8], "features"), (patches[:, :, ::32], "patches")):
            golden = GOLDEN[f"{name}/{size}/{kind}"]
            np.testing.assert_allclose(found, golden, atol=1e-5 * np.abs(golden).max())


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("grid", [(3, 5), (9, 16), (7, 6)])
def test_positions_are_resized_as_in_the_authors_code(antialias, grid):
    table = jnp.asarray(GOLDEN["table"], jnp.float32)
    resized = models.resize_positions(table, grid, antialias=antialias)
    golden = GOLDEN[f"resized/{int(antialias)}/{grid[0]}x{grid[1]}"]
    np.testing.assert_allclose(resized, golden, atol=3e-6)


def test_dense_features_are_the_patches_in_their_places(tmp_path):
    file = written(tmp_path / "model.safetensors", tensors_of("dinov3"))
    module, variables, description = models.load_encoder(file)
    images = jax.random.uniform(jax.random.key(0), (2, 24, 20, 3))
    patches = jax.jit(lambda v, x: module.apply(v, x, method="patches"))(variables, images)
    normal = (images - np.float32(description.mean)) / np.float32(description.std)
    _, tokens = network_of(module, variables)(normal)
    assert patches.shape == (2, 6, 5, 192)
    np.testing.assert_allclose(patches[:, 4, 3], tokens[:, 4 * 5 + 3], atol=1e-5)


def test_prefixes_heads_chunks_and_other_types_of_files(tmp_path):
    """As of a network inside of another, of training in parts, and of an archive."""
    tensors = tensors_of("dinov2")
    expected = models.read_weights(written(tmp_path / "model.safetensors", tensors))
    wrapped = {
        "backbone." + re.sub(r"^blocks\.", "blocks.0.", name): tensor.astype(np.float16)
        for name, tensor in tensors.items()
    }
    np.savez(tmp_path / "model.npz", **wrapped, **{"dino_head.weight": np.zeros(3)})
    found = models.read_weights(tmp_path / "model.npz")
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected[name], rtol=2e-3, atol=2e-3, err_msg=name)


def section(**changes):
    config = models.defaults()
    config.update(name="vit_tiny", blocks=(2,), patch=4, layer_scale=1e-5)
    config.update(**changes)
    return config


def test_a_run_starts_from_it_on_its_own_grid(tmp_path):
    tensors = tensors_of("dinov2")
    file = written(tmp_path / "model.safetensors", tensors)
    config = section(position="learned", position_antialias=False, encoder_from=str(file))
    images = jnp.asarray(GOLDEN["images/" + OTHER])
    encoder = models.build_encoder(config)

    @jax.jit
    def run(key):
        params, state = encoder.init(key, images)
        return params["position"], encoder.apply(params, state, images, False)[0].features

    position, features = run(jax.random.key(0))
    assert position.shape == (6, 5, 192)
    golden = GOLDEN[f"dinov2/{OTHER}/features"]
    np.testing.assert_allclose(features[:, ::8], golden, atol=1e-5 * np.abs(golden).max())


def test_keys_have_no_bias_where_it_is_masked(tmp_path):
    arrays = models.read_weights(written(tmp_path / "model.safetensors", tensors_of("dinov3")))
    bias = arrays["params/block01/attention/qkv/bias"].reshape(3, -1)
    assert not np.any(bias[1]) and np.all(bias[[0, 2]])


def without(name):
    return lambda t: t.pop(name)


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("dinov2", without("blocks.1.norm1.bias"), "lacks 'params/block02/norm1/bias'"),
        ("dinov2", without("patch_embed.proj.weight"), "lacks the weights of patch_embedding"),
        ("dinov2", lambda t: t.update({"fc_norm.weight": np.zeros(3)}), "holds 'fc_norm.weight'"),
        ("dinov2", lambda t: t.update({"teacher.cls_token": np.zeros(3)}), "2 vision transformers"),
        (
            "dinov2",
            lambda t: t.update(pos_embed=t["pos_embed"][:, :-1]),
            "15 positions of patches, which make no square",
        ),
        (
            "dinov3",
            lambda t: t.update({"rope_embed.periods": np.ones(16, np.float32)}),
            "have the base 100",
        ),
        (
            "dinov3",
            lambda t: t.update({"rope_embed.periods": fill("periods", (8,))}),
            'heads have a width of 32; "vit_tiny" has 3 heads of 64',
        ),
    ],
)
def test_files_that_hold_something_else_say_what(tmp_path, name, change, message):
    tensors = tensors_of(name)
    change(tensors)
    with pytest.raises(UserError, match=re.escape(message)):
        models.load_encoder(written(tmp_path / "model.safetensors", tensors))


def test_a_whole_training_state_is_refused(tmp_path, monkeypatch):
    (tmp_path / "model.pth").touch()
    whole = {"teacher": tensors_of("dinov2"), "iteration": 3}
    monkeypatch.setattr(weights, "read_tensors", lambda path: whole)  # without PyTorch
    with pytest.raises(UserError, match="a whole training state, with 'teacher': save the"):
        models.load_encoder(tmp_path / "model.pth")


def test_a_width_without_a_known_number_of_heads_is_refused(tmp_path):
    tensors = {
        name: fill(name, [96 if n == 192 else n for n in shape])
        for name, shape in SHAPES["hf_dinov3"].items()
    }
    with pytest.raises(UserError, match=r"width 96, and does not say how many heads it has"):
        models.load_encoder(written(tmp_path / "model.safetensors", tensors))


def test_a_section_that_describes_another_network_is_told_the_right_one(tmp_path):
    file = written(tmp_path / "model.safetensors", tensors_of("dinov2"))
    encoder = models.build_encoder(section(patch=8, encoder_from=str(file)))
    with pytest.raises(UserError) as error:
        encoder.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    assert str(error.value).endswith(
        "it needs --config.model.patch=4 --config.model.position=learned "
        "--config.model.position_antialias=False --config.model.mean='(0.485, 0.456, 0.406)' "
        "--config.model.std='(0.229, 0.224, 0.225)'"
    )
