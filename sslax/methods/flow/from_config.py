"""Config reading shared by the `build` functions of all flow methods."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from ml_collections import ConfigDict

from sslax import augment, models, ranges
from sslax.errors import UserError
from sslax.methods import common, schedules
from sslax.methods.common import Augmentation, plain
from sslax.methods.flow.method import Encoder
from sslax.types import Array, Batch, Model, PyTree, Schedule, Variables


def shared_arguments(config: ConfigDict) -> dict[str, Any]:
    """The arguments that every factory takes: `network`, `augmentation` and `encoder`."""
    return {
        "network": build_network(config),
        "augmentation": build_augmentation(config.augment),
        "encoder": feature_encoder(config.model),
    }


def knobs_of(config: ConfigDict, factory: Callable, **own: ranges.Kind) -> dict[str, Any]:
    """As `sslax.methods.common.knobs_of`, without `network`, which `build_network` checks."""
    knobs = common.knobs_of(config, factory, network=Mapping[str, Any], **own)
    del knobs["network"]
    return knobs


def build_network(config: ConfigDict, *, both: bool = True, **changes: Any) -> Model:
    """The network of `config.model`, with the knobs in the section `network` of the method's own.

    Args:
        config: a whole config.
        both: also the flow from the second frame to the first; the parameters are the same.
        **changes: knobs to replace.

    Raises:
        UserError: see `models.build_flow_network`.
    """
    knobs = {**plain(config[config.method].network), **changes}
    section = f"config.{config.method}.network"
    return models.build_flow_network(config.model, knobs, section=section, both=both)


def build_augmentation(section: ConfigDict) -> Augmentation:
    """The augmentation of an `augment` section: a `recipe` of pairs by name, with knobs replaced.

    Raises:
        UserError: unknown recipe or knob, or a knob out of its range.
    """
    knobs = plain(section)
    if not knobs.get("size", True):
        knobs.pop("size")  # (): the size of the frames
    recipes = Literal[tuple(augment.FLOW_RECIPES)]
    kinds = {**ranges.kinds_of(augment.FlowRecipe), "recipe": recipes}
    ranges.check_knobs("config.augment", knobs, kinds)
    recipe = augment.get_flow_recipe(knobs.pop("recipe"), **knobs)
    augment_pairs = augment.make_frame_pairs(recipe)

    def augmentation(rng: Array, batch: Batch) -> Batch:
        try:
            return augment_pairs(rng, batch)
        except ValueError as error:  # of a crop that is larger than the frames
            raise UserError(f"config.augment: {error}") from error

    return augmentation


def feature_encoder(model: ConfigDict) -> Encoder:
    """`Method.encoder`: the part of the network of a `model` section that sees single frames."""

    def encoder(variables: Variables) -> tuple[PyTree, PyTree]:
        return models.feature_encoder(model, variables.params, variables.model_state)

    return encoder


def pop_ramp(knobs: dict[str, Any], term: str, steps: int) -> float | Schedule:
    """The weight of a second pass: `TERM_weight`, reached in a ramp.

    Args:
        knobs: `TERM_weight`, `TERM_start` and `TERM_ramp`, the latter two as fractions of the run;
            they are removed.
        term: the prefix.
        steps: of the run.

    Example:
        >>> knobs = {"selfsup_weight": 0.6, "selfsup_start": 0.5, "selfsup_ramp": 0.1}
        >>> schedule = pop_ramp(knobs, "selfsup", 1000)
        >>> knobs, [round(float(schedule(step)), 3) for step in (500, 550, 600)]
        ({}, [0.0, 0.3, 0.6])
    """
    weight, start, length = (knobs.pop(f"{term}_{name}") for name in ("weight", "start", "ramp"))
    if not weight:
        return 0.0
    first = start * steps
    return schedules.linear(0.0, weight, first + max(length * steps, 1.0), first=first)
