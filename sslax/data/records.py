"""What a set of images is: records by number, in memory or read when asked for."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np

from sslax.errors import UserError

Record = dict[str, np.ndarray]


class DataError(UserError):
    """A mistake in the data or in how it was asked for; the message names the remedy."""


class ImageError(DataError):
    """One image that cannot be read."""


class Source(Protocol):
    """Records by number, safe to read from several threads, picklable.

    A record is `{'image': uint8 [H, W, C], 'label': int32 []}`, without 'label' where there is
    none. A source that knows all its labels without reading images has them as `labels`, int32
    `[N]`. Where the images of a record belong together in space or time 'image' is
    `[V, H, W, C]`, and other arrays (intrinsics, ...) stand beside it; see docs/data.md.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Record: ...


class Made(Source, Protocol):
    """A source whose records are made on the device, inside the compiled step; it has no end.

    Attributes:
        arrays: what records are made of; put on every device once.
        make: `(arrays, index [B]) -> dict`, pure: a batch of records, each of them a function of
            its index alone.
    """

    arrays: Any
    make: Callable[[Any, Any], dict[str, Any]]


class Dataset(NamedTuple):
    """A training set, perhaps a test set, and the names of their classes.

    Attributes:
        train: the records to train on.
        test: the records to evaluate on, or None.
        class_names: one name for each label, or None where the training set has no labels.
    """

    train: Source
    test: Source | None
    class_names: tuple[str, ...] | None

    @property
    def num_classes(self) -> int | None:
        """The number of classes, or None without labels."""
        return None if self.class_names is None else len(self.class_names)


class ArraySource:
    """Records in memory: images uint8 `[N, (V,) H, W, C]`, labels int32 `[N]` or None, and other
    arrays `[N, ...]` by name.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray | None = None, **others: np.ndarray
    ) -> None:
        self.images = images
        self.labels = labels
        self.others = others

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Record:
        return self.take(i)

    def take(self, indices: int | np.ndarray) -> Record:
        """Many records at once, stacked."""
        return {name: array[indices] for name, array in self.arrays.items()}

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by the names that they have in a record."""
        labels = {} if self.labels is None else {"label": self.labels}
        return {"image": self.images, **labels, **self.others}


class Subset:
    """The records of a source at some indices, in their order."""

    def __init__(self, source: Source, indices: np.ndarray) -> None:
        self.source = source
        self.indices = indices
        labels = labels_of(source)
        self.labels = None if labels is None else labels[indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Record:
        return self.source[int(self.indices[i])]


class Unlabeled:
    """A source without its labels."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> Record:
        return {name: value for name, value in self.source[i].items() if name != "label"}


def labels_of(source: Source) -> np.ndarray | None:
    """All labels, int32 `[N]`, of a source that knows them without reading its images."""
    return getattr(source, "labels", None)


def without_labels(source: Source) -> Source:
    """The images of a source."""
    if isinstance(source, ArraySource):
        return ArraySource(source.images, **source.others)
    return Unlabeled(source)


def subset(source: Source, indices: np.ndarray) -> Source:
    """The records of a source at `indices`, copied where they are in memory already."""
    if isinstance(source, ArraySource):
        return array_source(source.take(indices))
    return Subset(source, indices)


def stack(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Records of one shape to a batch.

    Raises:
        DataError: if the images differ in shape.
    """
    shapes = sorted({record["image"].shape for record in records})
    if len(shapes) > 1:
        raise DataError(
            f"images of shapes {shapes[0]} and {shapes[-1]} cannot share a batch: set "
            "data.image_size (and data.channels) to bring all images to one shape"
        )
    return {key: np.stack([record[key] for record in records]) for key in records[0]}


def threads(workers: int) -> int:
    """How many threads read: `workers`, or with 0 one a core, at most 32."""
    return workers or min(32, os.cpu_count() or 1)


def read(source: Source, indices: np.ndarray, pool: ThreadPoolExecutor) -> dict[str, np.ndarray]:
    """The records at `indices`, stacked, read by the pool's threads."""
    if isinstance(source, ArraySource):
        return source.take(indices)

    def piece(part: np.ndarray) -> list[Record]:
        return [source[i] for i in part.tolist()]

    # Pieces, because handing one small image to a thread takes as long as decoding it.
    parts = np.array_split(indices, max(1, len(indices) // 16))
    return stack([record for part in pool.map(piece, parts) for record in part])


def size_in_memory(source: Source) -> int:
    """Bytes of all images, taking the first for all."""
    return len(source) * source[0]["image"].nbytes


def in_memory(source: Source, *, workers: int = 0) -> ArraySource:
    """Reads a whole source in threads.

    Raises:
        DataError: if an image cannot be read or the images differ in shape.
    """
    if isinstance(source, ArraySource):
        return source
    with ThreadPoolExecutor(threads(workers)) as pool:
        arrays = read(source, np.arange(len(source)), pool)
    return array_source(arrays)


def array_source(arrays: Mapping[str, np.ndarray]) -> ArraySource:
    """Stacked records as a source."""
    others = {name: array for name, array in arrays.items() if name not in ("image", "label")}
    return ArraySource(arrays["image"], arrays.get("label"), **others)


def is_made(source: Source) -> bool:
    """Whether the source's records are made on the device."""
    return hasattr(source, "make")


def shapes(source: Source) -> dict[str, Any]:
    """Shape and dtype of each array of a record, as `jax.ShapeDtypeStruct`s.

    Of a source in memory or in files the first record speaks for all.
    """
    import jax

    if is_made(source):
        batch = jax.eval_shape(source.make, source.arrays, jax.ShapeDtypeStruct((1,), np.int32))
        return {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in batch.items()}
    first = {name: np.asarray(value) for name, value in source[0].items()}
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in first.items()}


def skip_unreadable(source: Source, *, workers: int = 0) -> tuple[Source, list[str]]:
    """Tries every image; returns the source without those that fail, and the failures' messages.

    Raises:
        DataError: if no image can be read.
    """

    def failure(i: int) -> str | None:
        try:
            source[i]
        except ImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(threads(workers)) as pool:
        failures = list(pool.map(failure, range(len(source))))
    messages = [message for message in failures if message is not None]
    if not messages:
        return source, []
    if len(messages) == len(source):
        raise DataError(f"none of the {len(source)} images can be read; the first: {messages[0]}")
    good = np.array([i for i, message in enumerate(failures) if message is None])
    return subset(source, good), messages


def hold_out(source: Source, fraction: float) -> tuple[Source, Source]:
    """Splits a source into `(train, test)`: the same split in every run, whatever its seed.

    With labels known the test part takes the fraction of each class.

    Raises:
        DataError: if either part would be empty.
    """
    labels = labels_of(source)
    groups = np.zeros(len(source), np.int32) if labels is None else labels
    bits = np.random.Philox(key=0).random_raw(len(source))
    held = np.zeros(len(source), bool)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        members = members[np.argsort(bits[members], kind="stable")]
        held[members[: round(fraction * len(members))]] = True
    if not held.any() or held.all():
        raise DataError(
            f"data.test_fraction={fraction} of {len(source)} images leaves an empty part: change "
            "the fraction or name a test set by data.test_path"
        )
    return subset(source, np.flatnonzero(~held)), subset(source, np.flatnonzero(held))


def as_labels(values: Any, what: str, length: int) -> np.ndarray:
    """Checks labels read from a file: integers `[length]`, none negative; returns int32.

    Raises:
        DataError: if they are not.
    """
    values = np.asarray(values)
    if values.shape != (length,) or not np.issubdtype(values.dtype, np.integer):
        raise DataError(
            f"{what} is {values.dtype} {list(values.shape)}; labels must be integers "
            f"[{length}], one for each image"
        )
    if length and values.min() < 0:
        raise DataError(f"{what} holds {values.min()}; labels must count from 0")
    return values.astype(np.int32)
