"""Clustering losses: one view predicts the cluster assignment of another view.

With `axis_name=None` the arrays are global: one device, or jit over sharded arrays. With a name the
function runs inside shard_map or pmap on each device's part of the batch.
"""

import math

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.losses.batch import mean_over_batch
from sslax.losses.scores import over_temperature
from sslax.ops.dtypes import accumulated, at_least_float32
from sslax.ops.sinkhorn import sinkhorn
from sslax.types import Array


def swapped_prediction(
    scores: Array,
    *,
    code_views: int = 2,
    queue: Array | None = None,
    queue_mask: Array | None = None,
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
        queue_mask: `[M]`, whether an entry of the queue takes part; None if all do.
        temperature: divides the scores of the predictions.
        epsilon: see `ops.sinkhorn`.
        iterations: see `ops.sinkhorn`.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        `[N]`, float32 or wider.

    Raises:
        AssertionError: `scores` or `queue` has the wrong shape.
        ValueError: there are fewer than two views, or fewer views than code views, or a single
            image; a mask without a queue; a temperature or `epsilon` is not positive.

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
    if queue is None and queue_mask is not None:
        raise checks.value_error("queue_mask is given without a queue; pass the queue as well.")
    to_assign, counts = jax.lax.stop_gradient(scores[:, :code_views]), None
    if queue is not None:
        checks.assert_shape(queue, (None, code_views, scores.shape[2]))
        if queue_mask is not None:
            checks.assert_shape(queue_mask, queue.shape[:1])
            everyone = jnp.ones(scores.shape[0], queue_mask.dtype)
            counts = _join(everyone, queue_mask).reshape(-1)
        to_assign = _join(*accumulated(to_assign, jax.lax.stop_gradient(queue)))
    else:
        to_assign = to_assign[None]
    groups, per_group, *rest = to_assign.shape
    devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    if groups * per_group * devices < 2:
        raise checks.value_error("a single image has no balanced codes; pass at least two images.")
    codes = jax.vmap(
        lambda s: sinkhorn(
            s, weights=counts, epsilon=epsilon, iterations=iterations, axis_name=axis_name
        ),
        in_axes=1,
        out_axes=1,
    )(to_assign.reshape(-1, *rest))
    codes = codes.reshape(to_assign.shape)[:, : scores.shape[0] // groups].reshape(-1, *rest)
    predictions = jax.nn.log_softmax(
        _divide(scores.astype(codes.dtype), "temperature", temperature)
    )
    cross_entropy = -jnp.einsum("nvk,nwk->nvw", codes, predictions)
    other_view = ~jnp.eye(code_views, views, dtype=bool)
    return jnp.where(other_view, cross_entropy, 0).sum((1, 2)) / (code_views * (views - 1))


def _join(batch: Array, queue: Array) -> Array:
    """`[groups, (N + M) / groups, ...]` from `[N, ...]` and `[M, ...]`.

    Balancing knows no order, so each group of the batch is followed by its share of the queue: as
    long as devices hold whole groups, nothing moves between them. One after the other, most of both
    would.
    """
    groups = math.gcd(batch.shape[0], queue.shape[0])
    parts = [x.reshape(groups, -1, *x.shape[1:]) for x in (batch, queue)]
    return jnp.concatenate(parts, axis=1)


def msn(
    anchors: Array,
    targets: Array,
    *,
    entropy_weight: float = 1.0,
    temperature: float | Array = 0.1,
    sharpening: float | Array = 0.25,
    iterations: int = 3,
    axis_name: str | None = None,
) -> Array:
    """MSN: masked views predict the sharpened assignment of the image, and use all prototypes.

    ```
    p_iv = softmax(anchors_iv / temperature)
    q_i = softmax(targets_i / (sharpening * temperature)), balanced by sinkhorn     (no gradient)
    loss = mean_iv -sum_k q_ik log p_ivk + entropy_weight * mean_entropy_gap(anchors)
    ```

    Memory is a few arrays `[N, V, K]`; devices exchange the sums over their images, `[K]`.

    Args:
        anchors: `[N, V, K]`, products of the unit embeddings of V masked and small views with K
            unit prototypes.
        targets: `[N, K]`, the same products of the momentum encoder's embeddings of one view.
        entropy_weight: lambda in the paper.
        temperature: divides the scores.
        sharpening: T in the paper; the targets have the temperature `sharpening * temperature`.
        iterations: of Sinkhorn-Knopp, which starts from the targets; 0 for none.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        A scalar, float32 or wider; the same on every device.

    Raises:
        AssertionError: the shapes do not match.
        ValueError: a temperature is not positive, or iterations are negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> targets = jnp.eye(2)
        >>> round(float(losses.msn(targets[:, None], targets)), 3)
        0.0
        >>> round(float(losses.msn(jnp.zeros((2, 1, 2)), targets)), 3)  # log 2
        0.693

    Assran et al., "Masked Siamese Networks for Label-Efficient Learning", ECCV 2022,
    arXiv:2204.07141. Sinkhorn-Knopp is an option of the paper that the authors' configs take.
    """
    checks.assert_rank([anchors, targets], [3, 2])
    checks.assert_equal_shape([anchors[:, 0], targets])
    anchors, targets = accumulated(anchors, jax.lax.stop_gradient(targets))
    sharp = _divide(targets, "temperature", temperature)
    sharp = jax.nn.log_softmax(_divide(sharp, "sharpening", sharpening))
    codes = sinkhorn(sharp, epsilon=1.0, iterations=iterations, axis_name=axis_name)
    predictions = jax.nn.log_softmax(_divide(anchors, "temperature", temperature))
    cross_entropy = -jnp.einsum("nk,nvk->nv", codes, predictions)
    gap = mean_entropy_gap(anchors, temperature=temperature, axis_name=axis_name)
    return mean_over_batch(cross_entropy, axis_name).mean() + entropy_weight * gap


def mean_entropy_gap(
    logits: Array, *, temperature: float | Array = 0.1, axis_name: str | None = None
) -> Array:
    """How far the mean assignment is from uniform; MSN minimizes it to use all prototypes.

    ```
    p = mean_i softmax(logits_i / temperature), over the batch and all other axes
    gap = log K + sum_k p_k log p_k
    ```

    Args:
        logits: `[N, ..., K]`, scores of K prototypes.
        temperature: divides the logits.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        A scalar in [0, log K], float32 or wider, the same on every device: 0 if all prototypes are
        used equally, log K if only one is.

    Raises:
        ValueError: the temperature is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> round(float(losses.mean_entropy_gap(jnp.eye(2))), 3)
        0.0
        >>> round(float(losses.mean_entropy_gap(jnp.array([[3.0, 0.0], [3.0, 0.0]]))), 3)  # log 2
        0.693

    Assran et al., "Masked Siamese Networks for Label-Efficient Learning", ECCV 2022,
    arXiv:2204.07141.
    """
    logits = at_least_float32(logits)
    probabilities = jax.nn.softmax(_divide(logits, "temperature", temperature))
    mean = mean_over_batch(probabilities, axis_name).reshape(-1, logits.shape[-1]).mean(0)
    logarithm = jnp.log(jnp.maximum(mean, jnp.finfo(mean.dtype).tiny))
    return math.log(logits.shape[-1]) + (mean * logarithm).sum()


def _divide(logits: Array, name: str, temperature: float | Array) -> Array:
    checks.assert_rank(temperature, 0)
    return over_temperature(logits, name, temperature)
