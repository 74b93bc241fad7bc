"""Losses on the spectrum of the batch: all directions that embeddings can have are to be used.

With `axis_name=None` the arrays are global: one device, or jit over sharded arrays. With a name the
function runs inside shard_map or pmap on each device's part of the batch.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from sslax import checks
from sslax.losses.batch import (
    batch_size,
    gather,
    mean_over_batch,
    replicate,
    same_everywhere,
    sum_over_axis,
)
from sslax.losses.gram import gram, gram_product
from sslax.losses.scores import l2_normalize
from sslax.ops.dtypes import accumulated, at_least_float32, floating_dtype
from sslax.types import Array


def w_mse(
    embeddings: Array,
    key: Array,
    *,
    group_size: int | None = None,
    iterations: int = 1,
    epsilon: float = 1e-5,
    axis_name: str | None = None,
) -> Array:
    """W-MSE: the views of an image agree after each view's embeddings are whitened.

    ```
    in random groups of images, for each view:
      L L^T = (1 - epsilon) Cov(x) + epsilon I,  z_i = L^-1 (x_i - mean(x))
    loss = mean over images and pairs of views of 2 - 2 cos(z_iv, z_iw)
    ```

    Covariances are unbiased. Embeddings that are all equal have a loss of 2, that of chance.

    Every device receives all embeddings, `[N, V, D]`, and whitens all groups: memory is a few
    arrays of that size and N V / group_size matrices `[D, D]`. So the groups, and the loss, do not
    depend on the number of devices, as in the authors' code; some libraries whiten on each device.

    Args:
        embeddings: x, `[N, V, D]`, V > 1.
        key: the random key of the groups, the same on every device.
        group_size: number of images whitened together, which divides N; more than D, or their
            covariance is singular. None for 2 D, as in the paper.
        iterations: number of random divisions into groups that the loss is the mean of.
        epsilon: in [0, 1]; 0 in the authors' code, where a singular covariance is an error. Under
            jit it would be NaN.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        A scalar in [0, 4], float32 or wider; the same on every device.

    Raises:
        AssertionError: `embeddings` does not have three axes.
        ValueError: there is one view, groups do not divide the batch or have one image, or an
            option is out of its range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from sslax import losses
        >>> x = jax.random.normal(jax.random.key(0), (8, 1, 2))
        >>> views = jnp.concatenate([x, 3 * x + 1], axis=1)
        >>> round(float(losses.w_mse(views, jax.random.key(1))), 3)
        0.0

    Ermolov et al., "Whitening for Self-Supervised Representation Learning", ICML 2021,
    arXiv:2007.06346.
    """
    checks.assert_rank(embeddings, 3)
    n, views, dimensions = batch_size(embeddings, axis_name), *embeddings.shape[1:]
    size = 2 * dimensions if group_size is None else group_size
    if views < 2 or iterations < 1 or not 0 <= epsilon <= 1:
        raise checks.value_error(
            "pass at least two views, one iteration and an epsilon in [0, 1]; got "
            f"{views} views, iterations={iterations}, epsilon={epsilon}."
        )
    if size < 2 or n % size:
        raise checks.value_error(
            f"groups of {size} images do not divide a batch of {n}; choose another group_size."
        )
    x = gather(at_least_float32(embeddings), axis_name)

    def of_division(key: Array) -> Array:
        groups = x[jax.random.permutation(key, n)].reshape(-1, size, views, dimensions)
        z = l2_normalize(_whiten(groups.swapaxes(1, 2), epsilon))
        cosines = jnp.einsum("gvid,gwid->vw", z, z) / n
        pairs = jnp.triu(cosines, 1).sum() / (views * (views - 1) / 2)
        return 2 - 2 * pairs

    loss = jax.lax.map(of_division, jax.random.split(key, iterations)).mean()
    return same_everywhere(loss, axis_name)


def _whiten(x: Array, epsilon: float) -> Array:
    """Rows of `[..., N, D]` with mean 0 and, up to epsilon, the identity as their covariance."""
    x = x - x.mean(-2, keepdims=True)
    covariance = jnp.einsum("...id,...ie->...de", x, x, precision="highest") / (x.shape[-2] - 1)
    covariance = (1 - epsilon) * covariance + epsilon * jnp.eye(x.shape[-1], dtype=x.dtype)
    factor = jnp.linalg.cholesky(covariance)
    return solve_triangular(factor, x.swapaxes(-1, -2), lower=True).swapaxes(-1, -2)


def tico(a: Array, b: Array, covariance: Array, *, covariance_weight: float = 8.0) -> Array:
    """TiCo: two views agree, and avoid the directions that earlier embeddings have taken.

    ```
    x_i = a_i / |a_i|, y_i = b_i / |b_i|
    loss_i = 1 - <x_i, y_i> + covariance_weight x_i^T C x_i
    ```

    C has no gradient; update it with `a` before the loss (`update_covariance`). The second term is
    `covariance_weight` if all embeddings are and were equal, and a D-th of it if they fill the
    sphere. Examples are treated independently: only the update needs to know of other devices.

    Args:
        a: `[N, D]`, embeddings of the first views.
        b: `[N, D]`, embeddings of the second views by the momentum encoder, in the same order; use
            `jax.lax.stop_gradient` for them.
        covariance: C, `[D, D]`.
        covariance_weight: rho in the paper.

    Returns:
        `[N]`, float32 or wider.

    Raises:
        AssertionError: the shapes do not match.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> losses.tico(jnp.eye(2), jnp.eye(2), jnp.eye(2) / 2).tolist()
        [4.0, 4.0]

    Zhu et al., "TiCo: Transformation Invariance and Covariance Contrast for Self-Supervised Visual
    Representation Learning", 2022, arXiv:2206.10698.
    """
    checks.assert_rank([a, b], 2)
    checks.assert_equal_shape([a, b])
    checks.assert_shape(covariance, (a.shape[1], a.shape[1]))
    a, b, covariance = accumulated(a, b, jax.lax.stop_gradient(covariance))
    x, y = l2_normalize(a), l2_normalize(b)
    return 1 - (x * y).sum(-1) + covariance_weight * ((x @ covariance) * x).sum(-1)


def update_covariance(
    covariance: Array, embeddings: Array, *, momentum: float = 0.9, axis_name: str | None = None
) -> Array:
    """Updates TiCo's moving average of the second moments of unit embeddings.

    ```
    C <- momentum * C + (1 - momentum) * mean_i z_i z_i^T / |z_i|^2
    ```

    Args:
        covariance: C, `[D, D]`; zeros at the start.
        embeddings: z, `[N, D]`, of the views that the loss calls `a`.
        momentum: decay of the moving average; beta in the paper.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        `[D, D]`, in the floating dtype of `covariance`, no gradient; the same on every device.

    Raises:
        AssertionError: the shapes do not match.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> losses.update_covariance(jnp.zeros((2, 2)), 5 * jnp.eye(2), momentum=0.5).tolist()
        [[0.25, 0.0], [0.0, 0.25]]

    Zhu et al., "TiCo", 2022, arXiv:2206.10698.
    """
    checks.assert_rank(embeddings, 2)
    checks.assert_shape(covariance, (embeddings.shape[1], embeddings.shape[1]))
    z = l2_normalize(jax.lax.stop_gradient(embeddings))
    moments = sum_over_axis(z.T @ z, axis_name) / batch_size(z, axis_name)
    old = jax.lax.stop_gradient(covariance).astype(moments.dtype)
    return (momentum * old + (1 - momentum) * moments).astype(floating_dtype(covariance))


def mmcr(embeddings: Array, *, local_weight: float = 0.0, axis_name: str | None = None) -> Array:
    """MMCR: means over the views of images span all dimensions, which long means alone can do.

    ```
    Z_i = unit views of image i, [V, D];  C = their means, [N, D]
    loss = -|C|_* + local_weight * mean_i |Z_i|_*
    ```

    `|C|_*`, the nuclear norm, is the sum of singular values: sqrt(N) if all embeddings are equal,
    and at most sqrt(N min(N, D)). Its gradient is finite everywhere; where a singular value is 0 or
    several are equal, it is one of the subgradients.

    Every device receives the means, `[N, D]`, and decomposes the whole matrix.

    Args:
        embeddings: `[N, V, D]`, of V views of each of N images.
        local_weight: lambda in the paper.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        A scalar, float32 or wider; the same on every device.

    Raises:
        AssertionError: `embeddings` does not have three axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> views = jnp.eye(4)[:, None].repeat(2, axis=1)
        >>> round(float(losses.mmcr(views)), 3), round(float(losses.mmcr(views**0)), 3)
        (-4.0, -2.0)

    Yerxa et al., "Learning Efficient Coding of Natural Images with Maximum Manifold Capacity
    Representations", NeurIPS 2023, arXiv:2303.03307.
    """
    checks.assert_rank(embeddings, 3)
    z = l2_normalize(embeddings)
    loss = -same_everywhere(_nuclear_norm(replicate(gather(z.mean(1), axis_name))), axis_name)
    if local_weight:
        loss += local_weight * mean_over_batch(jax.vmap(_nuclear_norm)(z), axis_name)
    return loss


@jax.custom_jvp
def _nuclear_norm(x: Array) -> Array:
    """Sum of the singular values, whose own derivatives are NaN where two are equal."""
    return jnp.linalg.svd(x, compute_uv=False).sum()


@_nuclear_norm.defjvp
def _nuclear_norm_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    factor = _polar_factor(x)
    return (factor * x).sum(), (factor * dx).sum()  # of one decomposition


@jax.custom_jvp
def _polar_factor(x: Array) -> Array:
    """`U V^T` of the decomposition `U S V^T`, the derivative of the nuclear norm."""
    u, _, v = jnp.linalg.svd(x, full_matrices=False)
    return u @ v


@_polar_factor.defjvp
def _polar_factor_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    u, s, v = jnp.linalg.svd(x, full_matrices=False)
    sums = s[:, None] + s
    inside = u.T @ dx @ v.T
    inside = jnp.where(sums > 0, (inside - inside.T) / jnp.where(sums > 0, sums, 1), 0)
    inverse = jnp.where(s > 0, 1 / jnp.where(s > 0, s, 1), 0)
    below = (dx - u @ (u.T @ dx)) @ v.T * inverse  # one of the two is zero
    beside = inverse[:, None] * (u.T @ (dx - (dx @ v.T) @ v))
    return u @ v, (u @ inside + below) @ v + u @ beside


def frossl(
    embeddings: Array,
    *,
    invariance_weight: float = 1.0,
    epsilon: float = 1e-6,
    axis_name: str | None = None,
) -> Array:
    """FroSSL: a small Frobenius norm of each view's correlations, and views that agree.

    ```
    z_ivd = embeddings_ivd / sqrt(sum_j embeddings_jvd^2), K_v = Z_v^T Z_v / D
    loss = sum_v (2 log |K_v|_F + invariance_weight * V D mean_id (z_ivd - mean_w z_iwd)^2)
    ```

    Dimensions have unit length over the batch and are not centered. The logarithm is 0 if they are
    all parallel, and at least `-log min(N, D)`. Of the D x D and the N x N matrix, whose norms are
    equal, the smaller one is formed, for each view.

    Args:
        embeddings: `[N, V, D]`, of V views of each of N images.
        invariance_weight: weight of the squared distances.
        epsilon: smallest length of a dimension to divide by, positive.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        A scalar, float32 or wider; the same on every device.

    Raises:
        AssertionError: `embeddings` does not have three axes.
        ValueError: `epsilon` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> views = jnp.eye(4)[:, None].repeat(2, axis=1)
        >>> round(float(losses.frossl(views)), 3)  # -2 log 4
        -2.773

    Skean et al., "FroSSL: Frobenius Norm Minimization for Efficient Multiview Self-Supervised
    Learning", ECCV 2024, arXiv:2310.02903, and its authors' function for any number of views; that
    for two views, from before, centers dimensions and does not multiply the distance by D.
    """
    checks.assert_rank(embeddings, 3)
    checks.assert_positive(epsilon=epsilon)
    x = at_least_float32(embeddings)
    n, views, dimensions = batch_size(x, axis_name), *x.shape[1:]
    z = x * jax.lax.rsqrt(jnp.maximum(sum_over_axis((x * x).sum(0), axis_name), epsilon**2))

    def log_squared_norm(view: Array) -> Array:
        if n < dimensions:
            square = gram_product(axis_name, view)
        else:
            square = (sum_over_axis(gram(view), axis_name) ** 2).sum()
        return jnp.log(jnp.maximum(square / dimensions**2, jnp.finfo(x.dtype).tiny))

    distances = mean_over_batch((z - z.mean(1, keepdims=True)) ** 2, axis_name)
    invariance = views * dimensions * distances.mean(-1)
    return jax.vmap(log_squared_norm, in_axes=1)(z).sum() + invariance_weight * invariance.sum()
