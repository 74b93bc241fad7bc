"""`python -m sslax.main --config=configs/METHOD.py`: train, evaluate, draw.

Flags, distributed start, and `fit`; nothing else. `--workdir` is the folder of the run, by
default runs/METHOD[-VARIANT]; an existing run is resumed.
"""

from pathlib import Path

from sslax import command
from sslax.command import flags
from sslax.ranges import NonNegativeInt, PositiveInt

command.config_flag()
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join the other processes of a cluster: SLURM, GKE, TPU pod, or by hand."
)
_COORDINATOR = flags.DEFINE_string("coordinator", "", "By hand: HOST:PORT of process 0.")
_PROCESS_ID = flags.DEFINE_integer("process_id", 0, "By hand: this process, from 0.")
_PROCESSES = flags.DEFINE_integer("num_processes", 1, "By hand: how many processes.")
_PROFILE = flags.DEFINE_integer(
    "profile", 0, "Steps to trace, once the first few are done, for Perfetto or TensorBoard."
)
command.check_flag("profile", NonNegativeInt)
command.check_flag("process_id", NonNegativeInt)
command.check_flag("num_processes", PositiveInt)


def main(_: list[str]) -> None:
    """Trains, then evaluates if the run is complete."""
    from sslax.training import sharding

    if _DISTRIBUTED.value or _COORDINATOR.value:
        sharding.initialize_distributed(_COORDINATOR.value, _PROCESS_ID.value, _PROCESSES.value)
    from sslax.inference.run import open_run
    from sslax.tasks import evaluation
    from sslax.training.fit import fit

    config, file = command.read_config()
    workdir = Path(command.WORKDIR.value or default_workdir(file))
    print(f"Run in {workdir}", flush=True)
    state = fit(config, workdir, traced_steps=_PROFILE.value)
    if int(state.step) < open_run(workdir).plan.steps:
        print(f"Stopped at step {int(state.step)}; the same command resumes from there.")
    elif config.evaluate.at_end:
        evaluation.evaluate_run(workdir)


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
