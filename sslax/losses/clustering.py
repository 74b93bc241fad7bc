"""Clustering losses: one view predicts the cluster assignment of another."""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.ops.sinkhorn import sinkhorn

Array = jax.Array


def swapped_prediction(
    scores: Array,
    *,
    code_views: int = 2,
    queue: Array | None = None,
    temperature: float | Array = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    axis_name: str | None = None,
) -> Array:
    """SwAV's loss: each view predicts the balanced assignment (code) of the other views.

    ```
    q_v = sinkhorn(scores[:, v] / epsilon)            v < code_views; no gradient
    loss_n = mean_{v < code_views} mean_{w != v} -sum_k q_vnk log softmax(scores_nw / temperature)_k
    ```

    Args:
        scores: `[N, V, K]`, products of V >= 2 views' unit embeddings with K unit prototypes; the
            views that give codes (the large crops) first.
        code_views: how many views give codes.
        queue: `[M, code_views, K]`, scores of earlier embeddings under today's prototypes; they
            take part in the balance, not in the loss. Inside shard_map or pmap each device gives
            its part.
        temperature: of the predictions.
        epsilon: of the codes; see `ops.sinkhorn`.
        iterations: of the codes; see `ops.sinkhorn`.
        axis_name: the mapped axis over which the batch is split; None for global arrays.

    Returns:
        `[N]`, float32 at least.

    Raises:
        AssertionError: scores or queue have another rank or shape.
        ValueError: there are fewer than two views, or more code views than views.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> agree = jnp.stack([jnp.eye(2), jnp.eye(2)], axis=1)
        >>> print(losses.swapped_prediction(agree).round(3))
        [0. 0.]
        >>> print(losses.swapped_prediction(agree * jnp.array([[1.0], [-1.0]])).round(3))
        [10. 10.]

    Caron et al., `Unsupervised Learning of Visual Features by Contrasting Cluster Assignments
    <https://arxiv.org/abs/2006.09882>`_, 2020.
    """
    checks.assert_rank(scores, 3)
    views = scores.shape[1]
    if not (views >= 2 and 1 <= code_views <= views):
        raise ValueError(
            f"{code_views} of {views} views give codes; give scores [N, V, K] of at least two "
            "views, and code_views between 1 and V."
        )
    assigned = scores[:, :code_views]
    if queue is not None:
        checks.assert_shape(queue, (None, code_views, scores.shape[2]))
        assigned = jnp.concatenate([assigned, queue])
    codes = jax.vmap(
        lambda s: sinkhorn(s, epsilon=epsilon, iterations=iterations, axis_name=axis_name),
        in_axes=1,
        out_axes=1,
    )(jax.lax.stop_gradient(assigned))[: scores.shape[0]]
    scores = scores.astype(codes.dtype)
    predictions = jax.nn.log_softmax(scores / temperature)
    cross_entropy = -jnp.einsum("nvk,nwk->nvw", codes, predictions)
    others = ~jnp.eye(code_views, views, dtype=bool)
    return jnp.where(others, cross_entropy, 0).sum((1, 2)) / (code_views * (views - 1))
