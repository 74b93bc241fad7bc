"""Supervised classification: labels of views, weights to start from, averages at the test."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from descent import descend
from miniature import assert_close, encoded, train, weights
from miniature import method as miniature

from sslax import augment
from sslax.methods.representation.supervised import classify, supervised
from sslax.training.step import init_state, train_step
from sslax.types import Encoding, Model

LABELS = np.array([2, 0, 1], np.int32)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 1)).astype(np.uint8)
BATCH = {"image": IMAGES, "index": np.arange(3, dtype=np.int32), "label": LABELS}


def encode(params, state, images, train):
    """Pixels, centered by the batch's mean in training and by a running mean otherwise."""
    pixels = images.reshape(len(images), -1)
    mean = jnp.mean(pixels, axis=0) if train else state["mean"]
    features = (pixels - mean) * params["scale"]
    return Encoding(features, {}), {"mean": 0.5 * (state["mean"] + mean) if train else mean}


ENCODER = Model(
    lambda rng, x: ({"scale": jax.random.normal(rng, (4,))}, {"mean": jnp.zeros(4)}), encode
)
CLASSIFIER = Model(
    lambda rng, x: ({"kernel": jax.random.normal(rng, (x.shape[-1], 3))}, {}),
    lambda params, state, x, train: (x @ params["kernel"], state),
)


def method(views=1, starting_weights=None):
    recipes = tuple(augment.ViewRecipe(flip=1.0 * (i % 2)) for i in range(views))
    return supervised(
        ENCODER,
        CLASSIFIER,
        augmentation=augment.make_views(recipes),
        evaluation_view=augment.to_float,
        starting_weights=starting_weights,
    )


def test_every_view_has_its_images_label():
    """Two views, the second mirrored, against NumPy."""
    two = method(views=2)
    batch = jax.jit(two.augment)(jax.random.key(0), BATCH)
    variables = two.init(jax.random.key(1), batch)
    loss, output = jax.jit(two.loss)(variables, batch, jax.random.key(2), 0)
    pixels = IMAGES.astype(np.float64) / 255
    views = np.stack([pixels, pixels[:, :, ::-1]], axis=1).reshape(6, 4)
    features = (views - views.mean(0)) * np.asarray(variables.params["encoder"]["scale"])
    logits = features @ np.asarray(variables.params["classifier"]["kernel"])
    labels = np.repeat(LABELS, 2)
    log_sums = np.log(np.exp(logits).sum(1))
    expected = np.mean(log_sums - logits[np.arange(6), labels])
    assert loss == pytest.approx(expected, rel=1e-5)
    assert output.metrics["accuracy"] == np.mean(logits.argmax(1) == labels)
    assert output.metrics["loss_at_chance"] == pytest.approx(np.log(3))
    np.testing.assert_allclose(output.features, features.reshape(3, 2, 4), rtol=1e-4, atol=1e-6)
    mean = output.model_state["encoder"]["mean"]
    np.testing.assert_allclose(mean, 0.5 * views.mean(0), rtol=1e-5)


def test_steps_equal_those_of_a_reference():
    """In NumPy, with finite differences as gradients."""
    params = weights(0, 4, classifier=(4, 3))
    views = np.random.default_rng(1).uniform(size=(2, 3, 1, 2, 2, 3))  # of two steps

    def reference(params, images):
        logits = encoded(params, images) @ params["classifier"]["kernel"]
        return np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(3), LABELS])

    batches = [{"views": x, "label": LABELS, "index": BATCH["index"]} for x in views]
    for x, step in zip(views[:, :, 0], train(miniature(supervised, params), batches, 0.5)):
        assert step.metrics["loss"] == pytest.approx(reference(params, x), rel=1e-6)
        params = descend(lambda p, x=x: reference(p, x), params, 0.5)
        assert_close(step.after.params, params)


def test_given_weights_are_where_it_starts_and_survive_donation():
    given = ({"scale": jnp.arange(4.0)}, {"mean": jnp.full(4, 0.25)})
    trained = method(starting_weights=given)
    tx = optax.sgd(0.5)
    state = init_state(trained, tx, jax.random.key(0), BATCH)
    jax.tree.map(np.testing.assert_array_equal, trained.encoder(state.variables), given)
    step = jax.jit(lambda s, b: train_step(trained, tx, s, b), donate_argnums=0)
    after, _ = step(state, BATCH)
    assert np.any(after.params["encoder"]["scale"] != np.arange(4.0))
    np.testing.assert_array_equal(given[0]["scale"], np.arange(4.0))


def test_without_given_weights_the_encoder_is_random():
    plain = method()
    batch = plain.augment(jax.random.key(0), BATCH)
    one, other = (plain.init(jax.random.key(seed), batch).params["encoder"] for seed in (0, 1))
    assert np.all(one["scale"] != other["scale"])


def test_classification_uses_the_averages():
    plain = method()
    variables = plain.init(jax.random.key(0), plain.augment(jax.random.key(0), BATCH))
    averages = {"encoder": {"mean": jnp.full(4, 0.5)}, "classifier": {}}
    variables = variables._replace(model_state=averages)
    logits = classify(ENCODER, CLASSIFIER, variables, IMAGES)
    features = (IMAGES.reshape(3, 4) / 255 - 0.5) * variables.params["encoder"]["scale"]
    expected = features @ variables.params["classifier"]["kernel"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        plain.predict(variables, BATCH).features, features, rtol=1e-4, atol=1e-6
    )
