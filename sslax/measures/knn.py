"""Weighted k-nearest-neighbor classification of frozen features.

Neither similarities of all pairs nor all training rows are ever in one place: queries and training
rows are compared block by block, and with a mesh each device holds a part of the training rows and
finds the k nearest among them.

Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination,
https://arxiv.org/abs/1805.01978
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike

from sslax import checks
from sslax.losses.scores import l2_normalize
from sslax.measures import rows
from sslax.measures._checks import check_labeled
from sslax.measures.rows import Rows
from sslax.ops.dtypes import at_least_float32
from sslax.types import Array

_QUERIES = 512  # of a block, over all devices
_BANK = 16384  # training rows of a block
_PADDING = -1  # label of a row that only fills a device's part


def nearest_neighbors(
    train_features: Array, test_features: Array, *, k: int, chunk_size: int = 512
) -> tuple[Array, Array]:
    """The k nearest training rows of each test row by cosine similarity, nearest first.

    `s_mn = <x_m, y_n> / (|x_m| |y_n|)`; a zero row has similarity 0 to every row, and of equal
    similarities the first row counts as nearer. `chunk_size` test rows are compared with 16,384
    training rows at a time, so memory is `16384 * chunk_size` floats instead of `M * N`.

    Args:
        train_features: `[N, D]`.
        test_features: `[M, D]`.
        k: number of neighbors, at most N.
        chunk_size: test rows per chunk.

    Returns:
        Similarities `[M, k]` float32 in [-1, 1], and indices into the training set `[M, k]` int32.

    Raises:
        ValueError: if k is not in 1, ..., N, or a feature is NaN or infinite.

    Example:
        >>> train = jnp.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
        >>> similarity, index = nearest_neighbors(train, jnp.array([[3.0, 4.0]]), k=2)
        >>> index.tolist(), similarity.round(3).tolist()
        ([[1, 0]], [[0.800000011920929, 0.6000000238418579]])
    """
    checks.assert_rank([train_features, test_features], 2)
    checks.assert_equal_shape_suffix([train_features, test_features], 1)
    _check_count(k, train_features.shape[0])
    checks.assert_finite("training features", train_features)
    checks.assert_finite("test features", test_features)
    return _nearest(train_features, test_features, k, min(chunk_size, test_features.shape[0]))


def knn_probabilities(
    train_features: Array,
    train_labels: ArrayLike,
    test_features: Array,
    *,
    num_classes: int,
    k: int = 200,
    temperature: float = 0.1,
) -> Array:
    """Class probabilities from a weighted vote of the k nearest neighbors.

    `p_c = sum_i exp(s_i / T) [y_i = c] / sum_i exp(s_i / T)`, over the k training examples with the
    highest cosine similarity `s_i`.

    Args:
        train_features: `[N, D]`.
        train_labels: `[N]` integers in [0, num_classes).
        test_features: `[M, D]`.
        num_classes: number of classes.
        k: number of neighbors, at most N.
        temperature: T; lower gives more weight to the nearest.

    Returns:
        `[M, num_classes]` float32, rows summing to 1.

    Raises:
        TypeError: if the labels are not integers.
        ValueError: if k is not in 1, ..., N, a feature is NaN or infinite, or the temperature is
            not positive.

    Example:
        >>> train = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> p = knn_probabilities(
        ...     train, jnp.array([0, 0, 1]), jnp.array([[1.0, 0.2]]), num_classes=2, k=3
        ... )
        >>> int(p.argmax())
        0
    """
    checks.assert_shape(train_labels, (train_features.shape[0],))
    checks.assert_integer("training labels", train_labels)
    checks.positive("temperature", temperature)
    similarity, index = nearest_neighbors(train_features, test_features, k=k)
    return vote(similarity, jnp.asarray(train_labels)[index], num_classes, temperature)


def knn_accuracy(
    train_features: Rows,
    train_labels: ArrayLike,
    test_features: Rows,
    test_labels: ArrayLike,
    *,
    num_classes: int,
    k: int = 200,
    temperature: float = 0.1,
    mesh: Mesh | None = None,
) -> float:
    """Top-1 accuracy of `knn_probabilities`, in [0, 1].

    Each of d devices holds N / d training rows, `4 D N / d` bytes, and its part of the test rows.
    For 512 test rows at a time, it finds the k nearest of its own training rows, and the k nearest
    of all are chosen from those; the result does not depend on d.

    Args:
        train_features: `[N, D]`; in a run of several processes, this process's rows of them, and
            likewise below (see `measures.rows`).
        train_labels: `[N]` integers in [0, num_classes).
        test_features: `[M, D]`.
        test_labels: `[M]` integers in [0, num_classes).
        num_classes: number of classes.
        k: number of neighbors, at most N.
        temperature: T.
        mesh: the devices; all processes of it call together. None for one device of this process.

    Returns:
        The accuracy as a Python float.

    Raises:
        TypeError: if the labels are not integers.
        ValueError: if k is not in 1, ..., N, a label lies outside [0, num_classes), a feature is
            NaN or infinite, or the temperature is not positive.

    Example:
        >>> x, y = jnp.eye(2), jnp.array([0, 1])
        >>> knn_accuracy(x, y, x, y, num_classes=2, k=1)
        1.0
    """
    check_labeled(train_features, train_labels, test_features, test_labels, num_classes)
    checks.positive("temperature", temperature)
    mesh = rows.one_device() if mesh is None else mesh
    train = rows.Layout(len(train_features), mesh)
    test = rows.Layout(len(test_features), mesh)
    _check_count(k, len(train.positions))
    correct = _count_correct(
        train.put(train_features, np.float32),
        train.put(train_labels, np.int32, fill=_PADDING),
        test.put(test_features, np.float32),
        test.put(test_labels, np.int32, fill=_PADDING),
        temperature,
        mesh=mesh,
        num_classes=num_classes,
        k=k,
    )
    return int(correct) / len(test.positions)


@functools.partial(jax.jit, static_argnames="num_classes")
def vote(similarity: Array, labels: Array, num_classes: int, temperature: float) -> Array:
    """Weighted vote `[M, num_classes]` over the neighbors' similarities and labels `[M, k]`."""
    similarity = at_least_float32(similarity)
    # exp(s / T) itself could overflow.
    weights = jax.nn.softmax(similarity / jnp.asarray(temperature, similarity.dtype))
    # A sum of masked weights, which the compiler fuses: no array [M, k, num_classes] is made.
    chosen = labels[..., None] == jnp.arange(num_classes, dtype=labels.dtype)
    return jnp.sum(jnp.where(chosen, weights[..., None], 0.0), axis=-2)


def _check_count(k: int, examples: int) -> None:
    if not 1 <= k <= examples:
        raise checks.value_error(
            f"k = {k} neighbors were requested from {examples} training examples; pass a smaller "
            "k, at least 1, or more examples."
        )


@functools.partial(jax.jit, static_argnames=("mesh", "num_classes", "k"))
def _count_correct(
    bank: Array,
    labels: Array,
    queries: Array,
    truth: Array,
    temperature: float,
    *,
    mesh: Mesh,
    num_classes: int,
    k: int,
) -> Array:
    """How many queries are classified correctly; all rows lie as a `rows.Layout` puts them."""
    axes = mesh.axis_names

    def is_correct(bank: Array, labels: Array, query: Array, truth: Array) -> Array:
        """For one query of each device."""
        everyone = jax.lax.all_gather(query, axes)
        found = _nearest_rows(bank, labels, everyone, k)
        # The other devices' findings for this device's query, `[devices · k]`.
        similarity, label = (
            jax.lax.all_to_all(x, axes, split_axis=0, concat_axis=0).ravel() for x in found
        )
        similarity, at = jax.lax.top_k(similarity, k)
        votes = vote(similarity[None], label[at][None], num_classes, temperature)
        return jnp.argmax(votes[0]) == truth

    def count(bank: Array, labels: Array, queries: Array, truth: Array) -> Array:
        size = max(1, _QUERIES // mesh.size)
        correct = jax.lax.map(
            lambda one: is_correct(bank, labels, *one), (queries, truth), batch_size=size
        )
        return jax.lax.psum(jnp.sum(correct, dtype=jnp.int32), axes)

    spread = PartitionSpec(axes)
    return jax.shard_map(count, mesh=mesh, in_specs=spread, out_specs=PartitionSpec())(
        bank, labels, queries, truth
    )


@functools.partial(jax.jit, static_argnames=("k", "chunk_size"))
def _nearest(train: Array, test: Array, k: int, chunk_size: int) -> tuple[Array, Array]:
    index = jnp.arange(train.shape[0], dtype=jnp.int32)

    def nearest(row: Array) -> tuple[Array, Array]:
        similarity, found = _nearest_rows(train, index, row[None], k)
        return similarity[0], found[0]

    return jax.lax.map(nearest, test, batch_size=chunk_size)


def _nearest_rows(bank: Array, names: Array, queries: Array, k: int) -> tuple[Array, Array]:
    """Similarities `[m, k]` to the nearest rows of `bank` `[n, D]`, and their `names` `[n]`.

    The bank is compared block by block, each block with the best so far. Rows whose name is
    `_PADDING` are nobody's neighbors; where there are fewer than k others, similarities of -inf
    fill up.
    """
    queries = _unit_rows(queries)
    size = min(_BANK, bank.shape[0])

    def merge(best: tuple[Array, Array], first: Array, size: int) -> tuple[Array, Array]:
        part, name = (jax.lax.dynamic_slice_in_dim(x, first, size) for x in (bank, names))
        similarity = jnp.matmul(queries, _unit_rows(part).T, precision=jax.lax.Precision.HIGHEST)
        similarity = jnp.where(name == _PADDING, -jnp.inf, similarity)
        name = jnp.broadcast_to(name, similarity.shape)
        similarity, name = (jnp.concatenate(x, axis=-1) for x in zip(best, (similarity, name)))
        similarity, at = jax.lax.top_k(similarity, k)  # of equals, the first
        return similarity, jnp.take_along_axis(name, at, axis=-1)

    # Inside shard_map the start of a loop varies over devices as its results do.
    shape = queries.shape[0], k
    best = (
        jnp.where(False, queries[:, :1], jnp.full(shape, -jnp.inf, queries.dtype)),
        jnp.where(False, names[:1], jnp.full(shape, _PADDING, names.dtype)),
    )
    blocks, rest = divmod(bank.shape[0], size)
    firsts = size * jnp.arange(blocks, dtype=jnp.int32)
    best, _ = jax.lax.scan(lambda best, first: (merge(best, first, size), None), best, firsts)
    return merge(best, jnp.int32(blocks * size), rest) if rest else best


def _unit_rows(x: Array) -> Array:
    return l2_normalize(x.astype(jnp.float32), epsilon=1e-12)
