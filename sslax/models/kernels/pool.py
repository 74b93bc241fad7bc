"""Max-pooling whose gradient is fast on CPU."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sslax.ops.no_inline import no_inline

_WINDOW = [(i, j) for i in range(3) for j in range(3)]


def max_pool(x: jax.Array) -> jax.Array:
    """Maximum of windows of 3x3 at stride 2, one pixel of border: a ResNet's.

    `y[n, i, j, c] = max_ab x[n, 2 i + a - 1, 2 j + b - 1, c]`, a, b = 0, 1, 2, inside the image

    The gradient goes to the first of several largest, by rows. On the CPU backend, where XLA
    scatters it element by element, it is gathered from which of the nine was the largest; the
    choice is made when the function is traced. There only reverse mode is defined.

    Args:
        x: `[N, H, W, C]`, floating.

    Returns:
        `[N, ⌈H/2⌉, ⌈W/2⌉, C]`, dtype of `x`.

    Example:
        >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0].tolist()
        [[5.0, 7.0], [13.0, 15.0]]
    """
    return _max_pool(x) if jax.default_backend() == "cpu" else _reduce(x)


def _reduce(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


@jax.custom_vjp
def _max_pool(x: jax.Array) -> jax.Array:
    return _reduce(x)


def _forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = _reduce(x)
    return y, (x, y)


@no_inline
def _first_largest(x: jax.Array, y: jax.Array) -> jax.Array:
    """Which of the nine pixels of the window `y` is, int8."""
    h, w = y.shape[1:3]
    border = [(0, 0, 0), (1, 2 * h - x.shape[1], 0), (1, 2 * w - x.shape[2], 0), (0, 0, 0)]
    padded = jax.lax.pad(x, jnp.array(-jnp.inf, x.dtype), border)
    found = jnp.full(y.shape, len(_WINDOW), jnp.int8)
    for number, (i, j) in reversed(list(enumerate(_WINDOW))):
        pixel = padded[:, i : i + 2 * h : 2, j : j + 2 * w : 2]
        found = jnp.where(pixel == y, jnp.int8(number), found)
    return found


def _backward(kept: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array]:
    x, y = kept
    largest = _first_largest(x, y)

    def after(array: jax.Array, rows: int, columns: int, fill: int) -> jax.Array:
        """What belongs to the window that many rows down and columns on."""
        border = [(0, 0, 0), (-rows, rows, 0), (-columns, columns, 0), (0, 0, 0)]
        return jax.lax.pad(array, jnp.array(fill, array.dtype), border)

    def arriving(rows: list[tuple[int, int]], columns: list[tuple[int, int]]) -> jax.Array:
        """Gradient of the pixels that are a-th and b-th of the windows so many further on."""
        total = 0.0
        for down, a in rows:
            for on, b in columns:
                hit = after(largest, down, on, -1) == _WINDOW.index((a, b))
                total += jnp.where(hit, after(g, down, on, 0), 0.0)
        return total

    # Even pixels are the middle of one window, odd ones the end of one and the start of the next.
    even, odd = [(0, 1)], [(0, 2), (1, 0)]
    rows = [jnp.stack([arriving(r, c) for c in (even, odd)], axis=3) for r in (even, odd)]
    n, h, w, _, channels = rows[0].shape
    whole = jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, channels)
    return (whole[:, : x.shape[1], : x.shape[2]].astype(x.dtype),)


_max_pool.defvjp(_forward, _backward)
