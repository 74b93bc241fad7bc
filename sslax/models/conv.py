"""Convolution, with the algorithm chosen by platform, kernel and size.

XLA's convolutions are slow on CPUs, above all their weight gradients, and its matrix products are
not. So in programs for CPUs the convolutions that networks here are made of become products
(`kernels`); on every other platform, for every other kernel, where the work is too small, and where
a program is exported for any size of the batch, `conv2d` is XLA's.

| kernel | on CPU |
|---|---|
| 1x1 | `products.conv_1x1` |
| 3x3, stride 1 | `winograd.conv3x3` |
| 3x3, stride 2, or few pixels for the size of the kernel | `products.conv_im2col` |
| up to four outputs, stride 1 | `products.conv_few_outputs` |
| 5x5 and larger, stride 2 | `products.conv_wide` |

Of those convolutions only reverse-mode derivatives are defined under `jit`, on every platform: both
alternatives are traced.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from sslax.checks import assert_axis_dimension, assert_rank
from sslax.models.kernels import chunks, products, reflect_pad, winograd
from sslax.ops.platforms import choose

_MIN_CHANNELS = 32 * 16  # inputs times outputs: with fewer, transforming the tiles dominates
_MIN_PRODUCTS = 1 << 27  # below, a few milliseconds at most: not worth the longer compilation
_MAX_OUTPUTS = 4  # of `conv_few_outputs`


class Conv(nn.Module):
    """Convolution `[N, H, W, C] -> [N, h, w, features]`, parameters named as in `flax.linen.Conv`.

    Attributes:
        features: output channels.
        kernel_size: side of the square kernel.
        stride: step in pixels.
        padding: pixels on every side; None for `(kernel_size - 1) // 2`, as in PyTorch's networks.
        reflect: the padding reflects the image; else it is zero.
        use_bias: adds a bias.
        dtype: of the computation; parameters are float32.
        kernel_init: initializer of the kernel.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: int | None = None
    reflect: bool = False
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = self.kernel_size
        padding = (size - 1) // 2 if self.padding is None else self.padding
        kernel = self.param("kernel", self.kernel_init, (size, size, x.shape[-1], self.features))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = conv2d(x, kernel, stride=self.stride, padding=padding, reflect=self.reflect)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias.astype(self.dtype)
        return y


class GroupedConv(nn.Module):
    """Same-size convolution `[N, H, W, C] -> [N, H, W, features]` of groups of channels.

    Parameters are those of `flax.linen.Conv` with `feature_group_count`, with a bias. Pixels are
    multiplied by the kernel as matrices, a product for each group: for XLA's grouped convolution
    devices gather the images of all others.

    Attributes:
        features: output channels.
        kernel_size: side of the square kernel, odd.
        groups: of channels, input and output; divides both.
        dtype: of the computation; parameters are float32.
        kernel_init: initializer of the kernel `[a, b, C / groups, features]`.
    """

    features: int
    kernel_size: int = 3
    groups: int = 1
    dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, size)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        return _grouped_conv(x, kernel, self.groups) + bias.astype(self.dtype)


@partial(jax.checkpoint, static_argnums=2)  # which keeps x rather than a copy for each kernel pixel
def _grouped_conv(x: jax.Array, kernel: jax.Array, groups: int) -> jax.Array:
    (_, height, width, _), (side, _, inputs, features) = x.shape, kernel.shape
    pad = side // 2
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    shifts = [x[:, i : i + height, j : j + width] for i in range(side) for j in range(side)]
    pixels = jnp.stack(shifts, axis=3).reshape(-1, side**2, groups, inputs)
    pixels = jnp.moveaxis(pixels, 2, 0).reshape(groups, -1, side**2 * inputs)
    kernel = jnp.moveaxis(kernel.reshape(side**2 * inputs, groups, -1), 1, 0)
    y = jnp.moveaxis(jnp.matmul(pixels, kernel), 0, 1)
    return y.reshape(-1, height, width, features)


def conv2d(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0, reflect: bool = False
) -> jax.Array:
    """Convolution of images (cross-correlation, as everywhere in deep learning).

    `y[n, i, j, k] = Σ_abc x[n, s i + a - p, s j + b - p, c] kernel[a, b, c, k]`

    Args:
        x: images `[N, H, W, C]`.
        kernel: `[a, b, C, K]`, dtype of `x`.
        stride: step in pixels.
        padding: pixels p on every side.
        reflect: the padding reflects the image; else it is zero.

    Returns:
        `[N, h, w, K]`, dtype of `x`.

    Example:
        >>> import jax.numpy as jnp
        >>> conv2d(jnp.ones((1, 4, 4, 2)), jnp.ones((1, 1, 2, 3)), stride=2).shape
        (1, 2, 2, 3)
    """
    assert_rank([x, kernel], 4)
    assert_axis_dimension(kernel, 2, x.shape[-1])
    if stride == 1 and padding == len(kernel) // 2 and _has_few_outputs(x, kernel):
        few_outputs = partial(products.conv_few_outputs, reflect=reflect)
        padded = partial(_padded_conv, padding=padding, reflect=reflect)
        return choose(x, kernel, cpu=few_outputs, default=padded)
    if reflect:
        x, padding = reflect_pad(x, padding), 0
    xla_conv = partial(products.xla_conv, stride=stride, padding=padding)
    algorithm = _algorithm_on_cpu(x, kernel, stride, padding)
    if algorithm is None:
        return xla_conv(x, kernel)
    return choose(x, kernel, cpu=_with_loops(algorithm), default=xla_conv)


def _padded_conv(x: jax.Array, kernel: jax.Array, *, padding: int, reflect: bool) -> jax.Array:
    if reflect:
        x, padding = reflect_pad(x, padding), 0
    return products.xla_conv(x, kernel, stride=1, padding=padding)


def _algorithm_on_cpu(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """What is faster than XLA's convolution on a CPU; None if nothing is."""
    side = len(kernel)
    if kernel.shape[:2] == (1, 1) and padding == 0:
        return partial(products.conv_1x1, stride=stride)
    if not isinstance(x.size, int):  # exported for any size of the batch
        return None
    known = (stride, padding) in ((1, 0), (1, 1), (2, 1))
    if kernel.shape[:2] == (3, 3) and known and _large(x, kernel):
        if stride == 2 or _heavy(x, kernel):
            return partial(products.conv_im2col, stride=stride, padding=padding)
        return partial(winograd.conv3x3, padding=padding)
    if side >= 5 and stride == 2 and _wide(x, kernel):
        return partial(products.conv_wide, stride=stride, padding=padding)
    return None


def _with_loops(
    algorithm: Callable[[jax.Array, jax.Array], jax.Array],
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The algorithm, whose loops want operands that vary alike inside shard_map."""
    return lambda x, kernel: algorithm(chunks.alike(x, kernel), chunks.alike(kernel, x))


def conv_in_loop(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Same-size convolution of stride 1 with any odd kernel, for the body of a loop.

    On CPU it avoids XLA's convolutions altogether: their gradients take more than a hundred times
    as long inside of a loop as outside.
    """
    *sides, c, k = kernel.shape
    padding = tuple(side // 2 for side in sides)
    cpu: Callable[[jax.Array, jax.Array], jax.Array]
    if sides[0] == sides[1] > 1 and _narrow(kernel):
        cpu = partial(products.conv_few_outputs, reflect=False)
    elif sides == [3, 3] and c * k >= _MIN_CHANNELS and isinstance(x.size, int):
        cpu = _with_loops(partial(winograd.conv3x3, padding=1))
    else:
        cpu = partial(products.conv_in_loop_im2col, padding=padding)

    def xla_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        pads = [(pixels, pixels) for pixels in padding]
        layout = products.DIMENSIONS
        return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=layout)

    return choose(x, kernel, cpu=cpu, default=xla_conv)


def _large(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether products are worth the transformations, and their compilation."""
    c, k = kernel.shape[2:]
    return c * k >= _MIN_CHANNELS and x.size * 9 * k >= _MIN_PRODUCTS


def _heavy(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether there are so few pixels that transforming the kernel costs more than it saves."""
    c, k = kernel.shape[2:]
    return 160 * (x.size // c) <= c * k


def _has_few_outputs(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether to multiply every pixel by the whole kernel."""
    side, other, _, k = kernel.shape
    fits = side == other and side % 2 == 1 and min(x.shape[1:3]) > side // 2
    if not fits or not _narrow(kernel) or not isinstance(x.size, int):
        return False
    return x.size * side**2 * k >= _MIN_PRODUCTS >> 5


def _narrow(kernel: jax.Array) -> bool:
    """Whether the product of a pixel with the whole kernel is no larger than two pixels."""
    a, b, c, k = kernel.shape
    return k <= _MAX_OUTPUTS and a * b * k <= 2 * c


def _wide(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether XLA's own gradient to a wide kernel would be slower."""
    side, _, _, k = kernel.shape
    return k >= 64 and x.size * side**2 * k >= 16 * _MIN_PRODUCTS
