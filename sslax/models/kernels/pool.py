"""Max-pooling with a gathered gradient.

XLA's CPU backend scatters the gradient of a max-pooling element by element, on one thread. Here
each pixel gathers it from the windows of which it is the maximum.

Measured with jax 0.10.2 on two x86-64 cores: the gradient for 8 maps of 96x320x64 takes 206 ms,
XLA's 589 ms (experiments/README.md, "Training step of Monodepth2"). Peer and command: XLA's own,
`_reduce` in this file; PyTorch in `experiments/benchmarks/monodepth2.py --peer-python=PATH`. Can go
when the gradient of `_reduce` is as fast.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sslax.ops.no_inline import no_inline
from sslax.ops.platforms import choose

_WINDOW = [(i, j) for i in range(3) for j in range(3)]


def max_pool(x: jax.Array) -> jax.Array:
    """Max-pooling with 3x3 windows, stride 2 and one pixel of padding, as in a ResNet's stem.

    `y[n, i, j, c] = max_ab x[n, 2 i + a - 1, 2 j + b - 1, c]`, a, b = 0, 1, 2, inside the image

    Where pixels tie, the gradient goes to the first in row order. Only reverse-mode derivatives are
    defined under `jit`.

    Args:
        x: `[N, H, W, C]`, floating.

    Returns:
        `[N, ⌈H/2⌉, ⌈W/2⌉, C]`, dtype of `x`.

    Example:
        >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0].tolist()
        [[5.0, 7.0], [13.0, 15.0]]
    """
    return choose(x, cpu=_max_pool, default=_reduce)


def _reduce(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


@jax.custom_vjp
def _max_pool(x: jax.Array) -> jax.Array:
    return _reduce(x)


def _forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = _reduce(x)
    return y, (x, y)


@no_inline
def _argmax(x: jax.Array, y: jax.Array) -> jax.Array:
    """Index in `_WINDOW` of each window's maximum y, the first where pixels tie; int8."""
    h, w = y.shape[1:3]
    widths = [(0, 0, 0), (1, 2 * h - x.shape[1], 0), (1, 2 * w - x.shape[2], 0), (0, 0, 0)]
    padded = jax.lax.pad(x, jnp.array(-jnp.inf, x.dtype), widths)
    index = jnp.full(y.shape, len(_WINDOW), jnp.int8)
    for number, (i, j) in reversed(list(enumerate(_WINDOW))):
        pixel = padded[:, i : i + 2 * h : 2, j : j + 2 * w : 2]
        index = jnp.where(pixel == y, jnp.int8(number), index)
    return index


def _backward(residuals: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array]:
    x, y = residuals
    argmax = _argmax(x, y)

    def shift(array: jax.Array, rows: int, columns: int, fill: int) -> jax.Array:
        """`array[:, i + rows, j + columns]`, `fill` beyond the end."""
        widths = [(0, 0, 0), (-rows, rows, 0), (-columns, columns, 0), (0, 0, 0)]
        return jax.lax.pad(array, jnp.array(fill, array.dtype), widths)

    def gathered(rows: list[tuple[int, int]], columns: list[tuple[int, int]]) -> jax.Array:
        """Gradient of the pixels at (a, b) of the windows that are (down, right) windows further.

        Args: pairs (down, a), and pairs (right, b).
        """
        total = 0.0
        for down, a in rows:
            for right, b in columns:
                hit = shift(argmax, down, right, -1) == _WINDOW.index((a, b))
                total += jnp.where(hit, shift(g, down, right, 0), 0.0)
        return total

    # An even pixel is the middle of one window; an odd one ends a window and starts the next.
    even, odd = [(0, 1)], [(0, 2), (1, 0)]
    rows = [jnp.stack([gathered(r, c) for c in (even, odd)], axis=3) for r in (even, odd)]
    n, h, w, _, channels = rows[0].shape
    gx = jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, channels)
    return (gx[:, : x.shape[1], : x.shape[2]].astype(x.dtype),)


_max_pool.defvjp(_forward, _backward)
