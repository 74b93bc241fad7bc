"""Contrastive losses: each embedding against all others of the batch.

The similarity matrix of a large batch is never stored (see `pairwise`): memory grows as
O(N D + tile^2), so that the batch may be as large as its embeddings allow.

`axis_name=None` sees global arrays: one device, or jit over sharded arrays. A name means that the
function runs inside shard_map or pmap and that every device holds its part of the batch; it
returns the losses of that part, each against the whole batch. The embeddings then travel from
device to device around a ring.
"""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.losses.pairwise import LOG_SUM_EXP, SOFTPLUS_SUM, reduce_rows
from sslax.losses.scores import Score, ScoreFunction, cosine, l2_normalize

Array = jax.Array


def info_nce(
    queries: Array,
    keys: Array,
    *,
    negatives: Array | None = None,
    temperature: float | Array = 0.1,
    score: ScoreFunction = cosine,
    tile: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """InfoNCE: find each query's own key, among the batch's keys or among given negatives.

    ```
    s_ij = score(queries_i, keys_j) / temperature
    loss_i = -s_ii + log sum_j exp(s_ij)                                   (negatives=None)
    loss_i = -s_ii + log(exp(s_ii) + sum_m exp(score(queries_i, negatives_m) / temperature))
    ```

    Gradients reach queries, keys, negatives, the temperature and what the score has learned; stop
    those that a method does not train, such as the keys of a momentum encoder.

    Args:
        queries: `[N, D]`.
        keys: `[N, E]`; the key of query i is row i. With the default score E = D.
        negatives: `[M, E]`, a queue for example: then the other keys of the batch are not
            negatives. Inside shard_map or pmap every device gives the same ones.
        temperature: divides the score; a number or a scalar array.
        score: `(x [N, D], y [M, E]) -> [N, M]`: `cosine`, `dot`, `bilinear(weight)` or any
            function. Only a `Score` is computed in tiles; other functions make the whole matrix.
        tile: rows and columns computed at a time; None chooses.
        axis_name: the mapped axis over which the batch is split; None for global arrays.

    Returns:
        `[N]`, float32 at least.

    Raises:
        AssertionError: queries and keys are not two matrices of equally many rows.
        ValueError: the temperature is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> queries = keys = jnp.eye(4)
        >>> print(losses.info_nce(queries, keys, temperature=0.5).round(4))
        [0.3408 0.3408 0.3408 0.3408]

    van den Oord et al., `Representation Learning with Contrastive Predictive Coding
    <https://arxiv.org/abs/1807.03748>`_, 2018; with a queue: He et al., `Momentum Contrast
    <https://arxiv.org/abs/1911.05722>`_, 2020.
    """
    checks.assert_rank([queries, keys], 2)
    checks.assert_equal_shape_prefix([queries, keys], 1)
    _check_temperature(temperature)
    others = keys if negatives is None else negatives
    checks.assert_shape(others, (None, keys.shape[1]))

    if isinstance(score, Score):
        dtype = jnp.result_type(queries, keys)
        rows = (score.row(queries) / temperature).astype(dtype)
        columns = score.column(keys).astype(dtype)
        positive = _row_products(rows, columns)
        if negatives is not None:
            columns = score.column(negatives).astype(dtype)
        total = reduce_rows(
            LOG_SUM_EXP,
            rows,
            columns,
            shared=negatives is not None,
            tile=tile,
            axis_name=axis_name,
        )
    else:
        one = jax.vmap(lambda query, key: score(query[None], key[None])[0, 0])
        positive = one(queries, keys) / temperature
        if negatives is None and axis_name is not None:
            others = jax.lax.all_gather(keys, axis_name, tiled=True)
        total = jax.nn.logsumexp(score(queries, others) / temperature, axis=1)
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
    """NT-Xent, SimCLR's loss: each view finds the other one among all 2N - 1 other views.

    ```
    z = [a; b], s_ij = cos(z_i, z_j) / temperature, p(i) = the other view of i's image
    loss_i = -s_ip(i) + log sum_{j != i} exp(s_ij)
    ```

    Args:
        a: `[N, D]`, embeddings of the first views.
        b: `[N, D]`, embeddings of the second views, in the same order.
        temperature: divides the cosine; a number or a scalar array.
        tile: rows and columns computed at a time; None chooses.
        axis_name: the mapped axis over which the batch is split; None for global arrays.

    Returns:
        `[2N]`, float32 at least: the losses of a's rows, then of b's. Their mean is the loss of
        the paper.

    Raises:
        AssertionError: a and b are not two matrices of one shape.
        ValueError: the temperature is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> print(losses.nt_xent(jnp.eye(2), jnp.eye(2), temperature=0.5).round(4))
        [0.2395 0.2395 0.2395 0.2395]

    Chen et al., `A Simple Framework for Contrastive Learning of Visual Representations
    <https://arxiv.org/abs/2002.05709>`_, 2020.
    """
    a, b = _scaled_views(a, b, temperature)
    z = _interleave(a, b)
    total = reduce_rows(LOG_SUM_EXP, z, exclude=1, tile=tile, axis_name=axis_name)
    return _of_both_views(total, _row_products(a, b))


def decoupled_contrastive(
    a: Array,
    b: Array,
    *,
    temperature: float | Array = 0.1,
    sigma: float | None = None,
    tile: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """Decoupled contrastive loss: NT-Xent with the positive taken out of the denominator.

    ```
    z = [a; b], s_ij = cos(z_i, z_j) / temperature, p(i) = the other view of i's image
    loss_i = -w_i s_ip(i) + log sum_{j not in {i, p(i)}} exp(s_ij)
    w_i = 1, or with sigma: 2 - exp(cos_ip(i) / sigma) / mean_k exp(cos_kp(k) / sigma)
    ```

    The logarithm is over one sum, the negatives of both views, as in equation 6 of the paper. The
    loss may be negative.

    Args:
        a: `[N, D]`, embeddings of the first views, N > 1.
        b: `[N, D]`, embeddings of the second views, in the same order.
        temperature: divides the cosine; a number or a scalar array.
        sigma: weighs hard positives up (DCLW; the paper takes 0.5); None weighs all alike. No
            gradient goes through the weights.
        tile: rows and columns computed at a time; None chooses.
        axis_name: the mapped axis over which the batch is split; None for global arrays.

    Returns:
        `[2N]`, float32 at least: the losses of a's rows, then of b's.

    Raises:
        AssertionError: a and b are not two matrices of one shape.
        ValueError: the temperature is not positive, or there is one pair, without a negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> print(losses.decoupled_contrastive(jnp.eye(2), jnp.eye(2), temperature=0.5).round(4))
        [-1.3069 -1.3069 -1.3069 -1.3069]

    Yeh et al., `Decoupled Contrastive Learning <https://arxiv.org/abs/2110.06848>`_, 2022.
    """
    a, b = _scaled_views(a, b, temperature)
    if a.shape[0] * (1 if axis_name is None else jax.lax.axis_size(axis_name)) < 2:
        raise ValueError("a single pair has no negatives; give at least two images.")
    z = _interleave(a, b)
    total = reduce_rows(LOG_SUM_EXP, z, exclude=2, tile=tile, axis_name=axis_name)
    positive = _row_products(a, b)
    if sigma is not None:
        cosines = jax.lax.stop_gradient(positive * temperature)
        likely = jnp.exp((cosines - 1) / sigma)
        mean = likely.mean()
        if axis_name is not None:
            mean = jax.lax.pmean(mean, axis_name)
        positive = (2 - likely / mean) * positive
    return _of_both_views(total, positive)


def sup_con(
    embeddings: Array,
    labels: Array,
    *,
    temperature: float | Array = 0.1,
    tile: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """Supervised contrastive loss: all embeddings of one label are positives of each other.

    ```
    s_ij = cos(z_i, z_j) / temperature, P(i) = {j != i : labels_j = labels_i}
    loss_i = -mean_{j in P(i)} s_ij + log sum_{j != i} exp(s_ij)
    ```

    This is the paper's L_out. Views are embeddings like any other: give two views of N images as
    2N rows with their labels repeated. With labels that name the image it is NT-Xent.

    Args:
        embeddings: `[N, D]`.
        labels: `[N]`, integers.
        temperature: divides the cosine; a number or a scalar array.
        tile: rows and columns computed at a time; None chooses.
        axis_name: the mapped axis over which the batch is split; None for global arrays.

    Returns:
        `[N]`, float32 at least; zero for an embedding without a positive. A mean over the others:
        `masked_mean(loss, loss > 0)`.

    Raises:
        AssertionError: embeddings are not a matrix, or labels not a vector of its length.
        ValueError: the temperature is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> print(losses.sup_con(jnp.eye(3), jnp.array([0, 0, 1]), temperature=1.0).round(4))
        [0.6931 0.6931 0.    ]

    Khosla et al., `Supervised Contrastive Learning <https://arxiv.org/abs/2004.11362>`_, 2020.
    """
    checks.assert_rank([embeddings, labels], [2, 1])
    checks.assert_equal_shape_prefix([embeddings, labels], 1)
    _check_temperature(temperature)
    z = (l2_normalize(embeddings) / jnp.sqrt(temperature)).astype(embeddings.dtype)
    total = reduce_rows(LOG_SUM_EXP, z, exclude=1, tile=tile, axis_name=axis_name)

    # The mean over positives is a product with their mean, so that sums over labels are enough.
    z = z.astype(total.dtype)
    n, everything, all_labels, first = z.shape[0], z, labels, 0
    if axis_name is not None:
        everything, all_labels = jax.lax.all_gather((z, labels), axis_name, tiled=True)
        first = jax.lax.axis_index(axis_name) * n
    classes = everything.shape[0]
    _, index = jnp.unique(all_labels, return_inverse=True, size=classes)
    sums = jax.ops.segment_sum(everything, index, classes)
    counts = jnp.zeros(classes, total.dtype).at[index].add(1)
    index = jax.lax.dynamic_slice_in_dim(index, first, n)
    positives = counts[index] - 1
    mean = (z * (sums[index] - z)).sum(-1) / jnp.maximum(positives, 1)
    return jnp.where(positives > 0, total - mean, 0)


def sigmoid_contrastive(
    a: Array,
    b: Array,
    *,
    temperature: float | Array = 0.1,
    bias: float | Array = -10.0,
    tile: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """Sigmoid loss of SigLIP: is this pair one of a kind? Asked of every pair, each by itself.

    ```
    x_ij = cos(a_i, b_j) / temperature + bias
    loss_i = -log sigmoid(x_ii) - sum_{j != i} log sigmoid(-x_ij)
    ```

    Args:
        a: `[N, D]`.
        b: `[N, D]`; the partner of a's row i is row i.
        temperature: divides the cosine; learned in the paper, where its inverse starts at 10.
        bias: added to each logit; learned in the paper, where it starts at -10, since all pairs
            but one in N are negative.
        tile: rows and columns computed at a time; None chooses.
        axis_name: the mapped axis over which the batch is split; None for global arrays.

    Returns:
        `[N]`, float32 at least: one loss for each row of a. Their mean is the loss of the paper.

    Raises:
        AssertionError: a and b are not two matrices of one shape.
        ValueError: the temperature is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> print(losses.sigmoid_contrastive(jnp.eye(2), jnp.eye(2), bias=0.0).round(4))
        [0.6932 0.6932]

    Zhai et al., `Sigmoid Loss for Language Image Pre-Training
    <https://arxiv.org/abs/2303.15343>`_, 2023.
    """
    checks.assert_rank([a, b], 2)
    checks.assert_equal_shape([a, b])
    _check_temperature(temperature)
    dtype = jnp.result_type(a, b)
    rows, columns = l2_normalize(a) / temperature, l2_normalize(b)
    # The bias rides along as one more coordinate: a product with 1.
    one = jnp.ones_like(columns[:, :1])
    rows = jnp.concatenate([rows, bias * one], axis=1).astype(dtype)
    columns = jnp.concatenate([columns, one], axis=1).astype(dtype)
    # -log sigmoid(x) = softplus(x) - x for the partner, -log sigmoid(-x) = softplus(x) for others.
    total = reduce_rows(SOFTPLUS_SUM, rows, columns, tile=tile, axis_name=axis_name)
    return total - _row_products(rows, columns)


def triplet(
    anchors: Array, positives: Array, negatives: Array, *, margin: float | None = 1.0
) -> Array:
    """Triplet loss: the positive is nearer to the anchor than the negative, by a margin.

    ```
    loss_i = max(0, |anchors_i - positives_i| - |anchors_i - negatives_i| + margin)
    ```

    Embeddings are taken as they are; apply `l2_normalize` first where the method says so.

    Args:
        anchors: `[N, D]`.
        positives: `[N, D]`.
        negatives: `[N, D]`.
        margin: of the hinge; None takes its smooth form, `softplus(difference)`.

    Returns:
        `[N]`, float32 at least. Where two embeddings are equal the gradient of their distance is
        zero.

    Raises:
        AssertionError: the three are not matrices of one shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> anchor, positive, negative = jnp.array([[0.0]]), jnp.array([[2.0]]), jnp.array([[2.5]])
        >>> losses.triplet(anchor, positive, negative).tolist()
        [0.5]

    Schroff et al., `FaceNet <https://arxiv.org/abs/1503.03832>`_, 2015; the smooth form: Hermans
    et al., `In Defense of the Triplet Loss <https://arxiv.org/abs/1703.07737>`_, 2017.
    """
    checks.assert_rank([anchors, positives, negatives], 2)
    checks.assert_equal_shape([anchors, positives, negatives])
    difference = _distance(anchors, positives) - _distance(anchors, negatives)
    if margin is None:
        return jax.nn.softplus(difference)
    return jax.nn.relu(difference + margin)


def _distance(x: Array, y: Array) -> Array:
    difference = x.astype(jnp.promote_types(x.dtype, jnp.float32)) - y
    square = (difference * difference).sum(-1)
    apart = square > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)


def _check_temperature(temperature: float | Array) -> None:
    if isinstance(temperature, int | float) and temperature <= 0:
        raise ValueError(
            f"temperature {temperature} is not positive; it divides the similarities "
            "(0.1 is usual), so give the inverse of a logit scale."
        )


def _row_products(x: Array, y: Array) -> Array:
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return (x.astype(dtype) * y.astype(dtype)).sum(-1)


def _scaled_views(a: Array, b: Array, temperature: float | Array) -> tuple[Array, Array]:
    """Both views of unit length over the root of the temperature: products of two are logits."""
    checks.assert_rank([a, b], 2)
    checks.assert_equal_shape([a, b])
    _check_temperature(temperature)
    dtype = jnp.result_type(a, b)
    return tuple((l2_normalize(x) / jnp.sqrt(temperature)).astype(dtype) for x in (a, b))


def _interleave(a: Array, b: Array) -> Array:
    """`[2N, D]`, the two views of an image side by side, so that none changes its device."""
    return jnp.stack([a, b], axis=1).reshape(-1, a.shape[1])


def _of_both_views(total: Array, positive: Array) -> Array:
    """`[2N]`, the first views' losses and then the second views', from interleaved sums."""
    return (total.reshape(-1, 2) - positive[:, None]).T.reshape(-1)
