"""Borders that mirror an image, or repeat its outermost pixels, as a CPU computes them fast.

XLA's CPU backend copies for every part of a concatenation, of which `jnp.pad` makes a reflection,
and more for its transpose. Here they are sums of slices with zeros around, which it fuses.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from sslax.ops.no_inline import no_inline


def mirrored(x: jax.Array, radius: int = 1) -> jax.Array:
    """Images `[N, H, W, C]` with `radius` pixels at every border that mirror those inside.

    `y[n, i, j, c] = x[n, |i - r|, |j - r|, c]` at the upper and the left border; `jnp.pad`'s
    "reflect". On the CPU backend it is a sum of padded slices; the choice is made when the function
    is traced.

    Example:
        >>> mirrored(jnp.arange(6.0).reshape(1, 2, 3, 1))[0, 0, :, 0].tolist()
        [4.0, 3.0, 4.0, 5.0, 4.0]
    """
    return _bordered(x, radius, "reflect")


def repeated(x: jax.Array) -> jax.Array:
    """Images `[N, H, W, C]` with one pixel at every border that repeats the outermost.

    `jnp.pad`'s "edge". On the CPU backend as `mirrored`.

    Example:
        >>> repeated(jnp.arange(4.0).reshape(1, 2, 2, 1))[0, 0, :, 0].tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    return _bordered(x, 1, "edge")


def _bordered(x: jax.Array, radius: int, mode: str) -> jax.Array:
    if jax.default_backend() != "cpu" or min(x.shape[1:3]) <= radius:
        borders = ((0, 0), (radius, radius), (radius, radius), (0, 0))
        return jnp.pad(x, borders, mode=mode)
    # A result for each axis: fused, both would be computed again for every value.
    for axis in (1, 2):
        x = _bordered_axis(x, radius=radius, skipped=int(mode == "reflect"), axis=axis)
    return x


@functools.partial(no_inline, static_argnames=("radius", "skipped", "axis"))
def _bordered_axis(x: jax.Array, *, radius: int, skipped: int, axis: int) -> jax.Array:
    size = x.shape[axis]
    first, last = _beyond(x, radius, axis, skipped)
    borders = _shifted(first, axis, 0, size + radius) + _shifted(last, axis, size + radius, 0)
    return _shifted(x, axis, radius, radius) + borders


def from_neighbor(x: jax.Array, axis: int, offset: int, *, mirrored: bool) -> jax.Array:
    """`y[i] = x[i + offset]` along an axis; what lies beyond its ends is zero or mirrored."""
    inside = _shifted(x, axis, -offset, offset)
    if not mirrored or not offset:
        return inside
    rest = x.shape[axis] - abs(offset)
    first, last = _beyond(x, abs(offset), axis)
    return inside + (
        _shifted(first, axis, 0, rest) if offset < 0 else _shifted(last, axis, rest, 0)
    )


def _beyond(x: jax.Array, count: int, axis: int, skipped: int = 1) -> tuple[jax.Array, jax.Array]:
    """What mirrors an axis before its first and after its last entry, without so many of them."""
    end = x.shape[axis] - skipped
    first = lax.slice_in_dim(x, skipped, skipped + count, axis=axis)
    last = lax.slice_in_dim(x, end - count, end, axis=axis)
    return lax.rev(first, [axis]), lax.rev(last, [axis])


def _shifted(x: jax.Array, axis: int, before: int, after: int) -> jax.Array:
    """With so many zeros before and after, or so many entries fewer."""
    borders = [(0, 0, 0)] * x.ndim
    borders[axis] = (before, after, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), borders)
