"""Configs: the sections every method shares, durations, and the checks before anything starts."""

import math
import re

from ml_collections import ConfigDict

from sslax import data, models
from sslax.errors import UserError
from sslax.training import optim


def defaults() -> ConfigDict:
    """The config that every `get_config` starts from: locked, typed, and without a method.

    A method's own knobs go into a section named as the method, added under `config.unlocked()`.
    """
    config = ConfigDict(
        {
            "method": "",
            "seed": 0,
            "batch_size": 256,  # over all devices
            "duration": "10 epochs",  # or steps, or examples
            "log_every": "10 steps",
            "checkpoint_every": "1 epoch",
            "online_probe": True,  # a linear classifier beside the training; needs labels
            "data": data.defaults(),
            "model": models.defaults(),
            "optimizer": optim.defaults(),
            "evaluate": {
                "at_end": True,
                "batch_size": 256,
                "figures": True,
                "data": {},  # what differs from the `data` section: another set, other splits
                "depth": {  # see docs/geometric-evaluation.md
                    "scaling": "median",  # 'median': of each image; 'global': of the set; 'none'
                    "crop": "",  # 'garg' or 'eigen'
                    "min_depth": 1e-3,
                    "max_depth": 80.0,
                    "cap_truth": True,  # leave out what is farther than max_depth
                    "post_process": False,  # mean of the image's and the mirror image's disparity
                },
            },
        }
    )
    return config.lock()


def steps_of(
    duration: str, *, batch_size: int, steps_per_epoch: int, total: int | None = None
) -> int:
    """A duration in steps, rounded to the nearest.

    Args:
        duration: a number and a unit: steps, epochs or examples; or a part of the run, as "5 %" or
            "0.05".
        batch_size: examples a step.
        steps_per_epoch: steps an epoch.
        total: steps of the run; None where the duration is that of the run itself.

    Raises:
        UserError: not of this form.

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
            f'"{duration}" is not a duration; write a number and a unit, for example "500 steps", '
            '"20 epochs" or "1e6 examples"'
            + (', or a part of the run, "5 %" or "0.05".' if total is not None else ".")
        )
    if part:
        fraction = number / 100 if match[3] else number
        if fraction > 1:
            raise UserError(f'"{duration}" is more than the whole run; give at most "100 %".')
        return round(fraction * total)
    unit = {"step": 1.0, "epoch": float(steps_per_epoch), "example": 1.0 / batch_size}[match[2]]
    return round(number * unit)


def _number(text: str) -> float:
    """The number; NaN for what is none, such as "1.2.3"."""
    try:
        return float(text)
    except ValueError:
        return math.nan
