"""`python -m sslax.sweep --config=CONFIG --values=FILE --output=FOLDER`: runs of many settings.

Trains and evaluates one run for each row of values, skips those that are finished, and writes a
table of all. See docs/runs.md. The exit status is 0 when all is complete, 1 where a run failed, and
75 when it was stopped.
"""

import sys
from pathlib import Path

from sslax import command, paths
from sslax.command import flags
from sslax.errors import UserError
from sslax.ranges import NonNegativeInt, PositiveInt

command.config_flag()
_VALUES = flags.DEFINE_string("values", None, "TOML or JSON: lists by key of the config, or rows.")
_OUTPUT = command.output_flag()
_INDEX = flags.DEFINE_integer(
    "index", None, "Run this row alone, counted from 0: --index=$SLURM_ARRAY_TASK_ID."
)
_SEEDS = flags.DEFINE_integer("seeds", 1, "Runs of each row, with seeds from the config's own on.")
_RESULTS = flags.DEFINE_list(
    "results", [], "Results in the table, sorted by the first; by default the task's own."
)
command.check_flag("index", NonNegativeInt | None)
command.check_flag("seeds", PositiveInt)


def main(_: list[str]) -> None:
    """Runs the rows and prints the table."""
    from sslax.tasks import sweeps

    config, _ = command.read_config()
    output = paths.expand(_OUTPUT.value, "--output")
    paths.check_output(output, "--output", folder=True)
    if not config.evaluate.at_end:
        raise UserError("A sweep compares results: leave config.evaluate.at_end at True.")
    rows, seeds, index = sweeps.read_rows(Path(_VALUES.value)), _SEEDS.value, _INDEX.value
    if index is not None and index >= len(rows):
        raise UserError(
            f"--index={index}, but {_VALUES.value} has {len(rows)} row(s), 0 to {len(rows) - 1}."
        )
    runs = [sweeps.configs_of(config, row, seeds) for row in rows]  # all are checked
    chosen = runs if index is None else [runs[index]]
    failed = []
    for name, changed in ((n, c) for configs in chosen for n, c in configs.items()):
        print(f"Run in {output / name}", flush=True)
        try:
            if not sweeps.run(changed, output / name):
                print("Stopped; the same command goes on from there.")
                sys.exit(command.STOPPED)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            failed.append(name)
    output.mkdir(parents=True, exist_ok=True)
    outcomes = sweeps.outcomes_of(config, rows, output, seeds)
    print(sweeps.write_tables(outcomes, output, _RESULTS.value))
    print(f"All results in {output / 'sweep.csv'}.")
    if failed:
        sys.exit(f"error: {len(failed)} run(s) failed: {', '.join(failed)}.")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "values", "output"])
    command.entry(main)
