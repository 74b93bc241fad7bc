"""Weighted k-nearest-neighbor classification of frozen features.

Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination,
https://arxiv.org/abs/1805.01978
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sslax import checks
from sslax.losses.scores import l2_normalize
from sslax.measures._checks import check_labeled
from sslax.ops.dtypes import at_least_float32
from sslax.types import Array


def nearest_neighbors(
    train_features: Array, test_features: Array, *, k: int, chunk_size: int = 512
) -> tuple[Array, Array]:
    """The k nearest training rows of each test row by cosine similarity, nearest first.

    `s_mn = <x_m, y_n> / (|x_m| |y_n|)`; a zero row has similarity 0 to every row. Test rows are
    processed `chunk_size` at a time, so memory is `chunk_size * N` floats instead of `M * N`.

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
    if not 1 <= k <= train_features.shape[0]:
        raise checks.value_error(
            f"k = {k} neighbors were requested from {train_features.shape[0]} training examples; "
            "pass a smaller k, at least 1, or more examples."
        )
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
    train_features: Array,
    train_labels: ArrayLike,
    test_features: Array,
    test_labels: ArrayLike,
    *,
    num_classes: int,
    k: int = 200,
    temperature: float = 0.1,
) -> float:
    """Top-1 accuracy of `knn_probabilities`, in [0, 1].

    Args:
        train_features: `[N, D]`.
        train_labels: `[N]` integers in [0, num_classes).
        test_features: `[M, D]`.
        test_labels: `[M]` integers in [0, num_classes).
        num_classes: number of classes.
        k: number of neighbors, at most N.
        temperature: T.

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
    probabilities = knn_probabilities(
        train_features,
        train_labels,
        test_features,
        num_classes=num_classes,
        k=k,
        temperature=temperature,
    )
    return float(np.mean(np.asarray(probabilities).argmax(-1) == np.asarray(test_labels)))


@functools.partial(jax.jit, static_argnames="num_classes")
def vote(similarity: Array, labels: Array, num_classes: int, temperature: float) -> Array:
    """Weighted vote `[M, num_classes]` over the neighbors' similarities and labels `[M, k]`."""
    similarity = at_least_float32(similarity)
    # exp(s / T) itself could overflow.
    weights = jax.nn.softmax(similarity / jnp.asarray(temperature, similarity.dtype))
    votes = jax.nn.one_hot(labels, num_classes, dtype=weights.dtype)
    return jnp.einsum("mk,mkc->mc", weights, votes)


@functools.partial(jax.jit, static_argnames=("k", "chunk_size"))
def _nearest(train: Array, test: Array, k: int, chunk_size: int) -> tuple[Array, Array]:
    train = _unit_rows(train)

    def nearest(row: Array) -> tuple[Array, Array]:
        similarity = jnp.matmul(train, row, precision=jax.lax.Precision.HIGHEST)
        return jax.lax.top_k(similarity, k)

    return jax.lax.map(nearest, _unit_rows(test), batch_size=chunk_size)


def _unit_rows(x: Array) -> Array:
    return l2_normalize(x.astype(jnp.float32), epsilon=1e-12)
