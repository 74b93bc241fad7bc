"""Durations, and the mistakes a config can hold."""

import functools
import math
import re
import runpy

import pytest
import runs
from ml_collections import ConfigDict

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
    with pytest.raises(UserError, match=r'^config\.duration = "5 %" is not a duration'):
        make_plan(config, examples=64, image_shape=(28, 28, 1), classes=None)


def test_a_run_takes_at_least_a_step():
    with pytest.raises(UserError, match=r'^duration = "8 examples" is less than one step'):
        configuration.steps_of("8 examples", batch_size=32, steps_per_epoch=10)


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


MODULES = {
    path.stem: runpy.run_path(str(path)) for path in sorted((runs.ROOT / "configs").glob("*.py"))
}
CONFIGS = [(name, variant) for name, module in MODULES.items() for variant in module["VARIANTS"]]


@functools.cache
def config_of(name, variant):
    """A variant's config; who changes it puts it back."""
    config = MODULES[name]["get_config"](variant)
    if "teacher_from" in config.get(config.method, {}):
        config[config.method].teacher_from = None  # as for a run whose checkpoints have the teacher
    return config


# Training images of the sets that variants are for; of their own kind, a plausible number.
EXAMPLES = {"": 8000, "cifar10": 50_000, "stl10": 100_000, "imagenet100": 126_689}
EXAMPLES |= {"imagenet": 1_281_167, "kitti": 39_810}


def data_of(config, variant):
    """What a data set such as the variant's tells `make_plan`."""
    examples = EXAMPLES.get(variant.partition("_")[0], 20_000)
    if (images := config.data.frames + config.data.stereo) > 1:  # that belong together
        shape = (images, *(config.data.size or (384, 512)), 3)
        return {"examples": examples, "image_shape": shape, "classes": None}
    side = max(config.augment.size, 32)
    shape = (side, side, len(config.model.mean))
    classes = 10 if not variant or config.method == "supervised" else None
    return {"examples": examples, "image_shape": shape, "classes": classes}


@pytest.mark.parametrize(("name", "variant"), CONFIGS)
def test_every_variant_makes_a_plan_of_any_duration(name, variant):
    """Nothing else is in steps or epochs of the long run: a rate that falls still does."""
    config = config_of(name, variant)
    spec, duration = data_of(config, variant), config.duration
    sizes = {"batch_size": config.batch_size}
    sizes["steps_per_epoch"] = spec["examples"] // config.batch_size
    assert configuration.steps_of(duration, **sizes) > 0
    config.duration = "300 steps"
    plan = make_plan(config, **spec)
    config.duration = duration
    assert plan.batch["image"].shape == (config.batch_size, *spec["image_shape"])
    assert plan.steps == 300 and plan.checkpoint_every % plan.log_every == 0
    first, middle, last = (float(plan.rate(step)) for step in (0, 150, 299))
    final = config.optimizer.final_fraction
    most = 0.5 if final < 0.5 else (1 + final) / 2
    assert first > 0.0 and (last == middle if final == 1.0 else last < most * middle)


# Values out of range.


def leaves(section, prefix=""):
    """Dotted names and values of a config."""
    for name, value in section.items():
        if isinstance(value, ConfigDict) and len(value):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def wrong_values(value):
    """What a number, a tuple of numbers or a duration may be by mistake, by the kind of mistake."""
    if isinstance(value, bool):
        return {}
    if isinstance(value, int | float):
        wrong = {"negative": -type(value)(1), "zero": type(value)(0), "nan": math.nan}
        wrong |= {"infinite": math.inf, "text": "many", "none": None}
        return wrong | ({"broken": 1.5} if isinstance(value, int) else {})
    if isinstance(value, str):
        durations = ("", "-1 steps", "1.2.3 steps", "1e999 steps", "a while", "nan epochs", None)
        return dict(enumerate(durations)) if re.search("step|epoch|%", value) else {}
    if not isinstance(value, tuple) or not value:
        return {}
    first, *others = value
    if isinstance(first, str):
        return {}
    wrong = {f"{kind} entry": (bad, *others) for kind, bad in wrong_values(first).items()}
    return wrong | {"one": first, "reversed": value[::-1], "empty": (), "none": None}


# What is no mistake, by its kind: the ends of the keys, and why.
ALLOWED = {
    "zero": {
        r"\w+_weight|weight_decay": "the term is left out",
        r"blur|erase|exposure|flip|flip_vertical|brightness|contrast|saturation|hue|strength": (
            "the operation is left out"
        ),
        r"noise|jitter|color_jitter|rotate|translate|relative|down_up": "likewise",
        r"clip_norm|patch_stem|local\.count|classifier\.hidden|level_dropout|fusion_steps": (
            "there is none"
        ),
        r"gap|overlap|selfsup_crop|image_size|resident_bytes|boxes|speed|turn": "likewise",
        r"drop_path|scenes\.test|registers|layer_scale|mask_probability": "likewise",
        r"(msn|dinov2)\.iterations|msn\.mask_ratio|patch_projector\.outputs|surplus": "likewise",
        r"w_mse\.epsilon": "the covariance is as it is",
        r"\w*momentum|beta2": "nothing is averaged",
        r"\w+_start|\w+_ramp|\w+_rise": "from the first step on, at once",
        r"freeze|teacher_warmup|early": "likewise",
        r"supervised\.classes": "as many as the set has",
        r"final_fraction|final_decay_fraction|vector_rate|rates\.\w+": "no rate, no decay",
        r"colorization\.gamma": "the balance is by the prior alone",
    },
    "negative": {
        r"decoder\.bias": "a logit",
        r"camera\.baseline": "the partner's camera is on the left",
    },
    "zero entry": {
        r"drops": "at the start of the run",
        r"level_weights": "the level does not count",
        r"model\.mean": "black",
    },
    "reversed": {
        r"drops|level_weights|census_radii|widths|decoder|network\.context|model\.(mean|std)": (
            "a list, not a range"
        ),
        r"data\.size|augment\.size": "height and width",
        r"teacher_temperature": "from the first to the second",
    },
    "reversed entry": {r"network\.context": "channels and dilation"},
    "empty": {
        r"model\.blocks|data\.size|augment\.size": "those of the network, of the frames",
        r"drops|network\.context": "there is none",
    },
    "none": {r"crop_scale|augment\.size|local\.size|blur_kernel_size": "those of the image"},
}


def is_allowed(key, kind):
    """Whether a kind of value is no mistake for a key."""
    return any(re.search(rf"\b({keys})$", key) for keys in ALLOWED.get(kind, {}))


def keys_to_try(name):
    """Variants with the keys that none before has: of a method, or ("") those of all methods."""
    seen, own = set(), (name, "augment", "model")
    for config_name, variant in CONFIGS:
        if name in ("", config_name):
            config = config_of(config_name, variant)
            shared = (config_name, "augment", "model")
            for key, value in leaves(config):
                section = key.partition(".")[0]
                wanted = section in own if name else section not in shared
                if wanted and key not in seen:
                    seen.add(key)
                    yield config, variant, key, value


@pytest.mark.parametrize("name", ["", *MODULES])
def test_every_number_of_every_config_has_its_range(name):
    """Whatever is wrong is refused in one sentence with the key, or is in the list above."""
    for config, variant, key, value in keys_to_try(name):
        for kind, bad in wrong_values(value).items():
            if bad == value:
                continue
            error = error_with(config, key, bad, data_of(config, variant))
            if is_allowed(key, kind):
                assert error is None, f"{key} = {bad!r}: {error}"
            else:
                assert error and key in error and "\n" not in error, f"{key} = {bad!r}: {error}"


def section_of(config, path):
    """A section by its dotted name."""
    return functools.reduce(ConfigDict.__getitem__, path, config)


@pytest.mark.parametrize(
    ("name", "key", "nearest"),
    [
        ("simclr", "simclr.temprature", "temperature"),
        ("simclr", "augment.blr", "blur"),
        ("dino", "augment.local.sise", "size"),
        ("dino", "dino.projector.botleneck", "bottleneck"),
        ("ijepa", "ijepa.blocks.target", "targets"),
        ("simclr", "model.widht", "width"),
        ("simclr", "optimizer.momentun", "momentum"),
        ("simclr", "evaluate.data.sorce", "source"),
        ("simclr", "evaluate.depth.min_dept", "min_depth"),
        ("simclr", "data.camera.baselin", "baseline"),
        ("monodepth2", "monodepth2.pose.factor", "factors"),
        ("monodepth2", "augment.zom", "zoom"),
        ("arflow", "arflow.spatial.rotat", "rotate"),
        ("uflow", "uflow.network.leves", "levels"),
        ("smurf", "augment.asymetric", "asymmetric"),
    ],
)
def test_an_unknown_key_is_refused(name, key, nearest):
    config = config_of(name, "")
    *path, last = key.split(".")
    section = section_of(config, path)
    with config.unlocked():
        section[last] = 1
        with pytest.raises(UserError, match=rf'There is no .*{key}: did you mean "{nearest}"'):
            make_plan(config, **data_of(config, ""))
        del section[last]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("simclr", {"method": "moco"}, "'moco', but this is a config of simclr: start from"),
        ("simclr", {"method": "rotation"}, "'rotation', but this is a config of simclr"),
        ("rotation", {"method": "moco"}, "has no section 'moco': start from .*moco.py"),
        ("simclr", {"evaluate.depth.min_depth": 90.0}, "min_depth = 90.0 must be less than"),
        ("simclr", {"model.std": ()}, "config.model.mean has 1 values and config.model.std 0"),
        ("simclr", {"augment.strength": 3.0}, "strength = 3.0 times hue"),
        ("mae", {"mae.decoder.heads": 3}, "config.mae.decoder.width = 64 must be a multiple of 4"),
        ("ijepa", {"ijepa.predictor.width": 66}, "config.ijepa.predictor.width = 66 must be"),
        ("moco", {"moco.norm_groups": 5}, "config.moco.norm_groups = 5 does not divide"),
        (
            "swav",
            {"swav.queue_size": 200},
            "swav.queue_size = 200 is no multiple of the 128 .* 128",
        ),
        ("dinov2", {"dinov2.koleo_group": 48}, "koleo_group = 48 must be at least 2 and divide"),
        ("swav", {"swav.queue_size": 64}, "is no multiple .* choose 128, or another batch size"),
        ("nnclr", {"nnclr.queue_size": 200}, "nnclr.queue_size = 200 is no multiple of the 128"),
        ("moco", {"moco.queue_size": 200, "moco.symmetric": True}, "of the 256 entries of a batch"),
        ("data2vec2", {"data2vec2.layers": 7}, "layers = 7 is more than the 6 blocks"),
        ("data2vec2", {"model.class_token": False}, "but config.data2vec2.class_weight is 0.1"),
        ("context_prediction", {"context_prediction.smallest": 145}, "is more than a patch has"),
        ("colorization", {"colorization.bin": 200}, "is more than the 2 bins that config"),
        ("monodepth2", {"monodepth2.min_depth": 100.0}, "min_depth = 100.0 must be less than"),
    ],
)
def test_values_that_do_not_go_together_are_refused(name, values, message):
    config = config_of(name, "").copy_and_resolve_references()
    config.update_from_flattened_dict(values)
    with pytest.raises(UserError, match=message):
        make_plan(config, **data_of(config, ""))


def error_with(config, key, value, spec):
    """The sentence with which a changed config is refused, None where it is not."""
    *path, last = key.split(".")
    section = section_of(config, path)
    before = section[last]
    with config.unlocked():  # deleted and added again, so that no type is kept
        del section[last]
        section[last] = value
        try:
            make_plan(config, **spec)
        except UserError as error:
            return str(error)
        finally:
            del section[last]
            section[last] = before
    return None


def test_a_variant_keeps_what_it_does_not_name(load_config):
    config = load_config("moco", "imagenet_v1")
    assert config.moco.projector.layers == 1 and config.moco.projector.outputs == 128
    assert config.model.name == "resnet50" and config.augment.recipe == "moco_v1"
    tiny = load_config("moco", "tiny")
    assert tiny.augment.erase == 1.0 and tiny.augment.size == 12 and tiny.model.patch_stem == 4
