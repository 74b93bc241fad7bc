"""The files of a test bed, and of what a program predicts for it.

A test bed has a folder for each condition, the clean images and those under a corruption, and one
of the truth. All of them, and the folder of a program's predictions, have the same tree,
`TASK/SAMPLE/FILE`. A map is named after the image that it belongs to: `left.pfm` is the disparity
of `left.png`. README.md beside this file describes the formats; it is copied into the test bed.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from sslax.data.records import DataError
from sslax.data.scenes.samples import BASELINE
from sslax.testbed.corruptions import CORRUPTIONS

VERSION = 1  # of the samples: scores are comparable within one
SIZE = (128, 256)  # height and width
CLEAN, TRUTH, MANIFEST = "clean", "truth", "testbed.json"
CONDITIONS = (
    CLEAN,
    *(f"{name}_{i + 1}" for name, (_, grades) in CORRUPTIONS.items() for i in range(len(grades))),
)
MAPS = (".pfm", ".npy", ".png")


class Task(NamedTuple):
    """A task of the test bed.

    Attributes:
        samples: how many there are.
        images: names of a sample's images.
        target: the image that maps belong to.
    """

    samples: int
    images: tuple[str, ...]
    target: str


class Quantity(NamedTuple):
    """What a program may predict.

    Attributes:
        task: the task that it belongs to.
        files: the names that its file of a sample may have; the first that is there is read.
        unit: for people.
    """

    task: str
    files: tuple[str, ...]
    unit: str


TASKS = {
    "stereo": Task(100, ("left", "right"), "left"),
    "flow": Task(100, ("first", "second"), "first"),
    "video": Task(50, ("0", "1", "2", "3", "4"), "2"),
}
QUANTITIES = {
    "disparity": Quantity("stereo", tuple(f"left{end}" for end in MAPS), "pixels"),
    "flow": Quantity("flow", ("first.flo", "first.npy", "first.png"), "pixels, x and y"),
    "visible": Quantity("flow", ("first_visible.png",), "0 to 255, below 128 is occluded"),
    "depth": Quantity("video", tuple(f"2{end}" for end in MAPS), "any: median scaling"),
    "poses": Quantity("video", ("trajectory.txt", "trajectory_tum.txt"), "any: fitted scale"),
}


def sample_names(count: int) -> list[str]:
    """Names of a task's samples.

    Example:
        >>> sample_names(2)
        ['000', '001']
    """
    return [f"{i:03d}" for i in range(count)]


def manifest(samples: dict[str, int], conditions: list[str]) -> dict[str, Any]:
    """What `testbed.json` says of a test bed.

    Args:
        samples: number of samples by task.
        conditions: that were written.
    """
    return {
        "version": VERSION,
        "size": {"height": SIZE[0], "width": SIZE[1]},
        "baseline": BASELINE,
        "conditions": conditions,
        "strengths": {name: list(grades) for name, (_, grades) in CORRUPTIONS.items()},
        "tasks": {
            name: {
                "samples": samples[name],
                "images": [f"{image}.png" for image in task.images],
                "predict": {
                    quantity: {"files": list(each.files), "unit": each.unit}
                    for quantity, each in QUANTITIES.items()
                    if each.task == name
                },
            }
            for name, task in TASKS.items()
        },
    }


def is_test_bed(folder: Path) -> bool:
    """Whether a folder has a test bed that was written to its end."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the test bed in a folder.

    Raises:
        DataError: there is none, or one of another version.
    """
    if not is_test_bed(folder):
        raise DataError(
            f"{folder} has no {MANIFEST}: it is no test bed, or writing it was interrupted; write "
            f"one by python -m sslax.testbed --output={folder}"
        )
    try:
        found = json.loads((folder / MANIFEST).read_text())
        version = found["version"]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{folder / MANIFEST} is damaged; write the test bed again") from None
    if version != VERSION:
        raise DataError(
            f"{folder} is a test bed of version {version}, and this is {VERSION}: their scores are "
            "not comparable; write it again into a new folder"
        )
    return found
