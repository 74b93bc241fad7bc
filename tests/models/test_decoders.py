"""Decoders: shapes for every size of image, places, gradients. MAE's numbers: see test_vit.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from sslax.models import (
    ColorDecoder,
    ContextDecoder,
    Data2VecDecoder,
    Discriminator,
    MAEDecoder,
    ResNet,
    ViT,
    as_map,
    from_linen,
)

KEEP = np.array([[4, 0, 3], [1, 5, 2]], np.int32)


def draw(seed, *shape):
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


CASES = {
    "mae": (
        MAEDecoder(patch=2, width=8, depth=1, heads=2),
        {"tokens": draw(0, 2, 4, 6), "keep": KEEP, "like": draw(1, 2, 4, 6, 3)},
        (2, 6, 12),
    ),
    "data2vec": (
        Data2VecDecoder(patch=2, width=6, layers=2, groups=3),
        {
            **{"tokens": draw(0, 2, 4, 6), "keep": KEEP, "like": draw(1, 2, 4, 6, 3)},
            "key": jax.random.split(jax.random.key(0), 2),
        },
        (2, 6, 6),
    ),
    "context": (
        ContextDecoder(bottleneck=6, width=4),
        {"features": draw(0, 3, 2, 2, 5), "like": draw(1, 3, 7, 7, 2)},
        (3, 7, 7, 2),
    ),
    "discriminator": (Discriminator(width=4), draw(0, 3, 14, 14, 2), (3,)),
    "color": (
        ColorDecoder(5, ("a", "b"), width=4),
        {"stages": {"a": draw(0, 3, 5, 5, 2), "b": draw(1, 3, 10, 3)}, "like": draw(2, 3, 4, 4)},
        (3, 4, 4, 5),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_shape_and_a_gradient_in_every_parameter(name):
    module, x, shape = CASES[name]
    model = from_linen(module)
    params, state = jax.jit(model.init)(jax.random.key(0), x)

    @jax.jit
    def run(params):
        def scalar(params):
            out, _ = model.apply(params, state, x, True)
            weights = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
            return jnp.sum(weights * jnp.sin(out)), out

        return jax.grad(scalar, has_aux=True)(params)

    gradients, out = jax.device_get(run(params))
    assert out.shape == shape and out.dtype == jnp.float32
    for leaf in jax.tree.leaves(gradients):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)
    for a, b in zip(jax.tree.leaves(run(params)), jax.tree.leaves((gradients, out))):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_keeps_parameters_and_outputs_in_float32(name):
    module, x, _ = CASES[name]
    model = from_linen(module.clone(dtype=jnp.bfloat16))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    out = jax.eval_shape(lambda v: model.apply(*v, x, True), variables)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((variables, out)))


@pytest.mark.parametrize("name", ["mae", "data2vec", "context", "color"])
def test_like_gives_its_shape_alone(name):
    module, x, _ = CASES[name]
    model = from_linen(module)
    params, state = jax.jit(model.init)(jax.random.key(0), x)
    gradient = jax.jit(
        jax.grad(lambda like: jnp.sum(model.apply(params, state, {**x, "like": like}, True)[0]))
    )(x["like"])
    assert not np.any(gradient)


@pytest.mark.parametrize("size", [28, 32, 224])
def test_sizes_of_images(size):
    """From a ResNet's and a ViT's outputs at the usual sizes, by shape."""
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    hole = jax.ShapeDtypeStruct((2, size // 2, size // 2, 3), jnp.float32)
    like = jax.ShapeDtypeStruct((2, size // 4, size // 4), jnp.float32)
    patch = 16 if size == 224 else 4
    networks = {
        "stage": ResNet(blocks=(1, 1, 1, 1), width=0.125, small_stem=size < 64),
        "block": ViT(patch=patch, width=16, depth=4, heads=2),
    }

    def shape_of(module, x):
        model = from_linen(module)
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
        return jax.eval_shape(lambda v, x: model.apply(*v, x, True)[0], variables, x)

    for kind, network in networks.items():
        encoding = shape_of(network, images)
        names = tuple(name for name in encoding.stages if name.startswith(kind))
        assert len(names) == 4
        for features in (encoding.features, encoding.stages[names[-1]]):
            painted = shape_of(ContextDecoder(width=8), {"features": features, "like": hole})
            assert painted.shape == hole.shape
        logits = shape_of(ColorDecoder(7, names), {"stages": encoding.stages, "like": like})
        assert logits.shape == (*like.shape, 7)
    for x in (images, hole):
        assert shape_of(Discriminator(width=8), x).shape == (2,)
    keep = jax.ShapeDtypeStruct((2, 5), jnp.int32)
    tokens = shape_of(networks["block"], {"image": images, "keep": keep}).stages["tokens"]
    x = {"tokens": tokens, "keep": keep, "like": images}
    assert shape_of(MAEDecoder(patch=patch), x).shape == (2, (size // patch) ** 2, patch**2 * 3)


def test_mae_decoder_puts_tokens_back_whatever_their_order():
    module, x, _ = CASES["mae"]
    model = from_linen(module)
    params, state = jax.jit(model.init)(jax.random.key(0), x)
    apply = jax.jit(lambda x: model.apply(params, state, x, True)[0])
    order = np.array([2, 0, 1])
    moved = {
        **x,
        "tokens": np.concatenate([x["tokens"][:, :1], x["tokens"][:, 1:][:, order]], axis=1),
        "keep": KEEP[:, order],
    }
    expected, elsewhere = jax.device_get((apply(x), apply({**x, "keep": KEEP[::-1]})))
    np.testing.assert_allclose(apply(moved), expected, atol=1e-5)
    assert np.abs(elsewhere - expected).max() > 1e-3


def test_mae_decoder_without_class_token():
    module, x, shape = CASES["mae"]
    model = from_linen(module)
    x = {**x, "tokens": x["tokens"][:, 1:]}
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert jax.eval_shape(lambda v: model.apply(*v, x, True)[0], variables).shape == shape


@pytest.mark.parametrize(("width", "groups"), [(6, 3), (4, 2)])
def test_data2vec_decoder_is_convolutions_with_noise_at_masked_patches(width, groups):
    """Position by position, group by group; the second decoder has no residual at first."""
    module = Data2VecDecoder(patch=2, width=width, layers=2, groups=groups, noise=0.5)
    _, x, _ = CASES["data2vec"]
    with jax.enable_x64(True):
        module = module.clone(dtype=jnp.float64)
        tokens = np.asarray(x["tokens"], np.float64)
        params = jax.jit(lambda x: module.init(jax.random.key(1), x, train=True))(x)["params"]
        random = np.random.default_rng(2)
        params = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), params)
        x = {**x, "tokens": tokens}
        out = jax.jit(lambda p: module.apply({"params": p}, x, train=True))(params)
        noise = [0.5 * np.asarray(jax.random.normal(key, (6, 6))) for key in x["key"]]
    for i, y in enumerate(noise):
        y[KEEP[i]] = tokens[i, 1:]
        y = y.reshape(2, 3, 6)
        for name in ("conv1", "conv2"):
            kernel, bias, padded = (
                params[name]["kernel"],
                params[name]["bias"],
                np.pad(y, 1)[:, :, 1:-1],
            )
            z = np.zeros((2, 3, width)) + bias
            per_group, inputs = width // groups, y.shape[-1] // groups
            for row, column, k in np.ndindex(2, 3, width):
                first = k // per_group * inputs
                window = padded[row : row + 3, column : column + 3, first : first + inputs]
                z[row, column, k] += (window * kernel[..., k]).sum()
            z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)
            z = z * scipy.special.ndtr(z)
            y = y + z if y.shape == z.shape else z
        last = params["prediction"]
        expected = y.reshape(6, width) @ last["kernel"] + last["bias"]
        np.testing.assert_allclose(out[i], expected, rtol=1e-4, atol=1e-4)


def test_painting_starts_near_the_middle_of_the_range():
    model = from_linen(ContextDecoder(bottleneck=16, width=8))
    x = {"features": draw(0, 8, 20), "like": draw(1, 8, 14, 14, 1)}
    params, state = jax.jit(model.init)(jax.random.key(0), x)
    out, _ = jax.jit(lambda p: model.apply(p, state, x, True))(params)
    np.testing.assert_allclose(np.mean(out), 0.5, atol=0.1)
    assert 0.02 < np.std(out) < 0.2


def test_discriminator_learns_to_tell_noise_from_ramps():
    model = from_linen(Discriminator(width=4))
    noise = draw(0, 8, 8, 8, 1)
    ramps = np.sort(noise, axis=2)
    params, state = jax.jit(model.init)(jax.random.key(0), noise)

    @jax.jit
    def step(params):
        def loss(params):
            logits = model.apply(params, state, jnp.concatenate([ramps, noise]), True)[0]
            return jnp.mean(jax.nn.softplus(-logits[:8]) + jax.nn.softplus(logits[8:]))

        value, gradient = jax.value_and_grad(loss)(params)
        return value, jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)

    first, params = step(params)
    np.testing.assert_allclose(first, 2 * np.log(2), rtol=0.05)
    for _ in range(20):
        last, params = step(params)
    assert last < 0.5 * first


def test_color_decoder_starts_at_chance_and_keeps_places():
    """A bright spot in a stage changes the logits around its own place and nowhere else."""
    model = from_linen(ColorDecoder(50, ("deep", "flat"), width=8))
    x = {
        "stages": {"deep": draw(0, 2, 4, 4, 3), "flat": draw(1, 2, 16, 3), "other": np.ones(3)},
        "like": draw(2, 2, 8, 8),
    }
    params, state = jax.jit(model.init)(jax.random.key(0), x)
    apply = jax.jit(lambda x: model.apply(params, state, x, False)[0])
    logits = np.asarray(apply(x))
    loss = np.mean(scipy.special.logsumexp(logits, axis=-1) - logits[..., 0])
    np.testing.assert_allclose(loss, np.log(50), rtol=0.01)
    for name, place in (("deep", (0, 3, 0)), ("flat", (0, 12))):  # the lower left corner
        spot = x["stages"][name].copy()
        spot[place] += 5.0
        other = np.asarray(apply({**x, "stages": {**x["stages"], name: spot}}))
        changed = np.any(other != logits, axis=-1)
        assert changed[0, 5:, :3].all() and changed.sum() == 9


def test_stage_that_does_not_exist_is_named():
    _, x, _ = CASES["color"]
    with pytest.raises(ValueError, match="stage of the decoder is 'c'"):
        ColorDecoder(5, ("c",)).init(jax.random.key(0), x, train=True)


def test_tokens_become_maps():
    tokens = draw(0, 2, 9, 4)
    expected = tokens.reshape(2, 3, 3, 4)
    np.testing.assert_array_equal(as_map(tokens), expected)
    with_class = np.concatenate([np.full((2, 1, 4), 9.0), tokens], axis=1)
    np.testing.assert_array_equal(as_map(with_class), expected)
    assert as_map(expected) is expected
    with pytest.raises(ValueError, match="8 tokens"):
        as_map(tokens[:, :8])
