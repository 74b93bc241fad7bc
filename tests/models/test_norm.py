"""Batch normalization against Flax's, and that of groups against one forward a group."""

import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sslax.models import Projector, ResNet, from_linen
from sslax.models.norm import BatchNorm


def images(scale=3.0, shift=2.0):
    values = np.random.RandomState(0).standard_normal((4, 3, 3, 5))
    return (scale * values + shift).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    x = images()
    modules = BatchNorm(train=True), nn.BatchNorm(use_running_average=False)
    key = jax.random.key(0)
    variables, expected = (jax.device_get(jax.jit(module.init)(key, x)) for module in modules)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(np.all(a == b)), variables, expected))
    draw = np.random.RandomState(1)
    return jax.tree.map(lambda v: np.float32(draw.rand(*v.shape) + 0.5), variables)


@pytest.mark.parametrize("train", [True, False])
def test_output_statistics_and_gradients_equal_flax(variables, train):
    x = images()

    def run(module):
        def function(params, x):
            y, updated = module.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y)), (y, updated)

        return jax.jit(jax.grad(function, argnums=(0, 1), has_aux=True))(variables["params"], x)

    theirs = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)
    ours, expected = run(BatchNorm(train=train)), run(theirs)
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_constant_channels_are_finite_with_their_gradient():
    x, module = np.full((4, 2, 2, 3), np.float32(7.0)), BatchNorm(train=True, affine=False)

    def function(x):
        return jnp.sum(module.apply({}, x, mutable=["batch_stats"])[0] ** 2)

    value, gradient = jax.jit(jax.value_and_grad(function))(x)
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(gradient))


def test_plain_form_has_no_parameters_and_bfloat16_keeps_float32_statistics(variables):
    init = jax.jit(BatchNorm(train=True, affine=False).init)
    assert "params" not in init(jax.random.key(0), images())
    module = BatchNorm(train=True, dtype=jnp.bfloat16)
    apply = jax.jit(partial(module.apply, mutable=["batch_stats"]))
    y, updated = apply(variables, images().astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updated))


# Groups: N = 8 examples of two groups.


def batch(seed=0):
    """Examples that differ in mean and scale, so that it matters which share statistics."""
    draw = np.random.RandomState(seed)
    x = draw.standard_normal((8, 3, 2, 5)) * draw.uniform(0.5, 2, (8, 1, 1, 5))
    return (x + draw.standard_normal((8, 1, 1, 5))).astype(np.float32)


MEMBERS = {False: lambda g: slice(g, None, 2), True: lambda g: slice(4 * g, 4 * g + 4)}


@pytest.fixture(scope="module", params=[False, True], ids=["interleaved", "blocks"])
def grouped(request, variables):
    """How examples are grouped, and outputs, statistics and gradients with groups."""
    module = BatchNorm(train=True, groups=2, blocks=request.param)

    @jax.jit
    def run(params, x):
        def function(params, x):
            y, updated = module.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y)), (y, updated["batch_stats"])

        return jax.grad(function, argnums=(0, 1), has_aux=True)(params, x)

    return MEMBERS[request.param], run


def test_groups_equal_separate_forwards(variables, grouped):
    members, run = grouped
    x = batch()

    @jax.jit
    def separate(params, x):
        def function(params, x):
            y, updated = BatchNorm(train=True).apply(
                {**variables, "params": params}, x, mutable=["batch_stats"]
            )
            return jnp.sum(jnp.sin(y)), (y, updated["batch_stats"])

        return jax.grad(function, argnums=(0, 1), has_aux=True)(params, x)

    (of_params, of_x), (y, stats) = jax.device_get(run(variables["params"], x))
    parts = jax.device_get([separate(variables["params"], x[members(g)]) for g in (0, 1)])
    for g, ((_, of_part), (part, _)) in enumerate(parts):
        np.testing.assert_allclose(y[members(g)], part, atol=1e-5)
        np.testing.assert_allclose(of_x[members(g)], of_part, atol=1e-5)
    for name in ("scale", "bias"):
        total = parts[0][0][0][name] + parts[1][0][0][name]
        np.testing.assert_allclose(of_params[name], total, atol=1e-4)
    for name in ("mean", "var"):
        mean = (parts[0][1][1][name] + parts[1][1][1][name]) / 2
        np.testing.assert_allclose(stats[name], mean, rtol=1e-5)


def test_groups_equal_float64(variables, grouped):
    members, run = grouped
    _, (y, stats) = jax.device_get(run(variables["params"], batch()))
    x = np.asarray(batch(), np.float64)
    scale, bias = (np.asarray(variables["params"][k], np.float64) for k in ("scale", "bias"))
    means = [x[members(g)].mean((0, 1, 2)) for g in (0, 1)]
    variances = [x[members(g)].var((0, 1, 2)) for g in (0, 1)]
    for g in (0, 1):
        expected = scale * (x[members(g)] - means[g]) / np.sqrt(variances[g] + 1e-5) + bias
        np.testing.assert_allclose(y[members(g)], expected, atol=1e-5)
    old = variables["batch_stats"]
    np.testing.assert_allclose(
        stats["mean"], 0.9 * old["mean"] + 0.1 * np.mean(means, axis=0), rtol=1e-5
    )
    np.testing.assert_allclose(
        stats["var"], 0.9 * old["var"] + 0.1 * np.mean(variances, axis=0), rtol=1e-5
    )


def test_groups_of_a_sharded_batch_move_no_image(variables, grouped):
    _, run = grouped
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    data, replicated = (NamedSharding(mesh, PartitionSpec(*p)) for p in (("data",), ()))
    placed = jax.device_put(variables["params"], replicated), jax.device_put(batch(), data)
    text = run.lower(*placed).compile().as_text()
    assert "all-reduce" in text
    assert not re.search(r"all-gather|all-to-all|collective-permute", text)
    assert_trees_close(run(*placed), run(variables["params"], batch()))


def assert_trees_close(ours, expected):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected)):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1, np.abs(b).max()))


def test_groups_count_in_training_only(variables):
    x = batch()
    plain = BatchNorm(train=False).apply(variables, x)
    np.testing.assert_array_equal(BatchNorm(train=False, groups=3).apply(variables, x), plain)
    module = BatchNorm(train=True, groups=3)
    module.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="cannot split 8 examples into 3 equal groups"):
        module.apply(variables, x, mutable=["batch_stats"])


@pytest.mark.parametrize("bottleneck, blocks", [(False, False), (True, True)])
def test_networks_pass_the_groups_on(bottleneck, blocks):
    """One forward of merged views equals one forward a view, features and projections."""
    sizes = {"blocks": (1,), "width": 0.0625, "small_stem": True, "bottleneck": bottleneck}
    x = np.float32(np.random.RandomState(0).rand(8, 4, 4, 1) ** 2)
    head = Projector(8, 4, last_norm="affine")
    encoder = from_linen(ResNet(**sizes))
    params, state = jax.jit(encoder.init)(jax.random.key(0), x)
    features = np.zeros((8, 16 if bottleneck else 4), np.float32)
    of_head = jax.jit(from_linen(head).init)(jax.random.key(1), features)

    def run(x, **groups):
        encoding, _ = from_linen(ResNet(**sizes, **groups)).apply(params, state, x, True)
        return from_linen(head.clone(**groups)).apply(*of_head, encoding.features, True)[0]

    merged = np.asarray(jax.jit(lambda x: run(x, norm_groups=2, norm_blocks=blocks))(x))
    alone = jax.jit(run)
    for g in (0, 1):
        part = MEMBERS[blocks](g)
        np.testing.assert_allclose(merged[part], alone(x[part]), atol=2e-4)
