"""Decoders: from what an encoder gives back to images, and a critic of images.

A decoder takes a dictionary. Its entry 'like' is an array whose shape alone is read: the output is
made to fit it, so that one decoder serves images of every size.
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from sslax.models.conv import Conv
from sslax.models.norm import BatchNorm
from sslax.models.vit import Block, layer_norm, linear, sincos_positions

_he = nn.initializers.he_normal()
_small = nn.initializers.normal(0.02)


class MAEDecoder(nn.Module):
    """The masked autoencoder's decoder: a small transformer over all patches.

    The visible patches' tokens return to their places, one trained mask token stands in for the
    others, the fixed positions are added, and the output is a linear map of the last block.

    Attributes:
        patch: side in pixels of the patches, the encoder's.
        width: of the tokens; a multiple of 4 and of `heads`.
        depth: blocks.
        heads: of the attention.
        mlp_ratio: hidden units of a block's MLP, over `width`.
        dtype: dtype of the linear maps; parameters and outputs are float32.

    He et al., Masked Autoencoders Are Scalable Vision Learners, https://arxiv.org/abs/2111.06377.
    """

    patch: int = 16
    width: int = 512
    depth: int = 8
    heads: int = 16
    mlp_ratio: float = 4.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: dict[str, jax.Array], *, train: bool) -> jax.Array:
        """Predicts the pixels of every patch.

        Args:
            x: 'tokens' `[N, K, D]` or, behind a class token, `[N, 1 + K, D]`: a ViT's stage of
                that name; 'keep' `[N, K]`, the patches that they belong to; 'like', images
                `[N, H, W, C]`.
            train: without effect.

        Returns:
            `[N, T, patch² C]` float32, in the layout of `patchify`.
        """
        del train
        tokens, keep = x["tokens"], x["keep"]
        chex.assert_rank([tokens, keep, x["like"]], [3, 2, 4])
        _, height, width, channels = x["like"].shape
        grid = height // self.patch, width // self.patch
        before = tokens.shape[1] - keep.shape[1]  # the class token
        x = linear(self.width, self.dtype, "embedding")(tokens)
        mask_token = self.param("mask_token", _small, (self.width,))
        # A product with zeros and ones puts the tokens back: no scatter, and no sharding is lost.
        places = jnp.arange(grid[0] * grid[1])[None, :, None] == keep[:, None]
        visible = jnp.matmul(places.astype(x.dtype), x[:, before:], precision="highest")
        patches = jnp.where(jnp.any(places, 2, keepdims=True), visible, mask_token)
        patches = patches + sincos_positions(grid, self.width)
        x = jnp.concatenate([x[:, :before].astype(jnp.float32), patches], axis=1)
        for i in range(1, self.depth + 1):
            x = Block(self.heads, self.mlp_ratio, self.dtype, name=f"block{i:02}")(x)
        x = layer_norm(self.dtype, "norm")(x[:, before:])
        return linear(self.patch**2 * channels, self.dtype, "pixels")(x).astype(jnp.float32)


class ContextDecoder(nn.Module):
    """Paints an image from features through a bottleneck (context encoders).

    The features, flattened, pass a Linear-BN-ReLU of `bottleneck` units and one to a map of at most
    4 x 4; nearest-neighbor doubling with a 3x3 Conv-BN-ReLU each leads to the size, and a last
    3x3 convolution to the channels. The output is linear, so any real number, and meant for images
    in [0, 1]; it starts around their middle, 0.5, with a deviation near 0.1.

    Attributes:
        bottleneck: units.
        width: channels at full size; each halving of the size doubles them, up to eight times.
        dtype: dtype of the computation; parameters and outputs are float32.

    Pathak et al., Context Encoders, https://arxiv.org/abs/1604.07379, 2016.
    """

    bottleneck: int = 1024
    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: dict[str, jax.Array], *, train: bool) -> jax.Array:
        """Paints.

        Args:
            x: 'features' `[N, D]`, or a stage `[N, h, w, C]` or `[N, T, C]`; 'like', images
                `[N, s, s, C]`.
            train: batch normalization by the batch.

        Returns:
            Images of the shape of 'like', float32.
        """
        chex.assert_rank(x["like"], 4)
        *size, channels = x["like"].shape[1:]
        sizes = [tuple(size)]
        while max(sizes[0]) > 4:
            sizes.insert(0, tuple(-(-side // 2) for side in sizes[0]))
        widths = [self.width * min(2**i, 8) for i in reversed(range(len(sizes)))]
        x = x["features"].reshape(len(x["features"]), -1)
        inner = sizes[0][0] * sizes[0][1] * widths[0]
        for name, units in (("bottleneck", self.bottleneck), ("unfold", inner)):
            x = nn.Dense(units, use_bias=False, kernel_init=_he, dtype=self.dtype, name=name)(x)
            x = nn.relu(BatchNorm(train, dtype=self.dtype, name=f"{name}_bn")(x))
        x = x.reshape(len(x), *sizes[0], widths[0])
        for i, (size, width) in enumerate(zip(sizes[1:], widths[1:]), start=1):
            x = jax.image.resize(x, (len(x), *size, x.shape[-1]), "nearest")
            x = Conv(width, dtype=self.dtype, kernel_init=_he, name=f"conv{i}")(x)
            x = nn.relu(BatchNorm(train, dtype=self.dtype, name=f"bn{i}")(x))
        faint = nn.initializers.variance_scaling(0.01, "fan_in", "normal")
        x = Conv(channels, use_bias=True, dtype=self.dtype, kernel_init=faint, name="pixels")(x)
        return x.astype(jnp.float32) + 0.5


class Discriminator(nn.Module):
    """Tells real images from painted ones: 4x4 convolutions of stride 2, as DCGAN's.

    Batch normalization on all but the first, LeakyReLU with slope 0.2; a linear map of the last
    map, of at most 4 x 4, gives the logit.

    Attributes:
        width: channels of the first layer; each layer doubles them, up to eight times.
        dtype: dtype of the computation; parameters and outputs are float32.

    Radford et al., DCGAN, https://arxiv.org/abs/1511.06434, 2016.
    """

    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images `[N, H, W, C]` to logits `[N]` float32, positive for real ones."""
        chex.assert_rank(x, 4)
        i = 0
        while max(x.shape[1:3]) > 4:
            i += 1
            x = Conv(
                self.width * min(2 ** (i - 1), 8),
                kernel_size=4,
                stride=2,
                padding=1,
                use_bias=i == 1,
                dtype=self.dtype,
                kernel_init=_small,
                name=f"conv{i}",
            )(x)
            if i > 1:
                x = BatchNorm(train, dtype=self.dtype, name=f"bn{i}")(x)
            x = nn.leaky_relu(x, 0.2)
        x = nn.Dense(1, kernel_init=_small, dtype=self.dtype, name="logit")(x.reshape(len(x), -1))
        return x[:, 0].astype(jnp.float32)


class ColorDecoder(nn.Module):
    """Color classes of every place from several stages of an encoder (hypercolumns).

    Each stage passes a 1x1 Conv-BN to `width` channels and is resized bilinearly to the size of
    the output; the sum of all, which is what a 1x1 convolution of the concatenated stages would
    be, passes a ReLU and a 1x1 convolution to the bins, whose kernel starts so small that the
    first cross-entropy is log(bins).

    Attributes:
        bins: color classes.
        stages: names of the stages to use.
        width: channels of the hypercolumn.
        dtype: dtype of the computation; parameters and outputs are float32.

    Hariharan et al., Hypercolumns, https://arxiv.org/abs/1411.5752, 2015; Larsson et al., Learning
    Representations for Automatic Colorization, https://arxiv.org/abs/1603.06668, 2016.
    """

    bins: int
    stages: tuple[str, ...]
    width: int = 128
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: dict[str, Any], *, train: bool) -> jax.Array:
        """Classifies.

        Args:
            x: 'stages', those of an `Encoding`, each `[N, h, w, C]`, or `[N, (1 +) T, C]` of a
                square image's tokens; 'like', an array `[N, h, w, ...]`.
            train: batch normalization by the batch.

        Returns:
            Logits `[N, h, w, bins]` of the size of 'like', float32.

        Raises:
            ValueError: there is no stage of a name, or its tokens form no square.
        """
        size = x["like"].shape[1:3]
        column = 0.0
        for name in self.stages:
            if name not in x["stages"]:
                raise ValueError(f"There is no stage {name!r}; there are {sorted(x['stages'])}.")
            stage = as_map(x["stages"][name]).astype(self.dtype)
            y = Conv(self.width, 1, dtype=self.dtype, kernel_init=_he, name=f"{name}_conv")(stage)
            y = BatchNorm(train, dtype=self.dtype, name=f"{name}_bn")(y)
            column = column + jax.image.resize(y, (len(y), *size, self.width), "linear")
        small = nn.initializers.variance_scaling(1e-4, "fan_in", "normal")
        logits = Conv(
            self.bins, 1, use_bias=True, dtype=self.dtype, kernel_init=small, name="logits"
        )(nn.relu(column))
        return logits.astype(jnp.float32)


def as_map(stage: jax.Array) -> jax.Array:
    """A stage as a map `[N, h, w, C]`: tokens of a square image in rows, less the class token.

    Args:
        stage: `[N, h, w, C]`, or `[N, T, C]` where T or T - 1 is a square.

    Returns:
        `[N, h, w, C]`.

    Raises:
        ValueError: the tokens form no square.

    Example:
        >>> as_map(jnp.zeros((2, 10, 5))).shape
        (2, 3, 3, 5)
    """
    if stage.ndim == 4:
        return stage
    chex.assert_rank(stage, 3)
    side = int(stage.shape[1] ** 0.5)
    before = stage.shape[1] - side**2
    if before > 1:
        raise ValueError(f"{stage.shape[1]} tokens are neither a square nor one more.")
    return stage[:, before:].reshape(len(stage), side, side, -1)
