"""`python -m sslax.evaluate --workdir=RUN`: evaluates a trained run again."""

from absl import flags

from sslax import command

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "latest", ["latest", "best"], "Which checkpoint.")


def main(_: list[str]) -> None:
    """Writes `results.json` and `figures/` in the run's folder and prints the table."""
    from sslax.evaluate import run

    run.evaluate_run(_WORKDIR.value, which=_CHECKPOINT.value)


if __name__ == "__main__":
    command.entry(main)
