"""The CPU convolutions against XLA's own."""

import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sslax.models import conv
from sslax.models.conv import Conv, conv2d
from sslax.models.kernels import borders, chunks, products, winograd


def native(x, kernel, stride, padding):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def draw(seed, *shape):
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


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
        ((5, 4), 3, 1, 1),  # few pixels for the kernel
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


def by_filtering(x, kernel, stride, padding):
    assert stride == 1
    return winograd.conv3x3(x, kernel, padding)


# With the elements of one image of 8x8x5 that a loop step counts.
LOOPS = pytest.mark.parametrize(
    "function, side, stride, padding, elements",
    [
        (by_filtering, 3, 1, 1, 8 * 8 * 5),
        (by_filtering, 3, 1, 0, 8 * 8 * 5),
        (products.conv_im2col, 3, 2, 1, 4 * 4 * 9 * 5),
        (products.conv_wide, 7, 2, 3, 8 * 8 * 8 * 5),
    ],
)


def limit_chunks(monkeypatch, elements):
    for module in (winograd, products):
        monkeypatch.setattr(module, "_CHUNK", elements)


@LOOPS
def test_loop_over_chunks_equals_native(function, side, stride, padding, elements, monkeypatch):
    limit_chunks(monkeypatch, 2 * elements)
    x, kernel = draw(0, 6, 8, 8, 5), draw(1, side, side, 5, 3)
    ours = output_and_gradients(lambda x, k: function(x, k, stride, padding), x, kernel)
    theirs = output_and_gradients(lambda x, k: native(x, k, stride, padding), x, kernel)
    assert_close(ours, theirs, 5e-5)


@pytest.mark.parametrize("padding, height, bands", [(1, 12, 3), (0, 14, 3), (1, 8, 1), (1, 10, 1)])
def test_bands_of_large_images_equal_native(padding, height, bands, monkeypatch):
    monkeypatch.setattr(winograd, "_CHUNK", 2 * 7 * (2 + 3))
    x, kernel = draw(0, 2, height, 7, 2), draw(1, 3, 3, 2, 3)
    output = native(x, kernel, 1, padding).shape
    assert winograd._Bands.of(x.shape, output, padding).number == bands
    ours = output_and_gradients(lambda x, k: winograd.conv3x3(x, k, padding), x, kernel)
    theirs = output_and_gradients(lambda x, k: native(x, k, 1, padding), x, kernel)
    assert_close(ours, theirs, 5e-5)


def test_a_batch_falls_into_equal_chunks():
    assert [chunks.count(12, wanted) for wanted in (0, 1, 5, 7, 100)] == [1, 1, 4, 6, 12]
    x = jnp.arange(6.0)
    assert chunks.take(chunks.split(x, 2), 1).tolist() == [1.0, 4.0]


MODES = {False: "constant", True: "reflect"}


@pytest.mark.parametrize("reflect", [False, True])
@pytest.mark.parametrize("size, side, k", [((8, 8), 3, 1), ((7, 5), 3, 2), ((6, 9), 5, 1)])
def test_few_outputs_equal_native(size, side, k, reflect, monkeypatch):
    monkeypatch.setattr(conv, "_MIN_PRODUCTS", 0)
    r = side // 2
    x, kernel = draw(0, 3, *size, 20), draw(1, side, side, 20, k)
    assert conv._has_few_outputs(x, kernel)

    def expected(x, kernel):
        padded = jnp.pad(x, ((0, 0), (r, r), (r, r), (0, 0)), mode=MODES[reflect])
        return native(padded, kernel, 1, 0)

    ours = output_and_gradients(
        lambda x, kernel: conv2d(x, kernel, padding=r, reflect=reflect), x, kernel
    )
    assert_close(ours, output_and_gradients(expected, x, kernel), 1e-5)


@pytest.mark.parametrize("size", [(4, 5), (2, 7), (1, 1), (3, 1)])
def test_padding_equals_numpy_and_their_transposes_add_up(size):
    x, g = draw(0, 2, *size, 3), draw(1, 2, size[0] + 2, size[1] + 2, 3)

    def run(function):
        return jax.jit(lambda x, g: (function(x), jax.vjp(function, x)[1](g)[0]))(x, g)

    for function, mode in ((borders.reflect_pad, "reflect"), (borders.edge_pad, "edge")):
        pad = partial(jnp.pad, pad_width=((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode)
        (y, of_y), (expected, of_expected) = run(function), run(pad)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_allclose(of_y, of_expected, atol=1e-5)


def test_wide_reflection_equals_numpy():
    x = draw(0, 1, 4, 6, 2)
    expected = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(borders.reflect_pad(x, 3), expected)


def test_reflecting_convolution_at_stride_2_equals_native():
    x, kernel = draw(0, 2, 8, 6, 4), draw(1, 3, 3, 4, 5)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    ours = jax.jit(partial(conv2d, stride=2, padding=1, reflect=True))(x, kernel)
    np.testing.assert_allclose(ours, native(padded, kernel, 2, 0), atol=1e-4)


def test_bfloat16_is_as_good_as_native():
    x, kernel = draw(0, 4, 8, 8, 16), draw(1, 3, 3, 16, 16)
    exact = output_and_gradients(lambda x, k: native(x, k, 1, 1), x, kernel)
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    ours = output_and_gradients(lambda x, k: winograd.conv3x3(x, k, 1), x, kernel)
    for a, b in zip(ours, exact):
        assert a.dtype == jnp.bfloat16
        assert np.abs(np.asarray(a, np.float32) - b).max() < 0.05 * np.asarray(b).std()


def test_extreme_values_pass_through():
    """No overflow and no loss of a small image beside a large one in the batch."""
    x = draw(0, 2, 8, 8, 4) * np.float32([1e-6, 1e6])[:, None, None, None]
    kernel = draw(1, 3, 3, 4, 4)
    run = jax.jit(lambda x, k: (winograd.conv3x3(x, k, 1), native(x, k, 1, 1)))
    ours, theirs = run(x, kernel)
    assert_close(ours, theirs, 5e-5)


def test_repeats_to_the_bit():
    x, kernel = draw(0, 4, 9, 9, 8), draw(1, 3, 3, 8, 8)
    run = jax.jit(lambda x, k: jax.vjp(lambda x, k: winograd.conv3x3(x, k, 1), x, k)[1](x))
    for a, b in zip(run(x, kernel), run(x, kernel)):
        np.testing.assert_array_equal(a, b)


def test_vmap_over_kernels():
    x, kernels = draw(0, 2, 5, 5, 3), draw(1, 2, 3, 3, 3, 4)
    batched = jax.jit(jax.vmap(lambda k: winograd.conv3x3(x, k, 1)))(kernels)
    for y, kernel in zip(batched, kernels):
        np.testing.assert_allclose(y, native(x, kernel, 1, 1), atol=1e-4)


@LOOPS
def test_sharded_batch_moves_no_image(function, side, stride, padding, elements, monkeypatch):
    limit_chunks(monkeypatch, 8 * elements)  # two loop steps of one image a device
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x, kernel = draw(0, 16, 8, 8, 5), draw(1, side, side, 5, 3)

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


@pytest.mark.parametrize(("side", "stride"), [(3, 1), (3, 2), (7, 2)])
def test_inside_shard_map_gradients_are_those_of_the_whole_batch(side, stride, monkeypatch):
    monkeypatch.setattr(conv, "_MIN_CHANNELS", 1)
    monkeypatch.setattr(conv, "_MIN_PRODUCTS", 1)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x, kernel = draw(0, 8, 8, 8, 3), draw(1, side, side, 3, 64)

    def total(x, kernel):
        return jnp.sum(jnp.sin(conv2d(x, kernel, stride=stride, padding=side // 2)))

    def over_devices(x, kernel):
        return lax.psum(total(x, kernel), "data")

    specs = PartitionSpec("data"), PartitionSpec()
    mapped = jax.shard_map(over_devices, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())
    ours, expected = (jax.jit(jax.grad(f, (0, 1)))(x, kernel) for f in (mapped, total))
    assert_close(ours, expected, 1e-4)


def test_few_outputs_of_a_sharded_batch_move_no_image():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    data, replicated = (NamedSharding(mesh, PartitionSpec(*p)) for p in (("data",), ()))
    x, kernel = draw(0, 8, 6, 8, 5), draw(1, 3, 3, 5, 1)

    def run(x, kernel):
        y, pull = jax.vjp(partial(products.conv_few_outputs, reflect=True), x, kernel)
        return y, *pull(jnp.sin(y))

    sharded = jax.jit(run, in_shardings=(data, replicated), out_shardings=(data, data, replicated))
    text = sharded.lower(x, kernel).compile().as_text()
    assert not re.search(r"all-gather|all-to-all|collective-permute", text)
    assert_close(sharded(x, kernel), jax.jit(run)(x, kernel), 1e-5)


def test_other_platforms_keep_the_native_convolution():
    shapes = (
        jax.ShapeDtypeStruct((64, 32, 32, 64), jnp.float32),
        jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32),
    )

    gradient = jax.grad(lambda x, k: jnp.sum(jnp.square(conv2d(x, k, padding=1))), (0, 1))

    def convolutions(platform):
        """How many there are beside loops and products, traced on this host."""
        text = jax.jit(gradient).trace(*shapes).lower(lowering_platforms=(platform,)).as_text()
        others = ("stablehlo.while", "stablehlo.dot_general", "stablehlo.optimization_barrier")
        return text.count("stablehlo.convolution") if not any(op in text for op in others) else None

    assert convolutions("cpu") is None
    assert convolutions("tpu") == convolutions("cuda") == 3


def test_module_has_the_parameters_and_output_of_linen():
    x = draw(0, 2, 6, 6, 3)
    ours = Conv(4, stride=2, use_bias=True)
    theirs = nn.Conv(4, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    variables = jax.jit(ours.init)(jax.random.key(0), x)
    expected = jax.eval_shape(theirs.init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, expected)
    variables = jax.tree.map(lambda v: np.asarray(v) + np.float32(0.5), variables)
    out, expected = jax.jit(lambda v: (ours.apply(v, x), theirs.apply(v, x)))(variables)
    np.testing.assert_allclose(out, expected, atol=2e-4)


def test_wrong_channels_are_refused():
    with pytest.raises(AssertionError):
        conv2d(jnp.zeros((1, 4, 4, 3)), jnp.zeros((3, 3, 2, 4)), padding=1)
