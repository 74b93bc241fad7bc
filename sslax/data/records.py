"""Data sets as indexed records: in memory, read when asked for, or generated on the device."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np

from sslax.errors import UserError

Record = dict[str, np.ndarray]


class DataError(UserError):
    """A mistake in the data or in its configuration; the message names the remedy."""


class ImageError(DataError):
    """One image that cannot be read."""


class Source(Protocol):
    """Records by index, picklable and safe to read from several threads.

    A record is `{'image': uint8 [H, W, C], 'label': int32 []}`, without 'label' where there is
    none. A source that knows all its labels without reading images has them as `labels`, int32
    `[N]`. Where the images of a record belong together in space or time, 'image' is
    `[V, H, W, C]`, and the record holds other arrays too (intrinsics, ...); see docs/data.md.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Record: ...


class GeneratedSource(Source, Protocol):
    """An endless source whose records are generated on the device, inside the compiled step.

    Attributes:
        arrays: what the generator reads; put on every device once.
        generate: `(arrays, index [B]) -> dict`, pure: a batch of records, each a function of its
            index alone.
    """

    arrays: Any
    generate: Callable[[Any, Any], dict[str, Any]]


class Dataset(NamedTuple):
    """A training set, a test set where there is one, and the names of their classes.

    Attributes:
        train: records to train on.
        test: records to evaluate on, or None.
        class_names: a name for each label, or None where the training set has no labels.
    """

    train: Source
    test: Source | None
    class_names: tuple[str, ...] | None

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None without labels."""
        return None if self.class_names is None else len(self.class_names)


class ArraySource:
    """Records in memory.

    Args:
        images: uint8 `[N, H, W, C]` or `[N, V, H, W, C]`.
        labels: int32 `[N]`, or None.
        **others: further arrays `[N, ...]` by name.

    Attributes:
        origin: the fingerprint of the files that they were read from, if there were any.
    """

    origin: str | None = None

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
        """The records at `indices`, stacked."""
        return {name: array[indices] for name, array in self.arrays.items()}

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by their names in a record."""
        labels = {} if self.labels is None else {"label": self.labels}
        return {"image": self.images, **labels, **self.others}


class Subset:
    """The records of a source at `indices`, in that order."""

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
    """The records of a source without 'label'."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> Record:
        return {name: value for name, value in self.source[i].items() if name != "label"}


def labels_of(source: Source) -> np.ndarray | None:
    """All labels, int32 `[N]`, or None where they are not known without reading the images."""
    return getattr(source, "labels", None)


def without_labels(source: Source) -> Source:
    """A source without its labels."""
    if isinstance(source, ArraySource):
        return ArraySource(source.images, **source.others)
    return Unlabeled(source)


def subset(source: Source, indices: np.ndarray) -> Source:
    """The records of a source at `indices`; copied where they are in memory."""
    if isinstance(source, ArraySource):
        return array_source(source.take(indices))
    return Subset(source, indices)


def stack(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Stacks records of one shape to a batch.

    Raises:
        DataError: the images differ in shape.
    """
    found = sorted({record["image"].shape for record in records})
    if len(found) > 1:
        raise DataError(
            f"images of shapes {found[0]} and {found[-1]} cannot share a batch: set "
            "data.image_size (and data.channels) to bring all images to one shape"
        )
    return {key: np.stack([record[key] for record in records]) for key in records[0]}


def threads(workers: int) -> int:
    """Number of reading threads: `workers`, or for 0 one per core, at most 32."""
    return workers or min(32, os.cpu_count() or 1)


def read(source: Source, indices: np.ndarray, pool: ThreadPoolExecutor) -> dict[str, np.ndarray]:
    """The records at `indices`, stacked, read by the pool's threads."""
    if isinstance(source, ArraySource):
        return source.take(indices)

    def read_chunk(chunk: np.ndarray) -> list[Record]:
        return [source[i] for i in chunk.tolist()]

    # In chunks, because handing a small image to a thread takes as long as decoding it.
    chunks = np.array_split(indices, max(1, len(indices) // 16))
    return stack([record for chunk in pool.map(read_chunk, chunks) for record in chunk])


def size_in_memory(source: Source) -> int:
    """Bytes of all images, estimated from the first."""
    return len(source) * source[0]["image"].nbytes


def in_memory(source: Source, *, workers: int = 0) -> ArraySource:
    """Reads a whole source into memory, in threads.

    Raises:
        DataError: an image cannot be read, or the images differ in shape.
    """
    if isinstance(source, ArraySource):
        return source
    with ThreadPoolExecutor(threads(workers)) as pool:
        arrays = read(source, np.arange(len(source)), pool)
    return array_source(arrays)


def array_source(arrays: Mapping[str, np.ndarray]) -> ArraySource:
    """A source of stacked records."""
    others = {name: array for name, array in arrays.items() if name not in ("image", "label")}
    return ArraySource(arrays["image"], arrays.get("label"), **others)


def is_generated(source: Source) -> bool:
    """Whether the source's records are generated on the device."""
    return hasattr(source, "generate")


def shapes(source: Source) -> dict[str, Any]:
    """Shape and dtype of each array of a record, as `jax.ShapeDtypeStruct`s.

    They are those of the first record, unless records are generated.
    """
    import jax

    if is_generated(source):
        return dict(_generated_shapes(source))
    first = {name: np.asarray(value) for name, value in source[0].items()}
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in first.items()}


@functools.lru_cache(maxsize=8)
def _generated_shapes(source: GeneratedSource) -> dict[str, Any]:
    """`shapes`, by tracing once."""
    import jax

    index = jax.ShapeDtypeStruct((1,), np.int32)
    batch = jax.eval_shape(source.generate, source.arrays, index)
    return {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in batch.items()}


def skip_unreadable(source: Source, *, workers: int = 0) -> tuple[Source, list[str]]:
    """Tries every image; returns the source without the unreadable ones, and their errors.

    Raises:
        DataError: no image can be read.
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


def apportion(sizes: np.ndarray, fraction: float) -> np.ndarray:
    """How many of each group are held out, so that all together are the fraction of all.

    Each group gets its fraction, rounded down, and those with the largest remainders one more, of
    equal ones at random, but alike in every run; every group keeps at least one.

    Args:
        sizes: `[K]`, members of each group.
        fraction: in [0, 1).

    Returns:
        `[K]` integers.

    Example:
        >>> apportion(np.array([4, 4, 4, 1]), 0.25).tolist()
        [1, 1, 1, 0]
    """
    shares = fraction * sizes
    counts = np.floor(shares).astype(int)
    missing = round(fraction * int(sizes.sum())) - counts.sum()
    remainders = np.where(counts < sizes - 1, shares - counts, 0.0)
    bits = np.random.Philox(key=1).random_raw(len(sizes))
    most = np.lexsort((bits, -remainders))[:missing]
    counts[most[remainders[most] > 0]] += 1
    return counts


def hold_out(source: Source, fraction: float) -> tuple[Source, Source]:
    """Splits a source at random into `(train, test)`; the split is the same in every run.

    Where the labels are known it is stratified: `apportion` says how many of each class are in the
    test part, and none is there alone.

    Raises:
        DataError: either part would be empty.
    """
    labels = labels_of(source)
    groups = np.zeros(len(source), np.int32) if labels is None else labels
    bits = np.random.Philox(key=0).random_raw(len(source))
    held = np.zeros(len(source), bool)
    values, sizes = np.unique(groups, return_counts=True)
    for group, count in zip(values, apportion(sizes, fraction)):
        members = np.flatnonzero(groups == group)
        members = members[np.argsort(bits[members], kind="stable")]
        held[members[:count]] = True
    if not held.any() or held.all():
        raise DataError(
            f"data.test_fraction={fraction} of {len(source)} images leaves an empty part: change "
            "the fraction or name a test set by data.test_path"
        )
    return subset(source, np.flatnonzero(~held)), subset(source, np.flatnonzero(held))


def as_labels(values: Any, what: str, length: int) -> np.ndarray:
    """Labels from a file as int32 `[length]`.

    Raises:
        DataError: they are not `length` integers, or some are negative or beyond 32 bits.
    """
    values = np.asarray(values)
    if values.shape != (length,) or not np.issubdtype(values.dtype, np.integer):
        raise DataError(
            f"{what} is {values.dtype} {list(values.shape)}; labels must be integers "
            f"[{length}], one for each image"
        )
    if length and values.min() < 0:
        raise DataError(f"{what} holds {values.min()}; labels must count from 0")
    if length and values.max() > np.iinfo(np.int32).max:
        raise DataError(f"{what} holds {values.max()}; number the classes from 0")
    return values.astype(np.int32)
