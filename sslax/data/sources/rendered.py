"""Random scenes with exact geometry (`sslax.data.scenes`), rendered on the device."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sslax.augment.keys import example_keys
from sslax.data import sampling, scenes
from sslax.data.records import ArraySource, DataError, Dataset, Record, array_source
from sslax.ranges import (
    Fraction,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    PositiveRange,
    ProperFraction,
    Seed,
)

SIZE = (64, 128)
CHUNK = 16  # test samples rendered at once
_PARTS = ("train", "test")


class Section(NamedTuple):
    """The section `data.scenes`."""

    kind: Literal["rooms", "layered"] = "rooms"
    seed: Seed = 0
    length: PositiveInt = 2**16  # samples that count as an epoch; there is no end of them
    test: NonNegativeInt = 64  # test samples
    textures: PositiveInt = 48
    boxes: NonNegativeInt = 6  # in a room
    layers: PositiveInt = 4  # of kind 'layered'
    baseline: Positive = 0.2  # meters
    drive: bool = False  # a car's camera: driving ahead, boxes on the floor, light from above
    speed: NonNegative = 1.0
    moving: Fraction = 0.0  # probability that a box moves on its own
    following: Fraction = 0.0  # probability that this box moves with the camera
    still: Fraction = 0.0  # probability that the camera is static
    brightness: NonNegative = 0.0  # random exposure of each image, by up to exp(±brightness)
    turn: NonNegative = 1.0  # video: factor on the angles that the camera turns by
    focal: PositiveRange = (0.6, 1.0)  # video: of the focal length, in widths
    alpha: ProperFraction = 0.0  # video: of a wide lens, see `ops.UnifiedCamera`


def load(config: ConfigDict) -> Dataset:
    """An endless training set, and `config.scenes.test` samples with ground truth.

    | kind | frames, stereo, target_frame | sampler in `sslax.data.scenes` |
    |---|---|---|
    | 'rooms' | 1, True | `stereo` |
    | 'rooms' | 2 or more, either | `video` |
    | 'rooms' | 2, False, 'first' | `flow` |
    | 'rooms' | 3, False, 'second' | `video`, with its flow from the second frame to the third |
    | 'layered' | 2, False, 'first' | `layered` |

    Training and test share neither scenes nor textures.

    Raises:
        DataError: the combination is none of these, or a knob has no effect on its scenes.
    """
    sampling.check(config)
    sampling.check_no_files(config)
    kind = _kind(config)
    knobs = _knobs(kind, config)
    source = functools.partial(
        _source,
        kind,
        tuple(config.size) or SIZE,
        tuple(sorted(knobs.items())),
        textures=config.scenes.textures,
        seed=config.scenes.seed,
        distances=config.distances,
        flow_onward=config.target_frame == "second",
    )
    test = _in_memory(source("test", length=config.scenes.test)) if config.scenes.test else None
    return Dataset(source("train", length=config.scenes.length), test, None)


class SceneSource:
    """Samples generated on the device: each is a function of part, seed and index alone.

    Args:
        kind: 'stereo', 'video', 'flow' or 'layered'.
        part: 'train', or 'test', which has other scenes, other textures, and ground truth.
        length: number of samples; `generate` makes others too.
        size: height and width.
        knobs: arguments of the function in `sslax.data.scenes` that `kind` names.
        textures: number of textures.
        seed: seed of all samples.
        distances: add 'distance', meters from the target's camera to each frame's.
        flow_onward: the ground truth of a video has the flow from its target to the next frame.

    Attributes:
        arrays: a key, and textures at all levels of detail, to be put on the devices.
    """

    def __init__(
        self,
        kind: str,
        part: str,
        *,
        length: int,
        size: tuple[int, int],
        knobs: dict[str, Any],
        textures: int = 48,
        seed: int = 0,
        distances: bool = False,
        flow_onward: bool = False,
    ) -> None:
        self.kind = kind
        self.part = part
        self.length = length
        self.distances = distances
        self.flow_onward = flow_onward
        self.knobs = dict(knobs)
        self.sample = functools.partial(_SAMPLES[kind], size=size, **knobs)
        key = jax.random.fold_in(jax.random.key(seed), _PARTS.index(part))
        pyramid = scenes.pyramid(jnp.asarray(scenes.textures(part, count=textures)))
        # The key is an array too, so that one compiled program serves all seeds and both parts.
        arrays = {"key": jax.random.key_data(key), "textures": pyramid}
        self.arrays = jax.tree.map(np.asarray, arrays)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Record:
        if not 0 <= i < self.length:
            raise IndexError(f"there are {self.length} samples, counted from 0; got {i}")
        return {name: values[0] for name, values in self.take(np.array([i])).items()}

    def take(self, indices: np.ndarray) -> Record:
        """The records at `indices`, stacked, in one compiled call."""
        records = _generate(self, self.arrays, np.asarray(indices, np.int32))
        return {name: np.asarray(values) for name, values in records.items()}

    def generate(self, arrays: Any, index: jax.Array) -> dict[str, jax.Array]:
        """A batch of records, to be traced inside a compiled step.

        Args:
            arrays: those of this source, on the devices.
            index: `[B]` int32.

        Returns:
            The records, stacked.
        """
        keys = example_keys(jax.random.wrap_key_data(arrays["key"]), index)
        return jax.vmap(self._record, (0, None))(keys, arrays["textures"])

    def _record(self, key: jax.Array, textures: Any) -> dict[str, jax.Array]:
        sample = self.sample(key, textures)
        record = {"image": jnp.rint(255 * sample["image"]).astype(jnp.uint8)}
        cameras = ("intrinsics", "alpha", "baseline")
        record |= {name: sample[name] for name in cameras if name in sample}
        if self.kind == "video" and self.knobs["baseline"]:
            record["baseline"] = jnp.float32(self.knobs["baseline"])
        ground_truth = self._ground_truth(sample)
        if self.distances:
            record["distance"] = jnp.linalg.norm(ground_truth["pose"][:, :3, 3], axis=-1)
        return record | ground_truth if self.part == "test" else record

    def _ground_truth(self, sample: scenes.Sample) -> dict[str, jax.Array]:
        """Depth, poses and flow of the target frame, as far as the kind of scene has them."""
        ground_truth = {}
        if self.kind in ("flow", "layered") or self.flow_onward:
            to_frame = self.knobs["frames"] // 2 + 1 if self.flow_onward else 0
            ground_truth["flow"] = sample["flow"][to_frame]
            ground_truth["visible"] = sample["visible"][to_frame]
            ground_truth["known"] = jnp.ones(ground_truth["visible"].shape, bool)
        if self.kind in ("stereo", "flow"):
            ground_truth["depth"] = sample["depth"][0]
        if self.kind == "flow":
            ground_truth["pose"] = jnp.stack([jnp.eye(4), sample["pose"]])
        if self.kind == "video":
            frames = self.knobs["frames"]
            ground_truth["depth"] = sample["depth"][frames // 2]
            ground_truth["pose"] = sample["pose"][:frames]
            ground_truth |= {name: sample[name] for name in ("moving", "occluded")}
        return ground_truth


_SAMPLES: dict[str, Callable] = {
    "stereo": scenes.stereo,
    "video": scenes.video,
    "flow": scenes.flow,
    "layered": scenes.layered,
}
_KNOBS = {
    "stereo": ("baseline", "boxes", "drive", "brightness"),
    "video": (
        *("boxes", "drive", "speed", "still", "moving", "following", "brightness"),
        *("turn", "focal", "alpha"),
    ),
    "flow": ("boxes", "drive", "speed", "moving", "brightness"),
    "layered": ("layers", "speed", "brightness"),
}
# Knobs whose neglect would not show, and the values at which they have no effect.
_NEUTRAL = {
    **{"moving": 0.0, "following": 0.0, "still": 0.0, "drive": False},
    **{"turn": 1.0, "focal": (0.6, 1.0), "alpha": 0.0},
}


def _kind(config: ConfigDict) -> str:
    """The function in `sslax.data.scenes` that a config asks for."""
    kind = config.scenes.kind
    if config.interval != 1:
        raise DataError(
            f"data.interval={config.interval} is for videos in files: for rendered scenes set "
            "data.scenes.speed"
        )
    if kind == "layered" and config.target_frame != "first":
        raise DataError(
            "data.scenes.kind='layered' has flow and no depth: set data.target_frame='first' and "
            "data.frames=2, or data.scenes.kind='rooms'"
        )
    if kind == "layered":
        return "layered"
    if config.target_frame == "first":
        return "flow"
    return "stereo" if config.frames == 1 else "video"


def _knobs(kind: str, config: ConfigDict) -> dict[str, Any]:
    """Arguments of the function that `kind` names."""
    if config.distances and kind not in ("video", "flow"):
        raise DataError(f"data.distances=True but scenes of kind {kind!r} have no moving camera")
    values = {**config.scenes, "focal": tuple(config.scenes.focal)}  # a list if read from JSON
    for name, neutral in _NEUTRAL.items():
        if name not in _KNOBS[kind] and values[name] != neutral:
            raise DataError(
                f"data.scenes.{name}={values[name]} has no effect on scenes of kind "
                f"{kind!r}: set it to {neutral}"
            )
    knobs = {name: values[name] for name in _KNOBS[kind]}
    if kind == "video":
        baseline = config.scenes.baseline if config.stereo else 0.0
        knobs |= {"frames": config.frames, "baseline": baseline}
    return knobs


@functools.lru_cache(maxsize=8)
def _source(
    kind: str, size: tuple[int, int], knobs: tuple, part: str, **options: Any
) -> SceneSource:
    """One object for equal configs, so that they share what is compiled."""
    return SceneSource(kind, part, size=size, knobs=dict(knobs), **options)


@functools.lru_cache(maxsize=4)
def _in_memory(source: SceneSource) -> ArraySource:
    """All records of a source."""
    # Each size is compiled, so chunks have one size, and the excess is cut off.
    starts = range(0, len(source), min(CHUNK, len(source)))
    chunks = [source.take(start + np.arange(starts.step)) for start in starts]
    return array_source(
        {
            name: np.concatenate([chunk[name] for chunk in chunks])[: len(source)]
            for name in chunks[0]
        }
    )


@functools.partial(jax.jit, static_argnums=0)
def _generate(source: SceneSource, arrays: Any, index: jax.Array) -> dict[str, jax.Array]:
    return source.generate(arrays, index)
