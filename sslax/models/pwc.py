"""PWC-Net, as UFlow has it: optical flow from coarse to fine."""

from collections.abc import Sequence
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sslax import ops
from sslax.checks import assert_axis_dimension, assert_rank
from sslax.models.conv import Conv
from sslax.models.correlation import cost_volume
from sslax.ranges import Interval, NonNegativeInt, OneOrMore, Positive, PositiveInt, ProperFraction

_SLOPE = 0.1  # of the leaky ReLU
_glorot = nn.initializers.glorot_uniform()


class PWCNet(nn.Module):
    """Optical flow by warping, correlation and refinement, level by level.

    Features form a pyramid, each level half as large as the one before it. At each level, from the
    coarsest up to the second: the second image's features are warped by the flow so far and
    correlated with the first's within `radius`; a decoder sees the correlation, the first's
    features and the coarser level's context, and its output is added to the flow. Dilated
    convolutions refine the finest flow.

    Attributes:
        width: factor on the channels of the decoders and of the context network.
        levels: levels of the feature pyramid, from half resolution; each but the first has a flow.
        channels: of the features.
        convolutions: per level of the pyramid.
        radius: of the correlation, in pixels of the level.
        decoder: channels of the 3x3 convolutions of each level's decoder, before `width`; at least
            one.
        dense: a layer of the decoder sees the outputs of all layers before it, not just one.
        context: channels, before `width`, and dilation of the 3x3 convolutions that refine the
            finest flow; empty for none.
        normalize: features are normalized to mean 0 and variance 1 before the correlation, for each
            image separately (see `cost_volume`).
        level_dropout: probability that a level contributes nothing to the flow of an example, in
            training, independently for each level.
        both: also predicts the flow from the second image to the first, from the same features.
        dtype: of the convolutions; parameters, correlations and flows are float32.

    Sun et al., PWC-Net, https://arxiv.org/abs/1709.02371, 2018; Jonschkowski et al., What Matters
    in Unsupervised Optical Flow, https://arxiv.org/abs/2006.04902, 2020.
    """

    width: Positive = 1.0
    levels: Annotated[int, Interval(2)] = 5
    channels: PositiveInt = 32
    convolutions: PositiveInt = 3
    radius: NonNegativeInt = 4
    decoder: OneOrMore[PositiveInt] = (128, 128, 96, 64, 32)
    dense: bool = True
    context: Sequence[tuple[PositiveInt, PositiveInt]] = (
        *((128, 1), (128, 2), (128, 4)),
        *((96, 8), (64, 16), (32, 1)),
    )
    normalize: bool = True
    level_dropout: ProperFraction = 0.1
    both: bool = True
    dtype: Any = jnp.float32

    @staticmethod
    def is_feature(name: str) -> bool:
        """Whether top-level parameters of that name belong to the encoder of single images."""
        return name.startswith("pyramid")

    @nn.compact
    def __call__(
        self, x: jax.Array | dict[str, jax.Array], *, train: bool
    ) -> tuple[jax.Array, ...]:
        """Estimates the flow of pairs of images.

        Args:
            x: images `[N, 2, H, W, C]` in [0, 1]; or a dictionary with these as 'image' and, for
                level dropout, 'key' `[N]`, a random key for each example.
            train: enables level dropout.

        Returns:
            A tuple of flows `[N, D, h, w, 2]` float32, from a quarter of the resolution to the
            coarsest, (x, y) in pixels of their own resolution; D is 2 with `both` (first to second,
            second to first), else 1. Images whose sides are no multiples of `2^levels` are
            edge-padded, and the flows cropped: entry l has `ceil(H / 2^(l + 2))` rows.

        Raises:
            ValueError: a decoder without layers, level dropout without keys, or images of fewer
                than `2^levels` pixels a side.
        """
        if not self.decoder:
            raise ValueError("decoder is empty: it needs at least one layer.")
        x = x if isinstance(x, dict) else {"image": x}
        images = x["image"]
        assert_rank(images, 5)
        assert_axis_dimension(images, 1, 2)
        size = images.shape[2:4]
        if min(size) < 2**self.levels:
            raise ValueError(
                f"Frames of {size[0]} x {size[1]} are too small for {self.levels} levels of "
                f"features, which need {2**self.levels} pixels a side."
            )
        pyramid = self._features(pad_to_multiple(images, 2**self.levels))
        keep = self._kept_levels(x, train)
        flows: list[jax.Array] = []
        flow = context = None
        for level in reversed(range(1, self.levels)):
            first, second = pairs(pyramid[level], self.both)
            flow, context = self._decode(level, first, second, flow, context, keep)
            if level == 1 and self.context:
                flow = flow + keep[:, 0] * self._refine(context, flow)
            flows.insert(0, flow)
        count = 2 if self.both else 1
        flows = [flow.reshape(-1, count, *flow.shape[1:]) for flow in flows]
        sizes = [[-(-side // 2**level) for side in size] for level in range(2, self.levels + 1)]
        return tuple(flow[:, :, :h, :w] for flow, (h, w) in zip(flows, sizes))

    def _conv(self, x: jax.Array, features: int, name: str, dilation: int = 1) -> jax.Array:
        knobs = {"dtype": self.dtype, "kernel_init": _glorot, "name": name}
        if dilation == 1:
            return Conv(features, use_bias=True, **knobs)(x)
        return nn.Conv(features, (3, 3), kernel_dilation=dilation, **knobs)(x)

    def _channels(self, channels: int) -> int:
        return max(1, round(channels * self.width))

    def _features(self, images: jax.Array) -> list[jax.Array]:
        """The pyramid of all images: `[2 N, h, w, channels]` at each level."""
        x = 2 * images.reshape(-1, *images.shape[2:]) - 1
        pyramid = []
        for level in range(self.levels):
            for i in range(self.convolutions):
                x = Conv(
                    self.channels,
                    stride=1 if i else 2,
                    use_bias=True,
                    dtype=self.dtype,
                    kernel_init=_glorot,
                    name=f"pyramid{level + 1}_{i + 1}",
                )(x)
                x = nn.leaky_relu(x, _SLOPE)
            pyramid.append(x)
        return pyramid

    def _kept_levels(self, x: dict[str, jax.Array], train: bool) -> jax.Array:
        """`[D N, levels, 1, 1, 1]`: 1 where a level contributes, at index 0 the refinement."""
        n, directions = x["image"].shape[0], 2 if self.both else 1
        shape = (directions, self.levels)
        if not train or not self.level_dropout or self.is_initializing():
            keep = jnp.ones((n, *shape), bool)
        elif "key" not in x:
            raise ValueError(
                "Level dropout needs randomness: give {'image': images, 'key': keys} with a random "
                "key for each example, or set level_dropout=0."
            )
        else:
            assert_axis_dimension(x["key"], 0, n)
            draw = lambda key: jax.random.bernoulli(key, 1 - self.level_dropout, shape)  # noqa: E731
            keep = jax.vmap(draw)(x["key"])
        return keep.reshape(n * directions, self.levels, 1, 1, 1).astype(jnp.float32)

    def _decode(
        self,
        level: int,
        first: jax.Array,
        second: jax.Array,
        flow: jax.Array | None,
        context: jax.Array | None,
        keep: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """The flow of this level and its context, from those of the coarser level."""
        coarser = []
        if flow is not None:
            flow = upsample_flow(flow, 2)
            second, _ = ops.warp_flow(second, flow, padding="zeros")
            coarser = [self._upsample(context, level), flow]
        cost = cost_volume(first, second, radius=self.radius, normalize=self.normalize)
        x = [*coarser, nn.leaky_relu(cost, _SLOPE), first]
        x = jnp.concatenate([part.astype(self.dtype) for part in x], axis=-1)
        for i, channels in enumerate(self.decoder):
            y = self._conv(x, self._channels(channels), f"decoder{level + 1}_{i + 1}")
            y = nn.leaky_relu(y, _SLOPE)
            x = jnp.concatenate([x, y], axis=-1) if self.dense else y
        update = self._conv(y, 2, f"decoder{level + 1}_flow").astype(jnp.float32)
        update, context = keep[:, level] * update, keep[:, level].astype(y.dtype) * y
        return (update if flow is None else flow + update), context

    def _upsample(self, context: jax.Array, level: int) -> jax.Array:
        """A transposed 4x4 convolution of stride 2, as a 2x2 convolution for each phase."""
        conv = Conv(
            4 * context.shape[-1],
            kernel_size=2,
            padding=1,
            dtype=self.dtype,
            kernel_init=_glorot,
            name=f"upsample{level + 1}",
        )
        return _join_phases(conv(context))

    def _refine(self, context: jax.Array, flow: jax.Array) -> jax.Array:
        x = jnp.concatenate([context, flow.astype(context.dtype)], axis=-1)
        for i, (channels, dilation) in enumerate(self.context):
            x = self._conv(x, self._channels(channels), f"context{i + 1}", dilation)
            x = nn.leaky_relu(x, _SLOPE)
        return self._conv(x, 2, "context_flow").astype(jnp.float32)


def _join_phases(x: jax.Array) -> jax.Array:
    """`[N, h + 1, w + 1, 4 C] -> [N, 2 h, 2 w, C]`: interleaves the four phases.

    Position i of the convolution has pixels i - 1 and i under its kernel: output 2 i takes phase 0
    at position i, output 2 i + 1 phase 1 at position i + 1.
    """
    n, h, w, c = x.shape[0], x.shape[1] - 1, x.shape[2] - 1, x.shape[3] // 4
    x = x.reshape(n, h + 1, w + 1, 2, 2, c)
    rows = jnp.stack([x[:, i : i + h, :, i] for i in range(2)], axis=2)
    phases = jnp.stack([rows[:, :, :, j : j + w, j] for j in range(2)], axis=4)
    return phases.reshape(n, 2 * h, 2 * w, c)


def upsample_flow(
    flow: jax.Array, factor: int, *, size: tuple[int, int] | None = None
) -> jax.Array:
    """Bilinear upsampling of a flow that stays in pixels of its own resolution.

    Args:
        flow: `[..., h, w, 2]`.
        factor: of the resolution; 4 brings PWC-Net's finest flow to the images' resolution.
        size: (H, W) to crop the result to, at the bottom and right, for images whose sides are no
            multiples of the factor; None for all of it.

    Returns:
        `[..., factor h, factor w, 2]`, or `[..., H, W, 2]`.

    Example:
        >>> upsample_flow(jnp.ones((1, 2, 3, 2)), 4, size=(7, 10))[0, 0, 0].tolist()
        [4.0, 4.0]
    """
    assert_axis_dimension(flow, -1, 2)
    h, w = flow.shape[-3:-1]
    flow = factor * ops.resize(flow, (factor * h, factor * w))
    return flow if size is None else flow[..., : size[0], : size[1], :]


def pad_to_multiple(images: jax.Array, multiple: int) -> jax.Array:
    """Edge-pads `[..., H, W, C]` at the bottom and right until `multiple` divides the sides."""
    pads = [(0, -side % multiple) for side in images.shape[-3:-1]]
    return jnp.pad(images, [(0, 0)] * (images.ndim - 3) + [*pads, (0, 0)], mode="edge")


def pairs(x: jax.Array, both: bool) -> tuple[jax.Array, jax.Array]:
    """Splits consecutive pairs `[2 N, ...]` into the first and second images of flows.

    With `both`, `[2 N, ...]`: each pair, followed by the pair in reverse; else `[N, ...]`.
    """
    paired = x.reshape(-1, 2, *x.shape[1:])
    if not both:
        return paired[:, 0], paired[:, 1]
    return x, paired[:, ::-1].reshape(x.shape)
