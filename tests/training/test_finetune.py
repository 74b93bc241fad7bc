"""Fine-tuning of a tiny network on bars that lie in one of three places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import augment, data, models
from sslax.errors import UserError
from sslax.training import finetune, sharding

CLASSES = 3
MODEL = models.from_linen(models.ResNet(blocks=(1,), width=0.125, patch_stem=2))


def bars(count, seed):
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % CLASSES).astype(np.int32)
    images = rng.integers(0, 60, (count, 8, 8, 1)).astype(np.uint8)
    for image, label in zip(images, labels):
        image[2 * label : 2 * label + 3] += 150
    return data.ArraySource(images, labels)


TRAIN, TEST = bars(48, 0), bars(27, 1)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))


def tuned(variables, train=TRAIN, devices=1, model=MODEL, **knobs):
    """Two flipped views of each image, 30 steps, unless the knobs say otherwise."""
    view = augment.ViewRecipe(flip=0.5)
    defaults = {
        "views": augment.make_views((view, view)),
        "evaluation_view": augment.to_float,
        "duration": "30 steps",
        "batch_size": 16,
        "learning_rate": 2.0,
        "mesh": sharding.make_mesh(jax.devices()[:devices]),
    }
    return finetune.finetune(
        model, *variables, train, TEST, num_classes=CLASSES, **(defaults | knobs)
    )


@pytest.fixture(scope="module")
def result(variables):
    return tuned(variables)


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_it_learns_and_the_given_weights_stay(variables, result):
    assert result.losses.shape == (30,)
    assert result.losses[0] == pytest.approx(np.log(CLASSES), abs=1e-5)  # zero: every class alike
    assert result.losses[-3:].mean() < 0.2
    assert result.accuracy >= 26 / 27
    before = leaves(jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1))))
    for given, fresh in zip(leaves(variables), before):
        np.testing.assert_array_equal(given, fresh)
    after = leaves((result.params["encoder"], result.model_state))
    assert all(np.any(ours != theirs) for ours, theirs in zip(after, before))


def test_the_same_seed_gives_the_same_bits_and_another_does_not(variables, result):
    again = tuned(variables)
    for ours, theirs in zip(leaves(again), leaves(result)):
        np.testing.assert_array_equal(ours, theirs)
    assert np.any(tuned(variables, seed=1).losses[1:] != result.losses[1:])


def test_eight_devices_are_one(variables, result):
    together = tuned(variables, devices=8)
    # Rounding grows from step to step, so the first ones are compared closely.
    np.testing.assert_allclose(together.losses[:5], result.losses[:5], rtol=1e-3)
    np.testing.assert_allclose(together.losses[-3:].mean(), result.losses[-3:].mean(), atol=0.1)
    assert together.accuracy == pytest.approx(result.accuracy, abs=0.08)


def test_the_first_step_is_nesterovs_on_batch_statistics(variables):
    """One step on the whole set, whose order does not matter, against NumPy."""
    one = tuned(
        variables,
        duration="1 step",
        batch_size=48,
        learning_rate=0.5,
        views=augment.make_views(augment.get_view_recipes("identity")),
    )
    encoding, state = MODEL.apply(*variables, augment.to_float(TRAIN.images), True)
    features = np.asarray(encoding.features, np.float64)
    error = 1 / CLASSES - np.eye(CLASSES)[TRAIN.labels]
    rate = 1.9 * 0.5 * 48 / 256  # Nesterov: gradient + 0.9 x velocity, which is the gradient
    expected = -rate * features.T @ error / 48
    np.testing.assert_allclose(one.params["classifier"]["kernel"], expected, atol=1e-6)
    np.testing.assert_allclose(one.params["classifier"]["bias"], 0, atol=1e-7)  # equal classes
    for ours, theirs in zip(leaves(one.params["encoder"]), leaves(variables[0])):
        np.testing.assert_array_equal(ours, theirs)  # no gradient passes a classifier of zeros
    for ours, theirs in zip(leaves(one.model_state), leaves(state)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_fewer_images_than_devices(variables):
    few = data.ArraySource(TRAIN.images[:5], TRAIN.labels[:5])
    found = tuned(variables, train=few, devices=8, duration="2 epochs")
    assert found.losses.shape == (2,)  # of eight images, three of them twice


def test_layer_decay_counts_from_the_classifier():
    parts = ("patch_embedding", "position", "block1", "block2", "norm")
    params = {"encoder": {part: {"w": jnp.ones(2)} for part in parts}, "classifier": jnp.ones(3)}
    scale = finetune._scale_layers(0.5)
    scaled, _ = scale.update(params, scale.init(params))
    factors = {part: float(leaf["w"][0]) for part, leaf in scaled["encoder"].items()}
    assert factors == {
        "patch_embedding": 0.125,
        "position": 0.125,
        "block1": 0.25,
        "block2": 0.5,
        "norm": 1.0,
    }
    np.testing.assert_array_equal(scaled["classifier"], 1)


def test_mistakes_are_named(variables):
    unlabeled = data.ArraySource(TRAIN.images)
    for match, knobs in (
        ("the training images have none", {"train": unlabeled}),
        ("less than one step", {"duration": "0.1 steps"}),
        ("is no duration", {"duration": "long"}),
        ('did you mean "adamw"', {"optimizer": "adam"}),
        ("for vision transformers", {"layer_decay": 0.7}),
    ):
        with pytest.raises(UserError, match=match):
            tuned(variables, **knobs)

    def overflowing(*arguments):
        encoding, state = MODEL.apply(*arguments)
        return encoding._replace(features=encoding.features * jnp.inf), state

    with pytest.raises(UserError, match="the loss of step 0 is not finite"):
        tuned(variables, model=MODEL._replace(apply=overflowing))
