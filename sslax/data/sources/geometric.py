"""Sets with exact geometry that need no files: rendered scenes, and one real stereo pair."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sslax.data import clips, scenes
from sslax.data.records import ArraySource, DataError, Dataset, Record, array_source

MOTORCYCLE_SIZE = (160, 224)
SCENES_SIZE = (64, 128)
CHUNK = 16  # test samples rendered at once
_PARTS = ("train", "test")


def motorcycle(config: ConfigDict) -> Dataset:
    """Middlebury's motorcycle, a single pair, to train on and, with its truth, to test on.

    As stereo (`frames=1, stereo=True`) it is left and right; as flow (`frames=2, target="first"`)
    too, with what is known of the flow; as video (`frames=2`) it is right and left, so that the
    target, the second, is the view whose depth is known.

    Raises:
        DataError: if it is asked for what a pair cannot be.
    """
    clips.check(config)
    _no_path(config)
    if config.frames + config.stereo != 2 or config.interval != 1:
        raise DataError(
            "data.source='motorcycle' is one pair: set data.frames=1 and data.stereo=True, or "
            "data.frames=2 and data.stereo=False, at data.interval=1"
        )
    pair = scenes.motorcycle(tuple(config.size) or MOTORCYCLE_SIZE)
    record = {"image": pair["image"], "intrinsics": pair["intrinsics"]}
    truth = {"depth": pair["depth"]}
    if config.stereo:
        record["baseline"] = pair["baseline"]
    else:
        away = np.float32([0.0, pair["baseline"]])
        poses = np.stack([np.eye(4, dtype=np.float32), pair["pose"]])
        if config.target == "middle":
            record["image"], away, poses = record["image"][::-1], away[::-1], poses[::-1]
        else:
            flow = np.where(pair["known"][..., None], pair["flow"], np.float32(0))
            truth |= {"flow": flow, "known": pair["known"]}
        truth["pose"] = poses
        if config.distances:
            record["distance"] = away
    train, test = (
        array_source({name: np.asarray(value)[None] for name, value in arrays.items()})
        for arrays in (record, record | truth)
    )
    return Dataset(train, test, None)


def rendered(config: ConfigDict) -> Dataset:
    """Random scenes made on the device, without end, and `config.scenes.test` of them with truth.

    | kind | frames, stereo, target | `scenes.` |
    |---|---|---|
    | 'rooms' | 1, True | `stereo` |
    | 'rooms' | 2 or more, either | `video` |
    | 'rooms' | 2, False, 'first' | `flow` |
    | 'rooms' | 3, False, 'second' | `video`, and its flow from the second frame to the third |
    | 'layered' | 2, False, 'first' | `layered` |

    The test's scenes and the textures of both are others than those of training.

    Raises:
        DataError: for a combination that is none of these, or a knob that its scenes have not.
    """
    clips.check(config)
    _no_path(config)
    if config.interval != 1:
        raise DataError(
            f"data.interval={config.interval} is for frames of a video: of rendered scenes set "
            "data.scenes.speed"
        )
    wanted = config.scenes
    kind = _kind(config)
    if config.distances and kind not in ("video", "flow"):
        raise DataError(f"data.distances=True but scenes of {kind} have no moving camera")
    knobs = {name: wanted[name] for name in _KNOBS[kind]}
    motions = (("moving", 0.0), ("following", 0.0), ("still", 0.0), ("drive", False))
    for name, without in motions:
        if name not in knobs and wanted[name]:
            raise DataError(
                f"data.scenes.{name}={wanted[name]} has no effect on scenes of {kind}: set it to "
                f"{without}"
            )
    if kind == "video":
        knobs |= {"frames": config.frames, "baseline": wanted.baseline if config.stereo else 0.0}
    if wanted.length < 1 or wanted.test < 0 or wanted.textures < 1:
        raise DataError("data.scenes.length and textures must be 1 or more, and test 0 or more")
    make = functools.partial(
        _source,
        kind,
        tuple(config.size) or SCENES_SIZE,
        tuple(sorted(knobs.items())),
        textures=wanted.textures,
        seed=wanted.seed,
        distances=config.distances,
        onward=config.target == "second",
    )
    test = _all_of(make("test", length=wanted.test)) if wanted.test else None
    return Dataset(make("train", length=wanted.length), test, None)


class SceneSource:
    """Samples made on the device: number i is a function of part, seed and i alone.

    Args:
        kind: 'stereo', 'video', 'flow' or 'layered'.
        part: 'train' or 'test', which has other scenes, other textures, and the truth.
        length: how many there are; `make` makes others too.
        size: height and width.
        knobs: of the function of `scenes` that is named as the kind.
        textures: how many.
        seed: of all.
        distances: with 'distance', meters from the target's camera to each frame's.
        onward: of videos the truth has the flow from the target to the next frame.

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
        onward: bool = False,
    ) -> None:
        self.kind = kind
        self.part = part
        self.length = length
        self.distances = distances
        self.onward = onward
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
        """Many records at once, stacked, in one compiled call."""
        made = _made(self, self.arrays, np.asarray(indices, np.int32))
        return {name: np.asarray(values) for name, values in made.items()}

    def make(self, arrays: Any, index: jax.Array) -> dict[str, jax.Array]:
        """A batch of records, to be traced inside a compiled step.

        Args:
            arrays: those of this source, on the devices.
            index: `[B]` int32.

        Returns:
            The records, stacked.
        """
        key = jax.random.wrap_key_data(arrays["key"])
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
        return jax.vmap(self._record, (0, None))(keys, arrays["textures"])

    def _record(self, key: jax.Array, textures: Any) -> dict[str, jax.Array]:
        sample = self.sample(key, textures)
        image = jnp.rint(255 * sample["image"]).astype(jnp.uint8)
        record = {"image": image} | {
            name: sample[name] for name in ("intrinsics", "baseline") if name in sample
        }
        truth = {}
        if self.kind in ("flow", "layered") or self.onward:
            other = self.knobs["frames"] // 2 + 1 if self.onward else 0
            truth["flow"], truth["visible"] = sample["flow"][other], sample["visible"][other]
            truth["known"] = jnp.ones(truth["visible"].shape, bool)
        if self.kind == "flow":
            truth["depth"] = sample["depth"][0]
            truth["pose"] = jnp.stack([jnp.eye(4), sample["pose"]])
        if self.kind == "stereo":
            truth["depth"] = sample["depth"][0]
        if self.kind == "video":
            frames, baseline = (self.knobs[name] for name in ("frames", "baseline"))
            if baseline:
                record["baseline"] = jnp.float32(baseline)
            truth["depth"] = sample["depth"][frames // 2]
            truth["pose"] = sample["pose"][:frames]
            truth |= {name: sample[name] for name in ("moving", "occluded")}
        if self.distances:
            record["distance"] = jnp.linalg.norm(truth["pose"][:, :3, 3], axis=-1)
        return record | truth if self.part == "test" else record


_SAMPLES: dict[str, Callable] = {
    "stereo": scenes.stereo,
    "video": scenes.video,
    "flow": scenes.flow,
    "layered": scenes.layered,
}
_KNOBS = {
    "stereo": ("baseline", "boxes", "drive", "brightness"),
    "video": ("boxes", "drive", "speed", "still", "moving", "following", "brightness"),
    "flow": ("boxes", "drive", "speed", "moving", "brightness"),
    "layered": ("layers", "speed", "brightness"),
}


def _kind(config: ConfigDict) -> str:
    kind = config.scenes.kind
    if kind not in ("rooms", "layered"):
        raise DataError(f"data.scenes.kind={kind!r} is not one of 'rooms', 'layered'")
    if kind == "layered":
        if config.target != "first":
            raise DataError(
                "data.scenes.kind='layered' has flow and no depth: set data.target='first' and "
                "data.frames=2, or data.scenes.kind='rooms'"
            )
        return "layered"
    if config.target == "first":
        return "flow"
    return "stereo" if config.frames == 1 else "video"


def _no_path(config: ConfigDict) -> None:
    if config.path or config.test_path or config.test_fraction:
        raise DataError(
            f"data.source={config.source!r} reads no path and holds nothing out: set data.path, "
            "data.test_path and data.test_fraction to their defaults, or data.source to 'video' or "
            "'stereo'"
        )
    if config.channels == 1:
        raise DataError(f"data.source={config.source!r} is colored: set data.channels=3")
    if config.cut_bottom or config.still:
        raise DataError(
            f"data.cut_bottom and data.still are for videos: set both to 0.0 with data.source="
            f"{config.source!r}"
        )


@functools.lru_cache(maxsize=8)
def _source(
    kind: str, size: tuple[int, int], knobs: tuple, part: str, **options: Any
) -> SceneSource:
    """One object for equal configs, so that what is compiled for it serves them all."""
    return SceneSource(kind, part, size=size, knobs=dict(knobs), **options)


@functools.lru_cache(maxsize=4)
def _all_of(source: SceneSource) -> ArraySource:
    """A whole source in memory."""
    # Chunks of one size, because each size is compiled; what is too much is cut off.
    starts = range(0, len(source), min(CHUNK, len(source)))
    chunks = [source.take(start + np.arange(starts.step)) for start in starts]
    return array_source(
        {
            name: np.concatenate([chunk[name] for chunk in chunks])[: len(source)]
            for name in chunks[0]
        }
    )


@functools.partial(jax.jit, static_argnums=0)
def _made(source: SceneSource, arrays: Any, index: jax.Array) -> dict[str, jax.Array]:
    return source.make(arrays, index)
