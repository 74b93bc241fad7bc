"""Configs: the sections every method shares, durations, and the checks before anything starts."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from ml_collections import ConfigDict

from sslax import data, models, ranges
from sslax.errors import UserError, check_choice
from sslax.ranges import Positive, PositiveInt, Seed
from sslax.training import optim
from sslax.training.sharding import Layout
from sslax.training.writers import WriterName


class DepthEvaluation(NamedTuple):
    """The section `evaluate.depth` of a config; see docs/geometric-evaluation.md."""

    scaling: Literal["median", "global", "none"] = "median"  # of each image; of the set
    crop: Literal["", "garg", "eigen"] = ""
    min_depth: Positive = 1e-3
    max_depth: Positive = 80.0
    cap_truth: bool = True  # leave out what is farther than max_depth
    post_process: bool = False  # mean of the image's and the mirror image's disparity


class Evaluation(NamedTuple):
    """The section `evaluate` of a config."""

    at_end: bool = True
    batch_size: PositiveInt = 256
    figures: bool = True
    # Memory that one device has for a logistic regression; larger ones are left out
    linear_bytes: PositiveInt = 8 * 2**30
    # What differs from the `data` section: another set, other splits
    data: Mapping[str, Any] = MappingProxyType({})
    depth: DepthEvaluation = DepthEvaluation()


class Section(NamedTuple):
    """A whole config, without its method's section and without `augment`."""

    method: str = ""
    seed: Seed = 0
    batch_size: PositiveInt = 256  # over all devices
    duration: str = "10 epochs"  # or steps, or examples
    log_every: str = "10 steps"
    checkpoint_every: str = "1 epoch"
    # Where metrics go beside metrics.jsonl: tensorboard, wandb, mlflow, trackio
    writers: Sequence[WriterName] = ("tensorboard",)
    online_probe: bool = True  # a linear classifier beside the training; needs labels
    # At each checkpoint, kNN accuracy of test images among training images; needs labels
    online_knn: bool = False
    accumulate: PositiveInt = 1  # micro-batches that a batch goes through the network in
    sharding: Layout = "replicated"  # of the training state over the devices; "fsdp": sharded
    optimizer: optim.Section = optim.Section()
    evaluate: Evaluation = Evaluation()


def defaults() -> ConfigDict:
    """The config that every `get_config` starts from: locked, typed, and without a method.

    A method's own knobs go into a section named as the method, added under `config.unlocked()`.
    """
    config = ConfigDict(ranges.defaults(Section()))
    config.data, config.model = data.defaults(), models.defaults()
    return config.lock()


def check(config: ConfigDict, methods: Iterable[str]) -> None:
    """Checks what all methods share; their own sections, `model` and `augment` are theirs to check.

    Args:
        config: a whole config.
        methods: names of all methods.

    Raises:
        UserError: an unknown key, a value out of its range, or the section of another method.
    """
    kinds = {**ranges.kinds_of(Section), "data": data.kinds()}
    kinds["evaluate"] = {**ranges.kinds_of(Evaluation), "data": data.kinds()}
    ranges.check_knobs("config", {key: config[key] for key in kinds if key in config}, kinds)
    check_choice("config.method", config.method, methods)
    others = [name for name in methods if name in config and name != config.method]
    if others:
        raise UserError(
            f"config.method is {config.method!r}, but this is a config of {others[0]}: start from "
            f"--config=configs/{config.method}.py."
        )
    limits = config.evaluate.depth
    if limits.min_depth >= limits.max_depth:
        raise UserError(
            f"config.evaluate.depth.min_depth = {limits.min_depth} must be less than max_depth = "
            f"{limits.max_depth}."
        )


def steps_of(
    duration: str,
    *,
    batch_size: int,
    steps_per_epoch: int,
    total: int | None = None,
    name: str = "duration",
) -> int:
    """A duration in steps, rounded to the nearest.

    Args:
        duration: a number and a unit: steps, epochs or examples; or a part of the run, as "5 %" or
            "0.05".
        batch_size: examples a step.
        steps_per_epoch: steps an epoch.
        total: steps of the run; None where the duration is that of the run itself, which is at
            least one step.
        name: what the user calls it: "config.duration".

    Raises:
        UserError: not of this form, more than the whole run, or a run without a step.

    Example:
        >>> steps_of("1.5 epochs", batch_size=32, steps_per_epoch=10)
        15
        >>> steps_of("5 %", batch_size=32, steps_per_epoch=10, total=200)
        10
    """
    match = re.fullmatch(
        r"\s*([0-9._]+(?:e-?[0-9]+)?)\s*(?:(step|epoch|example)s?|(%)|)\s*", str(duration)
    )
    part = match and not match[2]
    number = _number(match[1]) if match else math.nan
    if not math.isfinite(number) or (part and total is None):
        raise UserError(
            f'{name} = "{duration}" is not a duration; write a number and a unit, for example '
            '"500 steps", "20 epochs" or "1e6 examples"'
            + (', or a part of the run, "5 %" or "0.05".' if total is not None else ".")
        )
    if part:
        fraction = number / 100 if match[3] else number
        if fraction > 1:
            raise UserError(
                f'{name} = "{duration}" is more than the whole run; give at most "100 %".'
            )
        return round(fraction * total)
    unit = {"step": 1.0, "epoch": float(steps_per_epoch), "example": 1.0 / batch_size}[match[2]]
    steps = round(number * unit)
    if total is None and steps < 1:
        raise UserError(f'{name} = "{duration}" is less than one step; lengthen it.')
    return steps


def _number(text: str) -> float:
    """The number; NaN for what is none, such as "1.2.3"."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The same values with a dotted name for each leaf, so that nothing beside them is lost.

    Example:
        >>> flat({"seed": 1, "data": {"path": "x"}})
        {'seed': 1, 'data.path': 'x'}
    """
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            leaves |= flat(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = value
    return leaves
