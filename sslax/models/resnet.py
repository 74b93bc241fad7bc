"""Residual networks for representation learning, as torchvision has them.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sslax.models.conv import Conv
from sslax.types import Encoding

_KAIMING = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut.

    Attributes:
        channels: width of the block, and its output's channels.
        stride: of the first convolution.
        zero_init: start as the identity: the last norm's scale is 0.
        dtype: dtype of the computation.
    """

    channels: int
    stride: int = 1
    zero_init: bool = False
    dtype: Any = jnp.float32
    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = partial(Conv, dtype=self.dtype, kernel_init=_KAIMING)
        norm = partial(batch_norm, train=train, dtype=self.dtype)
        y = conv(self.channels, 3, self.stride, name="conv1")(x)
        y = nn.relu(norm(name="norm1")(y))
        y = conv(self.channels, 3, name="conv2")(y)
        y = norm(name="norm2", zero_init=self.zero_init)(y)
        if x.shape != y.shape:
            x = conv(self.channels, 1, self.stride, name="shortcut_conv")(x)
            x = norm(name="shortcut_norm")(x)
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    """1x1, 3x3 (which strides) and 1x1 convolutions around a shortcut, four times as wide outside.

    Attributes:
        channels: width of the 3x3 convolution; the output has four times as many.
        stride: of the 3x3 convolution.
        zero_init: start as the identity: the last norm's scale is 0.
        dtype: dtype of the computation.
    """

    channels: int
    stride: int = 1
    zero_init: bool = False
    dtype: Any = jnp.float32
    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = partial(Conv, dtype=self.dtype, kernel_init=_KAIMING)
        norm = partial(batch_norm, train=train, dtype=self.dtype)
        y = nn.relu(norm(name="norm1")(conv(self.channels, 1, name="conv1")(x)))
        y = nn.relu(norm(name="norm2")(conv(self.channels, 3, self.stride, name="conv2")(y)))
        y = conv(self.channels * self.expansion, 1, name="conv3")(y)
        y = norm(name="norm3", zero_init=self.zero_init)(y)
        if x.shape != y.shape:
            x = conv(y.shape[-1], 1, self.stride, name="shortcut_conv")(x)
            x = norm(name="shortcut_norm")(x)
        return nn.relu(x + y)


def batch_norm(*, train: bool, dtype: Any, name: str, zero_init: bool = False) -> nn.BatchNorm:
    """Batch norm as torchvision's: momentum 0.9 (0.1 there), ε = 1e-5; statistics in float32."""
    scale = nn.initializers.zeros if zero_init else nn.initializers.ones
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        scale_init=scale,
        name=name,
    )


class ResNet(nn.Module):
    """A residual network.

    Batch norm takes its statistics over all images it is given at once: under `jit` with the batch
    sharded over devices that is the global batch.

    Attributes:
        stages: blocks in each stage; each stage after the first halves the resolution and doubles
            the channels.
        block: `BasicBlock` or `Bottleneck`.
        width: factor on all channels (64 in the first stage at 1.0).
        stem: 'standard' (7x7 stride 2 and max-pool), 'small' (3x3, for images of 32 pixels; no
            max-pool), or 'patch' (non-overlapping 4x4 patches, for the smallest budgets).
        zero_init: start every block as the identity.
        dtype: dtype of the computation; parameters and the result are float32.
    """

    stages: Sequence[int]
    block: type[nn.Module] = BasicBlock
    width: float = 1.0
    stem: str = "standard"
    zero_init: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Encoding:
        """Encodes images `[N, H, W, C]` to pooled features `[N, D]` and `stage1`, `stage2`, ..."""
        channels = round(64 * self.width)
        size, stride, padding = {"standard": (7, 2, 3), "small": (3, 1, 1), "patch": (4, 4, 0)}[
            self.stem
        ]
        conv = Conv(
            channels,
            size,
            stride,
            padding,
            dtype=self.dtype,
            kernel_init=_KAIMING,
            name="stem_conv",
        )
        x = nn.relu(batch_norm(train=train, dtype=self.dtype, name="stem_norm")(conv(x)))
        if self.stem == "standard":
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        stages = {}
        for i, blocks in enumerate(self.stages):
            for j in range(blocks):
                x = self.block(
                    channels=channels * 2**i,
                    stride=2 if i > 0 and j == 0 else 1,
                    zero_init=self.zero_init,
                    dtype=self.dtype,
                    name=f"stage{i + 1}_block{j + 1}",
                )(x, train=train)
            stages[f"stage{i + 1}"] = x
        return Encoding(jnp.mean(x, axis=(1, 2), dtype=jnp.float32), stages)
