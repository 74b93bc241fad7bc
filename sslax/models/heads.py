"""Heads: what stands on an encoder while it learns."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sslax.models.resnet import batch_norm


class Projector(nn.Module):
    """A multi-layer perceptron: Linear, batch norm, ReLU, ..., Linear.

    Attributes:
        layers: number of linear layers; 1 is a linear map.
        hidden: width between them.
        output: width of the embedding.
        norm: batch norm between the layers (without it, the hidden layers have biases).
        last_norm: batch norm without scale and shift on the output (MoCo v3), which then has no
            bias.
        dtype: dtype of the computation; parameters and the result are float32.
    """

    layers: int = 2
    hidden: int = 2048
    output: int = 128
    norm: bool = True
    last_norm: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Embeds features `[N, D]`."""
        for i in range(self.layers - 1):
            x = nn.Dense(self.hidden, use_bias=not self.norm, dtype=self.dtype, name=f"hidden{i}")(
                x
            )
            if self.norm:
                x = batch_norm(train=train, dtype=self.dtype, name=f"norm{i}")(x)
            x = nn.relu(x)
        bias = not self.last_norm
        x = nn.Dense(self.output, use_bias=bias, dtype=self.dtype, name="output")(x)
        if self.last_norm:
            x = nn.BatchNorm(
                use_running_average=not train,
                momentum=0.9,
                epsilon=1e-5,
                use_bias=False,
                use_scale=False,
                dtype=self.dtype,
                name="last_norm",
            )(x)
        return x.astype(jnp.float32)
