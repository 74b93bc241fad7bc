"""`python -m sslax.publish --workdir=RUN --output=FOLDER`: a folder of weights to give away.

It holds the weights that predictions need, what they are, the numbers of the evaluation, and a
model card; `sslax.load(FOLDER)` reads it. See docs/publish.md.
"""

from sslax import command
from sslax.command import flags

_WORKDIR = command.workdir_flag()
_CHECKPOINT = command.checkpoint_flag()
_OUTPUT = command.output_flag()
_LICENSE = flags.DEFINE_string("license", "", "Of the weights, such as apache-2.0, for the card.")


def main(_: list[str]) -> None:
    """Writes the folder and says what is in it."""
    from sslax.tasks import publishing

    files = publishing.publish(
        _WORKDIR.value,
        _OUTPUT.value,
        which=_CHECKPOINT.value,
        license=_LICENSE.value,
    )
    for file in files:
        print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir", "output"])
    command.entry(main)
