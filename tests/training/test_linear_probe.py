"""The linear protocol on a tiny network: it learns, and the encoder stays as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import augment, data, models
from sslax.errors import UserError
from sslax.training import linear_probe, sharding

CLASSES = 3
MODEL = models.from_linen(models.ResNet(blocks=(1,), width=0.125, patch_stem=2))


def colored(count, seed):
    """Noise with one bright channel, the class: random features separate it linearly."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % CLASSES).astype(np.int32)
    images = rng.integers(0, 60, (count, 8, 8, 3)).astype(np.uint8)
    images[np.arange(count), :, :, labels] += 150
    return data.ArraySource(images, labels)


TRAIN, TEST = colored(48, 0), colored(27, 1)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def probed(variables, devices=1, **knobs):
    augmentation = knobs.pop("augmentation", augment.make_views((augment.ViewRecipe(flip=0.5),)))
    protocol = {"duration": "60 steps", "batch_size": 16, "learning_rates": (30.0,)}
    return linear_probe.train_linear_probe(
        MODEL,
        *variables,
        TRAIN,
        TEST,
        labels=TRAIN.labels,
        num_classes=CLASSES,
        augmentation=augmentation,
        evaluation_view=augment.to_float,
        protocol=linear_probe.Protocol(**protocol | knobs),
        mesh=sharding.make_mesh(jax.devices()[:devices]),
    )


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("knobs", [{}, {"optimizer": "lars", "normalize": True}])
def test_separable_classes_are_separated_and_the_encoder_stays(variables, knobs):
    result = probed(variables, **knobs)
    assert result.accuracy == 1.0 and result.losses[-1] < min(0.2, result.losses[0])
    for ours, theirs in zip(leaves(result.variables.extra["encoder"]), leaves(variables)):
        np.testing.assert_array_equal(ours, theirs)
    assert result.variables.params.keys() == {"rate0"}  # nothing else has been trained


def test_views_differ_from_epoch_to_epoch(variables):
    """Three steps an epoch of three, by the losses of a classifier that does not move."""
    crop = augment.make_views((augment.ViewRecipe(crop_scale=(0.08, 1.0), flip=0.5),))
    seen = []

    def spy(rng, batch):
        batch = crop(rng, batch)
        jax.debug.callback(lambda i, v: seen.append((i, v)), batch["index"], batch["views"])
        return batch

    probed(variables, augmentation=spy, duration="2 epochs", batch_size=48)
    jax.effects_barrier()
    first, second = (np.asarray(views)[np.argsort(index)] for index, views in seen[-2:])
    assert np.mean(np.any(first != second, axis=(1, 2, 3, 4))) > 0.9


def test_the_first_step_is_that_of_sgd_on_frozen_features(variables):
    """One step on the whole set, against NumPy."""
    identity = augment.make_views(augment.get_view_recipes("identity"))
    rates = {"learning_rates": (0.5,), "batch_size": 48, "duration": "1 step"}
    result = probed(variables, augmentation=identity, **rates)
    encoding, _ = MODEL.apply(*variables, augment.to_float(TRAIN.images), False)
    features = np.asarray(encoding.features, np.float64)
    error = 1 / CLASSES - np.eye(CLASSES)[TRAIN.labels]
    expected = -0.5 * 48 / 256 * features.T @ error / 48
    kernel = result.variables.params["rate0"]["linear"]["kernel"]
    np.testing.assert_allclose(kernel, expected, atol=1e-6)


def test_of_several_rates_each_trains_its_own_classifier_and_the_best_is_taken(variables):
    rates = (1e-6, 30.0)
    result = probed(variables, learning_rates=rates, held_out=0.25)
    assert result.chosen == 30.0 and result.accuracy == 1.0
    assert list(result.held_out_accuracy) == list(rates)
    assert result.held_out_accuracy[30.0] == 1.0
    slow, fast = (result.variables.params[name]["linear"]["kernel"] for name in ("rate0", "rate1"))
    assert np.abs(slow).max() < 1e-3 < np.abs(fast).max()


def test_eight_devices_are_one(variables):
    one, eight = (probed(variables, devices=n, duration="20 steps") for n in (1, 8))
    np.testing.assert_allclose(one.losses, eight.losses, rtol=1e-3)
    for ours, theirs in zip(leaves(one.variables.params), leaves(eight.variables.params)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_published_protocols_and_mistakes(variables):
    for protocol in linear_probe.PROTOCOLS.values():
        linear_probe.ranges.check_record(protocol)
    for match, knobs in (
        ("less than one step", {"duration": "0.1 steps"}),
        ("momentum", {"momentum": 1.0}),
        ("learning_rates", {"learning_rates": ()}),
    ):
        with pytest.raises(UserError, match=match):
            probed(variables, **knobs)
