"""Decoders from an encoder's output back to images, and a discriminator of images.

A decoder takes a dictionary. Of its entry 'like' only the shape is read: the output has that size,
so that one decoder serves images of every size.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sslax.checks import assert_rank
from sslax.errors import UserError, check_choice
from sslax.models.conv import Conv, GroupedConv
from sslax.models.norm import BatchNorm
from sslax.models.vit import block_type, gelu, layer_norm, linear, sincos_positions
from sslax.ranges import NonNegative, Odd, Positive, PositiveInt

_he = nn.initializers.he_normal()
_small = nn.initializers.normal(0.02)
_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class MAEDecoder(nn.Module):
    """The masked autoencoder's decoder: a small transformer over all patches.

    The tokens of visible patches are put back in their positions, a learned mask token stands for
    each of the others, fixed positions are added, and the output is a linear map of the last block.

    Attributes:
        patch: side of the encoder's patches in pixels.
        width: of the tokens; a multiple of 4 and of `heads`.
        depth: number of blocks.
        heads: attention heads.
        mlp_ratio: hidden units of a block's MLP, over `width`.
        remat: recomputes each block in the backward pass rather than storing its activations.
        dtype: of the linear maps; parameters and outputs are float32.

    He et al., Masked Autoencoders Are Scalable Vision Learners, https://arxiv.org/abs/2111.06377.
    """

    patch: PositiveInt = 16
    width: PositiveInt = 512
    depth: PositiveInt = 8
    heads: PositiveInt = 16
    mlp_ratio: Positive = 4.0
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: dict[str, jax.Array], *, train: bool) -> jax.Array:
        """Predicts the pixels of every patch.

        Args:
            x: 'tokens' `[N, K, D]`, or `[N, 1 + K, D]` with a class token first: a ViT's stage of
                that name; 'keep' `[N, K]`, the patches that they belong to; 'like', images
                `[N, H, W, C]`.
            train: without effect.

        Returns:
            `[N, T, patch² C]` float32, in the layout of `patchify`.
        """
        del train
        tokens, keep = x["tokens"], x["keep"]
        assert_rank([tokens, keep, x["like"]], [3, 2, 4])
        _, height, width, channels = x["like"].shape
        grid = height // self.patch, width // self.patch
        extra = tokens.shape[1] - keep.shape[1]  # the class token
        y = linear(self.width, self.dtype, "embedding")(tokens)
        mask_token = self.param("mask_token", _small, (self.width,))
        patches = _put_back(y[:, extra:], keep, mask_token[None, None], grid[0] * grid[1])
        patches = patches + sincos_positions(grid, self.width)
        y = jnp.concatenate([y[:, :extra].astype(jnp.float32), patches], axis=1)
        for i in range(1, self.depth + 1):
            block = block_type(self.remat)
            y, _ = block(self.heads, self.mlp_ratio, self.dtype, name=f"block{i:02}")(y)
        y = layer_norm(self.dtype, "norm")(y[:, extra:])
        return linear(self.patch**2 * channels, self.dtype, "pixels")(y).astype(jnp.float32)


def _put_back(tokens: jax.Array, keep: jax.Array, others: jax.Array, count: int) -> jax.Array:
    """The tokens `[N, K, D]` of the patches `keep` at their places among `count`, and in the places
    of all others what `others` has there, of a shape that broadcasts to `[N, count, D]`."""
    # A product with a one-hot matrix rather than a scatter, which would lose the sharding.
    one_hot = jnp.arange(count)[None, :, None] == keep[:, None]
    visible = jnp.matmul(one_hot.astype(tokens.dtype), tokens, precision="highest")
    return jnp.where(jnp.any(one_hot, 2, keepdims=True), visible, others)


class Data2VecDecoder(nn.Module):
    """data2vec 2.0's decoder: grouped convolutions on the grid of all patches.

    The tokens of visible patches are put back in their positions; the others are Gaussian noise.
    Each layer is a convolution, a LayerNorm without parameters, the exact GELU, and a residual
    connection (in the first layer only where the widths are equal); a linear map leads back to the
    encoder's width. The class token is left out, and no positions are added.

    Kernels start uniform within 1 / sqrt(inputs), as in PyTorch, biases at 0.

    Attributes:
        patch: side of the encoder's patches in pixels.
        width: channels of the convolutions.
        layers: number of convolutions.
        kernel_size: side of their kernels.
        groups: of channels that are convolved separately; divides `width` and the encoder's width.
        noise: standard deviation of the noise.
        dtype: of the convolutions and the linear map; parameters and outputs are float32.

    Baevski et al., Efficient Self-supervised Learning with Contextualized Target Representations
    for Vision, Speech and Language, https://arxiv.org/abs/2212.07525.
    """

    patch: PositiveInt = 16
    width: PositiveInt = 768
    layers: PositiveInt = 6
    kernel_size: Odd = 3
    groups: PositiveInt = 16
    noise: NonNegative = 0.01
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: dict[str, jax.Array], *, train: bool) -> jax.Array:
        """Predicts a vector for every patch.

        Args:
            x: 'tokens' `[N, K, D]`, or `[N, 1 + K, D]` with a class token first: a ViT's stage of
                that name; 'keep' `[N, K]`, the patches that they belong to; 'key' `[N]`, random
                keys of the noise; 'like', images `[N, H, W, C]`.
            train: without effect.

        Returns:
            `[N, T, D]` float32, row by row.

        Raises:
            UserError: `groups` does not divide both widths.
        """
        del train
        tokens, keep = x["tokens"], x["keep"]
        assert_rank([tokens, keep, x["like"]], [3, 2, 4])
        inputs = tokens.shape[-1]
        if self.width % self.groups or inputs % self.groups:
            raise UserError(
                f"A decoder with groups = {self.groups} needs a width that is a multiple of it, as "
                f"the encoder's has to be; they are {self.width} and {inputs}."
            )
        rows, columns = (side // self.patch for side in x["like"].shape[1:3])
        count = rows * columns
        noise = jax.vmap(lambda key: jax.random.normal(key, (count, inputs)))(x["key"])
        y = _put_back(tokens[:, -keep.shape[1] :], keep, self.noise * noise, count)
        y = y.reshape(-1, rows, columns, inputs)
        for i in range(1, self.layers + 1):
            z = GroupedConv(
                *(self.width, self.kernel_size, self.groups),
                dtype=self.dtype,
                kernel_init=_uniform,
                name=f"conv{i}",
            )(y)
            z = gelu(jax.nn.standardize(z.astype(y.dtype), epsilon=1e-5))
            y = y + z if y.shape == z.shape else z
        y = y.reshape(-1, count, self.width)
        y = linear(inputs, self.dtype, "prediction", kernel_init=_uniform)(y)
        return y.astype(jnp.float32)


class PixelHead(nn.Module):
    """SimMIM's head: a linear map from each patch's token to its pixels.

    Attributes:
        patch: side of the encoder's patches in pixels.
        dtype: of the linear map; parameters and outputs are float32.

    Xie et al., SimMIM, https://arxiv.org/abs/2111.09886. Its authors write the map as a convolution
    of size 1 and a pixel shuffle.
    """

    patch: PositiveInt = 16
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: dict[str, jax.Array], *, train: bool) -> jax.Array:
        """Predicts the pixels of every patch.

        Args:
            x: 'tokens' `[N, T, D]`, or `[N, 1 + T, D]` with a class token first: a ViT's stage of
                that name; 'like', images `[N, H, W, C]`.
            train: without effect.

        Returns:
            `[N, T, patch² C]` float32, in the layout of `patchify`.
        """
        del train
        assert_rank([x["tokens"], x["like"]], [3, 4])
        _, height, width, channels = x["like"].shape
        count = (height // self.patch) * (width // self.patch)
        tokens = x["tokens"][:, -count:]
        return linear(self.patch**2 * channels, self.dtype, "pixels")(tokens).astype(jnp.float32)


class ContextDecoder(nn.Module):
    """Predicts an image from features through a bottleneck (context encoders).

    The flattened features pass a Linear-BN-ReLU of `bottleneck` units and another one to a map of
    at most 4 x 4; nearest-neighbor doublings, each followed by a 3x3 Conv-BN-ReLU, lead to full
    size, and a last 3x3 convolution to the channels. The output is not bounded but meant for images
    in [0, 1]: it starts around 0.5 with a standard deviation near 0.1.

    Attributes:
        bottleneck: units of the bottleneck.
        width: channels at full size; each halving of the size doubles them, up to eightfold.
        dtype: of the computation; parameters and outputs are float32.

    Pathak et al., Context Encoders, https://arxiv.org/abs/1604.07379, 2016.
    """

    bottleneck: PositiveInt = 1024
    width: PositiveInt = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: dict[str, jax.Array], *, train: bool) -> jax.Array:
        """Predicts images.

        Args:
            x: 'features' `[N, D]`, or a stage `[N, h, w, C]` or `[N, T, C]`; 'like', images
                `[N, s, s, C]`.
            train: batch normalization uses the batch's statistics.

        Returns:
            Images of the shape of 'like', float32.
        """
        assert_rank(x["like"], 4)
        *size, channels = x["like"].shape[1:]
        sizes = [tuple(size)]
        while max(sizes[0]) > 4:
            sizes.insert(0, tuple(-(-side // 2) for side in sizes[0]))
        widths = [self.width * min(2**i, 8) for i in reversed(range(len(sizes)))]
        y = x["features"].reshape(len(x["features"]), -1)
        inner = sizes[0][0] * sizes[0][1] * widths[0]
        for name, units in (("bottleneck", self.bottleneck), ("unfold", inner)):
            y = nn.Dense(units, use_bias=False, kernel_init=_he, dtype=self.dtype, name=name)(y)
            y = nn.relu(BatchNorm(train, dtype=self.dtype, name=f"{name}_bn")(y))
        y = y.reshape(len(y), *sizes[0], widths[0])
        for i, (size, width) in enumerate(zip(sizes[1:], widths[1:]), start=1):
            y = jax.image.resize(y, (len(y), *size, y.shape[-1]), "nearest")
            y = Conv(width, dtype=self.dtype, kernel_init=_he, name=f"conv{i}")(y)
            y = nn.relu(BatchNorm(train, dtype=self.dtype, name=f"bn{i}")(y))
        init = nn.initializers.variance_scaling(0.01, "fan_in", "normal")
        y = Conv(channels, use_bias=True, dtype=self.dtype, kernel_init=init, name="pixels")(y)
        return y.astype(jnp.float32) + 0.5


class Discriminator(nn.Module):
    """Distinguishes real from generated images by 4x4 convolutions of stride 2, as DCGAN's.

    Batch normalization in all layers but the first, LeakyReLU with slope 0.2; a linear map of the
    last activations, of at most 4 x 4, gives the logit.

    Attributes:
        width: channels of the first layer; each layer doubles them, up to eightfold.
        dtype: of the computation; parameters and outputs are float32.

    Radford et al., DCGAN, https://arxiv.org/abs/1511.06434, 2016.
    """

    width: PositiveInt = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images `[N, H, W, C]` to logits `[N]` float32, positive for real ones."""
        assert_rank(x, 4)
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
    """Classifies the color of every position from several stages of an encoder (hypercolumns).

    Each stage passes a 1x1 Conv-BN to `width` channels and is resized bilinearly to the size of
    the output. The sum, equal to a 1x1 convolution of the concatenated stages, passes a ReLU and a
    1x1 convolution to the bins, whose kernel starts so small that the first cross-entropy is
    log(bins).

    Attributes:
        bins: number of color classes.
        stages: names of the stages to use.
        width: channels of the hypercolumn.
        dtype: of the computation; parameters and outputs are float32.

    Hariharan et al., Hypercolumns, https://arxiv.org/abs/1411.5752, 2015; Larsson et al., Learning
    Representations for Automatic Colorization, https://arxiv.org/abs/1603.06668, 2016.
    """

    bins: int
    stages: tuple[str, ...]
    width: PositiveInt = 128
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: dict[str, Any], *, train: bool) -> jax.Array:
        """Classifies the colors.

        Args:
            x: 'stages', those of an `Encoding`, each `[N, h, w, C]`, or tokens `[N, (1 +) T, C]`
                of square images; 'like', an array `[N, h, w, ...]`.
            train: batch normalization uses the batch's statistics.

        Returns:
            Logits `[N, h, w, bins]` of the size of 'like', float32.

        Raises:
            UserError: there is no stage of that name.
            ValueError: its tokens form no square.
        """
        size = x["like"].shape[1:3]
        column = 0.0
        for name in self.stages:
            check_choice("A stage of the decoder", name, x["stages"])
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
    """A stage as a map: the tokens of square images row by row, without the class token.

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
    assert_rank(stage, 3)
    side = int(stage.shape[1] ** 0.5)
    extra = stage.shape[1] - side**2
    if extra > 1:
        raise ValueError(f"{stage.shape[1]} tokens are neither a square number nor one more.")
    return stage[:, extra:].reshape(len(stage), side, side, -1)
