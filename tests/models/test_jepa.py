"""I-JEPA's predictor: masks, positions, blocks, initialization."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax.models import JEPAPredictor, from_linen, sincos_positions

MODULE = JEPAPredictor(patch=4, width=16, depth=2, heads=2)
N, K, M, T, D = 2, 5, 3, 4, 24


def inputs():
    random = np.random.RandomState(0)
    patches = np.stack([random.permutation(20) for _ in range(N)])
    return {
        "tokens": random.randn(N, K, D).astype(np.float32),
        "keep": patches[:, :K].astype(np.int32),
        "targets": patches[:, K : K + M * T].reshape(N, M, T).astype(np.int32),
        "like": np.zeros((N, 16, 20, 3), np.float32),
    }


@pytest.fixture(scope="module")
def predictor():
    model = from_linen(MODULE)
    params, _ = jax.jit(model.init)(jax.random.key(0), inputs())
    # Larger weights than at the start, so that attention matters.
    params = jax.device_get(params)
    params = jax.tree.map(lambda leaf: 10 * leaf if leaf.ndim > 1 else leaf, params)
    predict = jax.jit(lambda params, x: model.apply(params, {}, x, True)[0])
    return params, lambda params, x: np.asarray(predict(params, x))


def test_predicts_tokens_of_every_block(predictor):
    params, predict = predictor
    out = predict(params, inputs())
    assert out.shape == (N, M, T, D) and out.dtype == jnp.float32
    assert np.std(out) > 0.1


def test_without_blocks_a_prediction_is_a_function_of_its_position():
    module = MODULE.clone(depth=0)
    x = inputs()
    variables = jax.jit(partial(module.init, train=True))(jax.random.key(0), x)
    out = jax.jit(partial(module.apply, train=True))(variables, x)
    params = jax.device_get(variables["params"])
    y = params["mask_token"] + sincos_positions((4, 5), 16)[np.asarray(x["targets"])]
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    expected = y @ params["prediction"]["kernel"]
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_padding_changes_no_real_prediction(predictor):
    params, predict = predictor
    x = inputs()
    expected = predict(params, x)
    random = np.random.RandomState(1)
    padded = {
        "tokens": np.concatenate([x["tokens"], 100 * random.randn(N, 2, D)], 1),
        "keep": np.pad(x["keep"], ((0, 0), (0, 2)), constant_values=7),
        "keep_mask": np.pad(np.ones((N, K), bool), ((0, 0), (0, 2))),
        "targets": np.pad(x["targets"], ((0, 0), (0, 0), (0, 1)), constant_values=3),
        "target_mask": np.pad(np.ones((N, M, T), bool), ((0, 0), (0, 0), (0, 1))),
        "like": x["like"],
    }
    padded = {name: np.asarray(value, x.get(name, value).dtype) for name, value in padded.items()}
    np.testing.assert_allclose(predict(params, padded)[:, :, :T], expected, atol=2e-5)
    without = {name: value for name, value in padded.items() if not name.endswith("_mask")}
    assert np.abs(predict(params, without)[:, :, :T] - expected).max() > 0.1
    nothing = {
        **padded,
        "keep_mask": np.zeros((N, K + 2)),
        "target_mask": np.zeros((N, M, T + 1)),
    }
    assert np.all(np.isfinite(predict(params, nothing)))


def test_order_of_the_context_does_not_matter(predictor):
    params, predict = predictor
    x, order = inputs(), np.array([3, 0, 4, 1, 2])
    moved = {**x, "tokens": x["tokens"][:, order], "keep": x["keep"][:, order]}
    np.testing.assert_allclose(predict(params, moved), predict(params, x), atol=2e-5)
    elsewhere = {**x, "tokens": x["tokens"][:, order]}
    assert np.abs(predict(params, elsewhere) - predict(params, x)).max() > 0.1


def test_blocks_do_not_see_each_other(predictor):
    params, predict = predictor
    x = inputs()
    alone = [predict(params, {**x, "targets": x["targets"][:, i : i + 1]}) for i in range(M)]
    np.testing.assert_allclose(np.concatenate(alone, 1), predict(params, x), atol=2e-5)


def test_every_parameter_has_a_gradient():
    model = from_linen(MODULE)

    @jax.jit
    def gradient(x):
        params, state = model.init(jax.random.key(0), x)

        def loss(params, tokens):
            out, _ = model.apply(params, state, {**x, "tokens": tokens}, True)
            return jnp.sum(jnp.sin(100 * out + 1))

        return jax.grad(loss, argnums=(0, 1))(params, x["tokens"])

    of_params, of_tokens = jax.device_get(gradient(inputs()))
    for path, leaf in jax.tree.leaves_with_path(of_params):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0), path
    assert np.any(of_params["mask_token"] != 0)
    assert np.all(np.any(of_tokens != 0, axis=-1))


def test_initialization_is_as_stated():
    module = JEPAPredictor(patch=4, width=96, depth=3, heads=3)
    params = jax.jit(lambda key: module.init(key, inputs(), train=True))(jax.random.key(0))[
        "params"
    ]
    std = 0.02 * 0.8796  # of a normal distribution cut off at two deviations
    block = params["block03"]
    for kernel in (params["embedding"], block["attention"]["qkv"], block["linear1"]):
        np.testing.assert_allclose(np.std(kernel["kernel"]), std, rtol=0.05)
    for kernel in (block["attention"]["projection"], block["linear2"]):
        np.testing.assert_allclose(np.std(kernel["kernel"]), std / np.sqrt(6), rtol=0.05)
    np.testing.assert_allclose(np.std(params["mask_token"]), std, rtol=0.25)
    assert not np.any(params["embedding"]["bias"]) and not np.any(block["linear1"]["bias"])


def test_shapes_that_disagree_are_refused():
    x = inputs()
    with pytest.raises(AssertionError, match=r"\[2, 4\]"):
        MODULE.init(jax.random.key(0), {**x, "keep": x["keep"][:, :4]}, train=True)
