"""Residual networks: shapes, batch statistics, dtypes, sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sslax.models import MODELS, ResNet, build_encoder, defaults, from_linen, parameter_count


def images(n=8, size=16):
    return np.random.RandomState(0).rand(n, size, size, 3).astype(np.float32)


@pytest.fixture(scope="module")
def tiny():
    model = from_linen(ResNet(blocks=(1, 1), width=0.125, small_stem=True))
    return model, *jax.jit(model.init)(jax.random.key(0), images())


# torchvision's counts less its classifier.
@pytest.mark.parametrize(
    "name, features, count",
    [
        ("resnet18", 512, 11_689_512 - 513_000),
        ("resnet34", 512, 21_797_672 - 513_000),
        ("resnet50", 2048, 25_557_032 - 2_049_000),
        ("resnet101", 2048, 44_549_160 - 2_049_000),
    ],
)
def test_sizes_are_those_of_torchvision(name, features, count):
    model = from_linen(MODELS[name]())
    x = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    assert parameter_count(params) == count
    out, _ = jax.eval_shape(lambda p, s, x: model.apply(p, s, x, False), params, state, x)
    assert out.features.shape == (2, features)
    sides = [stage.shape[1] for stage in out.stages.values()]
    assert list(out.stages) == ["stage1", "stage2", "stage3", "stage4"]
    assert sides == [56, 28, 14, 7]


def test_small_stem_keeps_the_resolution():
    config = defaults()
    config.name, config.width, config.small_stem = "resnet10", 0.25, True
    model = build_encoder(config)
    x = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    out, _ = jax.eval_shape(lambda p, s, x: model.apply(p, s, x, True), params, state, x)
    assert [s.shape for s in out.stages.values()] == [
        (2, 28, 28, 16),
        (2, 14, 14, 32),
        (2, 7, 7, 64),
        (2, 4, 4, 128),
    ]


def test_training_updates_statistics_and_evaluation_does_not(tiny):
    model, params, state = tiny
    apply = jax.jit(model.apply, static_argnums=3)
    state = jax.device_get(state)
    out, updated = jax.device_get(apply(params, state, images(), True))
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), state, updated)
    assert all(jax.tree.leaves(moved))
    other, same = jax.device_get(apply(params, state, images(), False))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(np.all(a == b)), state, same))
    assert not np.allclose(out.features, other.features)
    alone, _ = apply(params, state, images()[:1], False)  # evaluation does not mix examples
    np.testing.assert_allclose(alone.features, other.features[:1], rtol=1e-4, atol=1e-5)


def test_every_parameter_has_a_gradient(tiny):
    model, params, state = tiny

    @jax.jit
    def gradient(params):
        def loss(params):
            features = model.apply(params, state, images(), True)[0].features
            return jnp.sum(jnp.sin(7 * features))

        return jax.grad(loss)(params)

    for leaf in jax.tree.leaves(jax.device_get(gradient(params))):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)


def test_zero_initialized_residuals_start_as_the_identity():
    module = ResNet(blocks=(2,), width=0.125, small_stem=True, zero_init_residual=True)
    variables = jax.jit(lambda k, x: module.init(k, x, train=False))(
        jax.random.key(0), images(2, 8)
    )
    short = ResNet(blocks=(1,), width=0.125, small_stem=True, zero_init_residual=True)
    kept = {c: {k: v for k, v in tree.items() if k != "layer1_1"} for c, tree in variables.items()}

    @jax.jit
    def both(variables, kept, x):
        return [m.apply(v, x, train=False) for m, v in ((module, variables), (short, kept))]

    long, first = both(variables, kept, images(2, 8))
    np.testing.assert_array_equal(long.features, first.features)


def test_bfloat16_keeps_parameters_statistics_and_features_in_float32():
    model = from_linen(ResNet(blocks=(1,), width=0.125, small_stem=True, dtype=jnp.bfloat16))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images(2, 8))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))
    out, state = jax.eval_shape(lambda p, s: model.apply(p, s, images(2, 8), True), *shapes)
    assert out.features.dtype == jnp.float32
    assert out.stages["stage1"].dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))


def test_sharded_batch_has_global_batch_statistics(tiny):
    model, params, state = tiny
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    data, replicated = (NamedSharding(mesh, PartitionSpec(*p)) for p in (("data",), ()))
    apply = jax.jit(lambda p, s, x: model.apply(p, s, x, True))
    out, updated = apply(params, state, images())
    placed = jax.device_put((params, state), replicated)
    sharded, sharded_state = apply(*placed, jax.device_put(images(), data))
    np.testing.assert_allclose(sharded.features, out.features, rtol=1e-4, atol=1e-5)
    for a, b in zip(jax.tree.leaves(sharded_state), jax.tree.leaves(updated)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
