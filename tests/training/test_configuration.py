"""Durations, and the mistakes a config can hold."""

import runpy

import pytest
import runs

from sslax.errors import UserError
from sslax.training import configuration
from sslax.training.plan import make_plan


@pytest.mark.parametrize(
    ("duration", "steps"),
    [("7 steps", 7), ("1 step", 1), ("2 epochs", 20), ("0.25 epochs", 2), ("1e3 examples", 31)],
)
def test_durations(duration, steps):
    assert configuration.steps_of(duration, batch_size=32, steps_per_epoch=10) == steps


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ("5 %", 10),
        ("0.05", 10),
        ("12.5%", 25),
        ("100 %", 200),
        ("1", 200),
        ("0", 0),
        ("3 epochs", 30),
    ],
)
def test_durations_within_a_run_may_be_a_part_of_it(duration, steps):
    found = configuration.steps_of(duration, batch_size=32, steps_per_epoch=10, total=200)
    assert found == steps


@pytest.mark.parametrize("duration", ["101 %", "1.5", "10"])
def test_more_than_the_whole_run_is_refused(duration):
    with pytest.raises(UserError, match="is more than the whole run"):
        configuration.steps_of(duration, batch_size=32, steps_per_epoch=10, total=200)


@pytest.mark.parametrize(
    "duration",
    ["ten epochs", "3 minutes", "", "-1 steps", "-5 %", "1.2.3 steps", ". steps", "1e999 steps"],
)
@pytest.mark.parametrize("total", [None, 200])
def test_what_is_no_duration_is_refused(duration, total):
    with pytest.raises(UserError, match="is not a duration; write a number and a unit"):
        configuration.steps_of(duration, batch_size=32, steps_per_epoch=10, total=total)


@pytest.mark.parametrize("duration", ["5 %", "0.05", "10"])
def test_the_whole_run_is_no_part_of_itself(duration):
    with pytest.raises(UserError, match=r'is not a duration; .* "1e6 examples"\.$'):
        configuration.steps_of(duration, batch_size=32, steps_per_epoch=10)


def test_the_duration_of_a_run_is_no_part_of_it(load_config):
    config = load_config("simclr", "tiny")
    config.duration = "5 %"
    with pytest.raises(UserError, match='"5 %" is not a duration'):
        make_plan(config, examples=64, image_shape=(28, 28, 1), classes=None)


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


# Training images of the sets that variants are for; of their own kind, a plausible number.
EXAMPLES = {"": 8000, "cifar10": 50_000, "stl10": 100_000, "imagenet100": 126_689}
EXAMPLES |= {"imagenet": 1_281_167, "kitti": 39_810}


def plan_of(config, variant, examples):
    """The plan of a variant on images such as its data set has."""
    if "teacher_from" in config.get(config.method, {}):
        config[config.method].teacher_from = None  # as for a run whose checkpoints have the teacher
    classes = None
    if (images := config.data.frames + config.data.stereo) > 1:  # that belong together
        shape = (images, *(config.data.size or (384, 512)), 3)
    else:
        side = max(config.augment.size, 32)
        shape = (side, side, len(config.model.mean))
        classes = None if variant else 10
    plan = make_plan(config, examples=examples, image_shape=shape, classes=classes)
    assert plan.batch["image"].shape == (config.batch_size, *shape)
    return plan


@pytest.mark.parametrize(("name", "variant"), CONFIGS)
def test_every_variant_of_every_config_makes_a_plan(load_config, name, variant):
    plan = plan_of(load_config(name, variant), variant, examples=8192)
    assert plan.steps > 0 and plan.checkpoint_every % plan.log_every == 0


@pytest.mark.parametrize(("name", "variant"), CONFIGS)
def test_every_variant_can_be_shortened_by_its_duration_alone(load_config, name, variant):
    """Nothing else is in steps or epochs of the long run: a rate that falls still does."""
    config = load_config(name, variant)
    config.duration = "300 steps"
    examples = EXAMPLES.get(variant.partition("_")[0], 20_000)
    plan = plan_of(config, variant, examples)
    assert plan.steps == 300
    first, middle, last = (float(plan.rate(step)) for step in (0, 150, 299))
    constant = config.optimizer.final_fraction == 1.0
    assert first > 0.0 and (last == middle if constant else last < 0.5 * middle)


def test_a_variant_keeps_what_it_does_not_name(load_config):
    config = load_config("moco", "imagenet_v1")
    assert config.moco.projector.layers == 1 and config.moco.projector.outputs == 128
    assert config.model.name == "resnet50" and config.augment.recipe == "moco_v1"
    tiny = load_config("moco", "tiny")
    assert tiny.augment.erase == 1.0 and tiny.augment.size == 12 and tiny.model.patch_stem == 4
