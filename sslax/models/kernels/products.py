"""Convolutions as matrix products, which XLA's CPU backend runs near the machine's peak.

- `conv_1x1`: one product over the channels.
- `conv_im2col`: the pixels under the kernel become channels, and one product does the rest.
- `conv_few_outputs`: every pixel times the whole kernel, then sums of neighbors.
- `conv_wide`: 5x5 and larger kernels at stride 2, a network's stem. Only the gradient to the kernel
  is a product, of neighborhoods with the errors, row by row of the kernel; the rest is XLA's.
- `conv_in_loop_im2col`: `conv_im2col` without a loop of its own, for the body of one.

Measured with jax 0.10.2 on two x86-64 cores, ms with both gradients, XLA's -> ours
(experiments/README.md, "Training step of Monodepth2" and "... of SimCLR with ResNet-18"):

- 3x3, stride 2, 256 to 512 channels at 12x40: 138 -> 25; 128 images, 64 to 128 channels at 32x32:
  240 -> 111.
- 3x3, 32 to 1 channel at 96x320 (depth heads): 124 -> 12.
- gradient to a 7x7 stem, 32 images of 224x224x3: 813 -> 234.
- a convolution inside of a loop (RAFT): its gradients take XLA more than a hundred times as long as
  outside of one.

Peer and command: XLA and PyTorch in `experiments/benchmarks/conv_gradient.py --peer-python=PATH`;
for loops `experiments/benchmarks/flow.py`. Each can go when XLA is no slower there.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sslax.models.kernels import borders, chunks
from sslax.ops.no_inline import no_inline

_CHUNK = 1 << 22  # elements of the im2col array of one loop step: 16 MB
DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def xla_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """XLA's own convolution."""
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=DIMENSIONS
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_im2col(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """`xla_conv` as one product for each chunk of the batch; only reverse mode is defined."""
    k = kernel.shape[-1]
    columns = _im2col(kernel, stride, padding)
    shape = jax.eval_shape(columns, x).shape
    size = chunks.count(len(x), _CHUNK // int(np.prod(shape[1:])))
    images = chunks.split(x, size)

    def step(i: jax.Array, y: jax.Array) -> jax.Array:
        return chunks.put(y, columns(chunks.take(images, i)) @ kernel.reshape(-1, k), i)

    y = chunks.alike(jnp.zeros((*shape[:3], k), x.dtype), x)
    y = lax.fori_loop(0, images.shape[1], step, chunks.split(y, size))
    return y.reshape(*shape[:3], k)


def _im2col_forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, tuple]:
    return conv_im2col(x, kernel, stride, padding), (x, kernel)


def _im2col_backward(
    stride: int, padding: int, residuals: tuple, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    flat = kernel.reshape(-1, kernel.shape[-1])
    columns = _im2col(kernel, stride, padding)
    size = chunks.count(len(x), _CHUNK // int(np.prod(g.shape[1:3]) * len(flat)))
    xs, gs = chunks.split(x, size), chunks.split(g, size)

    def step(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        gx, total = carry
        images, errors = chunks.take(xs, i), chunks.take(gs, i)
        total += lax.dot_general(
            columns(images).reshape(-1, len(flat)),
            errors.reshape(-1, flat.shape[-1]),
            (((0,), (0,)), ((), ())),
            preferred_element_type=jnp.float32,
        )
        (g_images,) = jax.linear_transpose(columns, images)(errors @ flat.T)
        return chunks.put(gx, g_images, i), total

    carry = jnp.zeros_like(xs), jnp.zeros(flat.shape, jnp.float32)
    carry = tuple(chunks.alike(total, x) for total in carry)
    gx, total = lax.fori_loop(0, xs.shape[1], step, carry)
    return gx.reshape(x.shape), total.reshape(kernel.shape).astype(x.dtype)


conv_im2col.defvjp(_im2col_forward, _im2col_backward)


def _im2col(kernel: jax.Array, stride: int, padding: int) -> Callable[[jax.Array], jax.Array]:
    return partial(im2col, sides=kernel.shape[:2], padding=(padding, padding), stride=stride)


def im2col(
    x: jax.Array, *, sides: tuple[int, int], padding: tuple[int, int], stride: int = 1
) -> jax.Array:
    """The pixels under an a x b kernel as channels, in its order: `[N, h, w, a · b · C]`."""
    widths = [(0, 0, 0), *((pixels, pixels, 0) for pixels in padding), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), widths)
    ends = [length - side + 1 for length, side in zip(x.shape[1:3], sides)]
    rows, columns = (range(side) for side in sides)
    parts = [
        x[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i in rows for j in columns
    ]
    return jnp.concatenate(parts, axis=-1)


def conv_in_loop_im2col(x: jax.Array, kernel: jax.Array, padding: tuple[int, int]) -> jax.Array:
    """Convolution of stride 1 as one product, without a loop over the batch."""
    columns = im2col(x, sides=kernel.shape[:2], padding=padding)
    return columns @ kernel.reshape(-1, kernel.shape[-1])


def conv_1x1(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolution with a 1x1 kernel `[1, 1, C, K]` and no padding, as a product."""
    # The barrier is there for the backward pass, where it keeps the transpose of the errors a copy.
    return lax.optimization_barrier(x[:, ::stride, ::stride] @ kernel[0, 0])


def conv_few_outputs(x: jax.Array, kernel: jax.Array, *, reflect: bool) -> jax.Array:
    """Same-size convolution to few channels: a product, then sums of neighbors.

    ```
    z[a, b, k, i, j] = Σ_c x[i, j, c] kernel[a, b, c, k]
    y[i, j, k] = Σ_ab z[a, b, k, i + a - r, j + b - r]
    ```

    Args:
        x: images `[N, H, W, C]`.
        kernel: `[2 r + 1, 2 r + 1, C, K]`, dtype of `x`; pays off where (2 r + 1)² K is no more
            than C.
        reflect: the padding reflects the image, whose sides are then larger than r; else it is
            zero.

    Returns:
        `[N, H, W, K]`, dtype of `x`.

    Example:
        >>> y = conv_few_outputs(jnp.ones((1, 3, 4, 8)), jnp.ones((3, 3, 8, 1)), reflect=True)
        >>> y.max().item()
        72.0
    """
    n, h, w, c = x.shape
    side, _, _, k = kernel.shape
    taps = kernel.transpose(0, 1, 3, 2).reshape(-1, c)
    # Pixels last: neighbors are then long contiguous rows.
    z = lax.dot_general(
        taps, x.reshape(-1, c), (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
    )
    z = [part.reshape(k, n, h, w) for part in lax.split(z, [k] * side**2)]
    shift = partial(borders.shift, reflect=reflect)
    offsets = range(-(side // 2), side // 2 + 1)
    rows = [sum(shift(z.pop(0), 3, j) for j in offsets) for _ in offsets]
    y = sum(shift(row, 2, i) for i, row in zip(offsets, rows))
    return jnp.moveaxis(y, 0, -1).astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_wide(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """XLA's convolution with `_kernel_gradient` in place of its gradient to the kernel."""
    return xla_conv(x, kernel, stride, padding)


def _wide_forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, tuple]:
    return xla_conv(x, kernel, stride, padding), (x, kernel)


def _wide_backward(
    stride: int, padding: int, residuals: tuple, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    (gx,) = jax.linear_transpose(lambda x: xla_conv(x, kernel, stride, padding), x)(g)
    return gx, _kernel_gradient(x, g, kernel, stride, padding).astype(x.dtype)


conv_wide.defvjp(_wide_forward, _wide_backward)


def _kernel_gradient(
    x: jax.Array, g: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> jax.Array:
    """Gradient `[a, a, C, K]` to a kernel, float32, from inputs and errors `g` `[N, h, w, K]`.

    With s x s neighborhoods as channels (`_space_to_depth`) the kernel has t x t taps at stride 1.
    The taps of a row side by side make one product with the errors.
    """
    (h, w), (side, _, c, k) = g.shape[1:3], kernel.shape
    extra = padding % stride  # zeros that make the padding a whole number of neighborhoods
    taps = -(-(side + extra) // stride)
    low = padding + extra
    high = [stride * (n + taps - 1) - low - m for n, m in zip((h, w), x.shape[1:3])]
    widths = [(0, 0, 0), *((low, n, 0) for n in high), (0, 0, 0)]
    size = chunks.count(len(x), (_CHUNK >> 3) // int(np.prod(x.shape[1:])))
    xs, gs = chunks.split(x, size), chunks.split(g, size)
    product = partial(jnp.einsum, "nijc,nijk->ick", preferred_element_type=jnp.float32)

    @no_inline
    def side_by_side(folded: jax.Array) -> jax.Array:
        return jnp.concatenate([folded[:, :, b : b + w] for b in range(taps)], axis=-1)

    def step(i: jax.Array, total: jax.Array) -> jax.Array:
        padded = lax.pad(chunks.take(xs, i), jnp.zeros((), x.dtype), widths)
        rows = side_by_side(_space_to_depth(padded, stride))
        # A product for each row of pixels, and their sum: one product is slow as XLA lays it out.
        products = [
            jnp.sum(product(rows[:, a : a + h], chunks.take(gs, i)), axis=0) for a in range(taps)
        ]
        return total + jnp.stack(products)

    start = chunks.alike(jnp.zeros((taps, taps * stride * stride * c, k), jnp.float32), x)
    total = lax.fori_loop(0, xs.shape[1], step, start)
    total = total.reshape(taps, taps, stride, stride, c, k).transpose(0, 2, 1, 3, 4, 5)
    total = total.reshape(taps * stride, taps * stride, c, k)
    return total[extra : extra + side, extra : extra + side]


def _space_to_depth(x: jax.Array, stride: int) -> jax.Array:
    """`[N, H, W, C] -> [N, H/s, W/s, s s C]`."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // stride, stride, w // stride, stride, c).swapaxes(2, 3)
    return lax.optimization_barrier(x.reshape(*x.shape[:3], -1))
