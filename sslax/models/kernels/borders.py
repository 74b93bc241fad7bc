"""Reflection and edge padding as sums of zero-padded slices.

XLA's CPU backend copies the array once for every part of a concatenation, which is what `jnp.pad`
makes of a reflection, and more often in the transpose. Zero padding it fuses.

Measured with jax 0.10.2 on two x86-64 cores: Monodepth2's depth decoder with its gradients takes
1,181 ms, where it took 1,587 ms before this and before its heads became products
(experiments/README.md, "Training step of Monodepth2"). Peer and command: PyTorch,
`experiments/benchmarks/monodepth2.py --peer-python=PATH`. Can go when `jnp.pad` in its place does
not slow that step down.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from sslax.ops.no_inline import no_inline
from sslax.ops.platforms import choose


def reflect_pad(x: jax.Array, radius: int = 1) -> jax.Array:
    """`jnp.pad` of images with mode "reflect": the border pixels themselves are not repeated.

    Args:
        x: `[N, H, W, C]`.
        radius: pixels to add on every side.

    Returns:
        `[N, H + 2 radius, W + 2 radius, C]`.

    Example:
        >>> reflect_pad(jnp.arange(6.0).reshape(1, 2, 3, 1))[0, 0, :, 0].tolist()
        [4.0, 3.0, 4.0, 5.0, 4.0]
    """
    return _pad(x, radius, "reflect")


def edge_pad(x: jax.Array) -> jax.Array:
    """`jnp.pad` of images with mode "edge", by one pixel on every side.

    Args:
        x: `[N, H, W, C]`.

    Returns:
        `[N, H + 2, W + 2, C]`.

    Example:
        >>> edge_pad(jnp.arange(4.0).reshape(1, 2, 2, 1))[0, 0, :, 0].tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    return _pad(x, 1, "edge")


def shift(x: jax.Array, axis: int, offset: int, *, reflect: bool) -> jax.Array:
    """`y[i] = x[i + offset]` along an axis; zero, or the reflection, beyond its ends."""
    inside = _pad_axis(x, axis, -offset, offset)
    if not reflect or not offset:
        return inside
    rest = x.shape[axis] - abs(offset)
    before, after = _borders(x, abs(offset), axis)
    if offset < 0:
        return inside + _pad_axis(before, axis, 0, rest)
    return inside + _pad_axis(after, axis, rest, 0)


def _pad(x: jax.Array, radius: int, mode: str) -> jax.Array:
    widths = ((0, 0), (radius, radius), (radius, radius), (0, 0))
    pad = functools.partial(jnp.pad, pad_width=widths, mode=mode)
    if min(x.shape[1:3]) <= radius:
        return pad(x)
    return choose(x, cpu=functools.partial(_pad_by_sums, radius=radius, mode=mode), default=pad)


def _pad_by_sums(x: jax.Array, *, radius: int, mode: str) -> jax.Array:
    # Each axis is stored before the next: fused, the first would be computed again for every value.
    for axis in (1, 2):
        x = _pad_borders(x, radius=radius, skip=int(mode == "reflect"), axis=axis)
    return x


@functools.partial(no_inline, static_argnames=("radius", "skip", "axis"))
def _pad_borders(x: jax.Array, *, radius: int, skip: int, axis: int) -> jax.Array:
    size = x.shape[axis]
    before, after = _borders(x, radius, axis, skip)
    borders = _pad_axis(before, axis, 0, size + radius) + _pad_axis(after, axis, size + radius, 0)
    return _pad_axis(x, axis, radius, radius) + borders


def _borders(x: jax.Array, count: int, axis: int, skip: int = 1) -> tuple[jax.Array, jax.Array]:
    """The first and the last `count` entries of an axis in reverse order, `skip` entries in."""
    end = x.shape[axis] - skip
    before = lax.slice_in_dim(x, skip, skip + count, axis=axis)
    after = lax.slice_in_dim(x, end - count, end, axis=axis)
    return lax.rev(before, [axis]), lax.rev(after, [axis])


def _pad_axis(x: jax.Array, axis: int, before: int, after: int) -> jax.Array:
    """Adds zeros before and after the entries of an axis; negative numbers remove entries."""
    widths = [(0, 0, 0)] * x.ndim
    widths[axis] = (before, after, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), widths)
