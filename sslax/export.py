"""`python -m sslax.export --workdir=RUN --format=FORMAT --output=FOLDER`: a network for others.

Writes what a run trained as files that other programs load without sslax. See docs/export.md.
"""

from sslax import command
from sslax.command import flags

FORMATS = ("onnx", "stablehlo", "torch")

_WORKDIR = command.workdir_flag()
_CHECKPOINT = command.checkpoint_flag()
_FORMAT = flags.DEFINE_enum("format", None, FORMATS, "What reads it; see docs/export.md.")
_OUTPUT = command.output_flag()
_size = command.size_flag()
_POSES = flags.DEFINE_bool(
    "poses", False, "The input is consecutive frames, and their poses are predicted as well."
)


def main(_: list[str]) -> None:
    """Writes the files and says which."""
    from sslax import exporting

    files = exporting.export(
        _WORKDIR.value,
        _OUTPUT.value,
        format=_FORMAT.value,
        which=_CHECKPOINT.value,
        size=_size(),
        poses=_POSES.value,
    )
    for file in files:
        print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir", "format", "output"])
    command.entry(main)
