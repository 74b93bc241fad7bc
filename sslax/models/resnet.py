"""Residual networks (He et al. 2015, https://arxiv.org/abs/1512.03385), after torchvision."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sslax.checks import assert_rank
from sslax.models.conv import Conv
from sslax.models.kernels import max_pool
from sslax.models.norm import BatchNorm
from sslax.types import Encoding

# PyTorch's default for its residual networks: normal with variance 2 / (k k features).
_kaiming = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    channels: int
    stride: int
    zero_init_residual: bool
    norm_groups: int
    norm_blocks: bool
    dtype: Any

    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv, norm = _layers(self, train)
        y = nn.relu(norm(name="bn1")(conv(self.channels, stride=self.stride, name="conv1")(x)))
        last = nn.initializers.zeros if self.zero_init_residual else nn.initializers.ones
        y = norm(scale_init=last, name="bn2")(conv(self.channels, name="conv2")(y))
        return nn.relu(y + _shortcut(self, x, self.channels, train))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; the 3x3 has the stride ("v1.5")."""

    channels: int
    stride: int
    zero_init_residual: bool
    norm_groups: int
    norm_blocks: bool
    dtype: Any

    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv, norm = _layers(self, train)
        outputs = self.channels * self.expansion
        y = nn.relu(norm(name="bn1")(conv(self.channels, 1, name="conv1")(x)))
        y = nn.relu(norm(name="bn2")(conv(self.channels, stride=self.stride, name="conv2")(y)))
        last = nn.initializers.zeros if self.zero_init_residual else nn.initializers.ones
        y = norm(scale_init=last, name="bn3")(conv(outputs, 1, name="conv3")(y))
        return nn.relu(y + _shortcut(self, x, outputs, train))


def _layers(module: nn.Module, train: bool) -> tuple[partial, partial]:
    """The convolution and normalization layers of a block or a network."""
    conv = partial(Conv, dtype=module.dtype, kernel_init=_kaiming)
    norm = partial(
        BatchNorm,
        train=train,
        groups=module.norm_groups,
        blocks=module.norm_blocks,
        dtype=module.dtype,
    )
    return conv, norm


def _shortcut(block: nn.Module, x: jax.Array, channels: int, train: bool) -> jax.Array:
    if block.stride == 1 and x.shape[-1] == channels:
        return x
    conv, norm = _layers(block, train)
    x = conv(channels, 1, stride=block.stride, name="downsample_conv")(x)
    return norm(name="downsample_bn")(x)


class ResNet(nn.Module):
    """A residual network that returns pooled features and its intermediate stages.

    Topology, padding and batch normalization are torchvision's: with its weights the outputs are
    equal. Under jit, batch statistics are those of the global batch, however it is sharded; they
    are float32 whatever `dtype` is.

    Attributes:
        blocks: blocks of each stage; every stage after the first halves the resolution and
            doubles the channels.
        bottleneck: bottleneck blocks (ResNet-50 and deeper) rather than basic ones.
        width: factor on all channels.
        small_stem: a 3x3 convolution of stride 1 without pooling, for images up to 64 pixels,
            instead of the 7x7 convolution of stride 2 and its max-pooling.
        patch_stem: side in pixels of non-overlapping patches that the stem embeds instead, for the
            smallest budgets; 0 for none.
        stem_stage: the stem's output before pooling is the first stage, 'stage0' (a name that JAX,
            which sorts dictionaries, also puts first).
        zero_init_residual: the last scale of each block starts at 0 (Goyal et al. 2017).
        norm_groups: groups of examples with batch statistics of their own (see `BatchNorm`).
        norm_blocks: groups are consecutive examples rather than interleaved ones.
        remat: recomputes each block in the backward pass rather than storing its activations.
        dtype: of the computation; parameters are float32.
    """

    blocks: tuple[int, ...] = (2, 2, 2, 2)
    bottleneck: bool = False
    width: float = 1.0
    small_stem: bool = False
    patch_stem: int = 0
    stem_stage: bool = False
    zero_init_residual: bool = False
    norm_groups: int = 1
    norm_blocks: bool = False
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Encoding:
        """Encodes images `[N, H, W, C]`; features `[N, D]` are float32."""
        assert_rank(x, 4)
        conv, norm = _layers(self, train)
        channels = max(1, round(64 * self.width))
        patch, standard = self.patch_stem, not (self.patch_stem or self.small_stem)
        stem = {"kernel_size": 7, "stride": 2} if standard else {"kernel_size": 3, "stride": 1}
        if patch:
            stem = {"kernel_size": patch, "stride": patch, "padding": 0}
        x = conv(channels, **stem, name="conv1")(x.astype(self.dtype))
        x = nn.relu(norm(name="bn1")(x))
        stages = {"stage0": x} if self.stem_stage else {}
        if standard:
            x = max_pool(x)
        block: Any = Bottleneck if self.bottleneck else BasicBlock
        if self.remat:
            block = nn.remat(block, static_argnums=2)  # `train`
        for i, count in enumerate(self.blocks):
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                x = block(
                    channels * 2**i,
                    stride,
                    self.zero_init_residual,
                    self.norm_groups,
                    self.norm_blocks,
                    self.dtype,
                    name=f"layer{i + 1}_{j}",
                )(x, train)
            stages[f"stage{i + 1}"] = x
        return Encoding(jnp.mean(x.astype(jnp.float32), axis=(1, 2)), stages)
