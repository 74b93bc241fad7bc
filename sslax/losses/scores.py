"""Scores: how alike two embeddings are.

A score is any function `(x [N, D], y [M, E]) -> [N, M]`. Those made here are a `Score`: the inner
product of two embeddings, which lets a loss go over the pairs tile by tile without ever storing
the N x M matrix. Any other function works too, at the price of the matrix.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sslax import checks

Array = jax.Array
ScoreFunction = Callable[[Array, Array], Array]


def l2_normalize(x: Array, *, epsilon: float = 1e-6) -> Array:
    """Divides each vector by its length.

    ```
    y = x / max(|x|, epsilon)
    ```

    The zero vector stays zero, with a finite gradient.

    Args:
        x: `[..., D]`.
        epsilon: vectors shorter than this are divided by it instead.

    Returns:
        `[..., D]`, in float32 at least.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> losses.l2_normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    square = (x * x).sum(-1, keepdims=True)
    return x / jnp.sqrt(jnp.maximum(square, epsilon**2))


class Score(NamedTuple):
    """A score that is an inner product: `s(x, y) = <row(x), column(y)>`.

    Attributes:
        row: `x [N, D] -> [N, F]`.
        column: `y [M, E] -> [M, F]`.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> losses.cosine(jnp.eye(2), jnp.array([[2.0, 0.0]])).tolist()
        [[1.0], [0.0]]
    """

    row: Callable[[Array], Array]
    column: Callable[[Array], Array]

    def __call__(self, x: Array, y: Array) -> Array:
        return self.row(x) @ self.column(y).T


def _identity(x: Array) -> Array:
    return x


cosine = Score(l2_normalize, l2_normalize)
dot = Score(_identity, _identity)


def bilinear(weight: Array) -> Score:
    """The score `s(x, y) = x W y^T` of contrastive predictive coding.

    Args:
        weight: `[D, E]`, usually learned: gradients reach it.

    Returns:
        A score of x `[N, D]` and y `[M, E]`.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> score = losses.bilinear(jnp.array([[2.0], [0.0]]))
        >>> score(jnp.eye(2), jnp.array([[3.0]])).tolist()
        [[6.0], [0.0]]

    van den Oord et al., `Representation Learning with Contrastive Predictive Coding
    <https://arxiv.org/abs/1807.03748>`_, 2018.
    """
    checks.assert_rank(weight, 2)
    return Score(lambda x: x @ weight, _identity)
