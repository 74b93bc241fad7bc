"""3x3 convolutions by Winograd's minimal filtering, on 4x4 tiles.

`Y = A'[(G W G') * (B' X B)] A` needs 36 multiplications instead of 144 (Lavin and Gray 2015,
https://arxiv.org/abs/1509.09308), and they are matrix products. A loop over a few images at a time
keeps the tiles in the cache.

Float32 results differ from direct convolution by about 1e-5 of their standard deviation, at most
1e-4. Only reverse-mode differentiation is defined.

Measured with jax 0.10.2 on two x86-64 cores, ms with both gradients, XLA's -> ours (PyTorch's best
layout; experiments/README.md, "Training step of SimCLR with ResNet-18"): 128 images, 64 channels at
32x32: 553 -> 145 (101); 128 channels at 16x16: 231 -> 88 (70); 256 channels at 8x8: 150 -> 67 (70);
512 channels at 4x4: 119 -> 68 (87). A training step of SimCLR takes 1.2 to 1.3 s, with XLA's
convolutions 3.6 to 4.2 s. Peer and command: XLA and PyTorch in
`experiments/benchmarks/conv_gradient.py --peer-python=PATH`. Can go when XLA's column is no slower.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sslax.models.kernels import chunks

_TILE = 4  # output pixels of a tile, a side
_CHUNK = 1 << 19  # input elements of one loop step: about 2 MB, five times that in the cache


class _Filtering(NamedTuple):
    """Matrices of the minimal filter F(4, 3): `y = A' [(G w) * (B' x)]`."""

    inputs: np.ndarray  # B', [6, 6]
    kernel: np.ndarray  # G, [6, 3]
    output: np.ndarray  # A', [4, 6]


def _filtering() -> _Filtering:
    """Toom-Cook's construction from the points 0, 1, -1, 2, -2 and infinity."""
    points = np.array([0, 1, -1, 2, -2], np.float64)
    others = [np.delete(points, i) for i in range(len(points))]

    def evaluate(degree: int) -> np.ndarray:
        return np.concatenate([points[:, None] ** np.arange(degree), np.eye(degree)[-1:]])

    inputs = np.zeros((6, 6))
    for i, roots in enumerate(others):
        inputs[i, :-1] = np.poly(roots)[::-1]
    inputs[-1] = np.poly(points)[::-1]
    scale = np.array([np.prod(p - o) for p, o in zip(points, others)] + [1.0])
    return _Filtering(inputs, evaluate(3) / scale[:, None], evaluate(_TILE).T)


_FILTERING = _filtering()


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv3x3(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    """Convolution of `[N, H, W, C]` with `[3, 3, C, K]`, zero-padded by 0 or 1 pixel."""
    return _forward(x, kernel, padding)[0]


def _forward(x: jax.Array, kernel: jax.Array, padding: int) -> tuple[jax.Array, tuple]:
    weights = _transform_kernel(kernel, _FILTERING.kernel)
    n, *sides, _ = x.shape
    h, w = (side + 2 * padding - 2 for side in sides)
    shape = (n, h, w, kernel.shape[-1])
    size, bands = _chunk(weights, x.shape, shape), _Bands.of(x.shape, shape, padding)
    xs = chunks.split(x, size)

    def step(i: jax.Array, y: jax.Array) -> jax.Array:
        inputs = bands.read(xs, i)
        sides = bands.rows, w
        tiles = _transform_tiles(inputs, _FILTERING.inputs, sides, low=(bands.low, padding))
        out = _join_tiles(tiles @ weights, _FILTERING.output, (size, *sides, shape[-1]))
        return bands.put(y, out, i)

    y = chunks.split(chunks.alike(jnp.zeros(shape, x.dtype), x), size)
    y = lax.fori_loop(0, bands.number * (n // size), step, y)
    return y.reshape(shape), (x, weights)


def _backward(padding: int, residuals: tuple, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, weights = residuals
    size, bands = _chunk(weights, x.shape, g.shape), _Bands.of(x.shape, g.shape, padding)
    xs, gs = chunks.split(x, size), chunks.split(g, size)
    sides, low = (bands.rows, g.shape[2]), (bands.low, padding)

    def step(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        gx, total = carry
        inputs = bands.read(xs, i)
        tiles = _transform_tiles(inputs, _FILTERING.inputs, sides, low=low)
        errors = _transform_tiles(bands.take(gs, i), _FILTERING.output.T, sides, low=(0, 0))
        total = total + jnp.einsum("pqtc,pqtk->pqck", tiles, errors)
        out = jnp.einsum("pqtk,pqck->pqtc", errors, weights)
        out = _overlap_tiles(out, _FILTERING.inputs.T, inputs.shape, sides, low=low)
        return bands.add(gx, out, i), total

    carry = tuple(chunks.alike(jnp.zeros_like(total), x) for total in (xs, weights))
    gx, total = lax.fori_loop(0, bands.number * xs.shape[1], step, carry)
    return gx.reshape(x.shape), _transform_kernel(total, _FILTERING.kernel.T).astype(x.dtype)


conv3x3.defvjp(_forward, _backward)


def _chunk(weights: jax.Array, *shapes: tuple[int, ...]) -> int:
    """Images in a loop step: as many as fit `_CHUNK`, or the weights, which every step reads."""
    n = shapes[0][0]
    wanted = max(_CHUNK, weights[0, 0].size * 4) // max(np.prod(s[1:]) for s in shapes)
    return chunks.count(n, wanted)


class _Bands(NamedTuple):
    """Bands of rows, for images that are larger than the cache.

    Step i of a loop handles band i % number of chunk i // number. A band of the output reads two
    rows more of the input, zeros where they lie beyond the border.
    """

    number: int  # of bands in an image
    rows: int  # of a band, in the output
    low: int  # rows of zero padding that are not part of what `read` returns

    @classmethod
    def of(cls, shape: tuple[int, ...], output: tuple[int, ...], padding: int) -> "_Bands":
        """One band, unless an image is too large and its height divides into whole tiles."""
        height = output[1]
        most = _CHUNK // (np.prod(shape[2:]) + np.prod(output[2:]))
        fitting = [r for r in range(_TILE, height, _TILE) if height % r == 0 and r <= 2 * most]
        # Smaller bands would lose more by poor threading than the cache gains.
        if height <= 4 * most or not fitting:
            return cls(1, height, padding)
        return cls(height // fitting[-1], fitting[-1], 0)

    def take(self, y: jax.Array, i: jax.Array) -> jax.Array:
        """The band `[size, rows, w, K]` of an output `[size, chunks, h, w, K]`."""
        size, _, _, *rest = y.shape
        return lax.dynamic_slice(y, self._start(i), (size, 1, self.rows, *rest))[:, 0]

    def put(self, y: jax.Array, band: jax.Array, i: jax.Array) -> jax.Array:
        """The output with the band replaced."""
        return lax.dynamic_update_slice(y, band.astype(y.dtype)[:, None], self._start(i))

    def read(self, x: jax.Array, i: jax.Array) -> jax.Array:
        """The rows that a band reads of an input `[size, chunks, H, W, C]`."""
        if self.number == 1:
            return chunks.take(x, i)
        window, start, shift = self._window(x, i)
        band = lax.dynamic_slice(x, start, window)[:, 0]
        return _moved(band, shift)

    def add(self, x: jax.Array, band: jax.Array, i: jax.Array) -> jax.Array:
        """Adds a band to the rows that `read` took it from: its transpose."""
        if self.number == 1:
            return chunks.put(x, band, i)
        window, start, shift = self._window(x, i)
        band = _moved(band, -shift).astype(x.dtype)[:, None]
        return lax.dynamic_update_slice(x, lax.dynamic_slice(x, start, window) + band, start)

    def _start(self, i: jax.Array) -> tuple[Any, ...]:
        return 0, i // self.number, i % self.number * self.rows, 0, 0

    def _window(self, x: jax.Array, i: jax.Array) -> tuple[tuple, tuple, jax.Array]:
        """Size and start of the nearest window inside the image, and how far the band's is off."""
        size, _, height, *rest = x.shape
        rows = self.rows + 2
        wanted = i % self.number * self.rows - (self.number * self.rows + 2 - height) // 2
        inside = jnp.clip(wanted, 0, height - rows)
        return (size, 1, rows, *rest), (0, i // self.number, inside, 0, 0), wanted - inside


def _moved(band: jax.Array, shift: jax.Array) -> jax.Array:
    """`y[:, r] = band[:, r + shift]` for a shift of -1, 0 or 1; zero beyond the ends."""
    padded = lax.pad(band, jnp.zeros((), band.dtype), [(0, 0, 0), (1, 1, 0), (0, 0, 0), (0, 0, 0)])
    return lax.dynamic_slice_in_dim(padded, 1 + shift, band.shape[1], axis=1)


def _combine(matrix: np.ndarray, terms: Sequence[jax.Array]) -> list[jax.Array]:
    """`out[i] = sum_j matrix[i, j] terms[j]`."""
    return [
        sum(t if m == 1 else float(m) * t for m, t in zip(row, terms) if m != 0) for row in matrix
    ]


def _stack(arrays: Sequence[jax.Array]) -> jax.Array:
    """Stacks; the barrier keeps XLA from recomputing the rows for each of their readers."""
    return lax.optimization_barrier(jnp.stack(arrays))


def _transform_kernel(kernel: jax.Array, matrix: np.ndarray) -> jax.Array:
    """`M W M'` over the first two axes, which it swaps; float32."""
    kernel = _stack(_combine(matrix, list(kernel.astype(jnp.float32))))
    return _stack(_combine(matrix, [kernel[:, i] for i in range(matrix.shape[1])]))


def _transform_tiles(
    x: jax.Array, matrix: np.ndarray, sides: tuple[int, int], *, low: tuple[int, int]
) -> jax.Array:
    """`M X M'` of the tiles X that start `low` pixels before every fourth pixel of the output.

    Args:
        x: `[N, h, w, C]`.
        matrix: M, `[p, q]`.
        sides: height and width of the output.
        low: zero padding before the rows and columns of x.

    Returns:
        `[p, p, N · tiles, C]` float32, columns first.
    """
    n, h, w, c = x.shape
    p, q = matrix.shape
    th, tw = (-(-side // _TILE) for side in sides)
    span_h, span_w = _TILE * (th - 1) + 1, _TILE * (tw - 1) + 1
    ends = [span + q - 1 - b - side for span, b, side in zip((span_h, span_w), low, (h, w))]
    edges = [(0, 0, 0), *((b, end, 0) for b, end in zip(low, ends)), (0, 0, 0)]
    x = lax.pad(x.astype(jnp.float32), 0.0, edges)
    x = _stack(_combine(matrix, [x[:, i : i + span_h : _TILE] for i in range(q)]))
    x = _stack(_combine(matrix, [x[:, :, :, j : j + span_w : _TILE] for j in range(q)]))
    return x.reshape(p, p, n * th * tw, c)


def _join_tiles(y: jax.Array, matrix: np.ndarray, shape: tuple[int, ...]) -> jax.Array:
    """`M Y M'` of `y` `[p, p, N · tiles, K]`, with the tiles side by side, cut to `shape`."""
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
    low: tuple[int, int],
) -> jax.Array:
    """The transpose of `_transform_tiles`: `M Y M'`, summed where tiles overlap."""
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
    return y[:, low[0] : low[0] + h, low[1] : low[1] + w]
