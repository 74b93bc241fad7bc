"""Depth networks: from images to maps of numbers in (0, 1) at several scales.

What a number means, inverse depth or disparity, is up to the method. A decoder takes 'stages', the
intermediate activations of any convolutional encoder, and 'like', images of which only the shape is
read.

Sizes are halved rounding up, (H, W), (⌈H/2⌉, ⌈W/2⌉), ..., as a convolution of stride 2 does, and
doubled by dropping the last row or column where the size is odd. So sides need not be multiples of
32, and every pixel comes back to its position.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sslax.checks import assert_rank
from sslax.errors import UserError
from sslax.models.conv import Conv, conv2d
from sslax.models.kernels import edge_pad
from sslax.ranges import OneOrMore, PositiveInt
from sslax.types import Array, Encoding

Size = tuple[int, int]

_he = nn.initializers.he_normal()
# A hundredth of the usual variance: heads start near their bias, and gradients get through.
_small = nn.initializers.variance_scaling(0.01, "fan_in", "normal")


class DepthDecoder(nn.Module):
    """Monodepth2's decoder: the upsampling half of a U-Net.

    At every size, from the deepest stage up to the images' own: 3x3 Conv-ELU, nearest-neighbor
    doubling, concatenation with the encoder's stage of that size if there is one, and 3x3 Conv-ELU;
    at the finest `scales` sizes a 3x3 convolution and a sigmoid. All padding is reflection. Where
    several stages have one size, the deepest is used. The last convolutions start small, so that
    every map starts near sigmoid(bias).

    Attributes:
        widths: channels at each size, full resolution first; smaller sizes have the last entry.
        scales: number of maps to predict, full resolution first.
        outputs: channels K of each map: 1, or 2 for a left and a right view.
        bias: added to the logits.
        dtype: of the computation; parameters and outputs are float32.

    Godard et al., Digging Into Self-Supervised Monocular Depth Estimation,
    https://arxiv.org/abs/1806.01260, 2019.
    """

    widths: OneOrMore[PositiveInt] = (16, 32, 64, 128, 256)
    scales: PositiveInt = 4
    outputs: PositiveInt = 1
    bias: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: dict[str, Any], *, train: bool) -> tuple[Array, ...]:
        """Predicts the maps.

        Args:
            x: 'stages', those of an `Encoding`, each `[N, h, w, C]`; 'like', images
                `[N, H, W, C]`.
            train: without effect.

        Returns:
            `scales` maps `[N, h, w, outputs]` in (0, 1), float32, (H, W) first.

        Raises:
            UserError: the size of a stage is not a halving of (H, W), or the deepest stage leaves
                fewer than `scales` larger sizes.
        """
        del train
        sizes, stages = _stages_by_level(x, self.scales)
        y = stages[len(sizes)].astype(self.dtype)
        predictions: list[Array] = []
        for i in reversed(range(len(sizes))):
            width = self.widths[min(i, len(self.widths) - 1)]
            y = nn.elu(self._conv(y, width, f"up{i}"))
            exact = all(size == 2 * side for size, side in zip(sizes[i], y.shape[1:3]))
            if i not in stages and exact:
                y = _DoubleConv(width, self.dtype, name=f"conv{i}")(y)
            else:
                y = _double(y, sizes[i])
                if i in stages:
                    y = jnp.concatenate([y, stages[i].astype(self.dtype)], axis=-1)
                y = self._conv(y, width, f"conv{i}")
            y = nn.elu(y)
            if i < self.scales:
                logits = self._conv(y, self.outputs, f"head{i}", kernel_init=_small)
                predictions.insert(0, nn.sigmoid(logits.astype(jnp.float32) + self.bias))
        return tuple(predictions)

    def _conv(self, x: Array, width: int, name: str, **knobs: Any) -> Array:
        return Conv(width, reflect=True, use_bias=True, dtype=self.dtype, name=name, **knobs)(x)


class DispNetEncoder(nn.Module):
    """The encoder of SfMLearner's DispNet: seven pairs of convolutions, the first of stride 2.

    Kernels of 7, 5 and then 3 pixels, ReLU, no normalization; the features are the last map's mean.

    Attributes:
        width: factor on the channels 32, 64, 128, 256, 512, 512, 512.
        dtype: of the computation; parameters and features are float32.

    Zhou et al., Unsupervised Learning of Depth and Ego-Motion from Video,
    https://arxiv.org/abs/1704.07813, 2017; Mayer et al., https://arxiv.org/abs/1512.02134, 2016.
    """

    width: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Encoding:
        """Encodes images `[N, H, W, C]`; stage i has 1 / 2^i of their size."""
        del train
        assert_rank(x, 4)
        stages = {}
        layers = zip((32, 64, 128, 256, 512, 512, 512), (7, 5, 3, 3, 3, 3, 3))
        for i, (channels, size) in enumerate(layers, start=1):
            conv = partial(_relu_conv, width=scaled(channels, self.width), dtype=self.dtype)
            x = conv(x, kernel_size=size, stride=2, name=f"conv{i}")
            x = stages[f"stage{i}"] = conv(x, kernel_size=size, name=f"conv{i}b")
        return Encoding(jnp.mean(x.astype(jnp.float32), axis=(1, 2)), stages)


class DispNetDecoder(nn.Module):
    """The decoder of SfMLearner's DispNet.

    At every size: a transposed 3x3 Conv-ReLU of stride 2, concatenation with the encoder's stage of
    that size and with the next coarser prediction, doubled bilinearly, and 3x3 Conv-ReLU; at the
    finest `scales` sizes a 3x3 convolution and a sigmoid. Where several stages have one size, the
    deepest is used.

    Attributes:
        widths: channels at each size, full resolution first; smaller sizes have the last entry.
        scales: number of maps to predict, full resolution first.
        outputs: channels K of each map.
        bias: added to the logits.
        dtype: of the computation; parameters and outputs are float32.

    Zhou et al., Unsupervised Learning of Depth and Ego-Motion from Video,
    https://arxiv.org/abs/1704.07813, 2017.
    """

    widths: OneOrMore[PositiveInt] = (16, 32, 64, 128, 256, 512)
    scales: PositiveInt = 4
    outputs: PositiveInt = 1
    bias: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: dict[str, Any], *, train: bool) -> tuple[Array, ...]:
        """Predicts the maps; arguments, result and errors are those of `DepthDecoder`."""
        del train
        sizes, stages = _stages_by_level(x, self.scales)
        y = stages[len(sizes)].astype(self.dtype)
        predictions: list[Array] = []
        for i in reversed(range(len(sizes))):
            width = self.widths[min(i, len(self.widths) - 1)]
            y = nn.relu(UpConv(width, dtype=self.dtype, name=f"up{i}")(y))
            inputs = [y[:, : sizes[i][0], : sizes[i][1]]]
            inputs += [stages[i]] if i in stages else []
            inputs += [_double_linear(predictions[0], sizes[i])] if predictions else []
            y = jnp.concatenate([z.astype(self.dtype) for z in inputs], axis=-1)
            y = _relu_conv(y, width=width, dtype=self.dtype, name=f"conv{i}")
            if i < self.scales:
                head = Conv(
                    self.outputs,
                    use_bias=True,
                    dtype=self.dtype,
                    kernel_init=_small,
                    name=f"head{i}",
                )
                predictions.insert(0, nn.sigmoid(head(y).astype(jnp.float32) + self.bias))
        return tuple(predictions)


class UpConv(nn.Module):
    """Transposed convolution of stride 2: `[N, H, W, C] -> [N, 2H, 2W, features]`, with a bias.

    `y[2 i + a - r] += x[i] kernel[a]` for a kernel of `2 r + 1` pixels, in both directions, as
    PyTorch's with padding r and output padding 1. Computed as a convolution of stride 1 to four
    times the channels, one set for each output of a 2x2 block (its phase), so that no inserted
    zeros are multiplied.

    Attributes:
        features: output channels.
        kernel_size: side of the square kernel, odd.
        dtype: of the computation; parameters are float32.
        kernel_init: initializer of the kernel.
    """

    features: int
    kernel_size: int = 3
    dtype: Any = jnp.float32
    # Four times He's variance: an output pixel sees a quarter of the kernel.
    kernel_init: Any = nn.initializers.variance_scaling(8.0, "fan_in", "normal")

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        shape = (self.kernel_size, self.kernel_size, channels, self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        taps, before, after = _transposed_taps(self.kernel_size)
        widths = ((0, 0), (before, after), (before, after), (0, 0))
        y = conv2d(jnp.pad(x.astype(self.dtype), widths), _phase_kernels(kernel, taps))
        return _depth_to_space(y, self.features) + bias


class _DoubleConv(nn.Module):
    """`Conv(features, reflect=True, use_bias=True)` of `_double(x)`, with the same parameters.

    An output pixel sees two rows and two columns of `x`, whose border pixels are repeated beyond
    the border. So a convolution of `x` to four times the channels, one set for each phase of a 2x2
    block, gives the same on a quarter of the pixels.
    """

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        y = conv2d(edge_pad(x.astype(self.dtype)), _phase_kernels(kernel, _DOUBLED_TAPS))
        return _depth_to_space(y, self.features) + bias


# [p, t, a]: whether tap a of a kernel centered on output 2 i + p reads input i + t - 1.
_DOUBLED_TAPS = np.float32([[[1, 0, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 1]]])


def _transposed_taps(size: int) -> tuple[np.ndarray, int, int]:
    """`[p, t, a]`: whether tap a carries input i + t - before to output 2 i + p; the padding."""
    radius = size // 2
    before, after = radius // 2, (radius + 1) // 2
    taps = np.zeros((2, before + after + 1, size), np.float32)
    for p in range(2):
        for t in range(before + after + 1):
            a = p + radius - 2 * (t - before)
            if 0 <= a < size:
                taps[p, t, a] = 1
    return taps, before, after


def _phase_kernels(kernel: Array, taps: np.ndarray) -> Array:
    """`[a, b, C, K] -> [t, s, C, 2 · 2 · K]`: a kernel for each phase of a 2x2 block."""
    kernels = jnp.einsum("pta,qsb,abck->tscpqk", taps, taps, kernel).astype(kernel.dtype)
    return kernels.reshape(*kernels.shape[:3], -1)


def _depth_to_space(x: Array, channels: int) -> Array:
    """`[N, H, W, 2 · 2 · C] -> [N, 2 H, 2 W, C]`."""
    n, h, w, _ = x.shape
    return x.reshape(n, h, w, 2, 2, channels).swapaxes(2, 3).reshape(n, 2 * h, 2 * w, channels)


def scaled(channels: int, width: float) -> int:
    """Channels times a factor, at least one.

    Example:
        >>> scaled(32, 0.25), scaled(1, 0.25)
        (8, 1)
    """
    return max(1, round(channels * width))


def _relu_conv(x: Array, *, width: int, **knobs: Any) -> Array:
    return nn.relu(Conv(width, use_bias=True, kernel_init=_he, **knobs)(x))


def _stages_by_level(x: dict[str, Any], scales: int) -> tuple[list[Size], dict[int, Array]]:
    """The sizes above the deepest stage, full resolution first, and the stages by halvings."""
    assert_rank([*x["stages"].values(), x["like"]], 4)
    size = x["like"].shape[1:3]
    sizes = [size]
    while max(sizes[-1]) > 1:
        sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
    stages = {}
    for name, stage in sorted(x["stages"].items()):
        if stage.shape[1:3] not in sizes:
            raise UserError(
                f"The encoder's {name} has the size {stage.shape[1:3]}, which is no halving of the "
                f"images' {size}: give images whose sides are multiples of the encoder's stride."
            )
        stages[sizes.index(stage.shape[1:3])] = stage
    if scales > max(stages):
        raise UserError(
            f"{scales} scales are asked for, but the encoder's deepest stage is {max(stages)} "
            f"halvings of the images' {size}: ask for at most as many scales."
        )
    return sizes[: max(stages)], stages


def _double(x: Array, size: Size) -> Array:
    """Nearest-neighbor doubling, without the last row or column where `size` is odd."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, : size[0], : size[1]]


def _double_linear(x: Array, size: Size) -> Array:
    n, h, w, c = x.shape
    return jax.image.resize(x, (n, 2 * h, 2 * w, c), "linear")[:, : size[0], : size[1]]
