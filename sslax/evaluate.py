"""`python -m sslax.evaluate --workdir=RUN`: evaluates a trained run again.

`--data.source=npz --data.path=FILE`, and any other entry of a config's `data` section, evaluates
it on another set; `--finetune` trains the whole encoder with labels, or a part of them.
"""

import sys

from sslax import command, data, ranges
from sslax.command import config_flags, flags
from sslax.errors import UserError
from sslax.ranges import OneOrMore, Positive, PositiveFraction

_FINETUNE = flags.DEFINE_bool("finetune", False, "Fine-tune instead of evaluating frozen features.")
_LABELS = flags.DEFINE_list("labels", ["1"], "With --finetune: fractions of the labels, 1,0.1,0.01")
_DURATION = flags.DEFINE_string(
    "duration", "", 'With --finetune: "1000 steps"; by default 30 epochs, or 500 steps if more.'
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", None, "With --finetune: at its peak, for 256 images a step."
)
command.check_flag("learning_rate", Positive | None)


def main(_: list[str]) -> None:
    """Writes the results, and of frozen features pictures, in the run's folder; prints a table."""
    from sslax.tasks import evaluation

    other = config_flags.get_override_values(flags.FLAGS["data"])
    what = {"which": command.CHECKPOINT.value, "other": other}
    if not _FINETUNE.value:
        for holder in (_LABELS, _DURATION, _LEARNING_RATE):
            if flags.FLAGS[holder.name].present:
                raise UserError(f"--{holder.name} goes with --finetune; add it.")
        evaluation.evaluate_run(command.WORKDIR.value, **what)
        return
    evaluation.finetune_run(
        command.WORKDIR.value,
        **what,
        fractions=_fractions(_LABELS.value),
        duration=_DURATION.value,
        learning_rate=_LEARNING_RATE.value,
    )


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


def _define_data() -> None:
    """Defines `--data.KEY` for every key; the command line is read at once."""
    try:
        config_flags.DEFINE_config_dict(
            "data", data.defaults(), "Another set than the run's: --data.source, --data.path, ..."
        )
    except AttributeError as error:
        (reason,) = getattr(error.args[0], "args", error.args)
        sys.exit("error: --data has no key " + " ".join(str(reason).split()))


if __name__ == "__main__":
    _define_data()
    flags.mark_flag_as_required("workdir")
    command.entry(main)
