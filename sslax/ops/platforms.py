"""Code that depends on the device it is compiled for.

The host that traces a function need not have that device: a program may be compiled ahead for a
TPU, exported for several platforms, or run on a CPU beside a GPU. So nothing here asks which
backend the host has; all alternatives are traced, and one is chosen when the program is lowered.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType

Result = TypeVar("Result")


def choose(*arrays: Any, cpu: Callable[..., Result], default: Callable[..., Result]) -> Result:
    """`cpu(*arrays)` in a program that is compiled for CPUs, `default(*arrays)` in any other.

    Both are traced, so both must return the same shapes and dtypes and allow the derivatives that
    are taken: a `custom_vjp` in one of them leaves reverse mode alone. Where their derivatives need
    different residuals, put the choice into the two rules of one `custom_vjp`. The compiler sees
    only the alternative that was chosen.

    Args:
        *arrays: trees of arrays.
        cpu: the alternative for CPUs.
        default: for all other platforms.

    Returns:
        What the chosen alternative returns.

    Example:
        >>> choose(2.0, cpu=lambda x: x + x, default=lambda x: 2 * x)
        4.0
    """
    return jax.lax.platform_dependent(*arrays, cpu=cpu, default=default)


def devices() -> int:
    """Over how many devices global arrays may be sharded where this is traced.

    Those of the mesh that is in use (`jax.set_mesh`, or `jax.sharding.use_abstract_mesh` as in a
    training step), which need not be devices of this host, without the axes that a `shard_map` or
    `pmap` around this has split; without a mesh, all devices that JAX has here.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return jax.device_count()
    axes = zip(mesh.axis_sizes, mesh.axis_types)
    return math.prod(size for size, kind in axes if kind != AxisType.Manual)
