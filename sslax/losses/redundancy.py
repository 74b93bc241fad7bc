"""Redundancy reduction: losses on the correlation of embedding dimensions over the batch.

They need sums of squares over D x D matrices `A^T B`. Since `|A^T B|^2 = <A A^T, B B^T>`, such a
sum comes from two N x N matrices as well, and for N << D from far less work; the cheaper way is
taken. N < D / 2 is also where no cancellation can hurt: a D x D matrix of rank N cannot have a
small off-diagonal part.

`axis_name=None` sees global arrays: one device, or jit over sharded arrays. A name means that the
function runs inside shard_map or pmap, where every device holds its part of the batch and gets the
loss of the whole batch.
"""

import jax
import jax.numpy as jnp

from sslax import checks

Array = jax.Array


def cross_correlation(
    a: Array, b: Array, *, epsilon: float = 1e-5, axis_name: str | None = None
) -> Array:
    """Correlation of each dimension of one view with each of the other, over the batch.

    ```
    C_ij = mean_n x_ni y_nj,  x = (a - mean(a)) / sqrt(var(a) + epsilon), y likewise from b
    ```

    Mean and variance are over the batch; the variance divides by N, so that two equal views have
    ones on the diagonal (but for epsilon).

    Args:
        a: `[N, D]`, embeddings of the first views.
        b: `[N, D]`, embeddings of the second views, in the same order.
        epsilon: added to the variances; a dimension that does not vary has correlation zero.
        axis_name: the mapped axis over which the batch is split; None for global arrays.

    Returns:
        `[D, D]`, float32 at least; the same on every device.

    Raises:
        AssertionError: a and b are not two matrices of one shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> a = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> print(losses.cross_correlation(a, -a).diagonal().round(3))
        [-1. -1.]
    """
    checks.assert_rank([a, b], 2)
    checks.assert_equal_shape([a, b])
    n = _total(a, axis_name)
    x, y = (_standardize(z, epsilon, axis_name) for z in (a, b))
    return _sum_over_axis(x.T @ y, axis_name) / n


def barlow_twins(
    a: Array,
    b: Array,
    *,
    off_diagonal_weight: float = 0.005,
    epsilon: float = 1e-5,
    axis_name: str | None = None,
) -> Array:
    """Barlow Twins: the cross-correlation of two views shall be the identity.

    ```
    C = cross_correlation(a, b)
    loss = sum_i (C_ii - 1)^2 + off_diagonal_weight * sum_{i != j} C_ij^2
    ```

    The D x D matrix is not made where 2 N <= D.

    Args:
        a: `[N, D]`, embeddings of the first views, N > 1.
        b: `[N, D]`, embeddings of the second views, in the same order.
        off_diagonal_weight: the paper's lambda.
        epsilon: added to the variances.
        axis_name: the mapped axis over which the batch is split; None for global arrays.

    Returns:
        `[]`, float32 at least; the same on every device.

    Raises:
        AssertionError: a and b are not two matrices of one shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> a = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> round(float(losses.barlow_twins(a, a)), 3)
        0.0
        >>> round(float(losses.barlow_twins(a, -a)), 3)
        8.0

    Zbontar et al., `Barlow Twins <https://arxiv.org/abs/2103.03230>`_, 2021.
    """
    checks.assert_rank([a, b], 2)
    checks.assert_equal_shape([a, b])
    n = _total(a, axis_name)
    x, y = (_standardize(z, epsilon, axis_name) for z in (a, b))
    diagonal = _sum_over_axis((x * y).sum(0), axis_name) / n
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
    """VICReg: views agree, every dimension varies, and no two dimensions vary together.

    ```
    loss = invariance_weight * mean((a - b)^2)
         + variance_weight * (variance_hinge(a) + variance_hinge(b)) / 2
         + covariance_weight * (covariance_penalty(a) + covariance_penalty(b))
    ```

    The D x D matrices are not made where 2 N <= D.

    Args:
        a: `[N, D]`, embeddings of the first views, N > 1.
        b: `[N, D]`, embeddings of the second views, in the same order.
        invariance_weight: the paper's lambda.
        variance_weight: the paper's mu.
        covariance_weight: the paper's nu.
        axis_name: the mapped axis over which the batch is split; None for global arrays.

    Returns:
        `[]`, float32 at least; the same on every device.

    Raises:
        AssertionError: a and b are not two matrices of one shape.
        ValueError: the batch has one example, which has no variance.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> a = 2 * jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> round(float(losses.vicreg(a, a)), 3), round(float(losses.vicreg(a, a + 1.0)), 3)
        (0.0, 25.0)

    Bardes et al., `VICReg <https://arxiv.org/abs/2105.04906>`_, 2022. The variance term is halved
    as in the authors' code.
    """
    checks.assert_rank([a, b], 2)
    checks.assert_equal_shape([a, b])
    difference = _accurate(a) - _accurate(b)
    invariance = _sum_over_axis((difference**2).sum(), axis_name)
    invariance /= _total(a, axis_name) * a.shape[1]
    variance = sum(variance_hinge(z, axis_name=axis_name) for z in (a, b)) / 2
    covariance = sum(covariance_penalty(z, axis_name=axis_name) for z in (a, b))
    return (
        invariance_weight * invariance + variance_weight * variance + covariance_weight * covariance
    )


def variance_hinge(
    embeddings: Array,
    *,
    target: float = 1.0,
    epsilon: float = 1e-4,
    axis_name: str | None = None,
) -> Array:
    """VICReg's variance term: how far the standard deviations are below their target.

    ```
    loss = mean_d max(0, target - sqrt(var_d + epsilon))
    ```

    Args:
        embeddings: `[N, D]`, N > 1. The variance over the batch divides by N - 1.
        target: the paper's gamma.
        epsilon: keeps the root's gradient finite where a dimension has collapsed.
        axis_name: the mapped axis over which the batch is split; None for global arrays.

    Returns:
        `[]`, float32 at least; the same on every device.

    Raises:
        AssertionError: embeddings are not a matrix.
        ValueError: the batch has one example, which has no variance.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> round(float(losses.variance_hinge(jnp.ones((4, 3)))), 3)
        0.99
    """
    checks.assert_rank(embeddings, 2)
    freedom = _degrees_of_freedom(embeddings, axis_name)
    x = _center(embeddings, axis_name)
    variance = _sum_over_axis((x * x).sum(0), axis_name) / freedom
    return jax.nn.relu(target - jnp.sqrt(variance + epsilon)).mean()


def covariance_penalty(embeddings: Array, *, axis_name: str | None = None) -> Array:
    """VICReg's covariance term: the squared covariances of different dimensions.

    ```
    cov = sum_n (z_n - mean)(z_n - mean)^T / (N - 1)
    loss = sum_{i != j} cov_ij^2 / D
    ```

    Args:
        embeddings: `[N, D]`, N > 1.
        axis_name: the mapped axis over which the batch is split; None for global arrays.

    Returns:
        `[]`, float32 at least; the same on every device.

    Raises:
        AssertionError: embeddings are not a matrix.
        ValueError: the batch has one example, which has no covariance.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> float(losses.covariance_penalty(jnp.array([[1.0, 1.0], [-1.0, -1.0]])))
        4.0
    """
    checks.assert_rank(embeddings, 2)
    freedom = _degrees_of_freedom(embeddings, axis_name)
    x = _center(embeddings, axis_name)
    diagonal = _sum_over_axis((x * x).sum(0), axis_name)
    squares = _off_diagonal_squares(x, x, diagonal, axis_name) / freedom**2
    return squares / embeddings.shape[1]


def _accurate(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _total(x: Array, axis_name: str | None) -> int:
    """Examples in the whole batch."""
    return x.shape[0] * (1 if axis_name is None else jax.lax.axis_size(axis_name))


def _degrees_of_freedom(x: Array, axis_name: str | None) -> int:
    freedom = _total(x, axis_name) - 1
    if freedom < 1:
        raise ValueError("a batch of one example has no variance; give at least two examples.")
    return freedom


def _sum_over_axis(x: Array, axis_name: str | None) -> Array:
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def _center(x: Array, axis_name: str | None) -> Array:
    x = _accurate(x)
    return x - _sum_over_axis(x.sum(0), axis_name) / _total(x, axis_name)


def _standardize(x: Array, epsilon: float, axis_name: str | None) -> Array:
    n = _total(x, axis_name)
    x = _center(x, axis_name)
    return x * jax.lax.rsqrt(_sum_over_axis((x * x).sum(0), axis_name) / n + epsilon)


@jax.custom_jvp
def _gram(x: Array) -> Array:
    """`x^T x`. Its derivative is symmetric too, and so takes one product where JAX takes two."""
    return x.T @ x


@_gram.defjvp
def _gram_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    half = x.T @ dx
    return _gram(x), half + half.T


def _off_diagonal_squares(x: Array, y: Array, diagonal: Array, axis_name: str | None) -> Array:
    """The sum of the squared off-diagonal entries of `x^T y`, x and y being split over the axis."""
    if 2 * _total(x, axis_name) > x.shape[1]:
        matrix = _sum_over_axis(_gram(x) if y is x else x.T @ y, axis_name)
        return jnp.where(jnp.eye(x.shape[1], dtype=bool), 0, matrix * matrix).sum()
    all_x, all_y = x, y
    if axis_name is not None:
        all_x, all_y = jax.lax.all_gather((x, y), axis_name, tiled=True)
    squares = _sum_over_axis(((x @ all_x.T) * (y @ all_y.T)).sum(), axis_name)
    return squares - (diagonal * diagonal).sum()
