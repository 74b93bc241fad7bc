"""Projection heads and the linear classifier."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax.models import Classifier, Projector, from_linen


def features():
    return jnp.asarray(np.random.RandomState(0).standard_normal((16, 6)), jnp.float32)


@pytest.mark.parametrize(
    "head, names",
    [
        (
            Projector(8, 4, last_norm="affine"),  # SimCLR
            {"linear1": ["kernel"], "bn1": ["bias", "scale"], "linear2": ["kernel"],
             "bn2": ["bias", "scale"]},
        ),
        (
            Projector(8, 4, norm=False, last_bias=True),  # MoCo v2
            {"linear1": ["bias", "kernel"], "linear2": ["bias", "kernel"]},
        ),
        (
            Projector(8, 4, layers=3),  # Barlow Twins
            {"linear1": ["kernel"], "bn1": ["bias", "scale"], "linear2": ["kernel"],
             "bn2": ["bias", "scale"], "linear3": ["kernel"]},
        ),
    ],
)  # fmt: skip
def test_layers_of_the_methods_heads(head, names):
    model = from_linen(head)
    params, state = model.init(jax.random.key(0), features())
    assert {name: sorted(leaves) for name, leaves in params.items()} == names
    out, _ = model.apply(params, state, features(), True)
    assert out.shape == (16, 4) and out.dtype == jnp.float32


def test_output_equals_the_formula():
    model = from_linen(Projector(8, 4, last_norm="plain"))
    params, state = model.init(jax.random.key(0), features())
    out, _ = model.apply(params, state, features(), True)

    def normalise(x):
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)

    x = np.asarray(features()) @ params["linear1"]["kernel"]
    x = np.maximum(normalise(x), 0) @ params["linear2"]["kernel"]
    assert "bn2" not in params
    np.testing.assert_allclose(out, normalise(x), atol=1e-5)


def test_unknown_last_norm_names_the_choices():
    with pytest.raises(ValueError, match="choose one of"):
        Projector(8, 4, last_norm="batch").init(jax.random.key(0), features(), train=True)


def test_classifier_starts_at_zero_and_learns():
    model = from_linen(Classifier(3))
    params, state = model.init(jax.random.key(0), features())
    assert not np.any(model.apply(params, state, features(), True)[0])
    gradient = jax.grad(lambda p: model.apply(p, state, features(), True)[0][:, 0].sum())(params)
    np.testing.assert_allclose(gradient["linear"]["kernel"][:, 0], features().sum(0), rtol=1e-4)
