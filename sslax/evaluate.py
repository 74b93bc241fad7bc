"""`python -m sslax.evaluate --workdir=RUN`: evaluates a trained run again.

`--data.source=npz --data.path=FILE`, and any other entry of a config's `data` section, evaluates
it on another set; `--finetune` trains the whole encoder with labels, or a part of them;
`--linear_probe=PAPER` trains a linear classifier on augmented images, by the paper's protocol with
the changes of `--probe.KEY`. On a cluster, `--distributed` in every process, as in training.
"""

import sys
from typing import Any

from sslax import command, data, ranges
from sslax.command import ConfigDict, config_flags, flags
from sslax.errors import UserError, check_choice
from sslax.ranges import OneOrMore, Positive, PositiveFraction

_WORKDIR = command.workdir_flag()
_CHECKPOINT = command.checkpoint_flag()
_join_cluster = command.cluster_flags()
_FINETUNE = flags.DEFINE_bool("finetune", False, "Fine-tune instead of evaluating frozen features.")
_LABELS = flags.DEFINE_list("labels", ["1"], "With --finetune: fractions of the labels, 1,0.1,0.01")
_DURATION = flags.DEFINE_string(
    "duration", "", 'With --finetune: "1000 steps"; by default 30 epochs, or 500 steps if more.'
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", None, "With --finetune: at its peak, for 256 images a step."
)
command.check_flag("learning_rate", Positive | None)
_PROBE = flags.DEFINE_string(
    "linear_probe", "", "A paper whose linear protocol is followed: simclr, byol, simsiam or mae."
)


def main(_: list[str]) -> None:
    """Writes the results, and of frozen features pictures, in the run's folder; prints a table."""
    _join_cluster()
    from sslax.tasks import evaluation

    what = {"which": _CHECKPOINT.value, "other": _overrides("data")}
    if _FINETUNE.value and _PROBE.value:
        raise UserError("--finetune and --linear_probe are two evaluations: give one of them.")
    if _overrides("probe") and not _PROBE.value:
        raise UserError("--probe.KEY goes with --linear_probe=PAPER; add it.")
    if not _FINETUNE.value:
        for holder in (_LABELS, _DURATION, _LEARNING_RATE):
            if flags.FLAGS[holder.name].present:
                raise UserError(f"--{holder.name} goes with --finetune; add it.")
    if _FINETUNE.value:
        evaluation.finetune_run(
            _WORKDIR.value,
            **what,
            fractions=_fractions(_LABELS.value),
            duration=_DURATION.value,
            learning_rate=_LEARNING_RATE.value,
        )
    elif _PROBE.value:
        protocol = _protocol(_PROBE.value, _overrides("probe"))
        evaluation.linear_probe_run(_WORKDIR.value, **what, protocol=protocol)
    else:
        evaluation.evaluate_run(_WORKDIR.value, **what)


def _overrides(section: str) -> dict[str, Any]:
    return config_flags.get_override_values(flags.FLAGS[section])


def _protocol(paper: str, changes: dict[str, Any]) -> Any:
    """A paper's protocol with some knobs changed.

    Example:
        >>> _protocol("simclr", {"duration": "9 epochs"}).duration
        '9 epochs'
    """
    from sslax.training.linear_probe import PROTOCOLS, Protocol

    check_choice("--linear_probe", paper, PROTOCOLS)
    ranges.check_knobs("--probe", changes, Protocol)
    return PROTOCOLS[paper]._replace(**changes)


def _fractions(texts: list[str]) -> list[float]:
    """Fractions of the labels.

    Example:
        >>> _fractions(["1", "0.1"])
        [1.0, 0.1]
    """
    try:
        fractions = [float(text) for text in texts]
    except ValueError as error:
        raise UserError(
            f"--labels={','.join(texts)} are not fractions; write numbers such as 1,0.1,0.01."
        ) from error
    ranges.check("--labels", fractions, OneOrMore[PositiveFraction])
    return fractions


def _define(name: str, section: ConfigDict, text: str) -> None:
    """Defines `--NAME.KEY` for every key; the command line is read at once."""
    try:
        config_flags.DEFINE_config_dict(name, section, text)
    except AttributeError as error:
        (reason,) = getattr(error.args[0], "args", error.args)
        sys.exit(f"error: --{name} has no key " + " ".join(str(reason).split()))


if __name__ == "__main__":
    from sslax.training.linear_probe import Protocol

    _define("data", data.defaults(), "Another set than the run's: --data.source, --data.path, ...")
    _define(
        "probe", ConfigDict(ranges.defaults(Protocol())), "Changes to --linear_probe's protocol."
    )
    flags.mark_flag_as_required("workdir")
    command.entry(main)
