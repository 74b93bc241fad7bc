"""Depth networks: from images to maps of numbers in (0, 1), at several scales.

What a number means, an inverse depth or a disparity, is the method's affair. The decoders take
'stages', the inner maps of any convolutional encoder, and 'like', images whose shape alone is read.
Of the images' size (H, W) come the sizes (⌈H/2⌉, ⌈W/2⌉), (⌈H/4⌉, ⌈W/4⌉), ...: a convolution of
stride 2 makes one from the one before, so that a size need not be a multiple of 32, and doubling
without the last row or column goes back with every pixel in its place.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sslax.errors import UserError
from sslax.models.conv import Conv, conv2d
from sslax.models.kernels.borders import repeated
from sslax.types import Encoding, Model, PyTree

_he = nn.initializers.he_normal()
_faint = nn.initializers.variance_scaling(0.01, "fan_in", "normal")


class DepthDecoder(nn.Module):
    """Monodepth2's decoder: a U-Net's way up over the stages of an encoder.

    At every size, from the deepest stage to the images' own: 3x3 Conv-ELU, doubling (nearest
    neighbor), the stage of that size beside it, if there is one, and 3x3 Conv-ELU; at the finest
    `scales` sizes a 3x3 convolution and a sigmoid. All paddings are reflections. Where several
    stages have one size, the deepest counts. The heads start faint: every map near sigmoid(bias).

    Attributes:
        widths: channels at each size, the images' first; sizes beyond the last have the last's.
        scales: maps to predict, the images' size first.
        outputs: channels K of each map: 1, or 2 for the left and the right view's.
        bias: of the heads at the start, before the sigmoid.
        dtype: dtype of the computation; parameters and outputs are float32.

    Godard et al., Digging Into Self-Supervised Monocular Depth Estimation,
    https://arxiv.org/abs/1806.01260, 2019.
    """

    widths: Sequence[int] = (16, 32, 64, 128, 256)
    scales: int = 4
    outputs: int = 1
    bias: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: dict[str, Any], *, train: bool) -> tuple[jax.Array, ...]:
        """Predicts.

        Args:
            x: 'stages', those of an `Encoding`, each `[N, h, w, C]`; 'like', images
                `[N, H, W, C]`.
            train: without effect.

        Returns:
            `scales` maps `[N, h, w, outputs]` in (0, 1), float32, (H, W) first.

        Raises:
            UserError: a stage's size is no halving of (H, W), or there are fewer sizes above the
                deepest stage than `scales`.
        """
        del train
        sizes, maps = _by_size(x, self.scales)
        y = maps[len(sizes)].astype(self.dtype)
        predictions = []
        for i in reversed(range(len(sizes))):
            width = self.widths[min(i, len(self.widths) - 1)]
            y = nn.elu(self._conv(y, width, f"up{i}"))
            whole = all(size == 2 * side for size, side in zip(sizes[i], y.shape[1:3]))
            if i not in maps and whole:
                y = _DoubledConv(width, self.dtype, name=f"conv{i}")(y)
            else:
                y = _double(y, sizes[i])
                if i in maps:
                    y = jnp.concatenate([y, maps[i].astype(self.dtype)], axis=-1)
                y = self._conv(y, width, f"conv{i}")
            y = nn.elu(y)
            if i < self.scales:
                logits = self._conv(y, self.outputs, f"head{i}", kernel_init=_faint)
                predictions.insert(0, nn.sigmoid(logits.astype(jnp.float32) + self.bias))
        return tuple(predictions)

    def _conv(self, x: jax.Array, width: int, name: str, **knobs: Any) -> jax.Array:
        return Conv(width, mirrored=True, use_bias=True, dtype=self.dtype, name=name, **knobs)(x)


class DispNetEncoder(nn.Module):
    """The way down of SfMLearner's DispNet: seven pairs of convolutions, the first of stride 2.

    Kernels of 7, 5 and then 3 pixels, ReLU, no normalization; features are the last map's mean.

    Attributes:
        width: factor on the channels 32, 64, 128, 256, 512, 512, 512.
        dtype: dtype of the computation; parameters and features are float32.

    Zhou et al., Unsupervised Learning of Depth and Ego-Motion from Video,
    https://arxiv.org/abs/1704.07813, 2017; Mayer et al., https://arxiv.org/abs/1512.02134, 2016.
    """

    width: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Encoding:
        """Encodes images `[N, H, W, C]`; the stages halve the size once, twice, ..."""
        del train
        chex.assert_rank(x, 4)
        stages = {}
        plan = zip((32, 64, 128, 256, 512, 512, 512), (7, 5, 3, 3, 3, 3, 3))
        for i, (channels, size) in enumerate(plan, start=1):
            conv = partial(_relu_conv, width=scaled(channels, self.width), dtype=self.dtype)
            x = conv(x, kernel_size=size, stride=2, name=f"conv{i}")
            x = stages[f"stage{i}"] = conv(x, kernel_size=size, name=f"conv{i}b")
        return Encoding(jnp.mean(x.astype(jnp.float32), axis=(1, 2)), stages)


class DispNetDecoder(nn.Module):
    """The way up of SfMLearner's DispNet, over the stages of an encoder.

    At every size: a transposed 3x3 Conv-ReLU of stride 2, beside it the stage of that size and the
    next coarser prediction, doubled bilinearly, and 3x3 Conv-ReLU; at the finest `scales` sizes a
    3x3 convolution and a sigmoid. Where several stages have one size, the deepest counts.

    Attributes:
        widths: channels at each size, the images' first; sizes beyond the last have the last's.
        scales: maps to predict, the images' size first.
        outputs: channels K of each map.
        bias: of the heads at the start, before the sigmoid.
        dtype: dtype of the computation; parameters and outputs are float32.

    Zhou et al., Unsupervised Learning of Depth and Ego-Motion from Video,
    https://arxiv.org/abs/1704.07813, 2017.
    """

    widths: Sequence[int] = (16, 32, 64, 128, 256, 512)
    scales: int = 4
    outputs: int = 1
    bias: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: dict[str, Any], *, train: bool) -> tuple[jax.Array, ...]:
        """Predicts; arguments, result and errors are those of `DepthDecoder`."""
        del train
        sizes, maps = _by_size(x, self.scales)
        y = maps[len(sizes)].astype(self.dtype)
        predictions = []
        for i in reversed(range(len(sizes))):
            width = self.widths[min(i, len(self.widths) - 1)]
            y = nn.relu(UpConv(width, dtype=self.dtype, name=f"up{i}")(y))
            beside = [y[:, : sizes[i][0], : sizes[i][1]]]
            beside += [maps[i].astype(self.dtype)] if i in maps else []
            beside += [_double_linear(predictions[0], sizes[i])] if predictions else []
            y = jnp.concatenate([z.astype(self.dtype) for z in beside], axis=-1)
            y = _relu_conv(y, width=width, dtype=self.dtype, name=f"conv{i}")
            if i < self.scales:
                head = Conv(
                    self.outputs,
                    use_bias=True,
                    dtype=self.dtype,
                    kernel_init=_faint,
                    name=f"head{i}",
                )
                predictions.insert(0, nn.sigmoid(head(y).astype(jnp.float32) + self.bias))
        return tuple(predictions)


class UpConv(nn.Module):
    """Transposed convolution of stride 2: `[N, H, W, C] -> [N, 2H, 2W, features]`, with a bias.

    `y[2 i + a - r] += x[i] kernel[a]` for a kernel of `2 r + 1` pixels, in both directions, as
    PyTorch's with padding r and output padding 1. Computed as a convolution to four times the
    channels, one for each place in a 2x2 neighborhood, which multiplies by no inserted zeros.

    Attributes:
        features: output channels.
        kernel_size: side of the square kernel, odd.
        dtype: dtype of the computation; parameters are float32.
        kernel_init: initializer of the kernel.
    """

    features: int
    kernel_size: int = 3
    dtype: Any = jnp.float32
    # A pixel of the output sees a quarter of the kernel.
    kernel_init: Any = nn.initializers.variance_scaling(8.0, "fan_in", "normal")

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        shape = (self.kernel_size, self.kernel_size, channels, self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        places, before, after = _places(self.kernel_size)
        edges = ((0, 0), (before, after), (before, after), (0, 0))
        y = conv2d(jnp.pad(x.astype(self.dtype), edges), _to_places(kernel, places))
        return _interleaved(y, self.features) + bias


class _DoubledConv(nn.Module):
    """A 3x3 `Conv` with mirrored borders of `_double(x)`, and its parameters.

    Each place of a 2x2 neighborhood sees two rows and two columns of `x`, beyond whose border the
    first and last are repeated. A convolution to four times the channels does it on a quarter of
    the pixels.
    """

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        y = conv2d(repeated(x.astype(self.dtype)), _to_places(kernel, _SEEN))
        return _interleaved(y, self.features) + bias


# [p, t, a]: whether tap a of the kernel meets pixel i + t - 1 where it is centered on 2 i + p.
_SEEN = np.float32([[[1, 0, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 1]]])


def _to_places(kernel: jax.Array, places: np.ndarray) -> jax.Array:
    """`[a, b, C, K] -> [t, s, C, 2 · 2 · K]`: the kernel of each place of a 2x2 neighborhood."""
    made = jnp.einsum("pta,qsb,abck->tscpqk", places, places, kernel).astype(kernel.dtype)
    return made.reshape(*made.shape[:3], -1)


def _interleaved(x: jax.Array, channels: int) -> jax.Array:
    """`[N, H, W, 2 · 2 · C] -> [N, 2 H, 2 W, C]`."""
    n, h, w, _ = x.shape
    return x.reshape(n, h, w, 2, 2, channels).swapaxes(2, 3).reshape(n, 2 * h, 2 * w, channels)


def _places(size: int) -> tuple[np.ndarray, int, int]:
    """Which tap a of the kernel an output of place p gives to the input t; the padding for it."""
    radius = size // 2
    before, after = radius // 2, (radius + 1) // 2
    places = np.zeros((2, before + after + 1, size), np.float32)
    for p in range(2):
        for t in range(before + after + 1):
            a = p + radius - 2 * (t - before)
            if 0 <= a < size:
                places[p, t, a] = 1
    return places, before, after


def scaled(channels: int, width: float) -> int:
    """Channels times a factor, at least one.

    Example:
        >>> scaled(32, 0.25), scaled(1, 0.25)
        (8, 1)
    """
    return max(1, round(channels * width))


def _relu_conv(x: jax.Array, *, width: int, **knobs: Any) -> jax.Array:
    return nn.relu(Conv(width, use_bias=True, kernel_init=_he, **knobs)(x))


def _by_size(x: dict[str, Any], scales: int) -> tuple[list[tuple[int, int]], dict[int, jax.Array]]:
    """The sizes above the deepest stage, the images' first, and the stages by their halvings."""
    chex.assert_rank([*x["stages"].values(), x["like"]], 4)
    size = x["like"].shape[1:3]
    sizes = [size]
    while sizes[-1] != (1, 1):
        sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
    maps = {}
    for name, stage in sorted(x["stages"].items()):
        if stage.shape[1:3] not in sizes:
            raise UserError(
                f"The encoder's {name} has the size {stage.shape[1:3]}, which is no halving of the "
                f"images' {size}: give images whose sides are multiples of the encoder's stride."
            )
        maps[sizes.index(stage.shape[1:3])] = stage
    if scales > max(maps):
        raise UserError(
            f"{scales} scales are asked for, but the encoder's deepest stage is {max(maps)} "
            f"halvings of the images' {size}: ask for at most as many scales."
        )
    return sizes[: max(maps)], maps


def _double(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Every pixel four times, without the last row or column where `size` is odd."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, : size[0], : size[1]]


def _double_linear(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    n, h, w, c = x.shape
    return jax.image.resize(x, (n, 2 * h, 2 * w, c), "linear")[:, : size[0], : size[1]]


def encoder_decoder(encoder: Model, decoder: Model) -> Model:
    """An encoder and a decoder of its stages as one model of images.

    Args:
        encoder: images `[N, H, W, C]` to an `Encoding`.
        decoder: {'stages', 'like'} to anything.

    Returns:
        A `Model` from images to the decoder's output, whose parameters and state are
        dictionaries of 'encoder' and 'decoder'. `apply` also takes what the encoder has made of
        them, {'stages', 'like'}, and then leaves the encoder and its state as they are.

    Example:
        >>> from sslax import models
        >>> encoder = models.from_linen(models.ResNet(blocks=(1, 1), width=0.125, stem_stage=True))
        >>> decoder = models.from_linen(models.DepthDecoder(widths=(4, 8), scales=2))
        >>> network = encoder_decoder(encoder, decoder)
        >>> x = jnp.zeros((1, 16, 24, 3))
        >>> params, state = jax.jit(network.init)(jax.random.key(0), x)
        >>> [map.shape for map in network.apply(params, state, x, False)[0]]
        [(1, 16, 24, 1), (1, 8, 12, 1)]
    """

    def init(rng: jax.Array, x: jax.Array) -> tuple[PyTree, PyTree]:
        encoder_rng, decoder_rng = jax.random.split(rng)
        variables = encoder.init(encoder_rng, x)
        encoding, _ = jax.eval_shape(lambda p, s: encoder.apply(p, s, x, False), *variables)
        stages = jax.tree.map(lambda stage: jnp.zeros(stage.shape, stage.dtype), encoding.stages)
        of_decoder = decoder.init(decoder_rng, {"stages": stages, "like": x})
        names = "encoder", "decoder"
        return tuple(dict(zip(names, pair)) for pair in zip(variables, of_decoder))

    def apply(
        params: PyTree, model_state: PyTree, x: jax.Array | dict[str, Any], train: bool
    ) -> tuple[Any, PyTree]:
        state = dict(model_state)
        if not isinstance(x, dict):
            encoding, state["encoder"] = encoder.apply(
                params["encoder"], state["encoder"], x, train
            )
            x = {"stages": encoding.stages, "like": x}
        output, state["decoder"] = decoder.apply(params["decoder"], state["decoder"], x, train)
        return output, state

    return Model(init, apply)
