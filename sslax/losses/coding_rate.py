"""Coding rates: the volume that embeddings span, which their collapse would empty.

With `axis_name=None` the arrays are global: one device, or jit over sharded arrays. With a name the
function runs inside shard_map or pmap on each device's part of the batch, and returns the loss of
the whole batch.
"""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.losses.batch import (
    batch_size,
    gather,
    mean_over_batch,
    replicate,
    same_everywhere,
    sum_over_axis,
)
from sslax.losses.scores import l2_normalize
from sslax.ops.dtypes import at_least_float32
from sslax.types import Array


def total_coding_rate(
    embeddings: Array, *, epsilon: float = 0.2, axis_name: str | None = None
) -> Array:
    """Rate of coding the embeddings up to a distortion; large if they fill all dimensions.

    ```
    rate = 1/2 log det(I + D / (N epsilon) sum_i z_i z_i^T)
    ```

    A method maximizes it. The determinant is that of a D x D matrix, or of an N x N matrix if
    N < D, which is equal. Every device factorizes the whole matrix.

    Args:
        embeddings: z, `[N, D]`, of unit length in the paper.
        epsilon: the distortion, positive; not squared.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        A scalar, float32 or wider; the same on every device. For unit embeddings it is
        `1/2 log(1 + D / epsilon)` if all are equal, and at most `N/2 log(1 + D / (N epsilon))` for
        N <= D and `D/2 log(1 + 1 / epsilon)` otherwise.

    Raises:
        AssertionError: `embeddings` is not a matrix.
        ValueError: `epsilon` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> round(float(losses.total_coding_rate(jnp.eye(2), epsilon=1.0)), 4)  # log 2
        0.6931

    Yu et al., "Learning Diverse and Discriminative Representations via the Principle of Maximal
    Coding Rate Reduction", NeurIPS 2020, arXiv:2006.08558.
    """
    checks.assert_rank(embeddings, 2)
    checks.assert_positive(epsilon=epsilon)
    z = at_least_float32(embeddings)
    n, dimensions = batch_size(z, axis_name), z.shape[1]
    if n < dimensions:
        everything = gather(z, axis_name)
        gram = jnp.matmul(everything, everything.T, precision="highest")
        gram = same_everywhere(gram, axis_name)
    else:
        gram = sum_over_axis(jnp.matmul(z.T, z, precision="highest"), axis_name)
    gram = replicate(gram)
    matrix = jnp.eye(gram.shape[0], dtype=z.dtype) + dimensions / (n * epsilon) * gram
    return jnp.log(jnp.diagonal(jnp.linalg.cholesky(matrix))).sum()


def emp_ssl(
    embeddings: Array,
    *,
    invariance_weight: float = 200.0,
    epsilon: float = 0.2,
    axis_name: str | None = None,
) -> Array:
    """EMP-SSL: the patches of an image agree with their mean; those of all images fill the space.

    ```
    z_iv = embeddings_iv / |embeddings_iv|
    loss = -mean_v total_coding_rate(z_v) - invariance_weight * mean_iv cos(z_iv, mean_w z_iw)
    ```

    The mean has a gradient. The loss is negative. Memory is one square matrix for each view, of the
    smaller of N and D rows, and its factor.

    Args:
        embeddings: `[N, V, D]`, of V patches of each of N images.
        invariance_weight: weight of the cosine.
        epsilon: the distortion of the coding rate, positive; not squared.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        A scalar, float32 or wider; the same on every device.

    Raises:
        AssertionError: `embeddings` does not have three axes.
        ValueError: `epsilon` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> views = jnp.eye(2)[:, None].repeat(3, axis=1)
        >>> round(float(losses.emp_ssl(views, epsilon=1.0)), 4)  # -200 - log 2
        -200.6931

    Tong et al., "EMP-SSL: Towards Self-Supervised Learning in One Training Epoch", 2023,
    arXiv:2304.03977. lightly 1.6 adds the coding rate, and so minimizes it.
    """
    checks.assert_rank(embeddings, 3)
    z = l2_normalize(embeddings)
    rates = jax.vmap(
        lambda view: total_coding_rate(view, epsilon=epsilon, axis_name=axis_name), in_axes=1
    )(z)
    cosines = (z * l2_normalize(z.mean(1, keepdims=True))).sum(-1)
    return -rates.mean() - invariance_weight * mean_over_batch(cosines, axis_name).mean()
