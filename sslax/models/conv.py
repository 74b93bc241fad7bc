"""A convolution that is also fast on CPU.

XLA's CPU backend runs matrix products near the machine's peak and convolutions, above all their
weight gradients, far below it. On CPU the two convolutions residual networks are made of become
matrix products here; everywhere else, for every other kernel, and where the channels are few or the
images small, `conv2d` is XLA's convolution.

- 1x1: a product over the channels.
- 3x3: Winograd's minimal filtering (Lavin and Gray 2015, https://arxiv.org/abs/1509.09308) on
  4x4 tiles: `Y = A'[(G W G') * (B' X B)] A`, which replaces 144 multiplications by 36. A loop
  over a few images at a time keeps the tiles in the cache.
- 3x3 at stride 2: the 2x2 neighbourhoods become channels, which leaves a 2x2 kernel at stride 1,
  and Winograd again.
- 5x5 and wider at stride 2, a network's stem: the gradient to the kernel is a product of the folded
  neighbourhoods with the errors, row by row of the kernel; all else is XLA's.

Float32 results differ from direct convolution by about 1e-5 of their standard deviation, at most
1e-4. Only reverse-mode differentiation is defined on CPU.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sslax.ops.calls import computed_once

_TILE = 4  # output pixels of a Winograd tile, a side
_MIN_CHANNELS = 32 * 32  # of input times output: with fewer the transformations dominate
_MIN_PRODUCTS = 1 << 27  # below, a few milliseconds at most: not worth the longer compilation
_CHUNK = 1 << 19  # input elements of one loop step: about 2 MB, five times that in the cache


class Conv(nn.Module):
    """Convolution `[N, H, W, C] -> [N, h, w, features]`, parameters named as in `flax.linen.Conv`.

    Attributes:
        features: output channels.
        kernel_size: side of the square kernel.
        stride: step in pixels.
        padding: zeros on every side; None for `(kernel_size - 1) // 2`, as PyTorch's networks.
        use_bias: adds a bias.
        dtype: dtype of the computation; parameters are float32.
        kernel_init: initialiser of the kernel.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: int | None = None
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = self.kernel_size
        padding = (size - 1) // 2 if self.padding is None else self.padding
        kernel = self.param("kernel", self.kernel_init, (size, size, x.shape[-1], self.features))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = conv2d(x, kernel, stride=self.stride, padding=padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias.astype(self.dtype)
        return y


def conv2d(x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0) -> jax.Array:
    """Cross-correlates images with a kernel.

    `y[n, i, j, k] = sum_abc x[n, s i + a - p, s j + b - p, c] kernel[a, b, c, k]`

    On the CPU backend 1x1 and 3x3 kernels run as matrix products (see the module); the choice is
    made when the function is traced, from `jax.default_backend()`.

    Args:
        x: images `[N, H, W, C]`.
        kernel: `[a, b, C, K]`, dtype of `x`.
        stride: step in pixels.
        padding: zeros on every side, in pixels.

    Returns:
        `[N, h, w, K]`, dtype of `x`.

    Example:
        >>> import jax.numpy as jnp
        >>> conv2d(jnp.ones((1, 4, 4, 2)), jnp.ones((1, 1, 2, 3)), stride=2).shape
        (1, 2, 2, 3)
    """
    chex.assert_rank([x, kernel], 4)
    chex.assert_equal(x.shape[-1], kernel.shape[2])
    if jax.default_backend() == "cpu":
        if kernel.shape[:2] == (1, 1) and padding == 0:
            # The barrier, in the backward pass on the errors, keeps their transpose a pure copy.
            return lax.optimization_barrier(x[:, ::stride, ::stride] @ kernel[0, 0])
        known = (stride, padding) in ((1, 0), (1, 1), (2, 1))
        if kernel.shape[:2] == (3, 3) and known and _large(x, kernel):
            return conv3x3(x, kernel, stride, padding)
        if len(kernel) >= 5 and stride == 2 and _wide(x, kernel):
            return _conv_wide(x, kernel, stride, padding)
    return _xla_conv(x, kernel, stride, padding)


def _xla_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=_DIMENSIONS
    )


_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv_wide(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """XLA's convolution with `_kernel_gradient`."""
    return _xla_conv(x, kernel, stride, padding)


def _conv_wide_forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, tuple]:
    return _xla_conv(x, kernel, stride, padding), (x, kernel)


def _conv_wide_backward(
    stride: int, padding: int, residuals: tuple, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    (gx,) = jax.linear_transpose(lambda x: _xla_conv(x, kernel, stride, padding), x)(g)
    return gx, _kernel_gradient(x, g, kernel, stride, padding).astype(x.dtype)


_conv_wide.defvjp(_conv_wide_forward, _conv_wide_backward)


def _kernel_gradient(
    x: jax.Array, g: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> jax.Array:
    """Gradient `[a, a, C, K]` to a kernel, float32, from inputs and errors `g` `[N, h, w, K]`.

    With s x s neighbourhoods as channels, `_fold`, the kernel has t x t taps at stride 1. A row of
    taps beside each other makes one product with the errors.
    """
    (h, w), (side, _, c, k) = g.shape[1:3], kernel.shape
    shift = padding % stride  # zeros that make the padding a whole number of neighbourhoods
    taps = -(-(side + shift) // stride)
    low = padding + shift
    high = [stride * (n + taps - 1) - low - m for n, m in zip((h, w), x.shape[1:3])]
    edges = [(0, 0, 0), *((low, n, 0) for n in high), (0, 0, 0)]
    size = _chunk(kernel, x.shape)
    xs, gs = _split(x, size), _split(g, size)
    product = partial(jnp.einsum, "nijc,nijk->ick", preferred_element_type=jnp.float32)

    @computed_once
    def beside(folded: jax.Array) -> jax.Array:
        return jnp.concatenate([folded[:, :, b : b + w] for b in range(taps)], axis=-1)

    def step(i: jax.Array, total: jax.Array) -> jax.Array:
        rows = beside(_fold(lax.pad(_take(xs, i), jnp.zeros((), x.dtype), edges), stride))
        # A product for each row of pixels, and their sum: one product is slow as XLA lays it out.
        products = [jnp.sum(product(rows[:, a : a + h], _take(gs, i)), axis=0) for a in range(taps)]
        return total + jnp.stack(products)

    start = jnp.zeros((taps, taps * stride * stride * c, k), jnp.float32)
    total = lax.fori_loop(0, xs.shape[1], step, start)
    total = total.reshape(taps, taps, stride, stride, c, k).transpose(0, 2, 1, 3, 4, 5)
    whole = total.reshape(taps * stride, taps * stride, c, k)
    return whole[shift : shift + side, shift : shift + side]


class _Filtering(NamedTuple):
    """Matrices of minimal filtering F(4, r): `y = A' [(G w) * (B' x)]` for r taps."""

    inputs: np.ndarray  # B', [r + 3, r + 3]
    kernel: np.ndarray  # G, [r + 3, r]
    output: np.ndarray  # A', [4, r + 3]


def _filtering(taps: int) -> _Filtering:
    """Toom-Cook's construction from the points 0, 1, -1, 2, ... and infinity."""
    points = np.array([0, 1, -1, 2, -2][: taps + 2], np.float64)
    others = [np.delete(points, i) for i in range(len(points))]
    size = len(points) + 1

    def evaluate(degree: int) -> np.ndarray:
        return np.concatenate([points[:, None] ** np.arange(degree), np.eye(degree)[-1:]])

    inputs = np.zeros((size, size))
    for i, roots in enumerate(others):
        inputs[i, :-1] = np.poly(roots)[::-1]
    inputs[-1] = np.poly(points)[::-1]
    scale = np.array([np.prod(p - o) for p, o in zip(points, others)] + [1.0])
    return _Filtering(inputs, evaluate(taps) / scale[:, None], evaluate(_TILE).T)


# By stride. At stride 2 the four pixels of each 2x2 neighbourhood are channels of one.
_FILTERINGS = {1: _filtering(3), 2: _filtering(2)}


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv3x3(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """`conv2d` with a 3x3 kernel by Winograd's minimal filtering.

    Stride 1 with padding 0 or 1, or stride 2 with padding 1.
    """
    return _forward(x, kernel, stride, padding)[0]


def _forward(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> tuple[jax.Array, tuple]:
    filtering = _FILTERINGS[stride]
    weights = _transform_kernel(_fold_kernel(kernel, stride), filtering.kernel)
    n, *sides, _ = x.shape
    h, w = ((side + 2 * padding - 3) // stride + 1 for side in sides)
    shape = (n, h, w, kernel.shape[-1])
    size = _chunk(weights, x.shape, shape)
    chunks = _split(x, size)

    def step(i: jax.Array, y: jax.Array) -> jax.Array:
        inputs = _fold(_take(chunks, i), stride)
        tiles = _transform_tiles(inputs, filtering.inputs, (h, w), low=padding)
        out = _join_tiles(tiles @ weights, filtering.output, (size, *shape[1:]))
        return _put(y, out, i)

    y = lax.fori_loop(0, n // size, step, _split(jnp.zeros(shape, x.dtype), size))
    return y.reshape(shape), (x, weights)


def _backward(
    stride: int, padding: int, residuals: tuple, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, weights = residuals
    sides = g.shape[1:3]
    filtering = _FILTERINGS[stride]
    size = _chunk(weights, x.shape, g.shape)
    xs, gs = _split(x, size), _split(g, size)

    def step(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        gx, total = carry
        inputs = _fold(_take(xs, i), stride)
        tiles = _transform_tiles(inputs, filtering.inputs, sides, low=padding)
        errors = _transform_tiles(_take(gs, i), filtering.output.T, sides, low=0)
        total = total + jnp.einsum("pqtc,pqtk->pqck", tiles, errors)
        out = jnp.einsum("pqtk,pqck->pqtc", errors, weights)
        out = _overlap_tiles(out, filtering.inputs.T, inputs.shape, sides, low=padding)
        return _put(gx, _unfold(out, x.shape[1:3], stride), i), total

    carry = jnp.zeros_like(xs), jnp.zeros_like(weights)
    gx, total = lax.fori_loop(0, xs.shape[1], step, carry)
    kernel = _transform_kernel(total, filtering.kernel.T)
    return gx.reshape(x.shape), _unfold_kernel(kernel, stride).astype(x.dtype)


conv3x3.defvjp(_forward, _backward)


def _large(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether the products are worth the transformations, and their compilation."""
    c, k = kernel.shape[2:]
    return c * k >= _MIN_CHANNELS and x.size * 9 * k >= _MIN_PRODUCTS


def _wide(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether XLA's own gradient to a wide kernel is slower than `_kernel_gradient`."""
    side, _, _, k = kernel.shape
    return k >= 64 and x.size * side**2 * k >= 16 * _MIN_PRODUCTS


def _chunk(weights: jax.Array, *shapes: tuple[int, ...]) -> int:
    """Images of one loop step: a divisor of the batch.

    As many as keep to `_CHUNK`, or more where the weights, which every step reads, are larger.
    """
    n = shapes[0][0]
    wanted = max(_CHUNK, weights[0, 0].size * 4) // max(np.prod(s[1:]) for s in shapes)
    return max(d for d in range(1, min(n, max(1, wanted)) + 1) if n % d == 0)


# A loop step takes one image of each of `size` runs of the batch, so that on a batch sharded
# over devices every device has its part of every step and no image moves.
def _split(x: jax.Array, size: int) -> jax.Array:
    return x.reshape(size, x.shape[0] // size, *x.shape[1:])


def _take(x: jax.Array, i: jax.Array) -> jax.Array:
    return lax.dynamic_index_in_dim(x, i, axis=1, keepdims=False)


def _put(x: jax.Array, value: jax.Array, i: jax.Array) -> jax.Array:
    return lax.dynamic_update_index_in_dim(x, value.astype(x.dtype), i, axis=1)


def _fold(x: jax.Array, stride: int) -> jax.Array:
    """`[N, H, W, C] -> [N, H/s, W/s, s s C]`, zeros after an odd edge."""
    if stride == 1:
        return x
    n, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
    x = x.reshape(n, -(-h // 2), 2, -(-w // 2), 2, c).transpose(0, 1, 3, 2, 4, 5)
    return lax.optimization_barrier(x.reshape(*x.shape[:3], 4 * c))


def _unfold(x: jax.Array, shape: tuple[int, int], stride: int) -> jax.Array:
    if stride == 1:
        return x
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, 2 * h, 2 * w, c // 4)[:, : shape[0], : shape[1]]


def _fold_kernel(kernel: jax.Array, stride: int) -> jax.Array:
    """`[3, 3, C, K] -> [2, 2, 4 C, K]`: the taps -1, 0, 1 become -2 (zero), -1 and 0, 1."""
    if stride == 1:
        return kernel
    c, k = kernel.shape[2:]
    kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    return kernel.reshape(2, 2, 2, 2, c, k).transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, 4 * c, k)


def _unfold_kernel(kernel: jax.Array, stride: int) -> jax.Array:
    if stride == 1:
        return kernel
    c, k = kernel.shape[2:]
    kernel = kernel.reshape(2, 2, 2, 2, c // 4, k).transpose(0, 2, 1, 3, 4, 5)
    return kernel.reshape(4, 4, c // 4, k)[1:, 1:]


def _combine(matrix: np.ndarray, terms: Sequence[jax.Array]) -> list[jax.Array]:
    """`out[i] = sum_j matrix[i, j] terms[j]`."""
    return [
        sum(t if m == 1 else float(m) * t for m, t in zip(row, terms) if m != 0) for row in matrix
    ]


def _stack(arrays: Sequence[jax.Array]) -> jax.Array:
    """Stacks; the barrier keeps XLA from computing the rows again for each of their readers."""
    return lax.optimization_barrier(jnp.stack(arrays))


def _transform_kernel(kernel: jax.Array, matrix: np.ndarray) -> jax.Array:
    """`M W M'` over the first two axes, which it swaps; float32."""
    kernel = _stack(_combine(matrix, list(kernel.astype(jnp.float32))))
    return _stack(_combine(matrix, [kernel[:, i] for i in range(matrix.shape[1])]))


def _transform_tiles(
    x: jax.Array, matrix: np.ndarray, sides: tuple[int, int], *, low: int
) -> jax.Array:
    """`M X M'` of the tiles X that start `low` pixels before every fourth pixel of the output.

    `sides` are the output's. Returns `[p, p, N * tiles, C]`, columns first, float32.
    """
    n, h, w, c = x.shape
    p, q = matrix.shape
    th, tw = (-(-side // _TILE) for side in sides)
    span_h, span_w = _TILE * (th - 1) + 1, _TILE * (tw - 1) + 1
    edges = [(0, 0, 0), (low, span_h + q - 1 - low - h, 0), (low, span_w + q - 1 - low - w, 0)]
    x = lax.pad(x.astype(jnp.float32), 0.0, [*edges, (0, 0, 0)])
    x = _stack(_combine(matrix, [x[:, i : i + span_h : _TILE] for i in range(q)]))
    x = _stack(_combine(matrix, [x[:, :, :, j : j + span_w : _TILE] for j in range(q)]))
    return x.reshape(p, p, n * th * tw, c)


def _join_tiles(y: jax.Array, matrix: np.ndarray, shape: tuple[int, ...]) -> jax.Array:
    """`M Y M'` of `y` `[p, p, N * tiles, K]`, the tiles side by side as images of `shape`."""
    n, h, w, k = shape
    th, tw = -(-h // _TILE), -(-w // _TILE)
    y = _stack(_combine(matrix, list(y)))
    y = _stack(_combine(matrix, [y[:, i] for i in range(matrix.shape[1])]))
    y = y.reshape(_TILE, _TILE, n, th, tw, k).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(n, th * _TILE, tw * _TILE, k)[:, :h, :w]


def _overlap_tiles(
    y: jax.Array,
    matrix: np.ndarray,
    shape: tuple[int, ...],
    sides: tuple[int, int],
    *,
    low: int,
) -> jax.Array:
    """The transpose of `_transform_tiles`: `M Y M'`, tiles added where they overlap."""
    n, h, w, c = shape
    p = len(matrix)
    th, tw = (-(-side // _TILE) for side in sides)

    def add(rows: list[jax.Array], axis: int) -> jax.Array:
        """Row i + 4 of a tile falls on row i of the next."""
        before, after = ([(0, 0)] * rows[0].ndim for _ in range(2))
        before[axis], after[axis] = (1, 0), (0, 1)
        own, next_ = ([jnp.pad(r, pad) for r in rows] for pad in (after, before))
        return _stack(
            [own[i] + next_[i + _TILE] if i + _TILE < p else own[i] for i in range(_TILE)]
        )

    y = add(_combine(matrix, list(y.reshape(p, p, n, th, tw, c))), axis=3)
    y = add(_combine(matrix, [y[:, i] for i in range(p)]), axis=2)
    y = y.transpose(2, 3, 0, 4, 1, 5).reshape(n, (th + 1) * _TILE, (tw + 1) * _TILE, c)
    return y[:, low : low + h, low : low + w]
