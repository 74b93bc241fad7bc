"""Renders a test bed and writes it: images, cameras and the truth."""

import functools
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sslax import paths
from sslax.data import scenes
from sslax.data.files.cameras import write_intrinsics, write_kitti_poses
from sslax.data.files.flow_files import write_flow
from sslax.data.files.maps import write_pfm
from sslax.data.files.png import write_png
from sslax.data.files.text import write_text
from sslax.data.scenes import Sample
from sslax.errors import UserError, check_choice
from sslax.measures import pose
from sslax.testbed.corruptions import CORRUPTIONS, corrupt
from sslax.testbed.layout import (
    CLEAN,
    CONDITIONS,
    MANIFEST,
    SIZE,
    TASKS,
    TRUTH,
    manifest,
    sample_names,
)

SEED = 2718  # of the first task; the others have the next ones, and so other rooms
MOVING = 0.5  # probability that a box moves on its own in a video
SAMPLES: dict[str, Callable] = {
    "stereo": functools.partial(scenes.stereo, size=SIZE),
    "flow": functools.partial(scenes.flow, size=SIZE),
    "video": functools.partial(
        scenes.video, size=SIZE, frames=len(TASKS["video"].images), moving=MOVING
    ),
}
_CHUNK = 10  # samples rendered at once
_FORMAT = Path(__file__).with_name("README.md")

# Of the first samples of each task: mean and standard deviation of the images, in gray levels, and
# mean of the truth (disparity, speed, depth).
SUMMARY = {
    "stereo": [[80.762, 48.226, 10.3320], [67.767, 42.781, 13.1146]],
    "flow": [[94.623, 60.922, 7.7231], [113.732, 54.089, 4.4053]],
    "video": [[96.829, 41.460, 4.6149], [74.732, 46.938, 4.5142]],
}
# What other rounding may change, with a wide margin; docs/testbed.md has measurements.
_TOLERANCE = 0.01


def write(folder: Path, corruptions: Sequence[str] = (), *, samples: int | None = None) -> None:
    """Writes a test bed.

    Args:
        folder: to write to; new, empty, or with a test bed, whose files are written again.
        corruptions: names of those whose images are written beside the clean ones.
        samples: of each task, if fewer than `TASKS` has; they are the same as the first of all.

    Raises:
        UserError: an unknown corruption, or the folder has other files or cannot be written to.
    """
    for name in corruptions:
        check_choice("--corruptions", name, CORRUPTIONS)
    paths.check_output(folder, "--output", folder=True)
    _check_contents(folder)
    (folder / MANIFEST).unlink(missing_ok=True)  # until the test bed is complete
    chosen = [c for c in CONDITIONS if c == CLEAN or c.rpartition("_")[0] in corruptions]
    counts = {name: min(samples or task.samples, task.samples) for name, task in TASKS.items()}
    for task, count in counts.items():
        for name, sample in zip(sample_names(count), _rendered(task, count)):
            _write_sample(folder, task, name, sample, chosen)
    shutil.copyfile(_FORMAT, folder / _FORMAT.name)
    # Conditions of an earlier call are still there, unless it was interrupted.
    places = [f"{task}/{name}" for task, count in counts.items() for name in sample_names(count)]
    there = [c for c in CONDITIONS if all((folder / c / place).is_dir() for place in places)]
    write_text(folder / MANIFEST, json.dumps(manifest(counts, there), indent=2) + "\n")


def renderer(task: str) -> Callable[[jax.Array], Sample]:
    """A function `index [B] -> batch` that renders samples of a task, as `scenes.sampler`."""
    seed = SEED + [*TASKS].index(task)
    return scenes.sampler(SAMPLES[task], scenes.textures("test"), seed=seed)


def summarize(task: str, sample: Sample) -> list[float]:
    """Three numbers that tell one sample from another; see `SUMMARY`.

    Args:
        task: of the sample.
        sample: as `scenes` renders it.
    """
    images = 255 * np.asarray(sample["image"], np.float64)
    if task == "stereo":
        truth = sample["disparity"][0]
    elif task == "flow":
        truth = np.linalg.norm(sample["flow"][0], axis=-1)
    else:
        truth = sample["depth"][TASKS[task].images.index(TASKS[task].target)]
    return [float(x) for x in (images.mean(), images.std(), np.mean(truth, dtype=np.float64))]


def differing(task: str, samples: Sequence[Sample]) -> list[str]:
    """Names of the first samples that are not those of `SUMMARY`, beyond rounding.

    Args:
        task: of the samples.
        samples: the first of the task.
    """
    found = zip(sample_names(len(samples)), samples, SUMMARY[task])
    return [
        name
        for name, sample, wanted in found
        if (np.abs(np.subtract(summarize(task, sample), wanted)) > _TOLERANCE).any()
    ]


def _rendered(task: str, count: int) -> Iterator[Sample]:
    """Samples on the host, rendered in chunks; warns where they are not what they should be."""
    render = renderer(task)
    for start in range(0, count, _CHUNK):
        batch = jax.device_get(render(jnp.arange(start, min(start + _CHUNK, count))))
        rows = [jax.tree.map(lambda x, i=i: x[i], batch) for i in range(len(batch["image"]))]
        if start == 0 and (names := differing(task, rows)):
            print(
                f"warning: {task}/{names[0]} is not the scene that it is elsewhere, so that scores "
                "are not comparable; its textures are photographs of scikit-image and "
                "scikit-learn, of which another version may have others."
            )
        yield from rows


def _write_sample(
    folder: Path, task: str, name: str, sample: Sample, conditions: Sequence[str]
) -> None:
    clean = np.rint(255 * np.clip(sample["image"], 0, 1)).astype(np.uint8)
    for condition in conditions:
        corruption, _, grade = condition.rpartition("_")
        images = clean
        if corruption:
            images = corrupt(clean, _key(task, name, corruption), corruption, int(grade))
        place = _new(folder / condition / task / name)
        for image, pixels in zip(TASKS[task].images, images):
            write_png(place / f"{image}.png", pixels)
        write_intrinsics(place / "intrinsics.txt", sample["intrinsics"])
    _write_truth(_new(folder / TRUTH / task / name), task, sample)


def _write_truth(place: Path, task: str, sample: Sample) -> None:
    target = TASKS[task].target
    masks = {}
    if task == "stereo":
        write_pfm(place / f"{target}.pfm", sample["disparity"][0])
        masks = {"visible": sample["visible"][0]}
    elif task == "flow":
        write_flow(place / f"{target}.flo", sample["flow"][0])
        masks = {"visible": sample["visible"][0], "moving": sample["moving"][0]}
    else:
        write_pfm(place / f"{target}.pfm", sample["depth"][TASKS[task].images.index(target)])
        to_target = pose.inverse_poses(sample["pose"])  # camera-to-world, the target's the world
        trajectory = pose.inverse_poses(to_target[:1]) @ to_target
        write_kitti_poses(place / "trajectory.txt", trajectory)
        masks = {"moving": sample["moving"]}
    for mask, values in masks.items():
        write_png(place / f"{target}_{mask}.png", 255 * np.asarray(values, np.uint8))


def _key(task: str, name: str, corruption: str) -> jax.Array:
    """A random key, the same for all grades of a corruption."""
    text = f"{task}/{name}/{corruption}"
    return jax.random.fold_in(jax.random.key(SEED), zlib.crc32(text.encode()))


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _check_contents(folder: Path) -> None:
    """Refuses a folder with anything but a test bed, or a part of one."""
    ours = {*CONDITIONS, TRUTH, MANIFEST, _FORMAT.name}
    others = (
        [path.name for path in folder.iterdir() if path.name not in ours] if folder.is_dir() else []
    )
    if others:
        raise UserError(
            f"--output={folder} has other files, such as {min(others)}: name a new folder."
        )
