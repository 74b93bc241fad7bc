"""`python -m sslax.predict --workdir=RUN --input=DIR --output=features.npz`: features of images."""

from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from sslax import command
from sslax.data import Source
from sslax.errors import UserError

_INPUT = flags.DEFINE_string("input", None, "An image, or a folder of images.")
_OUTPUT = flags.DEFINE_string("output", None, "The .npz to write.")
_STAGES = flags.DEFINE_bool("stages", False, "Also the pooled activations of every stage.")


def main(_: list[str]) -> None:
    """Writes `features` [N, D] and `files` [N] (relative to the input), with `stage_*` if asked."""
    import jax

    from sslax import data, partition, use

    output = Path(_OUTPUT.value)
    if output.suffix != ".npz":
        raise UserError(f"--output={output} must end in .npz.")
    config, plan = use.read_plan(command.WORKDIR.value)
    mesh = partition.make_mesh(jax.local_devices()[:1])
    state = use.read_state(command.WORKDIR.value, plan, mesh, which=command.CHECKPOINT.value)
    source, files = _images(Path(_INPUT.value), config.data, plan.batch["image"].shape[1:])
    size = min(config.evaluate.batch_size, len(source))
    batches = data.evaluation_batches(source, batch_size=size, mesh=mesh)
    found = use.Predictor(plan, state, mesh).over(batches)
    stages = found["stages"] if _STAGES.value else {}
    output.parent.mkdir(parents=True, exist_ok=True)
    np.savez(output, features=found["features"], files=np.asarray(files), **stages)
    print(f"Wrote {output}: features {list(found['features'].shape)} of {len(source)} images.")


def _images(
    path: Path, trained: ConfigDict, image_shape: tuple[int, ...]
) -> tuple[Source, list[str]]:
    """The images at `path`, of the size and channels that the encoder was trained with."""
    from sslax import data
    from sslax.data import folder, records

    height, width, channels = image_shape
    shape = {"size": min(height, width), "channels": channels}
    if path.is_file():
        return folder.FolderSource([str(path)], None, **shape), [path.name]
    section = data.defaults()
    section.update(path=str(path), labels=False, channels=channels, image_size=shape["size"])
    try:
        found = folder.folder(section).train
    except data.DataError as error:
        raise UserError(str(error).replace("data.path", "--input")) from error
    kept, failures = found, []
    if trained.bad_images == "skip":
        kept, failures = records.skip_unreadable(found, workers=trained.workers)
    for failure in failures:
        print(f"skipped: {failure}")
    indices = kept.indices if failures else range(len(found))
    return kept, [str(Path(found.paths[i]).relative_to(path)) for i in indices]


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir", "input", "output"])
    command.entry(main)
