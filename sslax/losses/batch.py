"""What losses need of the whole batch where each device holds a part of it.

With `axis_name=None` the arrays are global and XLA adds the communication.
"""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from sslax import checks
from sslax.ops.dtypes import at_least_float32
from sslax.types import Array


def batch_size(x: Array, axis_name: str | None) -> int:
    """Number of examples on all devices."""
    return x.shape[0] * (1 if axis_name is None else jax.lax.axis_size(axis_name))


def degrees_of_freedom(x: Array, axis_name: str | None) -> int:
    """One less than the number of examples.

    Raises:
        ValueError: there is one example.
    """
    freedom = batch_size(x, axis_name) - 1
    if freedom < 1:
        raise checks.value_error(
            "a batch of one example has no variance; pass at least two examples."
        )
    return freedom


def sum_over_axis(x: Array, axis_name: str | None) -> Array:
    """The sum of the devices' values."""
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def mean_over_batch(x: Array, axis_name: str | None) -> Array:
    """Mean over the first axis, that of the examples of all devices."""
    return sum_over_axis(x.sum(0), axis_name) / batch_size(x, axis_name)


def center(x: Array, axis_name: str | None) -> Array:
    """The examples without their mean, in float32 or wider."""
    x = at_least_float32(x)
    return x - mean_over_batch(x, axis_name)


def gather(x: Array, axis_name: str | None) -> Array:
    """The examples of all devices."""
    if axis_name is None:  # of global arrays the barrier lets XLA gather one array, not one per use
        return jax.lax.optimization_barrier(x)
    return jax.lax.all_gather(x, axis_name, tiled=True)


def replicate(x: Array) -> Array:
    """A matrix that every device is to hold as a whole, so that it alone decomposes it.

    Where the mesh of global arrays is known (`jax.set_mesh`), XLA is told so. Otherwise it may
    shard the matrix, and then exchanges parts in each of the many steps of a decomposition.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if any(kind != AxisType.Auto for kind in mesh.axis_types) or mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec())


def first_index(x: Array, axis_name: str | None) -> Array | int:
    """Position in the batch of a device's first example."""
    return 0 if axis_name is None else jax.lax.axis_index(axis_name) * x.shape[0]


def full_like(like: Array, value: float) -> Array:
    """A constant that varies over the mesh axes of `like`, as loops inside shard_map require."""
    return jnp.where(False, like, jnp.asarray(value, like.dtype))


def same_everywhere(x: Array, axis_name: str | None) -> Array:
    """What every device has computed from gathered examples, as a value that does not vary."""
    return x if axis_name is None else jax.lax.pmean(x, axis_name)
