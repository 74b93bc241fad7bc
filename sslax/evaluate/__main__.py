"""`python -m sslax.evaluate --workdir=RUN`: evaluates a trained run again."""

from absl import flags

from sslax import command


def main(_: list[str]) -> None:
    """Writes `results.json` and `figures/` in the run's folder and prints the table."""
    from sslax.evaluate import run

    run.evaluate_run(command.WORKDIR.value, which=command.CHECKPOINT.value)


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    command.entry(main)
