"""Heads: projections, prototypes, classifiers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from sslax.models import Classifier, DINOHead, Projector, Prototypes, TileClassifier, from_linen
from sslax.models.compose import Network


def features():
    return np.random.RandomState(0).standard_normal((16, 6)).astype(np.float32)


def start(model, x):
    return jax.jit(model.init)(jax.random.key(0), x)


def output(model, params, state, x):
    return jax.jit(lambda *args: model.apply(*args, True)[0])(params, state, x)


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
    params, state = start(model, features())
    assert {name: sorted(leaves) for name, leaves in params.items()} == names
    out = output(model, params, state, features())
    assert out.shape == (16, 4) and out.dtype == jnp.float32


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_output_equals_the_formula(activation):
    model = from_linen(Projector(8, 4, last_norm="plain", activation=activation))
    params, state = jax.device_get(start(model, features()))
    out = output(model, params, state, features())

    def normalize(x):
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)

    x = features() @ params["linear1"]["kernel"]
    x = normalize(x)
    x = np.maximum(x, 0) if activation == "relu" else x * scipy.special.ndtr(x)
    x = x @ params["linear2"]["kernel"]
    assert "bn2" not in params
    np.testing.assert_allclose(out, normalize(x), atol=1e-5)


def test_unknown_last_norm_names_the_choices():
    with pytest.raises(ValueError, match="Known: affine, none, plain"):
        Projector(8, 4, last_norm="batch").init(jax.random.key(0), features(), train=True)


def test_classifier_starts_at_zero_and_learns():
    model = from_linen(Classifier(3))
    params, state = start(model, features())
    assert not np.any(np.asarray(output(model, params, state, features())))
    loss = lambda p: model.apply(p, state, features(), True)[0][:, 0].sum()  # noqa: E731
    kernel = np.asarray(jax.jit(jax.grad(loss))(params)["linear"]["kernel"])
    np.testing.assert_allclose(kernel[:, 0], features().sum(0), rtol=1e-4)


def gradients(model, params, state, x):
    """Of a scalar that no symmetry of the heads leaves unchanged."""

    @jax.jit
    def run(params, x):
        def scalar(params, x):
            out = model.apply(params, state, x, True)[0]
            weights = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
            return jnp.sum(weights * jnp.sin(3 * out))

        return jax.grad(scalar, argnums=(0, 1))(params, x)

    return jax.device_get(run(params, x))


def test_prototypes_give_cosines():
    model = from_linen(Prototypes(5))
    params, state = start(model, features())
    scores = output(model, params, state, 100 * features())
    z, c = np.asarray(features(), np.float64), np.asarray(params["kernel"], np.float64)
    expected = z @ c / (np.linalg.norm(z, axis=1)[:, None] * np.linalg.norm(c, axis=0))
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    longer = output(model, {"kernel": 7 * np.asarray(params["kernel"])}, state, features())
    np.testing.assert_allclose(longer, expected, atol=1e-6)


def test_gradient_of_prototypes_is_orthogonal_to_them():
    model = from_linen(Prototypes(5))
    params, state = jax.device_get(start(model, features()))
    gradient = gradients(model, params, state, features())[0]["kernel"]
    assert np.all(np.linalg.norm(gradient, axis=0) > 0.1)
    along = np.sum(gradient * params["kernel"], axis=0)
    np.testing.assert_allclose(along, 0, atol=1e-5)


def test_prototypes_of_zero_features_are_finite_with_their_gradient():
    model = from_linen(Prototypes(5))
    params, state = start(model, features())
    zero = np.zeros((2, 6), np.float32)
    assert not np.any(np.asarray(output(model, params, state, zero)))
    of_params, of_x = gradients(model, params, state, zero)
    assert np.all(np.isfinite(of_x)) and np.all(np.isfinite(of_params["kernel"]))


def test_dino_head_equals_the_formula():
    """The head with its last layer, the prototypes."""
    parts = {"head": DINOHead(hidden=7, bottleneck=3), "prototypes": Prototypes(5)}
    network = Network({name: from_linen(module) for name, module in parts.items()})

    @jax.jit
    def run(x):
        variables = network.init(forward, jax.random.key(0), x)
        params = jax.tree.map(lambda leaf: 10 * leaf + 0.1, variables.params)
        out, _ = network.apply(forward, variables._replace(params=params), x)
        return params, out

    def forward(net, x):
        return net.prototypes(net.head(x))

    params, out = run(features())
    x = np.asarray(features(), np.float64)
    for i in (1, 2, 3):
        layer = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64), params["head"][f"linear{i}"]
        )
        x = x @ layer["kernel"] + layer["bias"]
        x = x * scipy.special.ndtr(x) if i < 3 else x
    c = np.asarray(params["prototypes"]["kernel"], np.float64)
    expected = x @ c / (np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(c, axis=0))
    np.testing.assert_allclose(out, expected, atol=1e-5)
    assert x.shape[1] == 3 and out.shape == (16, 5)


def test_tile_embedding_is_shared_and_the_order_matters():
    tiles = np.random.RandomState(1).standard_normal((4, 3, 6)).astype(np.float32)
    model = from_linen(TileClassifier(10, embed=8, hidden=7))
    params, state = start(model, tiles)
    assert params["embed_linear"]["kernel"].shape == (6, 8)
    assert params["hidden_linear"]["kernel"].shape == (24, 7)
    params["logits"]["kernel"] = 100 * np.asarray(params["logits"]["kernel"])
    apply = jax.jit(lambda x: model.apply(params, state, x, True)[0])
    logits = np.asarray(apply(tiles))

    def layer(x, name):
        x = x @ np.asarray(params[f"{name}_linear"]["kernel"], np.float64)
        axes = tuple(range(x.ndim - 1))
        return np.maximum((x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5), 0)

    x = layer(np.asarray(tiles, np.float64), "embed").reshape(4, 24)
    expected = layer(x, "hidden") @ np.asarray(params["logits"]["kernel"])
    np.testing.assert_allclose(logits, expected, atol=1e-4 * expected.std())
    assert np.abs(np.asarray(apply(tiles[:, ::-1])) - logits).max() > 0.1 * logits.std()


@pytest.mark.parametrize("knobs", [{}, {"hidden": 64}, {"norm": False}])
def test_tile_classifier_starts_at_chance(knobs):
    tiles = 3 * np.random.RandomState(1).standard_normal((32, 9, 16)).astype(np.float32)
    model = from_linen(TileClassifier(100, embed=64, **knobs))
    params, state = start(model, tiles)
    logits = np.asarray(output(model, params, state, tiles))
    loss = np.mean(scipy.special.logsumexp(logits, axis=1) - logits[:, 0])
    np.testing.assert_allclose(loss, np.log(100), rtol=0.01)
    assert np.std(logits) > 0


HEADS = [
    (Prototypes(5), (16, 6)),
    (DINOHead(hidden=7, bottleneck=3), (16, 6)),
    (DINOHead(hidden=7, bottleneck=3, norm=True), (16, 6)),
    (TileClassifier(4, embed=8, hidden=7), (4, 3, 6)),
    (TileClassifier(4, embed=8, norm=False), (4, 3, 6)),
]


@pytest.mark.parametrize("head, shape", HEADS)
def test_every_parameter_has_a_gradient(head, shape):
    x = np.random.RandomState(2).standard_normal(shape).astype(np.float32)
    model = from_linen(head)
    params, state = start(model, x)
    for leaf in jax.tree.leaves(gradients(model, params, state, x)):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)


@pytest.mark.parametrize("head, shape", HEADS)
def test_bfloat16_keeps_parameters_and_outputs_in_float32(head, shape):
    head = head.clone(dtype=jnp.bfloat16)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)

    def run(x):
        variables = head.init(jax.random.key(0), x, train=True)
        out = head.apply(variables, x, train=True, mutable=["batch_stats"])
        return variables, out

    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(jax.eval_shape(run, x)))
