"""The rows of a set, spread over the processes and devices of a mesh.

A large set is read by all processes of a run, and each keeps the rows that it read, on its host.
The rows of the set are those of the first process, then those of the second, and so on. `Layout`
puts them on the devices, each of which holds a part of them; nothing holds all.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from sslax.types import Array

Rows = Array | np.ndarray


def one_device() -> Mesh:
    """The mesh of functions that are given none: this process's first device.

    Example:
        >>> one_device().size
        1
    """
    return Mesh(np.asarray(jax.local_devices()[:1]), ("data",))


def own(array: Array) -> np.ndarray:
    """This process's rows of an array that is sharded over devices by its first axis.

    Args:
        array: `[N, ...]`, its other axes whole.

    Returns:
        `[n, ...]` on the host.

    Example:
        >>> own(jax.numpy.arange(3)).tolist()
        [0, 1, 2]
    """
    parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])


def gather(values: ArrayLike, mesh: Mesh) -> np.ndarray:
    """All rows of a set, on the host of every process; all processes of the mesh call it.

    Args:
        values: `[n, ...]`, this process's rows.
        mesh: the devices; without others' among them, the rows are returned as they are.

    Returns:
        `[N, ...]`, in the order of the processes.

    Example:
        >>> gather([1, 2], one_device()).tolist()
        [1, 2]
    """
    values = np.asarray(values)
    if not mesh.is_multi_process:
        return values
    counts = multihost_utils.process_allgather(np.int32(len(values)))
    padded = np.zeros((counts.max(), *values.shape[1:]), values.dtype)
    padded[: len(values)] = values
    everyone = multihost_utils.process_allgather(padded)
    return np.concatenate([rows[:count] for rows, count in zip(everyone, counts)])


def take(values: ArrayLike, index: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Some rows of a set, on the host of every process; all processes of the mesh call it.

    Args:
        values: `[n, ...]`, this process's rows.
        index: positions in the whole set, in any order.
        mesh: the devices.

    Returns:
        `[len(index), ...]`.

    Example:
        >>> take([10, 20, 30], np.array([2, 0]), one_device()).tolist()
        [30, 10]
    """
    values = np.asarray(values)
    if not mesh.is_multi_process:
        return values[index]
    counts = multihost_utils.process_allgather(np.int32(len(values)))
    order = np.argsort(index, kind="stable")
    ascending = np.asarray(index)[order] - counts[: jax.process_index()].sum()
    mine = ascending[(ascending >= 0) & (ascending < len(values))]
    return gather(values[mine], mesh)[np.argsort(order)]


def block_sum(function: Callable[..., Array], arrays: Sequence[Array], size: int) -> Array:
    """Sum of a function over blocks of rows, one block at a time.

    Args:
        function: `(*blocks) -> sum over the rows of the blocks`.
        arrays: `[N, ...]` each.
        size: rows of a block; the last one may be smaller.

    Returns:
        The sum over all rows.

    Example:
        >>> float(block_sum(lambda x: x.sum(), (jax.numpy.ones(5),), 2))
        5.0
    """
    count = arrays[0].shape[0]
    size = min(size, count)

    def of_block(first: Array, size: int) -> Array:
        return function(*(jax.lax.dynamic_slice_in_dim(x, first, size) for x in arrays))

    blocks, rest = divmod(count, size)
    firsts = size * jnp.arange(1, blocks, dtype=jnp.int32)
    # From the first block on: inside shard_map a loop's start has to vary as its results do.
    total, _ = jax.lax.scan(
        lambda total, first: (total + of_block(first, size), None),
        of_block(jnp.int32(0), size),
        firsts,
    )
    return total + of_block(jnp.int32(blocks * size), rest) if rest else total


class Layout:
    """Where a set's rows lie on the devices: equally many on each, the last of them padding.

    A process's rows lie on its own devices, in order.

    Args:
        count: number of this process's rows.
        mesh: the devices; all processes of it make the layout together.

    Attributes:
        sharding: of the arrays that `put` returns.
        first: position in the set of this process's first row.
        positions: `[N]`, where in such an array each row of the set is.
    """

    def __init__(self, count: int, mesh: Mesh) -> None:
        self.sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        local = len(self.sharding.addressable_devices)
        counts = gather(np.array([count]), mesh)
        self.first = int(counts[: jax.process_index()].sum()) if mesh.is_multi_process else 0
        self._rows = max(1, -(-int(counts.max()) // local))  # on each device
        self._length = self._rows * mesh.size
        places = self.sharding.addressable_devices_indices_map((self._length,)).values()
        self._starts = sorted(at[0].start or 0 for at in places if at)
        starts = np.asarray(self._starts)[:, None]
        self.positions = gather((starts + np.arange(self._rows)).ravel()[:count], mesh)

    def put(self, values: ArrayLike, dtype: type, *, fill: float = 0) -> Array:
        """This process's rows `[n, ...]` on its devices, each device its part.

        Args:
            values: the rows; they are converted part by part.
            dtype: of the result.
            fill: the value of padding.

        Returns:
            A global array, `[devices · rows on each, ...]`.
        """
        values = np.asarray(values)
        shape = values.shape[1:]

        def rows_at(at: tuple[slice, ...] | None) -> np.ndarray:
            assert at is not None
            first = self._starts.index(at[0].start or 0) * self._rows
            part: np.ndarray = values[first : first + self._rows].astype(dtype, copy=False)
            if len(part) == self._rows:
                return part
            full = np.full((self._rows, *shape), fill, dtype)
            full[: len(part)] = part
            return full

        return jax.make_array_from_callback((self._length, *shape), self.sharding, rows_at)
