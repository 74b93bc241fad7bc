"""Encoders in files that describe themselves."""

import re
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest

from sslax import augment
from sslax.errors import UserError
from sslax.models import (
    PREPROCESSING,
    Description,
    build_encoder,
    defaults,
    load_encoder,
    preprocessing_name,
    read_variables,
    save_encoder,
    save_weights,
)

IMAGES = np.random.RandomState(0).randint(0, 256, (2, 16, 16, 3)).astype(np.uint8)


def section():
    config = defaults()
    config.update(name="resnet10", blocks=(1, 1), width=0.125, small_stem=True)
    config.update(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    return config


def written(path, config, channels=3, **fields):
    """An encoder in a file, and its features of `IMAGES` as training computes them."""
    encoder = build_encoder(config)
    description = Description(config, (16, 16), channels, **fields)

    @jax.jit
    def run(images):
        x = PREPROCESSING[description.preprocessing](augment.to_float(images))
        params, state = encoder.init(jax.random.key(0), x)
        return params, state, encoder.apply(params, state, x, False)[0].features

    params, state, features = run(IMAGES)
    save_encoder(path, params, state, description)
    return features


def test_a_file_is_enough_for_the_same_features(tmp_path):
    file = tmp_path / "encoder.safetensors"
    facts = {"method": "simclr", "task": "representation", "step": 12}
    expected = written(file, section(), **facts)
    for source in (file, tmp_path):
        module, variables, description = load_encoder(source)
        for images in (IMAGES, augment.to_float(IMAGES)):
            features = jax.jit(module.apply)(variables, images).features
            np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
    assert (description.size, description.channels) == ((16, 16), 3)
    assert (description.mean, description.std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert {name: getattr(description, name) for name in facts} == facts
    assert description.version and description.architecture["blocks"] == (1, 1)


@pytest.mark.parametrize("preprocessing", [*PREPROCESSING])
def test_preprocessing_is_part_of_the_module(tmp_path, preprocessing):
    config = section()
    config.mean, config.std = (), ()
    expected = written(tmp_path / "e.safetensors", config, preprocessing=preprocessing)
    module, variables, _ = load_encoder(tmp_path / "e.safetensors")
    features = jax.jit(module.apply)(variables, IMAGES).features
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)


def test_preprocessing_has_a_name():
    assert preprocessing_name(augment.to_float) == "float"
    assert preprocessing_name(lambda images: images) == "custom"


def test_a_vit_comes_back(tmp_path):
    config = defaults()
    config.update(name="vit_micro", patch=8, width=0.25, blocks=(1,), freeze_patch_embedding=True)
    expected = written(tmp_path / "e.safetensors", config)
    module, variables, _ = load_encoder(tmp_path / "e.safetensors")
    assert set(variables) == {"params", "frozen"}
    features = jax.jit(module.apply)(variables, IMAGES).features
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)


def test_it_can_be_a_part_of_a_flax_module(tmp_path):
    expected = written(tmp_path / "e.safetensors", section())
    module, variables, _ = load_encoder(tmp_path / "e.safetensors")

    class Classifier(nn.Module):
        encoder: nn.Module

        @nn.compact
        def __call__(self, images):
            features = self.encoder(images).features
            self.sow("intermediates", "features", features)
            return nn.Dense(3)(features)

    model = Classifier(module)
    own = jax.jit(model.init)(jax.random.key(1), IMAGES)
    assert jax.tree.structure(own["params"]["encoder"]) == jax.tree.structure(variables["params"])
    loaded = {
        "params": {**own["params"], "encoder": variables["params"]},
        "batch_stats": {"encoder": variables["batch_stats"]},
    }
    _, state = jax.jit(partial(model.apply, mutable=["intermediates"]))(loaded, IMAGES)
    np.testing.assert_allclose(
        state["intermediates"]["features"][0], expected, rtol=1e-5, atol=1e-6
    )


def test_training_updates_the_batch_statistics(tmp_path):
    written(tmp_path / "e.safetensors", section())
    module, variables, _ = load_encoder(tmp_path / "e.safetensors")
    apply = jax.jit(partial(module.apply, train=True, mutable=["batch_stats"]))
    _, state = apply(variables, IMAGES)
    old, new = (jax.tree.leaves(v["batch_stats"]) for v in jax.device_get((variables, state)))
    assert any(np.any(a != b) for a, b in zip(old, new))


def test_fields_of_a_later_version_are_ignored(tmp_path):
    file = tmp_path / "e.safetensors"
    written(file, section())
    params, state, metadata = read_variables(file)
    metadata["encoder"]["license"] = "Apache-2.0"
    save_weights(file, params, state, metadata)
    assert load_encoder(file).description.size == (16, 16)


@pytest.mark.parametrize(
    "change, message",
    [
        (None, "does not say which encoder"),
        ({"architecture": {"name": "raft"}}, "feature encoder of the flow network"),
        ({"preprocessing": "custom"}, "a function without a name"),
        ({"architecture": {"width": 0.25}}, "but (16,) in the model"),
    ],
)
def test_what_cannot_be_loaded_says_why(tmp_path, change, message):
    file = tmp_path / "e.safetensors"
    written(file, section())
    params, state, metadata = read_variables(file)
    fields = metadata["encoder"]
    for name, value in (change or {}).items():
        fields[name] = {**fields[name], **value} if isinstance(value, dict) else value
    save_weights(file, params, state, {"encoder": fields} if change else {})
    with pytest.raises(UserError, match=re.escape(message)):
        load_encoder(file)
