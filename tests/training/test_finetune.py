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
    """30 steps with two flipped views of each image, unless the knobs say otherwise."""
    view = augment.ViewRecipe(flip=0.5)
    recipe = {"duration": "30 steps", "batch_size": 16, "learning_rate": 2.0}
    augmentation = knobs.pop("augmentation", augment.make_views((view, view)))
    return finetune.finetune(
        model,
        *variables,
        train,
        TEST,
        num_classes=CLASSES,
        augmentation=augmentation,
        evaluation_view=augment.to_float,
        recipe=finetune.Recipe(**recipe | knobs),
        mesh=sharding.make_mesh(jax.devices()[:devices]),
    )


@pytest.fixture(scope="module")
def result(variables):
    return tuned(variables)


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_it_learns_and_the_given_weights_stay(variables, result):
    assert result.losses.shape == (3,)  # means over ten steps
    assert result.losses[0] < np.log(CLASSES)
    assert result.losses[-1] < 0.2
    assert result.accuracy >= 26 / 27
    before = leaves(jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1))))
    for given, fresh in zip(leaves(variables), before):
        np.testing.assert_array_equal(given, fresh)
    after = leaves((result.variables.params["encoder"], result.variables.model_state))
    assert all(np.any(ours != theirs) for ours, theirs in zip(after, before))


def test_the_same_seed_gives_the_same_bits_and_another_does_not(variables, result):
    again = tuned(variables)
    for ours, theirs in zip(leaves(again), leaves(result)):
        np.testing.assert_array_equal(ours, theirs)
    assert np.all(tuned(variables, seed=1).losses != result.losses)


def test_eight_devices_are_one(variables, result):
    together = tuned(variables, devices=8)
    # Rounding grows from step to step, so the first ones are compared closely.
    first = [tuned(variables, devices=n, duration="5 steps").losses for n in (1, 8)]
    np.testing.assert_allclose(*first, rtol=1e-3)
    np.testing.assert_allclose(together.losses[-1], result.losses[-1], atol=0.1)
    assert together.accuracy == pytest.approx(result.accuracy, abs=0.08)


def test_the_first_step_is_nesterovs_on_batch_statistics(variables):
    """One step on the whole set, whose order does not matter, against NumPy."""
    one = tuned(
        variables,
        duration="1 step",
        batch_size=48,
        learning_rate=0.5,
        augmentation=augment.make_views(augment.get_view_recipes("identity")),
    )
    assert one.losses == pytest.approx([np.log(CLASSES)], abs=1e-5)  # zero: every class alike
    params, model_state, _ = one.variables
    encoding, state = MODEL.apply(*variables, augment.to_float(TRAIN.images), True)
    features = np.asarray(encoding.features, np.float64)
    error = 1 / CLASSES - np.eye(CLASSES)[TRAIN.labels]
    rate = 1.9 * 0.5 * 48 / 256  # Nesterov: gradient + 0.9 x velocity, which is the gradient
    expected = -rate * features.T @ error / 48
    np.testing.assert_allclose(params["classifier"]["linear"]["kernel"], expected, atol=1e-6)
    np.testing.assert_allclose(
        params["classifier"]["linear"]["bias"], 0, atol=1e-7
    )  # equal classes
    for ours, theirs in zip(leaves(params["encoder"]), leaves(variables[0])):
        np.testing.assert_array_equal(ours, theirs)  # no gradient passes a classifier of zeros
    for ours, theirs in zip(leaves(model_state), leaves(state)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_fewer_images_than_devices(variables):
    few = data.ArraySource(TRAIN.images[:5], TRAIN.labels[:5])
    found = tuned(variables, train=few, devices=8, duration="20 epochs")
    assert found.losses.shape == (2,)  # an epoch is a step of eight images, three of them twice


def test_mistakes_are_named(variables):
    unlabeled = data.ArraySource(TRAIN.images)
    for match, knobs in (
        ("the training images have none", {"train": unlabeled}),
        ("less than one step", {"duration": "0.1 steps"}),
        ("is not a duration", {"duration": "long"}),
        ('did you mean "adamw"', {"optimizer": "adam"}),
        ("for vision transformers", {"layer_decay": 0.7}),
    ):
        with pytest.raises(UserError, match=match):
            tuned(variables, **knobs)

    def overflowing(*arguments):
        encoding, state = MODEL.apply(*arguments)
        return encoding._replace(features=encoding.features * jnp.inf), state

    with pytest.raises(
        UserError,
        match=r"diverged: .*loss.* became NaN or infinite at step 0; lower the learning rate",
    ):
        tuned(variables, model=MODEL._replace(apply=overflowing))
