"""A trained network as one function, from images as they are decoded to named arrays."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import sslax
from sslax import models
from sslax.data.files.text import write_text
from sslax.errors import UserError
from sslax.inference.encoder import Trained
from sslax.inference.estimator import Estimator
from sslax.models.weights import flatten
from sslax.types import Array, Depth, Flow

DESCRIPTION = "model.json"
FEATURES = "pooled output of the encoder"
_TARGET = "of the image, or of the middle one of several frames"
_MEANINGS = {
    "features": FEATURES,
    "stages": "mean over positions of the activations of one stage of the encoder",
    "disparity": f"{_TARGET}, in pixels of the input",
    "pose": "4x4 matrices, from the camera of the middle frame to that of each frame",
    "flow": "from the first image to the second, (x, y) in pixels of the input",
    "backward": "from the second image to the first, (x, y) in pixels of the input",
    "visible": "1 where the second image shows the pixel of the first, 0 where it does not",
}


class Program(NamedTuple):
    """A trained network as one function.

    Attributes:
        function: uint8 `[b, *shape]` to float32 arrays `[b, ...]` by name.
        shape: of one example, without the axis of the batch.
        outputs: shapes of one example's outputs, by name.
        about: what a user of the file has to know, as JSON has it.
    """

    function: Callable[[Array], dict[str, Array]]
    shape: tuple[int, ...]
    outputs: dict[str, tuple[int, ...]]
    about: dict[str, Any]


def program_of(trained: Trained, *, poses: bool = False) -> Program:
    """What `sslax.load` returned, as a program.

    Args:
        trained: an encoder or an estimator.
        poses: as `exporting.export` takes it.

    Raises:
        UserError: poses of a run that predicts none.
    """
    shape = _example_shape(trained, poses)
    several = len(shape) == 4
    alone = isinstance(trained, Estimator) and not several  # an example with a single image

    def function(images: Array) -> dict[str, Array]:
        image = images[:, None] if alone else images
        prediction = trained.method.predict(trained.variables, {"image": image})
        named = flatten(prediction._asdict())
        return {name: leaf.astype(jnp.float32) for name, leaf in named.items()}

    example = jax.ShapeDtypeStruct((1, *shape), jnp.uint8)
    outputs = {name: leaf.shape[1:] for name, leaf in jax.eval_shape(function, example).items()}
    return Program(function, shape, outputs, _about(trained, shape, outputs))


def describe(folder: Path, format: str, about: dict[str, Any], **more: Any) -> Path:
    """Writes `model.json`: what a user of the files has to know, and `more` of the format."""
    file = folder / DESCRIPTION
    write_text(file, json.dumps({"format": format, **about, **more}, indent=2) + "\n")
    return file


def origin(trained: Trained) -> dict[str, Any]:
    """Where a network comes from."""
    return {
        "written_by": f"sslax {sslax.__version__}",
        "method": trained.config.method,
        "task": type(trained.method.task).__name__.lower(),
        "step": trained.step,
    }


def encoder_size(trained: Trained) -> tuple[int, int]:
    """Height and width of the images that the encoder itself is given."""
    stored = jax.ShapeDtypeStruct((1, *trained.image_shape), jnp.uint8)
    _, height, width, _ = jax.eval_shape(trained.method.evaluation_view, stored).shape
    return height, width


def preparation(trained: Trained) -> list[str]:
    """What is done to images before the network sees them."""
    steps, size = ["divide by 255"], encoder_size(trained)
    if size != tuple(trained.image_shape[:2]):
        steps.append(f"resize or crop to {size[0]} x {size[1]}, as in the run's evaluation")
    preprocessing = models.preprocessing_name(trained.method.preprocess)
    if preprocessing != "float":
        steps.append(preprocessing)
    if mean := tuple(trained.config.model.mean):
        steps.append(f"subtract {list(mean)}, divide by {list(trained.config.model.std)}")
    return steps


def check_poses(trained: Trained, poses: bool) -> None:
    """Makes sure that poses are asked of a run that predicts them.

    Raises:
        UserError: they are not.
    """
    if poses and "pose" not in getattr(trained, "predicts", ()):
        raise UserError(
            f"--poses is for runs that learned ego-motion; {trained.config.method} did not: "
            "leave it out."
        )


def _example_shape(trained: Trained, poses: bool) -> tuple[int, ...]:
    check_poses(trained, poses)
    size = getattr(trained, "size", trained.image_shape[:2])
    frames = 2 if isinstance(trained.method.task, Flow) else trained.frames if poses else 0
    return (*([frames] if frames else []), *size, trained.channels)


def _about(
    trained: Trained, shape: tuple[int, ...], outputs: dict[str, tuple[int, ...]]
) -> dict[str, Any]:
    *_, height, width, channels = shape
    return {
        **origin(trained),
        "input": {
            "name": "image",
            "shape": ["b", *shape],
            "dtype": "uint8",
            "range": [0, 255],
            "axes": f"{'frame, ' if len(shape) == 4 else ''}row, column, "
            + ("red-green-blue" if channels == 3 else "gray"),
        },
        "before": f"Images of other sizes are resized to {height} x {width}, antialiased.",
        "inside": preparation(trained),
        "outputs": {
            name: {"shape": ["b", *shape], "dtype": "float32", "meaning": _meaning(trained, name)}
            for name, shape in outputs.items()
        },
    }


def _meaning(trained: Trained, name: str) -> str:
    task = trained.method.task
    if name == "depth" and isinstance(task, Depth):
        unit = "meters" if task.metric else "unknown, one scale for all images of the run's camera"
        return f"{_TARGET}, along the optical axis; unit: {unit}"
    return _MEANINGS[name.partition("/")[0]]
