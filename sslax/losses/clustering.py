"""Clustering losses: one view predicts the cluster assignment of another view."""

import math

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.ops.dtypes import accumulated
from sslax.ops.sinkhorn import sinkhorn
from sslax.types import Array


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
    """SwAV's loss: each view predicts the balanced assignments (codes) of the other views.

    ```
    q_v = sinkhorn(scores[:, v] / epsilon)            v < code_views; no gradient
    loss_i = mean_{v < code_views} mean_{w != v} -sum_k q_vik log softmax(scores_iw / temperature)_k
    ```

    Args:
        scores: `[N, V, K]`, products of the unit embeddings of V >= 2 views with K unit prototypes.
            The views that give codes (the large crops) come first.
        code_views: number of views that give codes.
        queue: `[M, code_views, K]`, scores of earlier embeddings with the current prototypes. They
            take part in the balancing but not in the loss. Inside shard_map or pmap, each device's
            part of the queue.
        temperature: divides the scores of the predictions.
        epsilon: see `ops.sinkhorn`.
        iterations: see `ops.sinkhorn`.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        `[N]`, float32 or wider.

    Raises:
        AssertionError: `scores` or `queue` has the wrong shape.
        ValueError: there are fewer than two views, or fewer views than code views, or a single
            image; a temperature or `epsilon` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> equal = jnp.stack([jnp.eye(2), jnp.eye(2)], axis=1)
        >>> print(losses.swapped_prediction(equal).round(3))
        [0. 0.]
        >>> print(losses.swapped_prediction(equal * jnp.array([[1.0], [-1.0]])).round(3))
        [10. 10.]

    Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments",
    NeurIPS 2020, arXiv:2006.09882.
    """
    checks.assert_rank(scores, 3)
    views = scores.shape[1]
    if not (views >= 2 and 1 <= code_views <= views):
        raise checks.value_error(
            f"code_views is {code_views} of {views} views; pass scores [N, V, K] of at least two "
            "views, and code_views in 1, ..., V."
        )
    to_assign = jax.lax.stop_gradient(scores[:, :code_views])
    if queue is not None:
        checks.assert_shape(queue, (None, code_views, scores.shape[2]))
        to_assign = _join(*accumulated(to_assign, jax.lax.stop_gradient(queue)))
    else:
        to_assign = to_assign[None]
    groups, per_group, *rest = to_assign.shape
    devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    if groups * per_group * devices < 2:
        raise checks.value_error("a single image has no balanced codes; pass at least two images.")
    codes = jax.vmap(
        lambda s: sinkhorn(s, epsilon=epsilon, iterations=iterations, axis_name=axis_name),
        in_axes=1,
        out_axes=1,
    )(to_assign.reshape(-1, *rest))
    codes = codes.reshape(to_assign.shape)[:, : scores.shape[0] // groups].reshape(-1, *rest)
    checks.assert_rank(temperature, 0)
    temperature = jnp.asarray(checks.positive("temperature", temperature), codes.dtype)
    predictions = jax.nn.log_softmax(scores.astype(codes.dtype) / temperature)
    cross_entropy = -jnp.einsum("nvk,nwk->nvw", codes, predictions)
    other_view = ~jnp.eye(code_views, views, dtype=bool)
    return jnp.where(other_view, cross_entropy, 0).sum((1, 2)) / (code_views * (views - 1))


def _join(batch: Array, queue: Array) -> Array:
    """`[groups, (N + M) / groups, V, K]` from `[N, V, K]` and `[M, V, K]`.

    Balancing knows no order, so each group of the batch is followed by its share of the queue: as
    long as devices hold whole groups, nothing moves between them. One after the other, most of both
    would.
    """
    groups = math.gcd(batch.shape[0], queue.shape[0])
    parts = [x.reshape(groups, -1, *x.shape[1:]) for x in (batch, queue)]
    return jnp.concatenate(parts, axis=1)
