"""Contrastive losses: each embedding against all other embeddings of the batch.

The similarity matrix of a large batch is never stored (see `pairwise`): memory grows as
O(N D + tile^2) instead of O(N^2).

With `axis_name=None` the arrays are global: one device, or jit over sharded arrays. With a name the
function runs inside shard_map or pmap on each device's part of the batch; it returns the losses of
that part, each against the whole batch. The embeddings then travel around a ring of devices.
"""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.losses.pairwise import LOG_SUM_EXP, SOFTPLUS_SUM, reduce_rows
from sslax.losses.scores import Score, ScoreFunction, cosine, l2_normalize
from sslax.ops.dtypes import accumulated, floating_dtype
from sslax.types import Array


def info_nce(
    queries: Array,
    keys: Array,
    *,
    negatives: Array | None = None,
    temperature: float | Array = 0.1,
    score: Score | ScoreFunction = cosine,
    tile: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """InfoNCE: classify each query's key among the keys of the batch, or among given negatives.

    ```
    s_ij = score(queries_i, keys_j) / temperature
    loss_i = -s_ii + log sum_j exp(s_ij)                                   (negatives=None)
    loss_i = -s_ii + log(exp(s_ii) + sum_m exp(score(queries_i, negatives_m) / temperature))
    ```

    Gradients flow to queries, keys, negatives, the temperature and the parameters of the score. Use
    `jax.lax.stop_gradient` for those that a method does not train, such as the keys of a momentum
    encoder.

    Args:
        queries: `[N, D]`.
        keys: `[N, E]`; row i is the key of query i. With the default score E = D.
        negatives: `[M, E]`, such as a queue. If given, the other keys of the batch are not used as
            negatives. Inside shard_map or pmap, the same on every device.
        temperature: divides the score; a number or a scalar array.
        score: `(x [N, D], y [M, E]) -> [N, M]`: `cosine`, `dot`, `bilinear(weight)` or any other
            function. Only a `Score` is computed in tiles; other functions form the whole matrix.
        tile: number of rows and columns computed at a time, differentiable in reverse mode only;
            None chooses it, or computes a small matrix at once.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        `[N]`, float32 or wider.

    Raises:
        AssertionError: queries and keys are not two matrices with the same number of rows.
        ValueError: the temperature is not positive, or a single query has no negatives.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> queries = keys = jnp.eye(4)
        >>> print(losses.info_nce(queries, keys, temperature=0.5).round(4))
        [0.3408 0.3408 0.3408 0.3408]

    van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018,
    arXiv:1807.03748; with a queue: He et al., "Momentum Contrast for Unsupervised Visual
    Representation Learning", CVPR 2020, arXiv:1911.05722.
    """
    checks.assert_rank([queries, keys], 2)
    checks.assert_equal_shape_prefix([queries, keys], 1)
    temperature = _positive_temperature(temperature)
    if negatives is not None:
        checks.assert_shape(negatives, (None, keys.shape[1]))
    else:
        _check_has_negatives(queries, axis_name)

    dtype = floating_dtype(queries, keys)
    queries, keys = queries.astype(dtype), keys.astype(dtype)
    if isinstance(score, Score):
        rows = _divide(score.row(queries), temperature).astype(dtype)
        columns = score.column(keys).astype(dtype)
        positive = _row_products(rows, columns)
        if negatives is not None:
            columns = score.column(negatives.astype(dtype)).astype(dtype)
        shared = negatives is not None
        total = reduce_rows(
            LOG_SUM_EXP, rows, columns, shared=shared, tile=tile, axis_name=axis_name
        )
    else:
        score_of_pair = jax.vmap(lambda query, key: score(query[None], key[None])[0, 0])
        positive = _divide(score_of_pair(queries, keys), temperature)
        others = keys if negatives is None else negatives.astype(dtype)
        if negatives is None and axis_name is not None:
            others = jax.lax.all_gather(keys, axis_name, tiled=True)
        total = jax.nn.logsumexp(_divide(score(queries, others), temperature), axis=1)
    if negatives is not None:
        total = jnp.logaddexp(total, positive)
    return total - positive


def nt_xent(
    a: Array,
    b: Array,
    *,
    temperature: float | Array = 0.1,
    tile: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """NT-Xent, the loss of SimCLR: classify each view's partner among all 2N - 1 other views.

    ```
    z = [a; b], s_ij = cos(z_i, z_j) / temperature, p(i) = the other view of i's image
    loss_i = -s_ip(i) + log sum_{j != i} exp(s_ij)
    ```

    Args:
        a: `[N, D]`, embeddings of the first views.
        b: `[N, D]`, embeddings of the second views, in the same order.
        temperature: divides the cosine; a number or a scalar array.
        tile: number of rows and columns computed at a time, differentiable in reverse mode only;
            None chooses it, or computes a small matrix at once.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        `[2N]`, float32 or wider: the losses of a's rows, then of b's. The paper's loss is their
        mean.

    Raises:
        AssertionError: a and b are not two matrices of the same shape.
        ValueError: the temperature is not positive, or N = 1, which leaves no negatives.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> print(losses.nt_xent(jnp.eye(2), jnp.eye(2), temperature=0.5).round(4))
        [0.2395 0.2395 0.2395 0.2395]

    Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
    arXiv:2002.05709.
    """
    a, b = _normalize_views(a, b, temperature)
    _check_has_negatives(a, axis_name)
    z = _interleave(a, b)
    total = reduce_rows(LOG_SUM_EXP, z, exclude=1, tile=tile, axis_name=axis_name)
    return _losses_by_view(total, _row_products(a, b))


def decoupled_contrastive(
    a: Array,
    b: Array,
    *,
    temperature: float | Array = 0.1,
    sigma: float | None = None,
    tile: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """Decoupled contrastive loss: NT-Xent without the positive in the denominator.

    ```
    z = [a; b], s_ij = cos(z_i, z_j) / temperature, p(i) = the other view of i's image
    loss_i = -w_i s_ip(i) + log sum_{j not in {i, p(i)}} exp(s_ij)
    w_i = 1, or with sigma: 2 - exp(cos_ip(i) / sigma) / mean_k exp(cos_kp(k) / sigma)
    ```

    One logarithm is taken of the sum over the negatives of both views, as in equation 6 of the
    paper. The loss can be negative.

    Args:
        a: `[N, D]`, embeddings of the first views, N > 1.
        b: `[N, D]`, embeddings of the second views, in the same order.
        temperature: divides the cosine; a number or a scalar array.
        sigma: upweights hard positives (DCLW; 0.5 in the paper); None weights all pairs equally.
            The weights have no gradient.
        tile: number of rows and columns computed at a time, differentiable in reverse mode only;
            None chooses it, or computes a small matrix at once.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        `[2N]`, float32 or wider: the losses of a's rows, then of b's.

    Raises:
        AssertionError: a and b are not two matrices of the same shape.
        ValueError: the temperature or sigma is not positive, or N = 1, which leaves no negatives.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> print(losses.decoupled_contrastive(jnp.eye(2), jnp.eye(2), temperature=0.5).round(4))
        [-1.3069 -1.3069 -1.3069 -1.3069]

    Yeh et al., "Decoupled Contrastive Learning", ECCV 2022, arXiv:2110.06848.
    """
    a, b = _normalize_views(a, b, temperature)
    _check_has_negatives(a, axis_name)
    z = _interleave(a, b)
    total = reduce_rows(LOG_SUM_EXP, z, exclude=2, tile=tile, axis_name=axis_name)
    positive = _row_products(a, b)
    if sigma is not None:
        checks.assert_positive(sigma=sigma)
        cosines = jax.lax.stop_gradient(positive * jnp.asarray(temperature, positive.dtype))
        similarity = jnp.exp((cosines - 1) / sigma)
        mean = similarity.mean()
        if axis_name is not None:
            mean = jax.lax.pmean(mean, axis_name)
        positive = (2 - similarity / mean) * positive
    return _losses_by_view(total, positive)


def sup_con(
    embeddings: Array,
    labels: Array,
    *,
    temperature: float | Array = 0.1,
    tile: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """Supervised contrastive loss: embeddings with the same label are positives of each other.

    ```
    s_ij = cos(z_i, z_j) / temperature, P(i) = {j != i : labels_j = labels_i}
    loss_i = -mean_{j in P(i)} s_ij + log sum_{j != i} exp(s_ij)
    ```

    This is L_out of the paper. Two views of N images are 2N embeddings with repeated labels. If
    each image has a label of its own, the loss equals NT-Xent.

    Args:
        embeddings: `[N, D]`.
        labels: `[N]`, integers.
        temperature: divides the cosine; a number or a scalar array.
        tile: number of rows and columns computed at a time, differentiable in reverse mode only;
            None chooses it, or computes a small matrix at once.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        `[N]`, float32 or wider; 0 for an embedding without positives, which the paper's loss does
        not have. The mean over the others is the `masked_mean` with the mask
        `(labels[:, None] == labels).sum(1) > 1`; `loss > 0` is another mask, because the loss of a
        well-separated embedding rounds to 0.

    Raises:
        AssertionError: `embeddings` is not a matrix, or `labels` not a vector of the same length.
        TypeError: the labels are not integers.
        ValueError: the temperature is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> print(losses.sup_con(jnp.eye(3), jnp.array([0, 0, 1]), temperature=1.0).round(4))
        [0.6931 0.6931 0.    ]

    Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, arXiv:2004.11362.
    """
    checks.assert_rank([embeddings, labels], [2, 1])
    checks.assert_equal_shape_prefix([embeddings, labels], 1)
    checks.assert_integer("labels", labels)
    (z,) = _normalize_by_root(temperature, embeddings)
    total = reduce_rows(LOG_SUM_EXP, z, exclude=1, tile=tile, axis_name=axis_name)
    mean, positives = _mean_over_positives(z.astype(total.dtype), labels, axis_name)
    return jnp.where(positives > 0, total - mean, 0)


def _mean_over_positives(z: Array, labels: Array, axis_name: str | None) -> tuple[Array, Array]:
    """`[N]` mean product of each row with its positives, and `[N]` the number of positives.

    A mean of products is the product with the mean, so sums over labels suffice.
    """
    n, all_z, all_labels = z.shape[0], z, labels
    first: Array | int = 0
    if axis_name is not None:
        all_z, all_labels = jax.lax.all_gather((z, labels), axis_name, tiled=True)
        first = jax.lax.axis_index(axis_name) * n
    classes = all_z.shape[0]
    _, index = jnp.unique(all_labels, return_inverse=True, size=classes)
    sums = jax.ops.segment_sum(all_z, index, classes)
    counts = jnp.zeros(classes, z.dtype).at[index].add(jnp.ones((), z.dtype))
    index = jax.lax.dynamic_slice_in_dim(index, first, n)
    positives = counts[index] - 1
    return (z * (sums[index] - z)).sum(-1) / jnp.maximum(positives, 1), positives


def sigmoid_contrastive(
    a: Array,
    b: Array,
    *,
    temperature: float | Array = 0.1,
    bias: float | Array = -10.0,
    tile: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """Sigmoid loss of SigLIP: binary classification of every pair as matching or not.

    ```
    x_ij = cos(a_i, b_j) / temperature + bias
    loss_i = -log sigmoid(x_ii) - sum_{j != i} log sigmoid(-x_ij)
    ```

    Args:
        a: `[N, D]`.
        b: `[N, D]`; row i is the partner of a's row i.
        temperature: divides the cosine; learned in the paper, where its inverse starts at 10.
        bias: added to each logit; learned in the paper, where it starts at -10 because only one
            pair in N is positive.
        tile: number of rows and columns computed at a time, differentiable in reverse mode only;
            None chooses it, or computes a small matrix at once.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        `[N]`, float32 or wider: one loss for each row of a. The paper's loss is their mean.

    Raises:
        AssertionError: a and b are not two matrices of the same shape.
        ValueError: the temperature is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> print(losses.sigmoid_contrastive(jnp.eye(2), jnp.eye(2), bias=0.0).round(4))
        [0.6932 0.6932]

    Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, arXiv:2303.15343.
    """
    checks.assert_rank([a, b], 2)
    checks.assert_equal_shape([a, b])
    dtype = floating_dtype(a, b)
    rows = _divide(l2_normalize(a), _positive_temperature(temperature)).astype(dtype)
    columns = l2_normalize(b).astype(dtype)
    # The bias is one more coordinate, multiplied by 1.
    one = jnp.ones_like(columns[:, :1])
    rows = jnp.concatenate([rows, jnp.asarray(bias, dtype) * one], axis=1)
    columns = jnp.concatenate([columns, one], axis=1)
    # -log sigmoid(x) = softplus(x) - x for positives, -log sigmoid(-x) = softplus(x) for negatives.
    total = reduce_rows(SOFTPLUS_SUM, rows, columns, tile=tile, axis_name=axis_name)
    return total - _row_products(rows, columns)


def triplet(
    anchors: Array, positives: Array, negatives: Array, *, margin: float | None = 1.0
) -> Array:
    """Triplet loss: the positive is closer to the anchor than the negative, by a margin.

    ```
    loss_i = max(0, |anchors_i - positives_i| - |anchors_i - negatives_i| + margin)
    ```

    Embeddings are not normalized; apply `l2_normalize` first if the method does.

    Args:
        anchors: `[N, D]`.
        positives: `[N, D]`.
        negatives: `[N, D]`.
        margin: margin of the hinge; None gives the smooth form, `softplus(difference)`.

    Returns:
        `[N]`, float32 or wider. The distance of two equal embeddings has zero gradient.

    Raises:
        AssertionError: the arguments are not three matrices of the same shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> anchor, positive, negative = jnp.array([[0.0]]), jnp.array([[2.0]]), jnp.array([[2.5]])
        >>> losses.triplet(anchor, positive, negative).tolist()
        [0.5]

    Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", CVPR 2015,
    arXiv:1503.03832; the smooth form: Hermans et al., "In Defense of the Triplet Loss for Person
    Re-Identification", 2017, arXiv:1703.07737.
    """
    checks.assert_rank([anchors, positives, negatives], 2)
    checks.assert_equal_shape([anchors, positives, negatives])
    difference = _distance(anchors, positives) - _distance(anchors, negatives)
    if margin is None:
        return jax.nn.softplus(difference)
    return jax.nn.relu(difference + margin)


def _distance(x: Array, y: Array) -> Array:
    """Euclidean distance of rows, with zero gradient where it is zero."""
    x, y = accumulated(x, y)
    difference = x - y
    square = (difference * difference).sum(-1)
    nonzero = square > 0
    return jnp.where(nonzero, jnp.sqrt(jnp.where(nonzero, square, 1)), 0)


def _positive_temperature(temperature: float | Array) -> float | Array:
    checks.assert_rank(temperature, 0)
    return checks.positive("temperature", temperature)


def _divide(x: Array, temperature: float | Array) -> Array:
    return x / jnp.asarray(temperature, x.dtype)


def _check_has_negatives(x: Array, axis_name: str | None) -> None:
    if x.shape[0] * (1 if axis_name is None else jax.lax.axis_size(axis_name)) < 2:
        raise checks.value_error("a single pair has no negatives; pass at least two images.")


def _row_products(x: Array, y: Array) -> Array:
    """Inner products of corresponding rows."""
    x, y = accumulated(x, y)
    return (x * y).sum(-1)


def _normalize_views(a: Array, b: Array, temperature: float | Array) -> tuple[Array, Array]:
    """Unit vectors divided by the root of the temperature: products of two are logits."""
    checks.assert_rank([a, b], 2)
    checks.assert_equal_shape([a, b])
    a, b = _normalize_by_root(temperature, a, b)
    return a, b


def _normalize_by_root(temperature: float | Array, *arrays: Array) -> list[Array]:
    dtype = floating_dtype(*arrays)
    root = jnp.sqrt(_positive_temperature(temperature))
    return [_divide(l2_normalize(x), root).astype(dtype) for x in arrays]


def _interleave(a: Array, b: Array) -> Array:
    """`[2N, D]` with the two views of an image side by side, so that none changes its device."""
    return jnp.stack([a, b], axis=1).reshape(-1, a.shape[1])


def _losses_by_view(total: Array, positive: Array) -> Array:
    """`[2N]` losses, first views before second views, from interleaved totals `[2N]`."""
    return (total.reshape(-1, 2) - positive[:, None]).T.reshape(-1)
