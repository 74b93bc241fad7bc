"""`python -m sslax.main --config=configs/METHOD.py`: train, evaluate, draw.

Flags, distributed start, and `fit`; nothing else. `--workdir` is the folder of the run, by
default runs/METHOD[-VARIANT]; an existing run is resumed. The exit status is 0 when the run is
complete, and 75 when it was stopped before that.
"""

import sys
from pathlib import Path

from sslax import command
from sslax.command import flags
from sslax.ranges import NonNegativeInt

command.config_flag()
_WORKDIR = command.workdir_flag()
_join_cluster = command.cluster_flags()
_PROFILE = flags.DEFINE_integer(
    "profile", 0, "Steps to trace, once the first few are done, for Perfetto or TensorBoard."
)
command.check_flag("profile", NonNegativeInt)


def main(_: list[str]) -> None:
    """Trains, then evaluates if the run is complete."""
    _join_cluster()
    import jax

    from sslax.inference.run import open_run
    from sslax.tasks import evaluation, reports
    from sslax.training.fit import fit

    config, file = command.read_config()
    workdir = Path(_WORKDIR.value or default_workdir(file))
    print(f"Run in {workdir}", flush=True)
    state = fit(config, workdir, traced_steps=_PROFILE.value)
    if int(state.step) < open_run(workdir).plan.steps:
        print(f"Stopped at step {int(state.step)}; the same command resumes from there.")
        sys.exit(command.STOPPED)
    if config.evaluate.at_end:
        evaluation.evaluate_run(workdir)
    elif jax.process_index() == 0:
        reports.write(workdir, lambda: [])


def default_workdir(config_file: str) -> str:
    """`runs/METHOD[-VARIANT]` for a config file and its variant.

    Example:
        >>> default_workdir("configs/simclr.py:tiny")
        'runs/simclr-tiny'
    """
    file, _, variant = config_file.partition(":")
    return f"runs/{Path(file).stem}" + (f"-{variant}" if variant else "")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    command.entry(main)
