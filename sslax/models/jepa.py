"""I-JEPA's predictor: from context tokens to the tokens of target blocks."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from sslax.checks import assert_rank, assert_shape
from sslax.models.vit import block_type, layer_norm, linear, sincos_positions
from sslax.ranges import Positive, PositiveInt
from sslax.types import Array

_STD = 0.02
_normal = nn.initializers.truncated_normal(_STD)


class JEPAPredictor(nn.Module):
    """A narrow transformer that predicts an encoder's tokens at given positions.

    The context tokens are mapped to `width` and get the fixed positions of their patches. For each
    target block of an image, one learned mask token per target patch, with the position of that
    patch, is appended to the context; the blocks of an image are separate sequences. The output at
    the mask tokens is normalized and mapped back to the width of the encoder.

    Initialization is the authors': weights truncated normal with deviation 0.02, biases 0, the last
    linear map of each branch of block i divided by sqrt(2 i).

    Attributes:
        patch: side of the encoder's patches in pixels.
        width: of the predictor's tokens; a multiple of 4 and of `heads`.
        depth: number of blocks.
        heads: attention heads.
        mlp_ratio: hidden units of a block's MLP, over `width`.
        remat: recomputes each block in the backward pass rather than storing its activations.
        dtype: of the linear maps; parameters and outputs are float32.

    Assran et al., Self-Supervised Learning from Images with a Joint-Embedding Predictive
    Architecture, https://arxiv.org/abs/2301.08243, 2023.
    """

    patch: PositiveInt = 16
    width: PositiveInt = 384
    depth: PositiveInt = 6
    heads: PositiveInt = 12
    mlp_ratio: Positive = 4.0
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: dict[str, Array], *, train: bool) -> Array:
        """Predicts the tokens of target blocks.

        Args:
            x: a dictionary of

                - 'tokens' `[N, K, D]`: the context, a ViT's "tokens" without a class token;
                - 'keep' `[N, K]` int32: the patches that they belong to, row by row;
                - 'keep_mask' `[N, K]`, optional: False for context tokens that are padding;
                - 'targets' `[N, M, T]` int32: the patches of M target blocks;
                - 'target_mask' `[N, M, T]`, optional: False for targets that are padding, whose
                  predictions are meaningless;
                - 'like': images `[N, H, W, C]`, of which only the shape is read.
            train: without effect.

        Returns:
            `[N, M, T, D]` float32.
        """
        del train
        tokens, keep, targets = x["tokens"], x["keep"], x["targets"]
        assert_rank([tokens, x["like"]], [3, 4])
        (n, k, features), (_, m, t) = tokens.shape, targets.shape
        assert_shape(keep, (n, k))
        assert_shape(targets, (n, m, t))
        keep_mask = x.get("keep_mask", jnp.ones((n, k), bool)).astype(bool)
        target_mask = x.get("target_mask", jnp.ones((n, m, t), bool)).astype(bool)
        assert_shape(keep_mask, (n, k))
        assert_shape(target_mask, (n, m, t))
        height, width = x["like"].shape[1:3]
        grid = height // self.patch, width // self.patch
        positions = jnp.asarray(sincos_positions(grid, self.width))

        context = linear(self.width, self.dtype, "embedding", kernel_init=_normal)(tokens)
        context = context.astype(jnp.float32) + jnp.take(positions, keep, axis=0)
        mask_token = self.param("mask_token", _normal, (self.width,))
        queries = mask_token + jnp.take(positions, targets, axis=0)
        # A sequence for each block: the image's context, then the block's mask tokens.
        context = jnp.broadcast_to(context[:, None], (n, m, k, self.width))
        keep_mask = jnp.broadcast_to(keep_mask[:, None], (n, m, k))
        y = jnp.concatenate([context, queries], axis=2).reshape(n * m, k + t, self.width)
        mask = jnp.concatenate([keep_mask, target_mask], axis=2).reshape(n * m, k + t)
        for i in range(1, self.depth + 1):
            y, _ = block_type(self.remat)(
                self.heads,
                self.mlp_ratio,
                self.dtype,
                kernel_init=_normal,
                output_init=nn.initializers.truncated_normal(_STD / (2 * i) ** 0.5),
                name=f"block{i:02}",
            )(y, mask)
        y = layer_norm(self.dtype, "norm")(y[:, k:])
        y = linear(features, self.dtype, "prediction", kernel_init=_normal)(y)
        return y.astype(jnp.float32).reshape(n, m, t, features)
