"""Batches: from records to global arrays on the devices.

The order of examples is a pure function of (seed, epoch), and the step is the only clock: with n
steps per epoch the global batch of step s is `epoch_order(seed, s // n)[(s % n) * B :][:B]`. So a
run resumes in mid-epoch from its step alone, and all hosts agree without communication. The rows of
a batch are sharded over the mesh's devices in order; a process reads the rows of its own devices.
"""

import contextlib
import math
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sslax.data.records import (
    DataError,
    GeneratedSource,
    Record,
    Source,
    in_memory,
    is_generated,
    read,
    shapes,
    size_in_memory,
    stack,
    threads,
)
from sslax.types import Batch, PyTree

AHEAD = 2  # batches on the devices before they are asked for


class Feed(NamedTuple):
    """Batches for a training loop, prepared partly on the host, partly inside the compiled step.

    Attributes:
        arrays: `(step) -> PyTree` of global arrays; call it once per step, in order, beginning with
            `start_step`. It does not wait for the devices. The arrays belong to the feed: do not
            donate them.
        shapes: shapes, dtypes and shardings of what `arrays` returns, known before it is read.
        batch: `(arrays, step) -> Batch`, pure, to be traced inside the compiled step: 'image' uint8
            `[B, H, W, C]` or `[B, V, H, W, C]`, 'index' int32 `[B]` and whatever else the records
            hold (with labels, 'label' int32 `[B]`), sharded over the mesh's axis 'data'.
        steps_per_epoch: full batches in the set; an epoch drops the remainder.
        close: stops the feed's threads.
    """

    arrays: Callable[[int], PyTree]
    shapes: PyTree
    batch: Callable[[PyTree, jax.Array], Batch]
    steps_per_epoch: int
    close: Callable[[], None]


def epoch_order(seed: int, epoch: int, length: int) -> np.ndarray:
    """The order in which an epoch visits the examples, the same on every host.

    It sorts `length` words of the Philox generator keyed with (seed, epoch).

    Args:
        seed: the run's seed, modulo 2^64.
        epoch: counted from 0.
        length: number of examples.

    Returns:
        int32 `[length]`, a permutation.

    Example:
        >>> epoch_order(0, 0, 5)
        array([0, 2, 1, 4, 3], dtype=int32)
    """
    words = np.random.Philox(key=[seed % 2**64, epoch]).random_raw(length)
    return np.argsort(words, kind="stable").astype(np.int32)


def make_feed(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    mesh: Mesh,
    mode: str = "auto",
    start_step: int = 0,
    resident_bytes: int = 2**30,
    workers: int = 0,
) -> Feed:
    """Shuffled batches without end, read in threads from now on.

    Both modes give the same batches. 'resident' puts the whole set on every device once and gathers
    batches inside the compiled step; 'stream' reads records in threads while the step runs. A
    source that generates its records on the device (`records.GeneratedSource`) has neither order
    nor end: step s has the records s B to s B + B - 1.

    Args:
        source: the records.
        batch_size: B, over all devices and processes.
        seed: seed of the order.
        mesh: devices along one axis named 'data', of type Auto.
        mode: 'resident', 'stream', or 'auto': resident where the images take at most
            `resident_bytes`.
        start_step: the first step that will be asked for.
        resident_bytes: memory budget of 'auto' on each device.
        workers: reading threads; 0: one per core, at most 32.

    Returns:
        The feed; close it when done.

    Raises:
        DataError: the batch is larger than the set or not divisible by the devices, or the records
            are not uint8 images. A record that cannot be read is an error of the feed's `arrays`.
    """
    steps_per_epoch = len(source) // batch_size if batch_size > 0 else 0
    if steps_per_epoch == 0:
        raise DataError(
            f"a batch of {batch_size} cannot be drawn from a set of {len(source)} images: choose a "
            f"batch size in 1..{len(source)}"
        )
    _check_divisible(batch_size, mesh)
    _check_image(shapes(source)["image"])
    if is_generated(source):
        return Feed(*_generated(source, batch_size, mesh), steps_per_epoch, lambda: None)
    if mode == "auto":
        mode = "resident" if size_in_memory(source) <= resident_bytes else "stream"
    order = _Order(seed, len(source), batch_size)
    if mode == "resident":
        arrays, expected, batch, close = _resident(source, order, mesh, workers)
    elif mode == "stream":
        arrays, expected, batch, close = _stream(source, order, mesh, start_step, workers)
    else:
        raise DataError(f"the mode {mode!r} is not one of 'auto', 'resident', 'stream'")
    return Feed(arrays, expected, batch, steps_per_epoch, close)


class AbstractFeed(NamedTuple):
    """A feed without data, for compiling the step that it feeds.

    Attributes:
        shapes: as in `Feed`, and `batch` likewise.
        batch: pure.
        resident: whether the arrays stay on the devices, and are not one batch of many.
    """

    shapes: PyTree
    batch: Callable[[PyTree, jax.Array], Batch]
    resident: bool


def abstract_feed(
    records: Mapping[str, jax.ShapeDtypeStruct] | GeneratedSource,
    *,
    length: int,
    batch_size: int,
    mesh: Mesh,
    mode: str = "auto",
    resident_bytes: int = 2**30,
) -> AbstractFeed:
    """What `make_feed` would make of a set, without the set, for devices that need not be here.

    Args:
        records: shape and type of each array of a record; or a source that generates them.
        length: number of examples.
        batch_size: as in `make_feed`, and so on.
        mesh: the devices.
        mode: 'resident', 'stream' or 'auto'.
        resident_bytes: memory budget of 'auto'.

    Raises:
        DataError: the batch is not divisible by the devices.
    """
    _check_divisible(batch_size, mesh)
    if not isinstance(records, Mapping):
        everywhere = NamedSharding(mesh, PartitionSpec())
        fixed = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
            records.arrays,
        )
        return AbstractFeed(fixed, _generate(records, batch_size, mesh), True)
    shape = records["image"].shape
    if mode == "stream" or (mode == "auto" and length * math.prod(shape) > resident_bytes):
        streamed = _streamed_shapes(records, batch_size, mesh)
        return AbstractFeed(streamed, lambda arrays, step: arrays, False)
    resident = _resident_shapes(records, length, batch_size, mesh)
    return AbstractFeed(resident, _gather(shape, batch_size, length // batch_size, mesh), True)


def evaluation_batches(
    source: Source, *, batch_size: int, mesh: Mesh, workers: int = 0, by_process: bool = False
) -> Iterator[Batch]:
    """All records once, in order.

    Args:
        source: the records, in memory or not.
        batch_size: records in a batch, over all devices and processes, at most as many as the set
            has. B is the next multiple of the devices.
        mesh: devices along one axis named 'data', of type Auto.
        workers: reading threads; 0: one per core, at most 32.
        by_process: each process reads a part of the records that is its own, in order: the first
            the first records, and so on. The rows of a batch are then not neighbors in the set.

    Yields:
        Batches as a feed gives them, and 'mask' bool `[B]`: False for the rows of zeros that pad
        the last batch, or with `by_process` those of each process.
    """
    devices = mesh.shape["data"]
    batch_size = -(-min(batch_size, len(source)) // devices) * devices
    rows = _local_rows(mesh, batch_size)
    if by_process and mesh.is_multi_process:
        firsts = np.arange(jax.process_count() + 1) * len(source) // jax.process_count()
        first, last = firsts[jax.process_index() :][:2]
        starts, rows = range(first, first + np.diff(firsts).max(), len(rows)), np.arange(len(rows))
    else:
        starts, last = range(0, len(source), batch_size), len(source)
    indices = [np.where(start + rows < last, start + rows, -1) for start in starts]
    return _evaluation_batches(source, indices, mesh, workers)


def _evaluation_batches(
    source: Source, indices: Sequence[np.ndarray], mesh: Mesh, workers: int
) -> Iterator[Batch]:
    """Batches of this process's records at `indices`; -1 for padding."""

    def local_batches() -> Generator[Batch]:
        with ThreadPoolExecutor(threads(workers)) as pool:
            for index in indices:
                mask = index >= 0
                # A process whose rows are all padding still needs their shape: it reads record 0.
                records = read(source, index[mask] if mask.any() else np.zeros(1, int), pool)
                records = {
                    key: _padded(value[: mask.sum()], mask) for key, value in records.items()
                }
                yield {**records, "index": np.where(mask, index, 0).astype(np.int32), "mask": mask}

    ahead = _Ahead(local_batches(), mesh)
    try:
        yield from ahead
    finally:
        ahead.close()


class _Order:
    """The examples of each step's batch. Safe to share between threads."""

    def __init__(self, seed: int, length: int, batch_size: int) -> None:
        self.seed = seed
        self.length = length
        self.batch_size = batch_size
        self.steps_per_epoch = length // batch_size
        self._orders: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def epoch(self, epoch: int) -> np.ndarray:
        """int32 `[steps_per_epoch * batch_size]`."""
        with self._lock:
            if epoch not in self._orders:
                while len(self._orders) >= 2:  # threads read in this epoch and the next
                    del self._orders[min(self._orders)]
                order = epoch_order(self.seed, epoch, self.length)
                self._orders[epoch] = order[: self.steps_per_epoch * self.batch_size]
            return self._orders[epoch]

    def batch(self, step: int) -> np.ndarray:
        """int32 `[batch_size]`."""
        epoch, step = divmod(step, self.steps_per_epoch)
        return self.epoch(epoch)[step * self.batch_size :][: self.batch_size]


def _resident(source: Source, order: _Order, mesh: Mesh, workers: int) -> tuple[Callable, ...]:
    """Keeps the whole set on every device; each epoch uploads only its order, one epoch ahead."""
    upload = partial(_replicate, mesh)
    record = shapes(source)
    thread = ThreadPoolExecutor(1)
    orders: dict[int, Future] = {}

    def read_all() -> PyTree:
        memory = in_memory(source, workers=workers)
        images = memory.images.reshape(len(source), -1)  # flat rows gather faster
        return {name: upload(array) for name, array in {**memory.arrays, "image": images}.items()}

    def epoch_arrays(epoch: int) -> PyTree:
        return {**fixed.result(), "order": upload(order.epoch(epoch))}

    fixed = thread.submit(read_all)

    def arrays(step: int) -> PyTree:
        epoch = step // order.steps_per_epoch
        for wanted in (epoch, epoch + 1):
            if wanted not in orders:
                orders[wanted] = thread.submit(epoch_arrays, wanted)
        for past in orders.keys() - {epoch, epoch + 1}:
            del orders[past]
        return orders[epoch].result()

    expected = _resident_shapes(record, len(source), order.batch_size, mesh)
    batch = _gather(record["image"].shape, order.batch_size, order.steps_per_epoch, mesh)
    return arrays, expected, batch, lambda: thread.shutdown(cancel_futures=True)


def _resident_shapes(
    record: Mapping[str, jax.ShapeDtypeStruct], length: int, batch_size: int, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a whole set and of an epoch's order, on every device."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    flat = jax.ShapeDtypeStruct((math.prod(record["image"].shape),), np.uint8)
    used = length // batch_size * batch_size
    order = jax.ShapeDtypeStruct((used,), np.int32, sharding=everywhere)
    return {**_stacked({**record, "image": flat}, length, everywhere), "order": order}


def _streamed_shapes(
    record: Mapping[str, jax.ShapeDtypeStruct], batch_size: int, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch, over the devices."""
    indexed = {**record, "index": jax.ShapeDtypeStruct((), np.int32)}
    return _stacked(indexed, batch_size, NamedSharding(mesh, PartitionSpec("data")))


def _gather(
    image_shape: Sequence[int], batch_size: int, steps_per_epoch: int, mesh: Mesh
) -> Callable[[PyTree, jax.Array], Batch]:
    """The pure part of a resident feed: the rows of a step's batch out of the whole set."""
    over_data = NamedSharding(mesh, PartitionSpec("data"))

    def batch(arrays: PyTree, step: jax.Array) -> Batch:
        first = step % steps_per_epoch * batch_size
        index = jax.lax.dynamic_slice_in_dim(arrays["order"], first, batch_size)
        index = jax.lax.with_sharding_constraint(index, over_data)
        kept = {name: array for name, array in arrays.items() if name != "order"}
        rows = {n: jnp.take(array, index, axis=0, mode="clip") for n, array in kept.items()}
        rows["image"] = rows["image"].reshape(batch_size, *image_shape)
        return jax.lax.with_sharding_constraint({**rows, "index": index}, over_data)

    return batch


def _generated(source: GeneratedSource, batch_size: int, mesh: Mesh) -> tuple[Any, ...]:
    """Generates records inside the compiled step; none repeats, however long an epoch is."""
    fixed = jax.tree.map(partial(_replicate, mesh), source.arrays)
    batch = _generate(source, batch_size, mesh)
    return lambda step: fixed, jax.tree.map(_shape_of, fixed), batch


def _generate(
    source: GeneratedSource, batch_size: int, mesh: Mesh
) -> Callable[[PyTree, jax.Array], Batch]:
    """The pure part of a generating feed."""
    over_data = NamedSharding(mesh, PartitionSpec("data"))

    def batch(arrays: PyTree, step: jax.Array) -> Batch:
        index = step.astype(jnp.int32) * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
        index = jax.lax.with_sharding_constraint(index, over_data)
        records = {**source.generate(arrays, index), "index": index}
        return jax.lax.with_sharding_constraint(records, over_data)

    return batch


def _stream(
    source: Source, order: _Order, mesh: Mesh, start_step: int, workers: int
) -> tuple[Callable, ...]:
    """Grain's threads read records; one more thread puts batches on the devices."""
    rows = _local_rows(mesh, order.batch_size)
    ahead = _Ahead(_record_batches(source, order, rows, start_step, workers), mesh)
    current: dict[str, Any] = {"step": start_step - 1, "batch": None}

    def arrays(step: int) -> PyTree:
        if step == current["step"] + 1:
            current.update(step=step, batch=next(ahead))
        elif step != current["step"] or current["batch"] is None:
            raise ValueError(
                f"a streamed feed gives its steps in order: {current['step'] + 1} is next, not "
                f"{step}; make a feed with start_step={step}"
            )
        return current["batch"]

    expected = _streamed_shapes(shapes(source), order.batch_size, mesh)
    return arrays, expected, lambda arrays, step: arrays, ahead.close


def _record_batches(
    source: Source, order: _Order, rows: np.ndarray, start_step: int, workers: int
) -> Generator[Batch]:
    """This process's rows of each batch, from `start_step` on, without end.

    Grain's elements are chunks of a batch, because its overhead per element is as long as decoding
    a small image, and grows with the buffer.
    """
    import grain

    count = threads(workers)
    chunks = np.array_split(rows, min(len(rows), 4 * count))

    def read_chunk(position: int) -> list[Record]:
        step, chunk = divmod(position, len(chunks))
        indices = order.batch(step)[chunks[chunk]].tolist()
        return [{**source[i], "index": np.int32(i)} for i in indices]

    def join(parts: Sequence[list[Record]]) -> Batch:
        return stack([record for part in parts for record in part])

    positions = grain.MapDataset.range(start_step * len(chunks), np.iinfo(np.int64).max)
    options = grain.ReadOptions(
        num_threads=count, prefetch_buffer_size=max(AHEAD * len(chunks), count)
    )
    dataset = positions.map(read_chunk).to_iter_dataset(options).batch(len(chunks), batch_fn=join)
    with contextlib.closing(iter(dataset)) as batches:
        yield from batches


class _Failure(NamedTuple):
    error: BaseException


class _Ahead:
    """Runs a generator of local batches in a thread and puts `AHEAD` of them on the devices.

    An error in the generator is raised by `next`.
    """

    def __init__(self, batches: Generator[Batch], mesh: Mesh) -> None:
        self._batches = batches
        self._mesh = mesh
        self._queue: queue.Queue = queue.Queue(AHEAD - 1)  # the thread holds one more
        self._closed = threading.Event()
        self._failure: _Failure | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        item = self._failure or self._queue.get()
        if isinstance(item, _Failure):
            self._failure = item
            raise item.error
        return item

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._failure = self._failure or _Failure(RuntimeError("the feed is closed"))

    def _run(self) -> None:
        try:
            for batch in self._batches:
                if not self._put(_to_devices(batch, self._mesh)):
                    return
            self._put(_Failure(StopIteration()))
        except BaseException as error:  # to be raised in the thread that asks for items
            self._put(_Failure(error))
        finally:
            self._batches.close()

    def _put(self, item: Any) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.05)
                return True
            except queue.Full:
                pass
        return False


def _check_divisible(batch_size: int, mesh: Mesh) -> None:
    devices = mesh.shape["data"]
    if batch_size < 1 or batch_size % devices:
        above = -(-max(batch_size, 1) // devices) * devices
        nearest = f"{above - devices} or {above}" if above > devices else f"{above}"
        raise DataError(
            f"a batch of {batch_size} does not divide over {devices} devices "
            f"({jax.process_count()} processes): choose config.batch_size={nearest}"
        )


def _check_image(image: jax.ShapeDtypeStruct) -> None:
    if image.dtype != np.uint8 or len(image.shape) not in (3, 4):
        raise DataError(
            f"a source gave an image of {image.dtype} {list(image.shape)}; records hold uint8 "
            "images [H, W, C], or several, [V, H, W, C]"
        )


def _local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """The rows of a global batch on this process's devices, in order."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    slices = sharding.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[at] for at in slices]))


def _to_devices(batch: Batch, mesh: Mesh) -> Batch:
    """Puts this process's rows on its devices, as global arrays sharded over 'data'."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return {
        key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()
    }


def _replicate(mesh: Mesh, values: np.ndarray) -> jax.Array:
    """Puts the values on every device of all processes."""
    values = np.asarray(values)
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.make_array_from_callback(values.shape, sharding, lambda at: values[at])


def _shape_of(array: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)


def _stacked(
    record: Mapping[str, jax.ShapeDtypeStruct], count: int, sharding: NamedSharding
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of `count` records, as they lie on the devices."""
    return {
        name: jax.ShapeDtypeStruct(
            (count, *x.shape), jax.dtypes.canonicalize_dtype(x.dtype), sharding=sharding
        )
        for name, x in record.items()
    }


def _padded(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The values in the rows where the mask is True, zeros elsewhere."""
    full = np.zeros((len(mask), *values.shape[1:]), values.dtype)
    full[mask] = values
    return full
