"""`python -m sslax.submission --workdir=RUN --benchmark=NAME --images=FOLDER --output=FILE.zip`.

Predicts the test images of KITTI or Sintel and writes what their servers want, or, with
`--check=FILE.zip` in place of `--workdir` and `--output`, checks an archive of any program. See
docs/predict.md.
"""

from sslax import command
from sslax.command import flags
from sslax.errors import UserError

_WORKDIR = command.workdir_flag()
_CHECKPOINT = command.checkpoint_flag()
_OUTPUT = command.output_flag()
_size = command.size_flag()
_BENCHMARK = flags.DEFINE_string(
    "benchmark", None, "kitti2012_stereo, kitti2012_flow, kitti2015_stereo, kitti2015_flow, ..."
)
_IMAGES = flags.DEFINE_string("images", None, "Folder of the benchmark's downloaded test images.")
_CHECK = flags.DEFINE_string("check", None, "An archive to check; its folder for Sintel.")


def main(_: list[str]) -> None:
    """Writes an archive, or checks one."""
    if (_WORKDIR.value is None) == (_CHECK.value is None):
        raise UserError("Give --workdir=RUN and --output=FILE to write, or --check=FILE to check.")
    from sslax.tasks import loading, submissions

    if _CHECK.value is None:
        if _OUTPUT.value is None:
            raise UserError("Where to? Give --output=FILE.zip, for Sintel a folder.")
        trained = loading.load(_WORKDIR.value, which=_CHECKPOINT.value, size=_size())
        written = submissions.write(trained, _BENCHMARK.value, _IMAGES.value, _OUTPUT.value)
        print(f"Wrote {_OUTPUT.value}: {written} maps.")
    checked = _CHECK.value or _OUTPUT.value
    count = submissions.check(_BENCHMARK.value, _IMAGES.value, checked)
    print(f"{checked} is as the server of {_BENCHMARK.value} expects it: {count} maps.")


if __name__ == "__main__":
    flags.mark_flags_as_required(["benchmark", "images"])
    command.entry(main)
