"""Steps of data2vec 2.0 equal those of a reference in NumPy, differentiated by differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from descent import descend
from miniature import assert_close, train

from sslax import augment
from sslax.methods.representation.data2vec2 import data2vec2
from sslax.models.compose import Copy
from sslax.training.plan import make_plan
from sslax.types import Encoding, Model, Variables

RATE, MOMENTUM, WEIGHT, NOISE = 0.1, 0.8, 0.7, 0.3
EXAMPLES, MASKS, PATCHES, WIDTH, PIXELS = 2, 2, 4, 3, 12

_rng = np.random.default_rng(0)
WEIGHTS = {
    "encoder": {
        "kernel": _rng.normal(size=(PIXELS, WIDTH)),
        "class": _rng.normal(size=WIDTH),
        "mlp01": _rng.normal(size=(WIDTH, WIDTH)),
        "mlp02": _rng.normal(size=(WIDTH, WIDTH)),
    },
    "decoder": {
        "own": _rng.normal(size=(WIDTH, WIDTH)),
        "mean": _rng.normal(size=(WIDTH, WIDTH)),
    },
}
IMAGES = _rng.uniform(size=(2, EXAMPLES, 4, 4, 3))  # of two steps
HIDDEN = np.array([[[1, 0, 0, 1], [0, 1, 1, 0]], [[0, 0, 1, 1], [1, 0, 1, 0]]], bool)
KEEP = np.array([[np.flatnonzero(~mask) for mask in masks] for masks in HIDDEN])
INDEX = np.arange(EXAMPLES, dtype=np.int32)


def tokens_of(p, image, keep=range(PATCHES)):
    """A class token, which depends on the patches, and these patches; before any MLP."""
    cells = [image[i : i + 2, j : j + 2].ravel() for i in (0, 2) for j in (0, 2)]
    patches = np.tanh(np.stack([cells[at] for at in keep]) @ p["kernel"])
    return np.concatenate([(p["class"] + patches.mean(0))[None], patches])


def encode_in_numpy(p, tokens):
    """The outputs of the two MLPs, and the tokens after them."""
    first = np.tanh(tokens @ p["mlp01"])
    second = np.tanh((tokens + first) @ p["mlp02"])
    return first, second, tokens + first + second


def standardized(x, axis):
    x = x - x.mean(axis, keepdims=True)
    return x / np.sqrt((x**2).mean(axis, keepdims=True) + 1e-5)


def target_of(copy, image):
    layers = encode_in_numpy(copy["encoder"], tokens_of(copy["encoder"], image))[:2]
    return standardized(np.mean([standardized(x[1:], 0) for x in layers], axis=0), 1)


def reference(params, copy, images, noise):
    """The loss, mask by mask; and masked predictions and targets."""
    patch_errors, class_errors, predictions, targets = [], [], [], []
    for i, image in enumerate(images):
        target = target_of(copy, image)
        for m in range(MASKS):
            tokens = tokens_of(params["encoder"], image, KEEP[i, m])
            *_, tokens = encode_in_numpy(params["encoder"], tokens)
            whole = noise[i, m].copy()
            whole[KEEP[i, m]] = tokens[1:]
            own, mean = (params["decoder"][name] for name in ("own", "mean"))
            predicted = np.tanh(whole @ own + whole.mean(0) @ mean)
            for t in np.flatnonzero(HIDDEN[i, m]):
                patch_errors.append(((predicted[t] - target[t]) ** 2).sum() / np.sqrt(WIDTH))
                predictions.append(predicted[t])
                targets.append(target[t])
            class_errors.append(((tokens[0] - target.mean(0)) ** 2).sum() / np.sqrt(WIDTH))
    value = np.mean(patch_errors) + WEIGHT * np.mean(class_errors)
    return value, np.array(predictions), np.array(targets)


def encode(p, x):
    image = x["image"] if isinstance(x, dict) else x
    cells = image.reshape(-1, 2, 2, 2, 2, 3).swapaxes(2, 3).reshape(-1, PATCHES, PIXELS)
    if isinstance(x, dict):
        cells = jnp.take_along_axis(cells, x["keep"][..., None], axis=1)
    patches = jnp.tanh(cells @ p["kernel"])
    first = (p["class"] + patches.mean(1))[:, None]
    tokens = jnp.concatenate([first, patches], axis=1)
    mlp01 = jnp.tanh(tokens @ p["mlp01"])
    mlp02 = jnp.tanh((tokens + mlp01) @ p["mlp02"])
    tokens = tokens + mlp01 + mlp02
    stages = {"mlp01": mlp01, "mlp02": mlp02, "tokens": tokens}
    return Encoding(tokens[:, 1:].mean(1), stages)


def decode(p, x):
    noise = NOISE * jax.vmap(lambda key: jax.random.normal(key, (PATCHES, WIDTH)))(x["key"])
    put = jax.vmap(lambda noise, keep, tokens: noise.at[keep].set(tokens))
    whole = put(noise, x["keep"], x["tokens"][:, 1:])
    return jnp.tanh(whole @ p["own"] + whole.mean(1, keepdims=True) @ p["mean"])


def small_model(part, apply):
    return Model(
        lambda rng, x: (jax.tree.map(jnp.asarray, WEIGHTS[part]), {}),
        lambda params, state, x, train: (apply(params, x), state),
    )


def small_method(**knobs):
    encoder = small_model("encoder", encode)
    return data2vec2(
        *(encoder, small_model("decoder", decode), encoder),
        augmentation=lambda rng, batch: batch,
        evaluation_view=lambda images: images,
        patch=2,
        class_weight=WEIGHT,
        momentum=lambda step: MOMENTUM + 0.05 * step,
        **knobs,
    )


def test_steps_equal_the_reference():
    method = small_method(masks=MASKS)._replace(augment=lambda rng, batch: batch)
    rest = {"keep": KEEP, "hidden": HIDDEN, "index": INDEX}
    params, copy = WEIGHTS, {"encoder": WEIGHTS["encoder"]}
    for i, step in enumerate(train(method, [{"input": x, **rest} for x in IMAGES], RATE)):
        images = IMAGES[i]
        with jax.enable_x64(True):
            keys = jax.vmap(lambda key: jax.random.split(key, MASKS))(
                augment.batch_keys(step.key, rest)
            )
            draw = jax.vmap(jax.vmap(lambda key: jax.random.normal(key, (PATCHES, WIDTH))))
            noise = NOISE * np.asarray(draw(keys))
        value, predictions, targets = reference(params, copy, images, noise)
        assert float(step.metrics["loss"]) == pytest.approx(value, rel=1e-7)
        for name, vectors in (("prediction", predictions), ("target", targets)):
            expected = np.sqrt(vectors.var(0) + 1e-6).mean()
            assert float(step.metrics[f"{name}_std"]) == pytest.approx(expected, rel=1e-6)
        means = np.array([target_of(copy, image).mean(0) for image in images])
        chance = (targets**2).sum(1).mean() + WEIGHT * (means**2).sum(1).mean()
        chance /= np.sqrt(WIDTH)
        assert float(step.metrics["loss_at_chance"]) == pytest.approx(chance, rel=1e-6)
        loss = partial(reference, copy=copy, images=images, noise=noise)
        params = descend(lambda p, loss=loss: loss(p)[0], params, RATE)
        momentum = MOMENTUM + 0.05 * (i + 1)  # after the step
        copy = jax.tree.map(
            lambda old, new, m=momentum: m * old + (1 - m) * new,
            copy,
            {"encoder": params["encoder"]},
        )
        assert_close(step.after.params, params)
        assert_close(step.after.extra["momentum"].params, copy)


def test_masks_of_an_image_differ():
    views = np.zeros((6, 1, 8, 12, 3), np.float32)
    method = small_method(masks=3, mask_ratio=0.75, block=2)
    batch = jax.jit(method.augment)(jax.random.key(0), {"views": views, "index": np.arange(6)})
    keep, hidden = np.asarray(batch["keep"]), np.asarray(batch["hidden"])
    assert keep.shape == (6, 3, 6) and hidden.shape == (6, 3, 24)
    assert (hidden.sum(-1) == 18).all() and not np.take_along_axis(hidden, keep, -1).any()
    assert len(np.unique(hidden.reshape(18, 24), axis=0)) == 18


def variables_of(params, copy):
    """Of a network with a momentum copy of its encoder."""
    return Variables(params, {}, {"momentum": Copy(copy, {})})


def test_the_momentum_rises_and_stays(load_config):
    config = load_config("data2vec2", "tiny")
    config.duration, config.optimizer.warmup = "100 steps", "0 steps"
    config.data2vec2.update(momentum=0.5, final_momentum=0.9, momentum_rise=0.25)
    method = make_plan(config, examples=64, image_shape=(28, 28, 1), classes=None).method
    copy = {"encoder": {"kernel": jnp.ones(2)}}
    params = jax.tree.map(jnp.zeros_like, copy)
    for step, momentum in ((0, 0.5), (10, 0.66), (25, 0.9), (99, 0.9)):
        extra = method.update(variables_of(params, copy), step)
        np.testing.assert_allclose(extra["momentum"].params["encoder"]["kernel"], momentum, 1e-6)
