"""The CPU convolutions against XLA's own."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sslax.models import conv
from sslax.models.conv import Conv, conv2d, conv3x3


def native(x, kernel, stride, padding):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def draw(seed, *shape):
    return jnp.asarray(np.random.RandomState(seed).standard_normal(shape), jnp.float32)


def output_and_gradients(function, x, kernel):
    def run(x, kernel):
        y, pull = jax.vjp(function, x, kernel)
        return y, *pull(
            jnp.sin(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape).astype(y.dtype)
        )

    return jax.jit(run)(x, kernel)


def assert_close(ours, theirs, tolerance):
    for a, b in zip(ours, theirs):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, atol=tolerance * b.std(), rtol=0)


@pytest.mark.parametrize(
    "size, kernel_size, stride, padding",
    [
        ((8, 8), 3, 1, 1),  # whole tiles
        ((7, 5), 3, 1, 1),  # parts of tiles
        ((8, 12), 3, 2, 1),
        ((7, 9), 3, 2, 1),  # odd edges at stride 2
        ((1, 2), 3, 2, 1),  # smaller than the kernel
        ((10, 14), 3, 1, 0),  # without padding, whole tiles
        ((8, 5), 3, 1, 0),
        ((3, 3), 3, 1, 0),
        ((9, 8), 3, 2, 0),  # XLA's own
        ((6, 5), 1, 1, 0),
        ((7, 6), 1, 2, 0),
        ((12, 11), 7, 2, 3),  # stems
        ((13, 8), 5, 2, 2),
        ((9, 12), 7, 2, 0),
        ((12, 11), 7, 1, 3),  # XLA's own
    ],
)
def test_output_and_gradients_equal_native(size, kernel_size, stride, padding, monkeypatch):
    x, kernel = draw(0, 6, *size, 5), draw(1, kernel_size, kernel_size, 5, 7)
    monkeypatch.setattr(conv, "_large", lambda *_: True)
    monkeypatch.setattr(conv, "_wide", lambda *_: True)
    ours = output_and_gradients(
        lambda x, k: conv2d(x, k, stride=stride, padding=padding), x, kernel
    )
    theirs = output_and_gradients(lambda x, k: native(x, k, stride, padding), x, kernel)
    assert_close(ours, theirs, 5e-5)


LARGE = pytest.mark.parametrize("stride, padding", [(1, 1), (1, 0), (2, 1)])


@LARGE
def test_loop_over_chunks_equals_native(stride, padding, monkeypatch):
    monkeypatch.setattr(conv, "_CHUNK", 2 * 8 * 8 * 5)
    assert conv._chunk(jnp.zeros((6, 6, 5, 3)), (6, 8, 8, 5), (6, 8, 8, 3)) == 2
    x, kernel = draw(0, 6, 8, 8, 5), draw(1, 3, 3, 5, 3)
    ours = output_and_gradients(lambda x, k: conv3x3(x, k, stride, padding), x, kernel)
    theirs = output_and_gradients(lambda x, k: native(x, k, stride, padding), x, kernel)
    assert_close(ours, theirs, 5e-5)


def test_bfloat16_is_as_good_as_native():
    x, kernel = draw(0, 4, 8, 8, 16), draw(1, 3, 3, 16, 16)
    exact = output_and_gradients(lambda x, k: native(x, k, 1, 1), x, kernel)
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    ours = output_and_gradients(lambda x, k: conv3x3(x, k, 1, 1), x, kernel)
    for a, b in zip(ours, exact):
        assert a.dtype == jnp.bfloat16
        assert np.abs(np.asarray(a, np.float32) - b).max() < 0.05 * np.asarray(b).std()


def test_extreme_values_pass_through():
    """No overflow and no loss of a small image beside a large one in the batch."""
    x = draw(0, 2, 8, 8, 4) * jnp.array([1e-6, 1e6])[:, None, None, None]
    kernel = draw(1, 3, 3, 4, 4)
    ours, theirs = conv3x3(x, kernel, 1, 1), native(x, kernel, 1, 1)
    assert_close(ours, theirs, 5e-5)


def test_repeats_to_the_bit():
    x, kernel = draw(0, 4, 9, 9, 8), draw(1, 3, 3, 8, 8)
    run = jax.jit(lambda x, k: jax.vjp(lambda x, k: conv3x3(x, k, 1, 1), x, k)[1](x))
    for a, b in zip(run(x, kernel), run(x, kernel)):
        np.testing.assert_array_equal(a, b)


def test_vmap_over_kernels():
    x, kernels = draw(0, 2, 5, 5, 3), draw(1, 2, 3, 3, 3, 4)
    batched = jax.vmap(lambda k: conv3x3(x, k, 1, 1))(kernels)
    for y, kernel in zip(batched, kernels):
        np.testing.assert_allclose(y, native(x, kernel, 1, 1), atol=1e-4)


@pytest.mark.parametrize("side, stride, padding", [(3, 1, 1), (3, 1, 0), (3, 2, 1), (7, 2, 3)])
def test_sharded_batch_moves_no_image(side, stride, padding, monkeypatch):
    monkeypatch.setattr(conv, "_CHUNK", 8 * 8 * 8 * 5)  # two loop steps of one image a device
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x, kernel = draw(0, 16, 8, 8, 5), draw(1, side, side, 5, 3)
    function = conv3x3 if side == 3 else conv._conv_wide

    def run(x, kernel):
        y, pull = jax.vjp(lambda x, k: function(x, k, stride, padding), x, kernel)
        return y, *pull(jnp.sin(y))

    expected = jax.jit(run)(x, kernel)
    data, replicated = (NamedSharding(mesh, PartitionSpec(*p)) for p in (("data",), ()))
    sharded = jax.jit(run, in_shardings=(data, replicated), out_shardings=(data, data, replicated))
    placed = jax.device_put(x, data), jax.device_put(kernel, replicated)
    text = sharded.lower(*placed).compile().as_text()
    assert "while" in text and "all-reduce" in text
    assert not re.search(r"all-gather|all-to-all|collective-permute", text)
    assert_close(sharded(*placed), expected, 1e-4)


def test_other_backends_keep_the_native_convolution(monkeypatch):
    shapes = (
        jax.ShapeDtypeStruct((64, 32, 32, 64), jnp.float32),
        jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32),
    )

    def primitives():
        jaxpr = jax.make_jaxpr(lambda x, k: conv2d(x, k, padding=1))(*shapes)
        return [equation.primitive.name for equation in jaxpr.eqns]

    assert primitives() != ["conv_general_dilated"]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert primitives() == ["conv_general_dilated"]


def test_module_has_the_parameters_and_output_of_linen():
    x = draw(0, 2, 6, 6, 3)
    ours = Conv(4, stride=2, use_bias=True)
    theirs = nn.Conv(4, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    variables = ours.init(jax.random.key(0), x)
    expected = theirs.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, expected)
    variables = jax.tree.map(lambda v: v + 0.5, variables)
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), atol=2e-4)


def test_wrong_channels_are_refused():
    with pytest.raises(AssertionError):
        conv2d(jnp.zeros((1, 4, 4, 3)), jnp.zeros((3, 3, 2, 4)), padding=1)
