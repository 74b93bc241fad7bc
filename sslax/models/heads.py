"""Heads on pooled features: projection networks, prototypes and classifiers."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from sslax.checks import assert_rank
from sslax.errors import check_choice
from sslax.models.norm import BatchNorm
from sslax.models.vit import gelu
from sslax.ranges import NonNegativeInt, PositiveInt


class Projector(nn.Module):
    """A multilayer perceptron, Linear-BN-ReLU-...-Linear-(BN).

    - SimCLR (https://arxiv.org/abs/2002.05709): `layers=2` (or 3), `last_norm="affine"`.
    - MoCo v2 (https://arxiv.org/abs/2003.04297): `layers=2, norm=False, last_bias=True`.
    - Barlow Twins (https://arxiv.org/abs/2103.03230): `layers=3, hidden=8192, outputs=8192`.

    Batch statistics are those of the global batch (see `BatchNorm`).

    Attributes:
        hidden: units of the hidden layers.
        outputs: units of the last layer.
        layers: number of linear layers.
        norm: batch normalization after the hidden layers, whose linear maps then have no bias.
        last_norm: batch normalization after the last layer: "none", "plain" (neither scale nor
            shift) or "affine".
        last_bias: the last linear map has a bias.
        activation: after the hidden layers, "relu" or "gelu".
        norm_groups: groups of examples with batch statistics of their own (see `BatchNorm`).
        norm_blocks: groups are consecutive examples rather than interleaved ones.
        dtype: of the computation; parameters and outputs are float32.
    """

    hidden: PositiveInt = 512
    outputs: PositiveInt = 128
    layers: PositiveInt = 2
    norm: bool = True
    last_norm: Literal["none", "plain", "affine"] = "none"
    last_bias: bool = False
    activation: Literal["relu", "gelu"] = "relu"
    norm_groups: int = 1
    norm_blocks: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[N, D]` to `[N, outputs]` float32."""
        assert_rank(x, 2)
        check_choice("last_norm", self.last_norm, ("none", "plain", "affine"))
        check_choice("activation", self.activation, ("relu", "gelu"))
        activate = {"relu": nn.relu, "gelu": gelu}[self.activation]

        def normalize(x: jax.Array, *, affine: bool, name: str) -> jax.Array:
            return BatchNorm(
                train,
                affine,
                groups=self.norm_groups,
                blocks=self.norm_blocks,
                dtype=self.dtype,
                name=name,
            )(x)

        for i in range(1, self.layers):
            x = nn.Dense(self.hidden, use_bias=not self.norm, dtype=self.dtype, name=f"linear{i}")(
                x
            )
            x = activate(normalize(x, affine=True, name=f"bn{i}") if self.norm else x)
        last = self.layers
        x = nn.Dense(self.outputs, use_bias=self.last_bias, dtype=self.dtype, name=f"linear{last}")(
            x
        )
        if self.last_norm != "none":
            x = normalize(x, affine=self.last_norm == "affine", name=f"bn{last}")
        return x.astype(jnp.float32)


class Classifier(nn.Module):
    """Linear map of features `[N, D]` to logits `[N, classes]`, initialized with zeros.

    Attributes:
        classes: number of classes.
        normalize: batch normalization without scale and bias comes first.
    """

    classes: PositiveInt
    normalize: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        assert_rank(x, 2)
        if self.normalize:
            x = BatchNorm(train=train, affine=False, name="norm")(x)
        return nn.Dense(self.classes, kernel_init=nn.initializers.zeros, name="linear")(x)


class Prototypes(nn.Module):
    """Cosine similarities of features and learned prototypes, as in SwAV.

    `scores_nk = <z_n, c_k> / (|z_n| |c_k|)`

    Both are normalized in the forward pass, so the norm of a prototype has no influence and its
    gradient is orthogonal to it; SwAV's code normalizes the stored weights before each step.

    Attributes:
        count: number of prototypes.
        dtype: of the product's factors; the scores are float32.

    Caron et al., SwAV, https://arxiv.org/abs/2006.09882, 2020.
    """

    count: PositiveInt = 3000
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[N, D]` to scores `[N, count]` in [-1, 1], float32."""
        del train
        assert_rank(x, 2)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[1], self.count))
        x, kernel = _unit(x.astype(jnp.float32), axis=1), _unit(kernel, axis=0)
        return jnp.matmul(
            x.astype(self.dtype), kernel.astype(self.dtype), preferred_element_type=jnp.float32
        )


def _unit(x: jax.Array, *, axis: int) -> jax.Array:
    """Unit vectors; the zero vector stays zero and has a finite gradient."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis, keepdims=True) + 1e-12)


class DINOHead(nn.Module):
    """DINO's head up to its last layer: a perceptron with GELU to a bottleneck.

    The last layer is `Prototypes`: weight-normalized with the norms fixed to 1, without a bias, on
    bottleneck vectors of length 1, so that the outputs are cosines; the loss divides them by its
    temperatures. Linear maps start truncated normal with standard deviation 0.02.

    Attributes:
        hidden: units of the hidden layers.
        bottleneck: units of the last layer.
        layers: linear layers.
        norm: batch normalization after the hidden layers; their linear maps then have no bias.
        dtype: of the computation; parameters and outputs are float32.

    Caron et al., DINO, https://arxiv.org/abs/2104.14294, 2021.
    """

    hidden: PositiveInt = 2048
    bottleneck: PositiveInt = 256
    layers: PositiveInt = 3
    norm: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[N, D]` to `[N, bottleneck]`, float32."""
        assert_rank(x, 2)
        init = nn.initializers.truncated_normal(0.02)
        for i in range(1, self.layers + 1):
            last = i == self.layers
            x = nn.Dense(
                self.bottleneck if last else self.hidden,
                use_bias=last or not self.norm,
                kernel_init=init,
                dtype=self.dtype,
                name=f"linear{i}",
            )(x)
            if not last:
                x = BatchNorm(train, dtype=self.dtype, name=f"bn{i}")(x) if self.norm else x
                x = gelu(x)
        return x.astype(jnp.float32)


class TileClassifier(nn.Module):
    """Classifies the arrangement of an image's tiles from the features of each.

    A shared Linear-BN-ReLU embeds each tile, the embeddings are concatenated in order, a second
    Linear-BN-ReLU follows unless `hidden` is 0, and a linear map gives the logits. Its kernel
    starts so small that the first cross-entropy is log(classes).

    - Context prediction (https://arxiv.org/abs/1505.05192): 2 tiles, `classes=8, embed=4096,
      hidden=4096`.
    - Jigsaw puzzles (https://arxiv.org/abs/1603.09246) as Kolesnikov et al. 2019 do them: 9 tiles,
      `classes` the number of permutations, `embed=1000`.

    Attributes:
        classes: number of arrangements.
        embed: units of a tile's embedding.
        hidden: units of the layer after the concatenation; 0 for none.
        norm: batch normalization, before which the linear maps have no bias.
        dtype: of the computation; parameters and outputs are float32.
    """

    classes: int
    embed: PositiveInt = 1000
    hidden: NonNegativeInt = 0
    norm: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[B, T, D]` of T tiles to logits `[B, classes]` float32."""
        assert_rank(x, 3)

        def layer(x: jax.Array, units: int, name: str) -> jax.Array:
            x = nn.Dense(units, use_bias=not self.norm, dtype=self.dtype, name=f"{name}_linear")(x)
            if self.norm:
                x = BatchNorm(train, dtype=self.dtype, name=f"{name}_bn")(x)
            return nn.relu(x)

        x = layer(x, self.embed, "embed").reshape(len(x), -1)
        if self.hidden:
            x = layer(x, self.hidden, "hidden")
        small = nn.initializers.variance_scaling(1e-4, "fan_in", "normal")
        x = nn.Dense(self.classes, kernel_init=small, dtype=self.dtype, name="logits")(x)
        return x.astype(jnp.float32)
