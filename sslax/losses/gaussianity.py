"""Losses that pull embeddings of several views together and their distribution to a Gaussian.

A distribution in D dimensions is N(0, I) if its projections on all directions are N(0, 1). So
embeddings are projected on random directions (slices), which are drawn anew in every step, and each
projection is compared with N(0, 1): its characteristic function in SIGReg, its quantiles in VISReg.

With `axis_name=None` the arrays are global: one device, or jit over sharded arrays. With a name the
function runs inside shard_map or pmap on each device's part of the batch.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from sslax import checks
from sslax.losses.batch import batch_size, center, gather, mean_over_batch, sum_over_axis
from sslax.ops.dtypes import at_least_float32
from sslax.ops.platforms import devices
from sslax.types import Array


def view_invariance(embeddings: Array, *, global_views: int | None = None) -> Array:
    """Squared distance of the views of an image from their mean; LeJEPA's prediction loss.

    ```
    c_i = mean_{v < global_views} z_iv
    loss_i = mean_vd (z_ivd - c_id)^2
    ```

    The mean has a gradient.

    Args:
        embeddings: z, `[N, V, D]`. The global views (the large crops) come first.
        global_views: number of views whose mean is the center; None for all of them.

    Returns:
        `[N]`, float32 or wider.

    Raises:
        AssertionError: `embeddings` does not have three axes.
        ValueError: `global_views` is not in 1, ..., V.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> views = jnp.array([[[1.0, 0.0], [-1.0, 0.0]]])
        >>> losses.view_invariance(views).tolist()
        [0.5]
        >>> losses.view_invariance(views, global_views=1).tolist()
        [1.0]

    Balestriero and LeCun, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the
    Heuristics", 2025, arXiv:2511.08544.
    """
    checks.assert_rank(embeddings, 3)
    views = embeddings.shape[1]
    if global_views is not None and not 1 <= global_views <= views:
        raise checks.value_error(f"global_views is {global_views} of {views} views.")
    z = at_least_float32(embeddings)
    mean = z[:, :global_views].mean(1, keepdims=True)
    return ((z - mean) ** 2).mean((1, 2))


def sigreg(
    embeddings: Array,
    key: Array,
    *,
    slices: int = 1024,
    knots: int = 17,
    t_max: float = 3.0,
    axis_name: str | None = None,
) -> Array:
    """SIGReg: distance of the embeddings from N(0, I), by the Epps-Pulley test of random slices.

    ```
    A = normal(key, [D, slices]), a_s = A_:s / |A_:s|, x_ivs = <z_iv, a_s>, phi(t) = exp(-t^2 / 2)
    e_vs(t) = |mean_i exp(i t x_ivs) - phi(t)|^2
    loss = mean_vs N int_{-t_max}^{t_max} e_vs(t) phi(t) dt
    ```

    The integral is the trapezoidal rule with `knots` points of [0, t_max], times 2. N is the size
    of the whole batch, so that N(0, I) has a loss of 1.05 for every N and D; embeddings that are
    all zero have 0.402 N. Each view is compared by itself.

    Memory is a few arrays of the projections' shape, `[N, V, slices]`: sines and cosines are
    computed for one knot at a time, and again in the backward pass. Devices exchange their means,
    `[knots, 2, V, slices]`.

    Args:
        embeddings: z, `[N, V, D]`, not normalized.
        key: the random key of the slices, the same on every device; a new one for every step.
        slices: number of random directions.
        knots: points of the integral, at least 2.
        t_max: end of the integral, positive.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        A scalar, float32 or wider; the same on every device.

    Raises:
        AssertionError: `embeddings` does not have three axes.
        ValueError: there are no slices, fewer than two knots, or `t_max` is not positive.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from sslax import losses
        >>> z = jax.random.normal(jax.random.key(0), (256, 1, 16))
        >>> round(float(losses.sigreg(z, jax.random.key(1))))
        1
        >>> round(float(losses.sigreg(0 * z, jax.random.key(1))))
        103

    Balestriero and LeCun, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the
    Heuristics", 2025, arXiv:2511.08544. Knots and their range are those of the authors' code.
    """
    checks.assert_rank(embeddings, 3)
    checks.assert_positive(t_max=t_max)
    if knots < 2:
        raise checks.value_error(f"knots must be at least 2; got {knots}.")
    z = at_least_float32(embeddings)
    t = np.linspace(0, t_max, knots)
    phi = np.exp(-(t**2) / 2)
    weights = np.full(knots, 2.0)
    weights[[0, -1]] = 1
    weights *= t_max / (knots - 1) * phi

    means = _characteristic_function(_project(z, key, slices), jnp.asarray(t, z.dtype), axis_name)
    real, imaginary = means[:, 0], means[:, 1]
    errors = (real - jnp.asarray(phi[:, None, None], z.dtype)) ** 2 + imaginary**2
    integrals = jnp.tensordot(jnp.asarray(weights, z.dtype), errors, 1, precision="highest")
    return batch_size(z, axis_name) * integrals.mean()


def lejepa(
    embeddings: Array,
    key: Array,
    *,
    global_views: int | None = None,
    weight: float = 0.05,
    slices: int = 1024,
    knots: int = 17,
    t_max: float = 3.0,
    axis_name: str | None = None,
) -> Array:
    """LeJEPA: the views of an image agree, and each view's embeddings are distributed as N(0, I).

    ```
    loss = (1 - weight) mean_i view_invariance(z)_i + weight * sigreg(z)
    ```

    No gradient is stopped. `sigreg` says how much memory it takes.

    Args:
        embeddings: z, `[N, V, D]`, not normalized. The global views (the large crops) come first.
        key: the random key of the slices, the same on every device; a new one for every step.
        global_views: number of views whose mean all views are pulled to; None for all of them.
        weight: lambda in the paper, in [0, 1].
        slices: see `sigreg`.
        knots: see `sigreg`.
        t_max: see `sigreg`.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        A scalar, float32 or wider; the same on every device.

    Raises:
        AssertionError: `embeddings` does not have three axes.
        ValueError: an option is out of its range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from sslax import losses
        >>> z = jax.random.normal(jax.random.key(0), (256, 1, 16)).repeat(2, axis=1)
        >>> round(float(losses.lejepa(z, jax.random.key(1), weight=0.5)), 1)
        0.5

    Balestriero and LeCun, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the
    Heuristics", 2025, arXiv:2511.08544. Its smallest published recipe has a weight of 0.02.
    """
    checks.assert_rank(embeddings, 3)
    if not 0 <= weight <= 1:
        raise checks.value_error(f"weight must be in [0, 1]; got {weight}.")
    invariance = mean_over_batch(view_invariance(embeddings, global_views=global_views), axis_name)
    gaussianity = sigreg(
        embeddings, key, slices=slices, knots=knots, t_max=t_max, axis_name=axis_name
    )
    return (1 - weight) * invariance + weight * gaussianity


def visreg(
    embeddings: Array,
    key: Array,
    *,
    slices: int = 4096,
    center_weight: float = 1.0,
    scale_weight: float = 1.0,
    shape_weight: float = 1.0,
    epsilon: float = 1e-6,
    axis_name: str | None = None,
) -> Array:
    """VISReg: mean 0 and variance 1 in each dimension, and slices with the quantiles of a Gaussian.

    ```
    mu = mean_i z_i, sigma_d = sqrt(mean_i (z_id - mu_d)^2 + epsilon^2), u = (z - mu) / stop(sigma)
    A = normal(key, [D, slices]), a_s = A_:s / |A_:s|, x_s = sort_i <u_i, a_s>
    q_i = Phi^-1(i / (N + 1)), i = 1, ..., N
    loss = center_weight mean_d mu_d^2 + scale_weight mean_d (sigma_d - 1)^2
         + shape_weight mean_is (x_is - q_i)^2                                 (mean over the views)
    ```

    The method adds `view_invariance`, weighted as in `lejepa`. Embeddings that do not vary have a
    scale term of 1 and a shape term of nearly 1.

    The batch is sorted as a whole: each device receives the embeddings of all others, `[N, V, D]`,
    and sorts its share of the slices (all of them, if their number is not a multiple of the number
    of devices), one view after the other. Memory is that of the projections of this share,
    `[N, V, slices / devices]`. Global arrays are sorted likewise, but exchange projections.

    Args:
        embeddings: z, `[N, V, D]`, not normalized.
        key: the random key of the slices, the same on every device; a new one for every step.
        slices: number of random directions.
        center_weight: weight of the means.
        scale_weight: weight of the standard deviations.
        shape_weight: weight of the quantiles.
        epsilon: keeps the gradient of the root finite for dimensions that do not vary.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        A scalar, float32 or wider; the same on every device.

    Raises:
        AssertionError: `embeddings` does not have three axes.
        ValueError: there are no slices, or `epsilon` is not positive.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from sslax import losses
        >>> z = jax.random.normal(jax.random.key(0), (256, 1, 16))
        >>> loss, key = jax.jit(losses.visreg), jax.random.key(1)
        >>> round(float(loss(z, key)), 1), round(float(loss(0 * z, key)), 1)
        (0.0, 2.0)

    Wu et al., "VISReg: Variance-Invariance-Sketching Regularization for JEPA Training", 2026,
    arXiv:2606.02572. The authors add epsilon to the root, not to the variance: the gradient of such
    a root is not finite where a dimension does not vary.
    """
    checks.assert_rank(embeddings, 3)
    checks.assert_positive(epsilon=epsilon)
    z = at_least_float32(embeddings)
    centered = center(z, axis_name)
    sigma = jnp.sqrt(mean_over_batch(centered**2, axis_name) + epsilon**2)
    u = centered / jax.lax.stop_gradient(sigma)
    return (
        center_weight * (mean_over_batch(z, axis_name) ** 2).mean()
        + scale_weight * ((sigma - 1) ** 2).mean()
        + shape_weight * _quantile_error(u, key, slices, axis_name)
    )


def _directions(key: Array, dimensions: int, slices: int, dtype: jnp.dtype) -> Array:
    """`[D, slices]`, random unit columns."""
    if slices < 1:
        raise checks.value_error(f"slices must be at least 1; got {slices}.")
    normal = jax.random.normal(key, (dimensions, slices), dtype)
    return normal / jnp.linalg.norm(normal, axis=0)


def _project(z: Array, key: Array, slices: int) -> Array:
    """`[N, V, slices]`. With products in bfloat16, phases and quantiles would be wrong."""
    return jnp.matmul(z, _directions(key, z.shape[-1], slices, z.dtype), precision="highest")


def _characteristic_function(x: Array, t: Array, axis_name: str | None) -> Array:
    """Means of cos(t x) and sin(t x) over the batch: `[T, 2, V, S]` of x `[N, V, S]` and t `[T]`.

    Means are summed over the devices when those of all t are there: a leading axis is sharded as
    the batch of global arrays is.
    """
    blocks = math.gcd(x.shape[0], devices()) if axis_name is None else 1
    parts = x.reshape(blocks, -1, *x.shape[1:])

    @jax.checkpoint
    def sums(t: Array) -> Array:
        return jnp.stack([jnp.cos(t * parts).sum(1), jnp.sin(t * parts).sum(1)], axis=1)

    total = sum_over_axis(jax.lax.map(sums, t).sum(1), axis_name)
    return total / batch_size(x, axis_name)


def _quantile_error(u: Array, key: Array, slices: int, axis_name: str | None) -> Array:
    """Mean squared difference of sorted projections and the quantiles of N(0, 1)."""
    n = batch_size(u, axis_name)
    quantiles = ndtri(jnp.arange(1, n + 1, dtype=u.dtype) / (n + 1))[:, None]
    directions = _directions(key, u.shape[-1], slices, u.dtype)
    if axis_name is not None:
        u = gather(u, axis_name)
        directions = _share(directions, axis_name)

    def error(view: Array) -> Array:
        projections = jnp.matmul(view, directions, precision="highest")
        return ((projections - _by_rank(quantiles, projections)) ** 2).mean()

    mean = jax.lax.map(error, u.swapaxes(0, 1)).mean()
    return mean if axis_name is None else jax.lax.pmean(mean, axis_name)  # over the slices


def _by_rank(quantiles: Array, x: Array) -> Array:
    """For each element of x `[N, S]` the quantile of its rank in its column; constants.

    To sort x itself would do in the forward pass, but the gradient would be scattered.
    """
    x = jax.lax.stop_gradient(x)
    row = jax.lax.broadcasted_iota(jnp.int32, x.shape, 0)
    _, order = jax.lax.sort((x, row), dimension=0, num_keys=1)
    quantiles = jnp.broadcast_to(quantiles, x.shape)
    return jax.lax.sort((order, quantiles), dimension=0, num_keys=1)[1]


def _share(x: Array, axis_name: str) -> Array:
    """A device's share of the columns; all of them if they cannot be divided equally."""
    parts = jax.lax.axis_size(axis_name)
    if x.shape[1] % parts:
        return x
    size = x.shape[1] // parts
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis_name) * size, size, axis=1)
