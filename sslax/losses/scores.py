"""Scores: the similarity of two embeddings.

A score is any function `(x [N, D], y [M, E]) -> [N, M]`. The scores defined here are inner
products, a `Score`, which lets a loss process the pairs tile by tile without storing the N x M
matrix. Other functions work too, but form the matrix.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.ops.dtypes import at_least_float32, floating_dtype
from sslax.types import Array

ScoreFunction = Callable[[Array, Array], Array]


def l2_normalize(x: Array, *, epsilon: float = 1e-6) -> Array:
    """Scales vectors to unit length.

    ```
    y = x / max(|x|, epsilon)
    ```

    Zero vectors stay zero, with a finite gradient. Lengths whose squares overflow or vanish are
    computed as well as others.

    Args:
        x: `[..., D]`.
        epsilon: smallest length to divide by, positive.

    Returns:
        `[..., D]`, float32 or wider.

    Raises:
        ValueError: `epsilon` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> losses.l2_normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    checks.assert_positive(epsilon=epsilon)
    x = at_least_float32(x)
    # The largest component is at most 1 in these units. They cancel, so they need no gradient.
    unit = jax.lax.stop_gradient(jnp.maximum(jnp.abs(x).max(-1, keepdims=True), epsilon))
    x = x / unit
    square = (x * x).sum(-1, keepdims=True)
    return x / jnp.sqrt(jnp.maximum(square, (epsilon / unit) ** 2))


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
        rows, columns = self.row(x), self.column(y)
        dtype = floating_dtype(rows, columns)
        return rows.astype(dtype) @ columns.astype(dtype).T


def _identity(x: Array) -> Array:
    return x


cosine = Score(l2_normalize, l2_normalize)
dot = Score(_identity, _identity)


def bilinear(weight: Array) -> Score:
    """The score `s(x, y) = x W y^T` of contrastive predictive coding.

    Args:
        weight: W, `[D, E]`, usually learned.

    Returns:
        A score of x `[N, D]` and y `[M, E]`. Gradients flow to `weight`.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> score = losses.bilinear(jnp.array([[2.0], [0.0]]))
        >>> score(jnp.eye(2), jnp.array([[3.0]])).tolist()
        [[6.0], [0.0]]

    van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018,
    arXiv:1807.03748.
    """
    checks.assert_rank(weight, 2)

    def row(x: Array) -> Array:
        dtype = floating_dtype(x, weight)
        return x.astype(dtype) @ weight.astype(dtype)

    return Score(row, _identity)


def over_temperature(logits: Array, name: str, temperature: float | Array) -> Array:
    """Logits divided by a temperature, which must be positive; `name` is that of its argument."""
    return logits / jnp.asarray(checks.positive(name, temperature), logits.dtype)
