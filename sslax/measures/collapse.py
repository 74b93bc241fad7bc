"""Collapse measures of an embedding; none needs labels.

All take `[N, D]` in any float type, compute in float32 and stay finite (gradients too, where
stated) when all rows are equal or zero. The module imports nothing but JAX, so a training step can
use it.
"""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.losses.scores import l2_normalize
from sslax.types import Array

_BLOCK = 512  # rows that are compared with all others at a time


def embedding_std(z: Array) -> Array:
    """Standard deviation of l2-normalized embeddings, averaged over dimensions.

    `1/D sum_d std_n(z_nd / |z_n|)`: 0 when all embeddings point in one direction, `1 / sqrt(D)`
    when directions are spread evenly. Gradients are finite everywhere.

    Args:
        z: `[N, D]`.

    Returns:
        Scalar float32 in [0, 1 / sqrt(D)].

    Example:
        >>> float(embedding_std(jnp.array([[1.0, 0.0], [-1.0, 0.0]])))
        0.5

    Chen and He, Exploring Simple Siamese Representation Learning, https://arxiv.org/abs/2011.10566
    """
    checks.assert_rank(z, 2)
    variance = _unit_rows(z).var(0)
    # Below 1e-12 is the rounding of equal rows; sqrt has no finite slope at 0.
    spread = variance > 1e-12
    return jnp.where(spread, jnp.sqrt(jnp.where(spread, variance, 1.0)), 0.0).mean()


def relative_embedding_std(z: Array) -> Array:
    """`sqrt(D) embedding_std(z)`: 1 for evenly spread directions, 0 for complete collapse.

    Args:
        z: `[N, D]`.

    Returns:
        Scalar float32 in [0, 1], comparable across embedding widths.

    Example:
        >>> round(float(relative_embedding_std(jnp.concatenate([jnp.eye(2), -jnp.eye(2)]))), 6)
        1.0
    """
    checks.assert_rank(z, 2)
    return jnp.sqrt(z.shape[1]) * embedding_std(z)


def effective_rank(z: Array) -> Array:
    """Participation ratio of the covariance: how many dimensions the embedding uses.

    `(tr C)^2 / tr C^2` with C the covariance of z: D when the variance is isotropic, 1 when it all
    lies along one direction, 0 when there is none. Instead of eigenvalues it needs one Gram matrix,
    the smaller of `[D, D]` and `[N, N]`, so it is cheap enough for every training step. Gradients
    are finite everywhere.

    Args:
        z: `[N, D]`.

    Returns:
        Scalar float32 in {0} or [1, min(D, N - 1)].

    Example:
        >>> round(float(effective_rank(jnp.concatenate([jnp.eye(3), -jnp.eye(3)]))), 6)
        3.0

    Gao et al., A theory of multineuronal dimensionality, dynamics and measurement,
    https://doi.org/10.1101/214262. The entropy-based rank of Roy and Vetterli, The effective rank:
    A measure of effective dimensionality, EUSIPCO 2007, behaves alike.
    """
    checks.assert_rank(z, 2)
    z = z.astype(jnp.float32)
    scale = jax.lax.stop_gradient(jnp.mean(jnp.sum(z * z, -1)))
    z = z * jnp.where(scale > 0, jax.lax.rsqrt(jnp.maximum(scale, 1e-30)), 0.0)
    z = z - z.mean(0)
    gram = z.T @ z if z.shape[1] <= z.shape[0] else z @ z.T
    gram = gram / z.shape[0]
    # Rounding gives equal rows a variance of about 1e-13 of their squared length; the floor sends
    # their rank to 0. Its square, in the gradient, still fits a float32.
    return jnp.trace(gram) ** 2 / (jnp.sum(gram * gram) + 1e-17)


def rankme(z: Array) -> Array:
    """RankMe: the exponential of the entropy of the embedding's singular values.

    `exp(-sum_k p_k log p_k)`, `p_k = sigma_k / sum_j sigma_j`, with sigma the singular values of
    the uncentered z. The paper adds 1e-7 to p; here `0 log 0 = 0`.

    Args:
        z: `[N, D]`; the paper uses 25,600 rows. Takes an SVD: for evaluation, not for every step.

    Returns:
        Scalar float32 in [1, min(N, D)].

    Example:
        >>> round(float(rankme(3.0 * jnp.eye(4))), 5)
        4.0

    Garrido et al., RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
    Representations by Their Rank, https://arxiv.org/abs/2210.02885
    """
    checks.assert_rank(z, 2)
    sigma = jnp.linalg.svd(z.astype(jnp.float32), compute_uv=False)
    p = sigma / jnp.maximum(sigma.sum(), 1e-30)
    return jnp.exp(jax.scipy.special.entr(p).sum())


def lidar(z: Array, *, delta: float = 1e-4) -> Array:
    """LiDAR: how many directions separate images from the spread of their own views.

    `exp(-sum_k p_k log p_k)`, `p_k = lambda_k / sum_j lambda_j`, with lambda the eigenvalues of the
    matrix of linear discriminant analysis in which an image is a class and its views are the
    samples:

    ```
    Sigma_w^(-1/2) Sigma_b Sigma_w^(-1/2)
    Sigma_b = sum_i (m_i - m) (m_i - m)^T / (n - 1)
    Sigma_w = sum_iv (z_iv - m_i) (z_iv - m_i)^T / (n (q - 1)) + delta I
    ```

    with `m_i` the mean of the q views of image i and m the mean of the n `m_i`. RankMe also counts
    directions in which the views of one image differ as much as images do; here they weigh little.

    The paper gives no value of delta; 1e-4 is common in code. It is absolute: compare embeddings
    of the same scale. The paper adds a small constant to p; here `0 log 0 = 0`.

    Args:
        z: `[n, q, D]` with n and q at least 2; the paper takes 1,000 images and 50 views, and wants
            n > D. Takes two eigendecompositions of `[D, D]`: for evaluation, not for every step.
        delta: added to the variances within images.

    Returns:
        Scalar float32 in [1, min(n - 1, D)]; 1 where all images have the same mean.

    Raises:
        ValueError: if there are fewer than two images or views, or delta is not positive.

    Example:
        >>> z = jnp.concatenate([jnp.eye(3), -jnp.eye(3)])
        >>> round(float(lidar(jnp.stack([z, z], axis=1))), 5)
        3.0

    Thilak et al., LiDAR: Sensing Linear Probing Performance in Joint Embedding SSL Architectures,
    https://arxiv.org/abs/2312.04000
    """
    checks.assert_rank(z, 3)
    checks.positive("delta", delta)
    count, views, width = z.shape
    if count < 2 or views < 2:
        raise checks.value_error(
            f"LiDAR compares images by their views; pass at least 2 of each, not {count} images "
            f"of {views} views."
        )
    z = z.astype(jnp.float32)
    means = z.mean(1)
    spread, apart = (z - means[:, None]).reshape(-1, width), means - means.mean(0)
    highest = jax.lax.Precision.HIGHEST
    within = jnp.matmul(spread.T, spread, precision=highest) / (count * (views - 1))
    values, axes = jnp.linalg.eigh(within)
    # Rounding may give a direction without spread a small negative variance.
    scale = jax.lax.rsqrt(jnp.maximum(values, 0.0) + jnp.asarray(delta, values.dtype))
    apart = jnp.matmul(apart, axes, precision=highest) * scale
    # The matrix of the whitened means has the same eigenvalues; the smaller side suffices.
    sigma = jnp.linalg.svd(apart, compute_uv=False) ** 2
    p = sigma / jnp.maximum(sigma.sum(), 1e-30)
    return jnp.exp(jax.scipy.special.entr(p).sum())


def alignment(x: Array, y: Array, *, alpha: float = 2.0) -> Array:
    """Distance between the views of an image: `mean_n |x_n/|x_n| - y_n/|y_n||^alpha`.

    Args:
        x: `[N, D]`.
        y: `[N, D]`; row n embeds another view of the image of `x_n`.
        alpha: exponent.

    Returns:
        Scalar float32 in [0, 2^alpha]; lower is closer.

    Example:
        >>> float(alignment(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 1.0]])))
        2.0

    Wang and Isola, Understanding Contrastive Representation Learning through Alignment and
    Uniformity on the Hypersphere, https://arxiv.org/abs/2005.10242
    """
    checks.assert_rank([x, y], 2)
    checks.assert_equal_shape([x, y])
    squared = jnp.sum((_unit_rows(x) - _unit_rows(y)) ** 2, -1)
    apart = squared > 0
    return jnp.where(apart, jnp.where(apart, squared, 1.0) ** (alpha / 2), 0.0).mean()


def uniformity(z: Array, *, t: float = 2.0) -> Array:
    """How evenly the directions cover the sphere.

    `log mean_{i != j} exp(-t |u_i - u_j|^2)`, with u the l2-normalized rows: 0 for complete
    collapse, near `-2 t` for evenly spread directions in many dimensions.

    Args:
        z: `[N, D]` with N >= 2; all pairs are compared, `[512, N]` at a time.
        t: sharpness of the Gaussian kernel.

    Returns:
        Scalar float32, at most 0; lower is more uniform.

    Raises:
        ValueError: if z has fewer than two rows.

    Example:
        >>> round(float(uniformity(jnp.array([[1.0, 0.0], [-1.0, 0.0]]))), 5)
        -8.0

    Wang and Isola, https://arxiv.org/abs/2005.10242
    """
    checks.assert_rank(z, 2)
    count = z.shape[0]
    if count < 2:
        raise checks.value_error("Uniformity compares pairs of rows; pass at least 2 rows.")
    u = _unit_rows(z)
    squared_length = jnp.sum(u * u, -1)

    def exponents(row: tuple[Array, Array, Array]) -> Array:
        index, u_i, squared_length_i = row
        cosine = jnp.matmul(u, u_i, precision=jax.lax.Precision.HIGHEST)
        squared = jnp.maximum(squared_length_i + squared_length - 2 * cosine, 0.0)
        others = jnp.arange(count, dtype=jnp.int32) != index
        return jax.nn.logsumexp(jnp.where(others, -t * squared, -jnp.inf))

    index = jnp.arange(count, dtype=jnp.int32)
    sums = jax.lax.map(exponents, (index, u, squared_length), batch_size=min(count, _BLOCK))
    return jax.nn.logsumexp(sums) - jnp.log(count * (count - 1.0))


def _unit_rows(z: Array) -> Array:
    return l2_normalize(z.astype(jnp.float32), epsilon=1e-12)
