"""Redundancy reduction: losses on the correlations of embedding dimensions over the batch.

They need sums of squares over D x D matrices `A^T B`. Since `|A^T B|^2 = <A A^T, B B^T>`, two N x N
matrices give the same sum, at a far lower cost for N << D; the cheaper form is used. It includes
the diagonal, whose squares have to be subtracted. `_off_diagonal_squares` says when that is safe.

With `axis_name=None` the arrays are global: one device, or jit over sharded arrays. With a name the
function runs inside shard_map or pmap on each device's part of the batch, and returns the loss of
the whole batch.
"""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.losses.batch import batch_size, center, degrees_of_freedom, sum_over_axis
from sslax.losses.gram import gram, gram_product
from sslax.ops.dtypes import accumulated
from sslax.types import Array


def cross_correlation(
    a: Array, b: Array, *, epsilon: float = 1e-5, axis_name: str | None = None
) -> Array:
    """Cross-correlation matrix of the dimensions of two views, over the batch.

    ```
    C_de = mean_i x_id y_ie,  x = (a - mean(a)) / sqrt(var(a) + epsilon), y likewise from b
    ```

    Mean and (biased) variance are over the batch, so two equal views have ones on the diagonal, up
    to epsilon.

    Args:
        a: `[N, D]`, embeddings of the first views, N > 1.
        b: `[N, D]`, embeddings of the second views, in the same order.
        epsilon: added to the variances; constant dimensions have correlation 0.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        `[D, D]`, float32 or wider; the same on every device.

    Raises:
        AssertionError: a and b are not two matrices of the same shape.
        ValueError: N = 1, which has no variance.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> a = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> print(losses.cross_correlation(a, -a).diagonal().round(3))
        [-1. -1.]

    Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021,
    arXiv:2103.03230.
    """
    checks.assert_rank([a, b], 2)
    checks.assert_equal_shape([a, b])
    n = degrees_of_freedom(a, axis_name) + 1
    x, y = (_standardize(z, epsilon, axis_name) for z in accumulated(a, b))
    return sum_over_axis(x.T @ y, axis_name) / n


def barlow_twins(
    a: Array,
    b: Array,
    *,
    off_diagonal_weight: float = 0.005,
    epsilon: float = 1e-5,
    axis_name: str | None = None,
) -> Array:
    """Barlow Twins: pulls the cross-correlation matrix of two views towards the identity.

    ```
    C = cross_correlation(a, b)
    loss = sum_d (C_dd - 1)^2 + off_diagonal_weight * sum_{d != e} C_de^2
    ```

    The D x D matrix is not formed if 2 N <= D.

    Args:
        a: `[N, D]`, embeddings of the first views, N > 1.
        b: `[N, D]`, embeddings of the second views, in the same order.
        off_diagonal_weight: lambda in the paper.
        epsilon: added to the variances.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        A scalar, float32 or wider; the same on every device.

    Raises:
        AssertionError: a and b are not two matrices of the same shape.
        ValueError: N = 1, which has no variance.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> a = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> round(float(losses.barlow_twins(a, a)), 3)
        0.0
        >>> round(float(losses.barlow_twins(a, -a)), 3)
        8.0

    Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021,
    arXiv:2103.03230.
    """
    checks.assert_rank([a, b], 2)
    checks.assert_equal_shape([a, b])
    n = degrees_of_freedom(a, axis_name) + 1
    x, y = (_standardize(z, epsilon, axis_name) for z in accumulated(a, b))
    diagonal = sum_over_axis((x * y).sum(0), axis_name) / n
    off_diagonal = _off_diagonal_squares(x, y, n * diagonal, axis_name) / n**2
    return ((diagonal - 1) ** 2).sum() + off_diagonal_weight * off_diagonal


def vicreg(
    a: Array,
    b: Array,
    *,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    axis_name: str | None = None,
) -> Array:
    """VICReg: invariance between views, variance of each dimension, no covariance between them.

    ```
    loss = invariance_weight * mean((a - b)^2)
         + variance_weight * (variance_hinge(a) + variance_hinge(b)) / 2
         + covariance_weight * (covariance_penalty(a) + covariance_penalty(b))
    ```

    The D x D matrices are not formed if 4 N <= D.

    Args:
        a: `[N, D]`, embeddings of the first views, N > 1.
        b: `[N, D]`, embeddings of the second views, in the same order.
        invariance_weight: lambda in the paper.
        variance_weight: mu in the paper.
        covariance_weight: nu in the paper.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        A scalar, float32 or wider; the same on every device.

    Raises:
        AssertionError: a and b are not two matrices of the same shape.
        ValueError: N = 1, which has no variance.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> a = 2 * jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> round(float(losses.vicreg(a, a)), 3), round(float(losses.vicreg(a, a + 1.0)), 3)
        (0.0, 25.0)

    Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised
    Learning", ICLR 2022, arXiv:2105.04906. The variance term is halved as in the authors' code.
    """
    checks.assert_rank([a, b], 2)
    checks.assert_equal_shape([a, b])
    a, b = accumulated(a, b)
    difference = a - b
    invariance = sum_over_axis((difference**2).sum(), axis_name)
    invariance /= batch_size(a, axis_name) * a.shape[1]
    variance = variance_hinge(a, axis_name=axis_name) + variance_hinge(b, axis_name=axis_name)
    covariance = covariance_penalty(a, axis_name=axis_name)
    covariance += covariance_penalty(b, axis_name=axis_name)
    return (
        invariance_weight * invariance
        + variance_weight * (variance / 2)
        + covariance_weight * covariance
    )


def variance_hinge(
    embeddings: Array,
    *,
    target: float = 1.0,
    epsilon: float = 1e-4,
    axis_name: str | None = None,
) -> Array:
    """VICReg's variance term: a hinge on the standard deviation of each dimension.

    ```
    loss = mean_d max(0, target - sqrt(var_d + epsilon))
    ```

    Args:
        embeddings: `[N, D]`, N > 1. The variance over the batch is unbiased (N - 1).
        target: gamma in the paper.
        epsilon: keeps the gradient of the root finite for a collapsed dimension.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        A scalar, float32 or wider; the same on every device.

    Raises:
        AssertionError: `embeddings` is not a matrix.
        ValueError: N = 1, which has no variance.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> round(float(losses.variance_hinge(jnp.ones((4, 3)))), 3)
        0.99

    Bardes et al., "VICReg", ICLR 2022, arXiv:2105.04906.
    """
    checks.assert_rank(embeddings, 2)
    freedom = degrees_of_freedom(embeddings, axis_name)
    x = center(embeddings, axis_name)
    variance = sum_over_axis((x * x).sum(0), axis_name) / freedom
    return jax.nn.relu(target - jnp.sqrt(variance + epsilon)).mean()


def covariance_penalty(embeddings: Array, *, axis_name: str | None = None) -> Array:
    """VICReg's covariance term: the sum of squared covariances of different dimensions.

    ```
    cov = sum_i (x_i - mean)(x_i - mean)^T / (N - 1)
    loss = sum_{d != e} cov_de^2 / D
    ```

    Args:
        embeddings: x, `[N, D]`, N > 1.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        A scalar, float32 or wider; the same on every device.

    Raises:
        AssertionError: `embeddings` is not a matrix.
        ValueError: N = 1, which has no covariance.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> float(losses.covariance_penalty(jnp.array([[1.0, 1.0], [-1.0, -1.0]])))
        4.0

    Bardes et al., "VICReg", ICLR 2022, arXiv:2105.04906.
    """
    checks.assert_rank(embeddings, 2)
    freedom = degrees_of_freedom(embeddings, axis_name)
    x = center(embeddings, axis_name)
    diagonal = sum_over_axis((x * x).sum(0), axis_name)
    squares = _off_diagonal_squares(x, x, diagonal, axis_name) / freedom**2
    return squares / embeddings.shape[1]


def _standardize(x: Array, epsilon: float, axis_name: str | None) -> Array:
    n = batch_size(x, axis_name)
    x = center(x, axis_name)
    return x * jax.lax.rsqrt(sum_over_axis((x * x).sum(0), axis_name) / n + epsilon)


def _off_diagonal_squares(x: Array, y: Array, diagonal: Array, axis_name: str | None) -> Array:
    """Sum of the squared off-diagonal entries of `x^T y`; `diagonal` is the diagonal of `x^T y`.

    With N x N matrices the squared diagonal is subtracted from the sum of all squares. For
    standardized x and y (Barlow Twins) the diagonal is at most that of the identity, the unit of
    the loss. The variances of `x^T x` have no such bound: a few dimensions may hold nearly all of
    the sum, and what remains would be rounding errors. So the entries of the 2 N dimensions with
    the largest variances are computed one by one. For the others the difference is safe: of 2 N
    vectors with N components the off-diagonal squares sum to at least as much as the squares of the
    diagonal, if they are equally long (Welch's bound), and the others are shorter than these.
    """
    n, dimensions = batch_size(x, axis_name), x.shape[1]
    symmetric = y is x
    if (4 if symmetric else 2) * n > dimensions:
        matrix = sum_over_axis(gram(x) if symmetric else x.T @ y, axis_name)
        return jnp.where(jnp.eye(dimensions, dtype=bool), 0, matrix * matrix).sum()
    large = jnp.zeros((), x.dtype)
    if symmetric:
        _, index = jax.lax.top_k(jax.lax.stop_gradient(diagonal), 2 * n)
        others = jnp.ones(dimensions, x.dtype).at[index].set(0)
        matrix = sum_over_axis(x[:, index].T @ x, axis_name)
        # Pairs of a large and another dimension are two entries of the whole matrix.
        entries = jnp.where(index[:, None] == jnp.arange(dimensions), 0, matrix * matrix)
        large = (entries * (1 + others)).sum()
        x = y = x * others
        diagonal = diagonal * others
    squares = gram_product(axis_name, x) if symmetric else gram_product(axis_name, x, y)
    return large + squares - (diagonal * diagonal).sum()
