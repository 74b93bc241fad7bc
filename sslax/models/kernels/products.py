"""Convolutions as matrix products, which XLA's CPU backend runs near the machine's peak.

- `conv_patches`: the pixels under the kernel are channels, and one product does the rest.
- `conv_few`: to one or few channels, every pixel times the whole kernel, and sums of neighbors.
- `conv_wide`: a network's stem, 5x5 and wider at stride 2. Its gradient to the kernel is a product
  of neighborhoods with the errors, row by row of the kernel; all else is XLA's.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sslax.models.kernels import borders, chunks
from sslax.ops.no_inline import no_inline

_CHUNK = 1 << 22  # elements of one loop step's patches: 16 MB
DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def xla_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """XLA's own convolution."""
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=DIMENSIONS
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_patches(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """`xla_conv` as one product for each chunk of the batch; only reverse mode is defined."""
    k = kernel.shape[-1]
    of_images = _patches_of(kernel, stride, padding)
    shape = jax.eval_shape(of_images, x).shape
    size = chunks.count(len(x), _CHUNK // int(np.prod(shape[1:])))
    images = chunks.split(x, size)

    def step(i: jax.Array, y: jax.Array) -> jax.Array:
        return chunks.put(y, of_images(chunks.take(images, i)) @ kernel.reshape(-1, k), i)

    y = jnp.zeros((*shape[:3], k), x.dtype)
    y = lax.fori_loop(0, images.shape[1], step, chunks.split(y, size))
    return y.reshape(*shape[:3], k)


def _patches_forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, tuple]:
    return conv_patches(x, kernel, stride, padding), (x, kernel)


def _patches_backward(
    stride: int, padding: int, residuals: tuple, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    flat = kernel.reshape(-1, kernel.shape[-1])
    of_images = _patches_of(kernel, stride, padding)
    size = chunks.count(len(x), _CHUNK // int(np.prod(g.shape[1:3]) * len(flat)))
    xs, gs = chunks.split(x, size), chunks.split(g, size)

    def step(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        gx, total = carry
        images, errors = chunks.take(xs, i), chunks.take(gs, i)
        total += lax.dot_general(
            of_images(images).reshape(-1, len(flat)),
            errors.reshape(-1, flat.shape[-1]),
            (((0,), (0,)), ((), ())),
            preferred_element_type=jnp.float32,
        )
        (found,) = jax.linear_transpose(of_images, images)(errors @ flat.T)
        return chunks.put(gx, found, i), total

    carry = jnp.zeros_like(xs), jnp.zeros(flat.shape, jnp.float32)
    gx, total = lax.fori_loop(0, xs.shape[1], step, carry)
    return gx.reshape(x.shape), total.reshape(kernel.shape).astype(x.dtype)


conv_patches.defvjp(_patches_forward, _patches_backward)


def _patches_of(kernel: jax.Array, stride: int, padding: int) -> Callable[[jax.Array], jax.Array]:
    sides, around = kernel.shape[:2], (padding, padding)
    return partial(patches, sides=sides, padding=around, stride=stride)


def patches(
    x: jax.Array, *, sides: tuple[int, int], padding: tuple[int, int], stride: int = 1
) -> jax.Array:
    """The pixels under a kernel of a x b, in its order, `[N, h, w, a · b · C]`; zeros around."""
    edges = [(0, 0, 0), *((pixels, pixels, 0) for pixels in padding), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), edges)
    # Where the kernel's first pixel is last.
    ends = [length - side + 1 for length, side in zip(x.shape[1:3], sides)]
    rows, columns = (range(side) for side in sides)
    parts = [
        x[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i in rows for j in columns
    ]
    return jnp.concatenate(parts, axis=-1)


def conv_few(x: jax.Array, kernel: jax.Array, *, mirrored: bool) -> jax.Array:
    """Cross-correlation that keeps the size, for few outputs: a product, then sums of neighbors.

    ```
    z[a, b, k, i, j] = Σ_c x[i, j, c] kernel[a, b, c, k]
    y[i, j, k] = Σ_ab z[a, b, k, i + a - r, j + b - r]
    ```

    Args:
        x: images `[N, H, W, C]`.
        kernel: `[2 r + 1, 2 r + 1, C, K]`, dtype of `x`; best where its first, second and last
            axis together are no longer than C.
        mirrored: pixels beyond the border mirror those inside, of which there must be more than r
            on every side; otherwise they are zero.

    Returns:
        `[N, H, W, K]`, dtype of `x`.

    Example:
        >>> conv_few(jnp.ones((1, 3, 4, 8)), jnp.ones((3, 3, 8, 1)), mirrored=True).max().item()
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
    shift = partial(borders.from_neighbor, mirrored=mirrored)
    offsets = range(-(side // 2), side // 2 + 1)
    rows = [sum(shift(z.pop(0), 3, j) for j in offsets) for _ in offsets]
    y = sum(shift(row, 2, i) for i, row in zip(offsets, rows))
    return jnp.moveaxis(y, 0, -1).astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_wide(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """XLA's convolution, whose gradient to a wide kernel at stride 2 is `_kernel_gradient`."""
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

    With s x s neighborhoods as channels, `_fold`, the kernel has t x t taps at stride 1. A row
    of taps beside each other makes one product with the errors.
    """
    (h, w), (side, _, c, k) = g.shape[1:3], kernel.shape
    shift = padding % stride  # zeros that make the padding a whole number of neighborhoods
    taps = -(-(side + shift) // stride)
    low = padding + shift
    high = [stride * (n + taps - 1) - low - m for n, m in zip((h, w), x.shape[1:3])]
    edges = [(0, 0, 0), *((low, n, 0) for n in high), (0, 0, 0)]
    size = _chunk(x)
    xs, gs = chunks.split(x, size), chunks.split(g, size)
    product = partial(jnp.einsum, "nijc,nijk->ick", preferred_element_type=jnp.float32)

    @no_inline
    def beside(folded: jax.Array) -> jax.Array:
        return jnp.concatenate([folded[:, :, b : b + w] for b in range(taps)], axis=-1)

    def step(i: jax.Array, total: jax.Array) -> jax.Array:
        rows = beside(_fold(lax.pad(chunks.take(xs, i), jnp.zeros((), x.dtype), edges), stride))
        # A product for each row of pixels, and their sum: one product is slow as XLA lays it out.
        products = [
            jnp.sum(product(rows[:, a : a + h], chunks.take(gs, i)), axis=0) for a in range(taps)
        ]
        return total + jnp.stack(products)

    start = jnp.zeros((taps, taps * stride * stride * c, k), jnp.float32)
    total = lax.fori_loop(0, xs.shape[1], step, start)
    total = total.reshape(taps, taps, stride, stride, c, k).transpose(0, 2, 1, 3, 4, 5)
    whole = total.reshape(taps * stride, taps * stride, c, k)
    return whole[shift : shift + side, shift : shift + side]


def _chunk(x: jax.Array) -> int:
    return chunks.count(len(x), (_CHUNK >> 3) // int(np.prod(x.shape[1:])))


def _fold(x: jax.Array, stride: int) -> jax.Array:
    """`[N, H, W, C] -> [N, H/s, W/s, s s C]`."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // stride, stride, w // stride, stride, c).swapaxes(2, 3)
    return lax.optimization_barrier(x.reshape(*x.shape[:3], -1))
