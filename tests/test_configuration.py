"""Durations, and the mistakes a config can hold."""

import pytest

from sslax import configuration, train
from sslax.errors import UserError


@pytest.mark.parametrize(
    ("duration", "steps"),
    [("7 steps", 7), ("1 step", 1), ("2 epochs", 20), ("0.25 epochs", 2), ("1e3 examples", 31)],
)
def test_durations(duration, steps):
    assert configuration.steps_of(duration, batch_size=32, steps_per_epoch=10) == steps


@pytest.mark.parametrize("duration", ["10", "ten epochs", "3 minutes", "", "-1 steps"])
def test_what_is_no_duration_is_refused(duration):
    with pytest.raises(UserError, match="is no duration; write a number and a unit"):
        configuration.steps_of(duration, batch_size=32, steps_per_epoch=10)


def test_unknown_key_names_its_neighbour():
    config = configuration.defaults()
    with pytest.raises(AttributeError, match='Did you mean "batch_size"'):
        config.bach_size = 3


def test_value_of_another_type_is_refused():
    config = configuration.defaults()
    with pytest.raises(TypeError):
        config.batch_size = "many"


def test_unknown_variant_names_its_neighbour():
    with pytest.raises(UserError, match='did you mean "cifar10"'):
        configuration.choose({"": 1, "cifar10": 2}, "cifar")


@pytest.mark.parametrize("variant", ["", "cifar10", "stl10", "imagenet", "folder", "tiny"])
def test_every_variant_of_the_config_makes_a_plan(load_config, variant):
    config = load_config("simclr", variant)
    channels = len(config.model.mean)
    plan = train.make_plan(
        config, examples=8192, image_shape=(32, 32, channels), classes=None if variant else 10
    )
    assert plan.steps > 0 and plan.checkpoint_every % plan.log_every == 0
    assert plan.batch["image"].shape == (config.batch_size, 32, 32, channels)
