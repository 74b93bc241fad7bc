"""`python -m sslax.predict --workdir=RUN --input=IMAGES --output=WHERE`: use a trained run.

`--weights=FOLDER` instead of `--workdir` uses a published network, or one that comes with the
package, `--weights=zoo/uflow_small`.

A run that learned features writes an .npz of them; one that learned depth, ego-motion or flow a
folder of maps, pictures, trajectory and video. See docs/predict.md. `--input` may be a test bed
(docs/testbed.md).
"""

from pathlib import Path
from typing import Annotated

from sslax import command
from sslax.command import flags
from sslax.errors import UserError
from sslax.ranges import Interval, NonNegative, Positive, PositiveInt

_WORKDIR = command.workdir_flag()
_CHECKPOINT = command.checkpoint_flag()
_INPUT = flags.DEFINE_string(
    "input",
    None,
    "An image, a folder of images; of depth and flow also a video, images A,B, or a test bed.",
)
_OUTPUT = command.output_flag()
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "Instead of --workdir: a published folder, or zoo/NAME (docs/publish.md)."
)
flags.DEFINE_bool("stages", False, "Also the pooled activations of every stage.")
flags.DEFINE_string(
    "intrinsics", None, "A file of fx fy cx cy, or 3 x 3 numbers, in pixels: for point clouds."
)
flags.DEFINE_float(
    "baseline", None, "Meters between the stereo cameras: with --intrinsics, depth from disparity."
)
flags.DEFINE_bool(
    "post_process", False, "Average depth with the mirror image's, at twice the cost."
)
flags.DEFINE_bool(
    "video",
    None,
    "Whether the images of a folder are frames of a video; by default where the run predicts poses "
    "and they have one size.",
)
flags.DEFINE_float("fps", 10.0, "Frames a second of video and trajectory.")
_size = command.size_flag()
flags.DEFINE_float("reach", 5.0, "Leave points out that are farther than this many median depths.")
flags.DEFINE_integer("batch_size", 8, "Images or pairs at a time.")
command.check_flag("baseline", Positive | None)
command.check_flag("fps", Annotated[float, Interval(0.1)])
command.check_flag("reach", NonNegative)
command.check_flag("batch_size", PositiveInt)

# Flags that are for some tasks only; each task names its own.
_OPTIONS = (
    *("stages", "intrinsics", "baseline", "post_process", "video", "fps", "size", "reach"),
    "batch_size",
)


def main(_: list[str]) -> None:
    """Writes the run's predictions for the images."""
    from sslax.inference import run
    from sslax.tasks import TASKS, loading, task_of
    from sslax.testbed import layout, submission

    given = flags.FLAGS
    if bool(_WORKDIR.value) == bool(_WEIGHTS.value):
        raise UserError("Give either --workdir=RUN or --weights=FOLDER, such as zoo/uflow_small.")
    workdir = _WORKDIR.value or _WEIGHTS.value
    task = task_of(run.open_run(workdir).plan.method)
    for name in _OPTIONS:
        if given[name].present and name not in task.options:
            tasks = " or ".join(other.name for other in TASKS.values() if name in other.options)
            raise UserError(
                f"--{name} is for runs that predict {tasks}; this one predicts {task.name}."
            )
    options = {name: given[name].value for name in _OPTIONS}
    trained = loading.load(workdir, which=_CHECKPOINT.value, size=_size())
    if layout.is_test_bed(Path(_INPUT.value)):
        unused = [name for name in _OPTIONS if given[name].present]
        unused = [name for name in unused if name not in submission.OPTIONS]
        if unused:
            raise UserError(f"--{unused[0]} has no effect on a test bed: leave it out.")
        submission.write(trained, Path(_INPUT.value), Path(_OUTPUT.value), options)
        return
    task.write(trained, _INPUT.value, Path(_OUTPUT.value), options)


if __name__ == "__main__":
    flags.mark_flags_as_required(["input", "output"])
    command.entry(main)
