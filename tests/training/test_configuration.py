"""Durations, and the mistakes a config can hold."""

import runpy

import pytest
import runs

from sslax.errors import UserError
from sslax.training import configuration, train


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


def test_unknown_key_names_its_neighbor():
    config = configuration.defaults()
    with pytest.raises(AttributeError, match='Did you mean "batch_size"'):
        config.bach_size = 3


def test_value_of_another_type_is_refused():
    config = configuration.defaults()
    with pytest.raises(TypeError):
        config.batch_size = "many"


def test_unknown_variant_names_its_neighbor(load_config):
    with pytest.raises(UserError, match='did you mean "cifar10"'):
        load_config("simclr", "cifar")


CONFIGS = [
    (path.stem, variant)
    for path in sorted((runs.ROOT / "configs").glob("*.py"))
    for variant in runpy.run_path(str(path))["VARIANTS"]
]


@pytest.mark.parametrize(("name", "variant"), CONFIGS)
def test_every_variant_of_every_config_makes_a_plan(load_config, name, variant):
    config = load_config(name, variant)
    if "teacher_from" in config.get(name, {}):
        config[name].teacher_from = "nowhere"  # read when a run starts
    classes = None
    if (images := config.data.frames + config.data.stereo) > 1:  # that belong together
        shape = (images, *(config.data.size or (384, 512)), 3)
    else:
        side = max(config.augment.size, 32)
        shape = (side, side, len(config.model.mean))
        classes = None if variant else 10
    plan = train.make_plan(config, examples=8192, image_shape=shape, classes=classes)
    assert plan.steps > 0 and plan.checkpoint_every % plan.log_every == 0
    assert plan.batch["image"].shape == (config.batch_size, *shape)


def test_a_variant_keeps_what_it_does_not_name(load_config):
    config = load_config("moco", "imagenet_v1")
    assert config.moco.projector.layers == 1 and config.moco.projector.outputs == 128
    assert config.model.name == "resnet50" and config.augment.recipe == "moco_v1"
    tiny = load_config("moco", "tiny")
    assert tiny.augment.erase == 1.0 and tiny.augment.size == 12 and tiny.model.patch_stem == 4
