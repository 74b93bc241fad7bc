"""Losses on nearest neighbors: in the batch (KoLeo), or among earlier embeddings (NNCLR).

Neighbors are searched tile by tile, so that the similarities of all pairs are never stored. With
`axis_name=None` the arrays are global: one device, or jit over sharded arrays. With a name the
function runs inside shard_map or pmap on each device's part of the batch.
"""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.losses.batch import batch_size, first_index, full_like, gather
from sslax.losses.contrastive import info_nce
from sslax.losses.scores import l2_normalize
from sslax.ops.dtypes import accumulated, at_least_float32
from sslax.types import Array

_TILE = 2**22  # similarities of a tile of the search


def koleo(embeddings: Array, *, epsilon: float = 1e-8, axis_name: str | None = None) -> Array:
    """KoLeo: spreads embeddings over the sphere, by the distance of each to its nearest neighbor.

    ```
    x_i = z_i / |z_i|, j(i) = argmax_{j != i} <x_i, x_j>                            (no gradient)
    loss_i = -log(|x_i - x_j(i) + epsilon| + epsilon)
    ```

    Gradients flow to both embeddings of a pair. Two equal ones have the largest loss,
    `-log(epsilon (sqrt(D) + 1))`, and a finite gradient. The loss is negative where the nearest
    neighbor is more than 1 away.

    Every device receives all embeddings, `[N, D]`, and compares its own with a tile of them at a
    time: 16 MiB of similarities, or 128 columns if those are more. DINOv2 uses the loss with a
    weight of 0.1, for each global crop by itself, and searches among the embeddings of one device
    alone, which `axis_name=None` does inside shard_map or pmap.

    Args:
        embeddings: z, `[N, D]`, N > 1.
        epsilon: added to each difference and to the distance, as in the authors' code; positive.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        `[N]`, float32 or wider.

    Raises:
        AssertionError: `embeddings` is not a matrix.
        ValueError: N = 1, which has no neighbor, or `epsilon` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> print(losses.koleo(jnp.eye(3)).round(4))
        [-0.3466 -0.3466 -0.3466]
        >>> print(losses.koleo(jnp.ones((3, 3))).round(2))
        [17.42 17.42 17.42]

    Sablayrolles et al., "Spreading Vectors for Similarity Search", ICLR 2019, arXiv:1806.03198; in
    DINOv2: Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024,
    arXiv:2304.07193.
    """
    checks.assert_rank(embeddings, 2)
    checks.assert_positive(epsilon=epsilon)
    if batch_size(embeddings, axis_name) < 2:
        raise checks.value_error("a single embedding has no neighbor; pass at least two.")
    x = l2_normalize(embeddings)
    everything = gather(x, axis_name)
    neighbors = everything[nearest(x, everything, exclude=first_index(x, axis_name))]
    distances = jnp.sqrt(((x - neighbors + epsilon) ** 2).sum(-1))
    return -jnp.log(distances + epsilon)


def nearest_neighbor_contrastive(
    embeddings: Array,
    predictions: Array,
    queue: Array,
    *,
    temperature: float | Array = 0.1,
    tile: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """NNCLR: InfoNCE whose queries are the nearest neighbors of one view in a queue.

    ```
    n_i = argmax_{q in queue} cos(embeddings_i, q)                                  (no gradient)
    s_ij = cos(n_i, predictions_j) / temperature
    loss_i = -s_ii + log sum_j exp(s_ij)
    ```

    The method's loss is the mean over both directions: the neighbors of each view, and the
    predictions of the other. The negatives are the predictions of the other images; some
    implementations add products of neighbors with neighbors and of predictions with predictions.

    Args:
        embeddings: `[N, D]`, projections of one view. They have no gradient.
        predictions: `[N, D]`, the predictor's output for the other view, in the same order.
        queue: `[M, D]`, projections of earlier images; the same on every device. The batch joins
            it after the loss. Neighbors are searched a tile at a time: 16 MiB of similarities, or
            128 columns if those are more.
        temperature: divides the cosine; a number or a scalar array.
        tile: number of rows and columns of the loss computed at a time, differentiable in reverse
            mode only; None chooses it, or computes a small matrix at once.
        axis_name: the mapped axis that splits the batch; None for global arrays.

    Returns:
        `[N]`, float32 or wider.

    Raises:
        AssertionError: the shapes do not match.
        ValueError: the temperature is not positive, or a single query has no negatives.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> views, queue = jnp.array([[2.0, 1.0], [-1.0, 2.0]]), jnp.eye(2)
        >>> loss = losses.nearest_neighbor_contrastive(views, queue, queue, temperature=0.5)
        >>> print(loss.round(4))
        [0.1269 0.1269]

    Dwibedi et al., "With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of
    Visual Representations", ICCV 2021, arXiv:2104.14548.
    """
    checks.assert_rank([embeddings, predictions, queue], 2)
    checks.assert_equal_shape([embeddings, predictions])
    checks.assert_equal_shape_suffix([embeddings, queue], 1)
    z, queue = (l2_normalize(x) for x in jax.lax.stop_gradient(accumulated(embeddings, queue)))
    queries = queue[nearest(z, queue)]
    return info_nce(queries, predictions, temperature=temperature, tile=tile, axis_name=axis_name)


def nearest(rows: Array, columns: Array, *, exclude: Array | int | None = None) -> Array:
    """Index of the column with the largest product with each row, the first of equal ones.

    Args:
        rows: `[N, D]`.
        columns: `[M, D]`.
        exclude: the column of the first row, if the rows are columns, which are not their own
            neighbors; None if they are others.

    Returns:
        `[N]`, int32.
    """
    rows, columns = (at_least_float32(jax.lax.stop_gradient(x)) for x in (rows, columns))
    count = columns.shape[0]
    tile = min(count, max(128, _TILE // rows.shape[0]))
    tiles = -(-count // tile)
    columns = jnp.pad(columns, ((0, tiles * tile - count), (0, 0))).reshape(tiles, tile, -1)
    own = None if exclude is None else exclude + jnp.arange(rows.shape[0], dtype=jnp.int32)[:, None]

    def compare(best: tuple[Array, Array], part: tuple[Array, Array]) -> tuple[tuple, None]:
        first, columns = part
        index = first + jnp.arange(tile, dtype=jnp.int32)
        products = jnp.matmul(rows, columns.T, precision="highest")
        excluded = index >= count if own is None else (index >= count) | (index == own)
        products = jnp.where(excluded, -jnp.inf, products)
        largest = products.max(1)
        better = largest > best[0]
        found = first + products.argmax(1).astype(jnp.int32)
        return (jnp.where(better, largest, best[0]), jnp.where(better, found, best[1])), None

    lowest = full_like(rows[:, 0], -jnp.inf)
    start = lowest, full_like(lowest, 0).astype(jnp.int32)
    firsts = tile * jnp.arange(tiles, dtype=jnp.int32)
    (_, index), _ = jax.lax.scan(compare, start, (firsts, columns))
    return index
