"""Steps of I-JEPA equal those of a reference in NumPy, whose gradients are finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from descent import descend

from sslax.methods.representation.ijepa import ijepa
from sslax.training.step import init_state, train_step
from sslax.types import Encoding, Model

RATE, MOMENTUM = 0.2, 0.8
EXAMPLES, TOKENS, PIXELS, WIDTH = 3, 9, 12, 5

_rng = np.random.default_rng(0)
WEIGHTS = {
    "encoder": {"kernel": _rng.normal(size=(PIXELS, WIDTH)), "bias": _rng.normal(size=WIDTH)},
    "predictor": {
        "kernel": _rng.normal(size=(WIDTH, WIDTH)),
        "position": _rng.normal(size=(TOKENS, WIDTH)),
    },
}
IMAGES = _rng.uniform(size=(2, EXAMPLES, 6, 6, 3))  # of two steps
CONTEXT = np.array([[0, 1, 2, 0], [3, 4, 5, 8], [8, 6, 0, 0]])
CONTEXT_MASK = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]], bool)
TARGETS = np.array([[[3, 4], [5, 0]], [[0, 1], [6, 7]], [[1, 2], [3, 0]]])
TARGET_MASK = np.array([[[1, 1], [1, 0]], [[1, 1], [1, 1]], [[1, 1], [1, 0]]], bool)


def patches(image):
    return [image[i : i + 2, j : j + 2].reshape(-1, PIXELS) for i in (0, 2, 4) for j in (0, 2, 4)]


def reference_loss(params, momentum, images):
    """Token by token, as the paper says it."""
    errors = []
    for n, image in enumerate(images):
        cells = np.concatenate(patches(image))

        def tokens(p, cells=cells):
            return np.tanh(cells @ p["kernel"] + p["bias"])

        context = tokens(params["encoder"])[CONTEXT[n][CONTEXT_MASK[n]]].mean(0)
        wanted = tokens(momentum)
        wanted = wanted - wanted.mean(1, keepdims=True)
        wanted = wanted / np.sqrt((wanted**2).mean(1, keepdims=True) + 1e-5)
        for at in TARGETS[n][TARGET_MASK[n]]:
            predictor = params["predictor"]
            difference = (context + predictor["position"][at]) @ predictor["kernel"] - wanted[at]
            size = np.abs(difference)
            errors.append(np.where(size < 1, size**2 / 2, size - 0.5).mean())
    return np.mean(errors)


def reference_step(params, momentum, images):
    """Gradient descent, then the momentum encoder follows."""
    after = descend(lambda p: reference_loss(p, momentum, images), params, RATE)
    momentum = jax.tree.map(
        lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new, momentum, after["encoder"]
    )
    return after, momentum


def small_model(part, apply):
    return Model(
        lambda rng, x: (jax.tree.map(jnp.asarray, WEIGHTS[part]), {}),
        lambda params, state, x, train: (apply(params, x), state),
    )


def encode(p, x):
    image = x["image"]
    cells = image.reshape(-1, 3, 2, 3, 2, 3).swapaxes(2, 3).reshape(-1, TOKENS, PIXELS)
    tokens = jnp.tanh(cells @ p["kernel"] + p["bias"])
    if "keep" in x:
        tokens = jnp.take_along_axis(tokens, x["keep"][..., None], axis=1)
    return Encoding(tokens.mean(1), {"tokens": tokens})


def predict(p, x):
    weight = x["keep_mask"][..., None]
    context = (x["tokens"] * weight).sum(1) / weight.sum(1)
    return (context[:, None, None] + p["position"][x["targets"]]) @ p["kernel"]


def batch_of(images):
    masks = {"context": CONTEXT, "context_mask": CONTEXT_MASK}
    return {"input": images, **masks, "targets": TARGETS, "target_mask": TARGET_MASK}


def small_method():
    method = ijepa(
        small_model("encoder", encode),
        small_model("predictor", predict),
        augmentation=lambda rng, batch: batch,
        evaluation_view=lambda images: images,
        patch=2,
        momentum=MOMENTUM,
    )
    return method._replace(augment=lambda rng, batch: batch)


def test_steps_equal_the_reference():
    params, momentum = WEIGHTS, WEIGHTS["encoder"]
    with jax.enable_x64(True):
        method, tx = small_method(), optax.sgd(RATE)
        state = init_state(method, tx, jax.random.key(0), batch_of(IMAGES[0]))
        step = jax.jit(lambda state, batch: train_step(method, tx, state, batch))
        for images in IMAGES:
            expected = reference_loss(params, momentum, images)
            params, momentum = reference_step(params, momentum, images)
            state, metrics = step(state, batch_of(images))
            assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-6)
            for ours, theirs in (
                (state.params, params),
                (state.extra["momentum"].params["encoder"], momentum),
            ):
                jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, theirs)


def test_padding_counts_for_nothing():
    method = small_method()
    batch = batch_of(IMAGES[0].astype(np.float32))
    variables = method.init(jax.random.key(0), batch)
    other = {
        **batch,
        "context": np.where(CONTEXT_MASK, CONTEXT, 7),
        "targets": np.where(TARGET_MASK, TARGETS, 8),
    }
    loss = jax.jit(lambda batch: method.loss(variables, batch, jax.random.key(1), 0)[0])
    assert loss(other) == loss(batch)
