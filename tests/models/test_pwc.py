"""PWC-Net: shapes, directions, level dropout, and its parts against PyTorch's definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax.models import conv2d, from_linen
from sslax.models.pwc import PWCNet, _join_phases, pad_to_multiple, pairs, upsample_flow

TINY = {
    "levels": 3,
    "channels": 4,
    "convolutions": 1,
    "radius": 1,
    "width": 0.5,
    "decoder": (12, 8),
    "context": ((8, 1), (8, 2)),
}


@pytest.fixture(scope="module")
def tiny():
    """A network that drops levels, its variables, and pairs of images."""
    model = from_linen(PWCNet(**TINY, level_dropout=0.5))
    pair = jnp.asarray(np.random.RandomState(0).rand(2, 2, 16, 24, 3).astype(np.float32))
    params, state = jax.jit(model.init)(jax.random.key(0), pair)
    assert not state
    return model, params, pair


def test_examples_and_directions_do_not_see_each_other(tiny):
    model, params, pair = tiny
    apply = jax.jit(lambda x: model.apply(params, {}, x, False)[0])
    flows = jax.device_get(apply(pair))
    assert [flow.shape for flow in flows] == [(2, 2, 4, 6, 2), (2, 2, 2, 3, 2)]
    assert all(flow.dtype == jnp.float32 for flow in flows)
    one = from_linen(PWCNet(**TINY, both=False))
    single = jax.jit(lambda x: one.apply(params, {}, x, False)[0])(pair)
    reverse, other = apply(pair[:, ::-1]), apply(pair.at[0].multiply(0.3))
    for i, flow in enumerate(flows):
        np.testing.assert_allclose(reverse[i], flow[:, ::-1], atol=1e-6)
        np.testing.assert_allclose(other[i][1], flow[1], atol=1e-6)
        np.testing.assert_allclose(single[i], flow[:, :1], atol=1e-6)


def test_dropped_levels_depend_on_the_examples_key_alone(tiny):
    model, params, pair = tiny
    apply = jax.jit(lambda x: model.apply(params, {}, x, True)[0])
    pair = np.tile(pair[:1], (64, 1, 1, 1, 1))
    keys = jax.random.split(jax.random.key(1), 64)
    fine, coarse = jax.device_get(apply({"image": pair, "key": keys}))
    back = jax.device_get(apply({"image": pair, "key": keys[::-1]}))
    np.testing.assert_allclose(back[0][::-1], fine, atol=1e-6)
    zero = np.all(coarse == 0, axis=(2, 3, 4))  # dropped with nothing below it
    assert 0.3 < np.mean(zero) < 0.7
    assert np.any(zero[:, 0] != zero[:, 1])
    up = jax.jit(upsample_flow, static_argnums=1)(coarse, 2)
    kept = np.all(np.isclose(fine, up, atol=1e-6), axis=(2, 3, 4))  # level and refinement dropped
    assert 0.1 < np.mean(kept) < 0.45
    with pytest.raises(ValueError, match="random key for each example"):
        apply(pair)


@pytest.fixture(scope="module")
def gradient(tiny):
    _, params, _ = tiny
    model = from_linen(PWCNet(**TINY, level_dropout=0.0))

    def loss(params, pair):
        flows, _ = model.apply(params, {}, pair, True)
        return sum(jnp.mean(jnp.square(flow - 1)) for flow in flows)

    return jax.jit(jax.grad(loss)), params


def test_every_parameter_learns_and_equal_images_are_finite(tiny, gradient):
    gradient, params = gradient
    pair = tiny[-1]
    assert all(np.any(leaf) for leaf in jax.tree.leaves(jax.device_get(gradient(params, pair))))
    for same in (pair.at[:, 1].set(pair[:, 0]), jnp.full_like(pair, 0.5)):
        leaves = jax.tree.leaves(gradient(params, same))
        assert all(np.all(np.isfinite(leaf)) for leaf in leaves)


def test_plain_decoder_without_context_has_fewer_parameters(tiny):
    def shapes(**knobs):
        module = PWCNet(**{**TINY, **knobs})
        return jax.eval_shape(from_linen(module).init, jax.random.key(0), tiny[-1])[0]

    dense, plain = shapes(), shapes(dense=False, context=())
    inputs = 9 + 4 + 4 + 2  # correlations, features, upsampled context and flow
    assert dense["decoder2_2"]["kernel"].shape == (3, 3, inputs + 6, 4)
    assert plain["decoder2_2"]["kernel"].shape == (3, 3, 6, 4)
    assert set(dense) - set(plain) == {"context1", "context2", "context_flow"}
    with pytest.raises(ValueError, match="decoder is empty"):
        shapes(decoder=())
    with pytest.raises(ValueError, match=r"too small for 9 levels of features, which need 512"):
        shapes(levels=9)


def test_four_phases_of_a_2x2_convolution_are_a_transposed_4x4_convolution_of_stride_2():
    random = np.random.RandomState(0)
    x, kernel = random.randn(1, 3, 4, 2), random.randn(4, 4, 2, 3)
    expected = np.zeros((1, 3 * 2 + 2, 4 * 2 + 2, 3))
    for i in range(3):
        for j in range(4):
            taps = np.einsum("nc,abck->nabk", x[:, i, j], kernel)
            expected[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += taps
    # [tap of the convolution, phase] -> tap of the kernel
    taps = np.array([[3, 2], [1, 0]])
    phases = kernel[taps][:, :, taps].transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, 2, 12)
    run = jax.jit(lambda x, phases: _join_phases(conv2d(x, phases, padding=1)))
    found = run(np.float32(x), np.float32(phases))
    np.testing.assert_allclose(found, expected[:, 1:-1, 1:-1], atol=1e-5)


def test_sizes_are_continued_and_cut(tiny):
    model, params, pair = tiny
    apply = jax.jit(lambda x: model.apply(params, {}, x, False)[0])
    cut = pair[:, :, :13, :19]
    whole = jax.jit(pad_to_multiple, static_argnums=1)(cut, 8)
    flows, padded = jax.device_get((apply(cut), apply(whole)))
    assert whole.shape == (2, 2, 16, 24, 3)
    assert [flow.shape[2:4] for flow in flows] == [(4, 5), (2, 3)]
    for a, b in zip(flows, padded):
        np.testing.assert_allclose(a, b[:, :, : a.shape[2], : a.shape[3]], atol=1e-6)


def test_pairs_stay_with_their_example():
    x = np.arange(6.0)[:, None]
    assert [y[:, 0].tolist() for y in pairs(x, False)] == [[0, 2, 4], [1, 3, 5]]
    assert [y[:, 0].tolist() for y in pairs(x, True)] == [[0, 1, 2, 3, 4, 5], [1, 0, 3, 2, 5, 4]]
