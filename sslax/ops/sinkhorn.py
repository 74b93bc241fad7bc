"""Sinkhorn-Knopp: assign samples to prototypes so that all prototypes are used alike."""

import jax
import jax.numpy as jnp

from sslax import checks

Array = jax.Array


def sinkhorn(
    scores: Array, *, epsilon: float = 0.05, iterations: int = 3, axis_name: str | None = None
) -> Array:
    """Soft assignments near to `softmax(scores / epsilon)` under which prototypes share alike.

    ```
    Q = exp(scores / epsilon); then `iterations` times:
      divide each prototype's column by its sum over the samples,
      divide each sample's row by its sum over the prototypes
    ```

    The sums are of logarithms, so that no epsilon overflows.

    Args:
        scores: `[N, K]`, of each sample with each prototype.
        epsilon: the entropy's weight; smaller is harder.
        iterations: of both divisions. With 0 the result is the softmax.
        axis_name: the mapped axis over which the samples are split, inside shard_map or pmap; None
            for global arrays.

    Returns:
        `[N, K]`, float32 at least; each row sums to 1, each column to about N / K.

    Raises:
        AssertionError: scores are not a matrix.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> scores = jnp.array([[1.0, 0.0], [1.0, 0.2]])  # both samples prefer prototype 0
        >>> print(ops.sinkhorn(scores, epsilon=0.05, iterations=50).round(2))
        [[0.88 0.12]
         [0.12 0.88]]

    Cuturi, `Sinkhorn Distances <https://arxiv.org/abs/1306.0895>`_, 2013; as used by Caron et al.,
    `SwAV <https://arxiv.org/abs/2006.09882>`_, 2020.
    """
    checks.assert_rank(scores, 2)
    logits = scores.astype(jnp.promote_types(scores.dtype, jnp.float32)) / epsilon
    for _ in range(iterations):
        logits -= _log_sum_exp_of_samples(logits, axis_name)
        logits -= jax.nn.logsumexp(logits, axis=1, keepdims=True)
    return jax.nn.softmax(logits, axis=1)


def _log_sum_exp_of_samples(logits: Array, axis_name: str | None) -> Array:
    if axis_name is None:
        return jax.nn.logsumexp(logits, axis=0, keepdims=True)
    largest = jax.lax.pmax(jax.lax.stop_gradient(logits).max(0, keepdims=True), axis_name)
    total = jax.lax.psum(jnp.exp(logits - largest).sum(0, keepdims=True), axis_name)
    return largest + jnp.log(total)
