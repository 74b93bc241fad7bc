"""RAFT against torchvision's, and what its knobs do."""

import re
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import exact_jit

from sslax.models import from_linen
from sslax.models.raft import (
    RAFT,
    Encoder,
    load_torchvision_raft,
    upsample_convex,
    upsample_corners,
)

GOLDEN = np.load(Path(__file__).parent / "golden" / "raft.npz")
TINY = {"small": True, "width": 0.125, "iterations": 2, "levels": 2, "radius": 1}


def fill(name, shape):
    """As in experiments/golden/flow_networks.py, which made the golden numbers so."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = random.standard_normal(shape).astype(np.float32)
    if name.startswith("update_block.flow_head.conv2"):
        values *= np.float32(0.1)
    if len(shape) == 4:
        return values * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    if name.endswith(("weight", "running_var")):
        return 1 + np.float32(0.2) * np.tanh(values)
    return np.float32(0.2) * values


def images(height, width):
    y, x = np.mgrid[:height, :width].astype(np.float64)
    pair = []
    for dx, dy in ((0, 0), (5, -3)):
        waves = [
            np.sin(0.11 * (i + 2) * (x - dx) + 0.07 * (5 - i) * (y - dy) + i) for i in range(3)
        ]
        pair.append(0.5 + 0.4 * np.stack(waves, axis=-1))
    return np.stack(pair)[None].astype(np.float32)


def state_dict(small):
    """The names and shapes that torchvision's network has, filled."""
    shapes = {}

    def conv(name, inputs, outputs, *sides):
        shapes[f"{name}.weight"] = (outputs, inputs, *(sides * 2)[:2])
        shapes[f"{name}.bias"] = (outputs,)

    def layer(name, inputs, outputs, side, norm):
        conv(f"{name}.0", inputs, outputs, side)
        for leaf in ("weight", "bias", "running_mean", "running_var") if norm else ():
            shapes[f"{name}.1.{leaf}"] = (outputs,)

    def encoder(name, widths, outputs, norm):
        layer(f"{name}.convnormrelu", 3, widths[0], 7, norm)
        last = widths[0]
        for i, width in enumerate(widths, start=1):
            for j in range(2):
                sizes = [(width, 3), (width, 3)]
                if small:
                    sizes = [(width // 4, 1), (width // 4, 3), (width, 1)]
                block, inputs = f"{name}.layer{i}.{j}", last
                for k, (out, side) in enumerate(sizes, start=1):
                    layer(f"{block}.convnormrelu{k}", last, out, side, norm)
                    last = out
                if i > 1 and j == 0:
                    layer(f"{block}.downsample", inputs, width, 1, norm)
        conv(f"{name}.conv", last, outputs, 1)

    encoder("feature_encoder", (32, 64, 96) if small else (64, 96, 128), 128 if small else 256, 0)
    encoder(
        "context_encoder",
        (32, 64, 96) if small else (64, 96, 128),
        160 if small else 256,
        not small,
    )
    update, hidden = "update_block", 96 if small else 128
    motion = f"{update}.motion_encoder"
    layer(f"{motion}.convcorr1", 196 if small else 324, 96 if small else 256, 1, 0)
    if not small:
        layer(f"{motion}.convcorr2", 256, 192, 3, 0)
    flow = (64, 32) if small else (128, 64)
    layer(f"{motion}.convflow1", 2, flow[0], 7, 0)
    layer(f"{motion}.convflow2", *flow, 3, 0)
    layer(f"{motion}.conv", (96 if small else 192) + flow[1], 80 if small else 126, 3, 0)
    inputs = hidden + (82 + 64 if small else 256)
    for i, sides in enumerate([(3,)] if small else [(1, 5), (5, 1)], start=1):
        for gate in "zrq":
            conv(f"{update}.recurrent_block.convgru{i}.conv{gate}", inputs, hidden, *sides)
    conv(f"{update}.flow_head.conv1", hidden, 128 if small else 256, 3)
    conv(f"{update}.flow_head.conv2", 128 if small else 256, 2, 3)
    if not small:
        layer("mask_predictor.convrelu", hidden, 256, 3, 0)
        conv("mask_predictor.conv", 256, 576, 1)
    return {name: fill(name, shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", ["raft_small", "raft_large"])
def test_flow_equals_torchvision(name):
    params, state = load_torchvision_raft(state_dict(name == "raft_small"))
    model = from_linen(RAFT(small=name == "raft_small", both=False))
    flow = jax.jit(lambda *x: model.apply(*x, False)[0])(params, state, images(128, 136))
    assert flow.shape == (1, 1, 12, 128, 136, 2)
    for i in (0, 1, 11):
        golden = GOLDEN[f"{name}_{i}"]
        np.testing.assert_allclose(flow[0, 0, i, ::7, ::7], golden, atol=1e-4 * golden.std())


def test_a_tensor_too_few_or_too_many_is_named():
    tensors = state_dict(True)
    bias = tensors.pop("context_encoder.convnormrelu.0.bias")  # of a layer without normalization
    with pytest.raises(ValueError, match="lacks 'params/context_encoder/convnormrelu/conv/bias'"):
        load_torchvision_raft(tensors)
    tensors["context_encoder.convnormrelu.0.bias"] = bias
    with pytest.raises(ValueError, match=re.escape("(160,) in the state dict but (80,)")):
        load_torchvision_raft(tensors, RAFT(small=True, width=0.5))


@pytest.fixture(scope="module")
def tiny():
    model = from_linen(RAFT(**TINY))
    pair = images(16, 24)
    pair = jnp.asarray(np.concatenate([pair, 1 - pair[:, ::-1]]))
    params, state = jax.eval_shape(model.init, jax.random.key(0), pair)
    assert not state
    # With this seed no unit of the narrow bottlenecks is dead.
    random = np.random.RandomState(1)

    def draw(leaf):  # which takes less time than to compile the initializers
        values = random.standard_normal(leaf.shape).astype(np.float32)
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.1
        return np.float32(scale) * values

    return model, jax.tree.map(draw, params), state, pair


def test_examples_and_directions_do_not_see_each_other(tiny):
    model, params, state, pair = tiny
    apply = exact_jit(lambda x: model.apply(params, state, x, True)[0])
    flow = apply(pair)
    assert flow.shape == (2, 2, 2, 16, 24, 2) and flow.dtype == jnp.float32
    np.testing.assert_allclose(apply(pair[:, ::-1]), flow[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(apply(pair.at[0].multiply(0.3))[1], flow[1], atol=1e-5)
    one = from_linen(RAFT(**TINY, both=False))
    single = exact_jit(lambda x: one.apply(params, state, x, True)[0])(pair)
    np.testing.assert_allclose(single, flow[:, :1], atol=1e-5)


def loss(params, pair, **knobs):
    flow, _ = from_linen(RAFT(**TINY, **knobs)).apply(params, {}, pair, True)
    return jnp.mean(jnp.square(flow - 1)), flow


@pytest.fixture(scope="module")
def gradient():
    return exact_jit(jax.grad(loss, has_aux=True))


def test_forms_of_correlation_and_remat_change_nothing_but_memory(tiny, gradient):
    _, params, _, pair = tiny
    expected, flow = gradient(params, pair)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(jax.device_get(expected)))

    # Of the iterations' parameters; test_correlation.py has the gradients of the features.
    @exact_jit
    def other(params, iteration):
        run = lambda p: loss({**params, "iteration": p}, pair, **knobs)  # noqa: E731
        return jax.grad(run, has_aux=True)(iteration)

    knobs = {"correlation": "on_demand", "remat": True}
    found = other(params, params["iteration"])
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4)  # noqa: E731
    jax.tree.map(close, found, (expected["iteration"], flow))


def test_equal_images_have_finite_gradients(tiny, gradient):
    _, params, _, pair = tiny
    for same in (pair.at[:, 1].set(pair[:, 0]), jnp.full_like(pair, 0.5)):
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradient(params, same)))


def test_sizes_are_continued_and_cut(tiny):
    model, params, state, pair = tiny
    apply = exact_jit(lambda x: model.apply(params, state, x, False)[0])
    padded = jnp.pad(pair[:, :, :13, :19], ((0, 0), (0, 0), (0, 3), (0, 5), (0, 0)), mode="edge")
    np.testing.assert_array_equal(apply(pair[:, :, :13, :19]), apply(padded)[..., :13, :19, :])
    with pytest.raises(ValueError, match="too small for 2 levels"):
        apply(pair[:, :, :8])
    with pytest.raises(ValueError, match="Known: dense"):
        RAFT(correlation="sparse").init(jax.random.key(0), pair, train=False)


def test_batch_norm_is_of_the_context_encoder_alone():
    pair = jax.ShapeDtypeStruct((1, 2, 64, 64, 3), jnp.float32)
    _, state = jax.eval_shape(from_linen(RAFT()).init, jax.random.key(0), pair)
    assert list(state["batch_stats"]) == ["context_encoder"]
    assert not jax.eval_shape(from_linen(RAFT(norm="instance")).init, jax.random.key(0), pair)[1]
    with pytest.raises(ValueError, match="Known: batch"):
        Encoder(8, norm="layer").init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=True)


def test_convex_upsampling_picks_neighbors_and_corners_lie_on_corners():
    flow = np.random.RandomState(0).randn(1, 3, 4, 2).astype(np.float32)
    logits = np.full((1, 3, 4, 9, 2, 2), -1e9, np.float32)
    logits[..., 4, :, :] = 0.0  # every pixel itself,
    logits[..., 4, 1, 0], logits[..., 5, 1, 0] = -1e9, 0.0  # the lower left its right neighbor
    up = jax.jit(upsample_convex, static_argnums=2)(flow, logits.reshape(1, 3, 4, 36), 2)
    up = np.asarray(up)
    np.testing.assert_allclose(up[:, ::2, ::2], 2 * flow)
    np.testing.assert_allclose(up[:, 1::2, 1::2], 2 * flow)
    np.testing.assert_allclose(up[:, 1::2, :-2:2], 2 * flow[:, :, 1:])
    assert not np.any(up[:, 1::2, -2])  # out of the frame
    corners = np.asarray(jax.jit(upsample_corners, static_argnums=1)(flow, 3))
    assert corners.shape == (1, 9, 12, 2)
    np.testing.assert_allclose(
        corners[:, [0, 0, -1], [0, -1, -1]], 3 * flow[:, [0, 0, -1], [0, -1, -1]], rtol=1e-5
    )
