"""Heads on pooled features: projection networks and a linear classifier."""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from sslax.models.norm import BatchNorm


class Projector(nn.Module):
    """Multilayer perceptron Linear-BN-ReLU-...-Linear-(BN).

    - SimCLR (https://arxiv.org/abs/2002.05709): `layers=2` (or 3), `last_norm="affine"`.
    - MoCo v2 (https://arxiv.org/abs/2003.04297): `layers=2, norm=False, last_bias=True`.
    - Barlow Twins (https://arxiv.org/abs/2103.03230): `layers=3, hidden=8192, outputs=8192`.

    Batch statistics are those of the whole batch that is passed (see `ResNet`).

    Attributes:
        hidden: units of the hidden layers.
        outputs: units of the last layer.
        layers: linear layers.
        norm: batch normalisation after the hidden layers; their linear maps then have no bias.
        last_norm: batch normalisation after the last layer: "none", "plain" (neither scale nor
            shift) or "affine".
        last_bias: the last linear map has a bias.
        dtype: dtype of the computation; parameters and outputs are float32.
    """

    hidden: int = 512
    outputs: int = 128
    layers: int = 2
    norm: bool = True
    last_norm: str = "none"
    last_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps features `[N, D]` to `[N, outputs]` float32."""
        chex.assert_rank(x, 2)
        if self.last_norm not in ("none", "plain", "affine"):
            raise ValueError(
                f"last_norm is {self.last_norm!r}; choose one of 'none', 'plain', 'affine'."
            )

        def normalise(x: jax.Array, *, affine: bool, name: str) -> jax.Array:
            return BatchNorm(train, affine, dtype=self.dtype, name=name)(x)

        for i in range(1, self.layers):
            x = nn.Dense(self.hidden, use_bias=not self.norm, dtype=self.dtype, name=f"linear{i}")(
                x
            )
            x = nn.relu(normalise(x, affine=True, name=f"bn{i}") if self.norm else x)
        last = self.layers
        x = nn.Dense(self.outputs, use_bias=self.last_bias, dtype=self.dtype, name=f"linear{last}")(
            x
        )
        if self.last_norm != "none":
            x = normalise(x, affine=self.last_norm == "affine", name=f"bn{last}")
        return x.astype(jnp.float32)


class Classifier(nn.Module):
    """Linear map of features `[N, D]` to logits `[N, classes]`, zero at the start."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        chex.assert_rank(x, 2)
        return nn.Dense(self.classes, kernel_init=nn.initializers.zeros, name="linear")(x)
