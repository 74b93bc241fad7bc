"""Has the embedding collapsed? Measures that need no labels.

All take `[N, D]` in any float type, compute in float32 and stay finite, with finite gradients
where stated, on embeddings that are all equal or all zero. They import nothing but JAX, so that a
training step may use them.
"""

import chex
import jax
import jax.numpy as jnp

from sslax.types import Array


def embedding_std(z: Array) -> Array:
    """Mean over dimensions of the standard deviation of l2-normalized embeddings.

    `1/D sum_d std_n(z_nd / |z_n|)`: 0 when all embeddings point the same way, and `1 / sqrt(D)`
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
    chex.assert_rank(z, 2)
    variance = _unit_rows(z).var(0)
    # Beneath 1e-12 is rounding of equal rows; sqrt has no finite slope at 0.
    spread = variance > 1e-12
    return jnp.where(spread, jnp.sqrt(jnp.where(spread, variance, 1.0)), 0.0).mean()


def relative_embedding_std(z: Array) -> Array:
    """`sqrt(D) embedding_std(z)`: 1 for directions spread evenly, 0 for complete collapse.

    Args:
        z: `[N, D]`.

    Returns:
        Scalar float32 in [0, 1], comparable between widths.

    Example:
        >>> round(float(relative_embedding_std(jnp.concatenate([jnp.eye(2), -jnp.eye(2)]))), 6)
        1.0
    """
    chex.assert_rank(z, 2)
    return jnp.sqrt(z.shape[1]) * embedding_std(z)


def effective_rank(z: Array) -> Array:
    """Participation ratio of the covariance: how many dimensions the embedding fills.

    `(tr C)^2 / tr C^2` with C the covariance of z: D when all directions vary alike, 1 when all
    varies along one, 0 when nothing varies. No eigenvalues are needed, only one product of the
    smaller of `[D, D]` and `[N, N]`, so every training step can afford it; gradients are finite
    everywhere.

    Args:
        z: `[N, D]`.

    Returns:
        Scalar float32 in {0} or [1, min(D, N - 1)].

    Example:
        >>> round(float(effective_rank(jnp.concatenate([jnp.eye(3), -jnp.eye(3)]))), 6)
        3.0

    Roy and Vetterli, The effective rank: A measure of effective dimensionality, EUSIPCO 2007,
    define a rank by entropy; this ratio is its quadratic sibling (Gao et al. 2017,
    https://doi.org/10.1101/214262).
    """
    chex.assert_rank(z, 2)
    z = z.astype(jnp.float32)
    scale = jax.lax.stop_gradient(jnp.mean(jnp.sum(z * z, -1)))
    z = z * jnp.where(scale > 0, jax.lax.rsqrt(jnp.maximum(scale, 1e-30)), 0.0)
    z = z - z.mean(0)
    gram = z.T @ z if z.shape[1] <= z.shape[0] else z @ z.T
    gram = gram / z.shape[0]
    # Equal rows leave a variance of about 1e-13 of their squared length; the floor makes its rank
    # 0 and not that of rounding noise; its square, in the gradient, is still a float32.
    return jnp.trace(gram) ** 2 / (jnp.sum(gram * gram) + 1e-17)


def rankme(z: Array) -> Array:
    """RankMe: the exponential of the entropy of the embedding's singular values.

    `exp(-sum_k p_k log p_k)`, `p_k = sigma_k / sum_j sigma_j`, sigma the singular values of z
    itself (not centered). The paper adds 1e-7 to p; here a zero counts as zero.

    Args:
        z: `[N, D]`; the paper takes 25,600 rows. Needs an SVD: for evaluation, not every step.

    Returns:
        Scalar float32 in [1, min(N, D)].

    Example:
        >>> round(float(rankme(3.0 * jnp.eye(4))), 5)
        4.0

    Garrido et al., RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
    Representations by Their Rank, https://arxiv.org/abs/2210.02885
    """
    chex.assert_rank(z, 2)
    sigma = jnp.linalg.svd(z.astype(jnp.float32), compute_uv=False)
    p = sigma / jnp.maximum(sigma.sum(), 1e-30)
    return jnp.exp(jax.scipy.special.entr(p).sum())


def alignment(x: Array, y: Array, *, alpha: float = 2.0) -> Array:
    """How close the two views of an image lie: `mean_n |x_n/|x_n| - y_n/|y_n||^alpha`.

    Args:
        x: `[N, D]`.
        y: `[N, D]`, row n the other view of row n of x.
        alpha: exponent.

    Returns:
        Scalar float32 in [0, 2^alpha]; less is closer.

    Example:
        >>> float(alignment(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 1.0]])))
        2.0

    Wang and Isola, Understanding Contrastive Representation Learning through Alignment and
    Uniformity on the Hypersphere, https://arxiv.org/abs/2005.10242
    """
    chex.assert_rank([x, y], 2)
    chex.assert_equal_shape([x, y])
    squared = jnp.sum((_unit_rows(x) - _unit_rows(y)) ** 2, -1)
    apart = squared > 0
    return jnp.where(apart, jnp.where(apart, squared, 1.0) ** (alpha / 2), 0.0).mean()


def uniformity(z: Array, *, t: float = 2.0) -> Array:
    """How evenly directions cover the sphere.

    `log mean_{i != j} exp(-t |u_i - u_j|^2)`, u the l2-normalized rows: 0 for complete collapse,
    near `-2 t` for directions spread evenly in many dimensions.

    Args:
        z: `[N, D]`, N of 2 or more; all pairs are compared, `[N, N]` floats.
        t: sharpness.

    Returns:
        Scalar float32, at most 0; less is more even.

    Example:
        >>> round(float(uniformity(jnp.array([[1.0, 0.0], [-1.0, 0.0]]))), 5)
        -8.0

    Wang and Isola, https://arxiv.org/abs/2005.10242
    """
    chex.assert_rank(z, 2)
    count = z.shape[0]
    if count < 2:
        raise ValueError("Uniformity compares pairs of rows; it needs at least 2.")
    u = _unit_rows(z)
    squared_length = jnp.sum(u * u, -1)
    cosine = jnp.matmul(u, u.T, precision=jax.lax.Precision.HIGHEST)
    squared = jnp.maximum(squared_length[:, None] + squared_length - 2 * cosine, 0.0)
    others = jnp.where(jnp.eye(count, dtype=bool), -jnp.inf, -t * squared)
    return jax.nn.logsumexp(others) - jnp.log(count * (count - 1.0))


def _unit_rows(z: Array) -> Array:
    z = z.astype(jnp.float32)
    return z * jax.lax.rsqrt(jnp.maximum(jnp.sum(z * z, -1, keepdims=True), 1e-24))
