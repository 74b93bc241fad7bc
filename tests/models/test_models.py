"""The seam between Flax and the rest, and the encoders' configuration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax.models import Classifier, ResNet, build_encoder, defaults, from_linen


def test_normalizes_the_input_where_statistics_are_given():
    plain = from_linen(ResNet(blocks=(1,), width=0.0625, small_stem=True))
    scaled = from_linen(
        ResNet(blocks=(1,), width=0.0625, small_stem=True), mean=(0.5, 0.25), std=(2.0, 0.5)
    )
    x = jnp.asarray(np.random.RandomState(0).rand(2, 4, 4, 2), jnp.float32)
    params, state = jax.jit(scaled.init)(jax.random.key(0), x)
    expected, _ = plain.apply(
        params, state, (x - jnp.array([0.5, 0.25])) / jnp.array([2.0, 0.5]), False
    )
    out, _ = scaled.apply(params, state, x, False)
    np.testing.assert_allclose(out.features, expected.features, rtol=1e-6)


def test_mean_without_std_is_refused():
    with pytest.raises(ValueError, match="give both or neither"):
        from_linen(Classifier(2), mean=(0.5,))


def test_model_without_state_has_empty_state_in_and_out():
    model = from_linen(Classifier(2))
    params, state = model.init(jax.random.key(0), jnp.ones((1, 3)))
    assert state == {}
    assert model.apply(params, state, jnp.ones((1, 3)), True)[1] == {}


def test_unknown_encoder_names_its_neighbor():
    config = defaults()
    config.name = "resnet-18"
    with pytest.raises(ValueError, match='did you mean "resnet18"'):
        build_encoder(config)


def test_unknown_dtype_is_refused():
    config = defaults()
    config.dtype = "float16"
    with pytest.raises(ValueError, match="bfloat16"):
        build_encoder(config)
