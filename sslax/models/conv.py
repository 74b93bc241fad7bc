"""A convolution that is also fast on CPU.

XLA's CPU backend runs matrix products near the machine's peak and convolutions, above all their
weight gradients, far below it. On CPU the two convolutions residual networks are made of become
matrix products here; everywhere else, for every other kernel, and where the channels are few or the
images small, `conv2d` is XLA's convolution.

- 1x1: a product over the channels.
- 3x3: Winograd's minimal filtering (`winograd`); at stride 2, and where there are few pixels for
  the size of the kernel, a product with the patches of the image.
- Few outputs at stride 1: a product with every pixel, and sums of neighbors.
- 5x5 and wider at stride 2, a network's stem: XLA's, but for the gradient to the kernel.

The last three are in `products`. Only reverse-mode differentiation is defined on CPU.
"""

from collections.abc import Callable
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from sslax.models.kernels import borders
from sslax.models.kernels.products import (
    DIMENSIONS,
    conv_few,
    conv_patches,
    conv_wide,
    patches,
    xla_conv,
)
from sslax.models.kernels.winograd import conv3x3

_MIN_CHANNELS = 32 * 16  # of input times output: with fewer the transformations dominate
_MIN_PRODUCTS = 1 << 27  # below, a few milliseconds at most: not worth the longer compilation
_MAX_OUTPUTS = 4  # of a convolution to few channels


class Conv(nn.Module):
    """Convolution `[N, H, W, C] -> [N, h, w, features]`, parameters named as in `flax.linen.Conv`.

    Attributes:
        features: output channels.
        kernel_size: side of the square kernel.
        stride: step in pixels.
        padding: pixels on every side; None for `(kernel_size - 1) // 2`, as PyTorch's networks.
        mirrored: these pixels mirror those inside; otherwise they are zero.
        use_bias: adds a bias.
        dtype: dtype of the computation; parameters are float32.
        kernel_init: initializer of the kernel.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: int | None = None
    mirrored: bool = False
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = self.kernel_size
        padding = (size - 1) // 2 if self.padding is None else self.padding
        kernel = self.param("kernel", self.kernel_init, (size, size, x.shape[-1], self.features))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = conv2d(x, kernel, stride=self.stride, padding=padding, mirrored=self.mirrored)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias.astype(self.dtype)
        return y


def conv2d(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0, mirrored: bool = False
) -> jax.Array:
    """Cross-correlates images with a kernel.

    `y[n, i, j, k] = sum_abc x[n, s i + a - p, s j + b - p, c] kernel[a, b, c, k]`

    On the CPU backend 1x1 and 3x3 kernels run as matrix products (see the module); the choice is
    made when the function is traced, from `jax.default_backend()`.

    Args:
        x: images `[N, H, W, C]`.
        kernel: `[a, b, C, K]`, dtype of `x`.
        stride: step in pixels.
        padding: pixels p on every side.
        mirrored: these pixels mirror those inside; otherwise they are zero.

    Returns:
        `[N, h, w, K]`, dtype of `x`.

    Example:
        >>> import jax.numpy as jnp
        >>> conv2d(jnp.ones((1, 4, 4, 2)), jnp.ones((1, 1, 2, 3)), stride=2).shape
        (1, 2, 2, 3)
    """
    chex.assert_rank([x, kernel], 4)
    chex.assert_equal(x.shape[-1], kernel.shape[2])
    on_cpu = jax.default_backend() == "cpu"
    if on_cpu and stride == 1 and padding == len(kernel) // 2 and _few(x, kernel):
        return conv_few(x, kernel, mirrored=mirrored)
    if mirrored:
        x, padding = borders.mirrored(x, padding), 0
    if on_cpu:
        if kernel.shape[:2] == (1, 1) and padding == 0:
            # The barrier, in the backward pass on the errors, keeps their transpose a pure copy.
            return lax.optimization_barrier(x[:, ::stride, ::stride] @ kernel[0, 0])
        known = (stride, padding) in ((1, 0), (1, 1), (2, 1))
        if kernel.shape[:2] == (3, 3) and known and _large(x, kernel):
            if stride == 2 or _heavy(x, kernel):
                return conv_patches(x, kernel, stride, padding)
            return conv3x3(x, kernel, padding)
        if len(kernel) >= 5 and stride == 2 and _wide(x, kernel):
            return conv_wide(x, kernel, stride, padding)
    return xla_conv(x, kernel, stride, padding)


def _large(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether the products are worth the transformations, and their compilation."""
    c, k = kernel.shape[2:]
    return c * k >= _MIN_CHANNELS and x.size * 9 * k >= _MIN_PRODUCTS


def conv_in_loop(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`conv2d` of stride 1 that keeps the size, with any odd kernel, for the body of a loop.

    XLA's CPU backend takes more than a hundred times as long for the gradients of a convolution in
    a loop as outside of one: here there is none.
    """
    *sides, c, k = kernel.shape
    padding = tuple(side // 2 for side in sides)
    if jax.default_backend() != "cpu":
        pads = [(pixels, pixels) for pixels in padding]
        return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=DIMENSIONS)
    if sides[0] == sides[1] > 1 and _narrow(kernel):
        return conv_few(x, kernel, mirrored=False)
    if sides == [3, 3] and c * k >= _MIN_CHANNELS:
        return conv3x3(x, kernel, 1)
    return patches(x, sides=tuple(sides), padding=padding) @ kernel.reshape(-1, k)


def _heavy(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether there are so few pixels that transforming the kernel outweighs what is saved."""
    c, k = kernel.shape[2:]
    return 160 * (x.size // c) <= c * k


def _few(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether to multiply every pixel by the whole kernel."""
    side, other, _, k = kernel.shape
    fits = side == other and side % 2 == 1 and min(x.shape[1:3]) > side // 2
    return fits and _narrow(kernel) and x.size * side**2 * k >= _MIN_PRODUCTS >> 5


def _narrow(kernel: jax.Array) -> bool:
    """Whether the product of a pixel with the whole kernel is no larger than two pixels."""
    a, b, c, k = kernel.shape
    return k <= _MAX_OUTPUTS and a * b * k <= 2 * c


def _wide(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether XLA's own gradient to a wide kernel is the slower one."""
    side, _, _, k = kernel.shape
    return k >= 64 and x.size * side**2 * k >= 16 * _MIN_PRODUCTS
