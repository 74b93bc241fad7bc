"""Sinkhorn-Knopp: soft assignments that use all prototypes equally."""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.ops.dtypes import at_least_float32
from sslax.types import Array

UNROLLED = 8  # iterations


def sinkhorn(
    scores: Array,
    *,
    weights: Array | None = None,
    epsilon: float | Array = 0.05,
    iterations: int = 3,
    axis_name: str | None = None,
) -> Array:
    """Balanced soft assignments of N samples to K prototypes.

    ```
    Q = exp(scores / epsilon); then `iterations` times:
      divide each column (prototype) by its sum over the samples, weighted by `weights`,
      divide each row (sample) by its sum over the prototypes
    ```

    Computed on logarithms, so no epsilon overflows.

    Args:
        scores: `[N, K]`, similarity of each sample to each prototype.
        weights: `[N]`, 1 (or True) for the samples that count and 0 for those that only fill the
            array, whose assignments then have no influence on others; None if all count.
        epsilon: weight of the entropy; smaller values give harder assignments.
        iterations: number of times both divisions are done; 0 gives the softmax.
        axis_name: the mapped axis that splits the samples, inside shard_map or pmap; None for
            global arrays.

    Returns:
        `[N, K]`, float32 or wider; each row sums to 1, each column to about N / K, where N is the
        sum of the weights.

    Raises:
        AssertionError: `scores` is not a matrix, or `weights` not a vector of the same length.
        ValueError: `epsilon` is not positive, or `iterations` negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> scores = jnp.array([[1.0, 0.0], [1.0, 0.2]])  # both samples prefer prototype 0
        >>> print(ops.sinkhorn(scores, epsilon=0.05, iterations=50).round(2))
        [[0.88 0.12]
         [0.12 0.88]]

    Cuturi, "Sinkhorn Distances", NeurIPS 2013, arXiv:1306.0895; in SwAV: Caron et al.,
    "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", NeurIPS 2020,
    arXiv:2006.09882.
    """
    checks.assert_rank(scores, 2)
    if iterations < 0:
        raise checks.value_error(f"iterations must be at least 0; got {iterations}.")
    logits = at_least_float32(scores)
    logits = logits / jnp.asarray(checks.positive("epsilon", epsilon), logits.dtype)
    if weights is not None:
        checks.assert_shape(weights, scores.shape[:1])
        weights = weights.astype(logits.dtype)[:, None]

    def divide(_: int, logits: Array) -> Array:
        logits -= _logsumexp_over_samples(logits, weights, axis_name)
        return logits - jax.nn.logsumexp(logits, axis=1, keepdims=True)

    # Few are faster without a loop; a hundred would take a minute to compile.
    logits = jax.lax.fori_loop(0, iterations, divide, logits, unroll=iterations <= UNROLLED)
    return jax.nn.softmax(logits, axis=1)


def _logsumexp_over_samples(logits: Array, weights: Array | None, axis_name: str | None) -> Array:
    if weights is not None:
        logits = jnp.where(weights > 0, logits, -jnp.inf)
    elif axis_name is None:
        return jax.nn.logsumexp(logits, axis=0, keepdims=True)
    largest = jax.lax.stop_gradient(logits).max(0, keepdims=True)
    largest = largest if axis_name is None else jax.lax.pmax(largest, axis_name)
    if weights is None:
        return largest + jnp.log(_sum_over_samples(jnp.exp(logits - largest), axis_name))
    largest = jnp.where(largest > -jnp.inf, largest, 0)  # no sample counts
    total = _sum_over_samples(weights * jnp.exp(logits - largest), axis_name)
    return largest + jnp.log(jnp.where(total > 0, total, 1))


def _sum_over_samples(x: Array, axis_name: str | None) -> Array:
    total = x.sum(0, keepdims=True)
    return total if axis_name is None else jax.lax.psum(total, axis_name)
