"""Spherical k-means: clusters of unit vectors."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from sslax import checks
from sslax.ops import platforms
from sslax.ops.dtypes import at_least_float32
from sslax.types import Array


def spherical_kmeans(
    points: Array, start: Array, *, iterations: int = 10, block: int = 4096
) -> tuple[Array, Array]:
    """K clusters of N unit vectors by their cosines to K unit centroids.

    ```
    `iterations` times: a_i = argmax_k x_i·c_k,  c_k = normalize(sum of x_i with a_i = k);
    then once more a_i
    ```

    A centroid without a point stays where it is. Sums are products with one-hot matrices, block by
    block, so that they are the same in every run; where the mesh of global arrays is known
    (`jax.set_mesh`), the devices share each block.

    Args:
        points: `[N, D]` unit vectors.
        start: `[K, D]`, the first centroids: unit vectors, usually some of the points.
        iterations: of both steps.
        block: points at a time, rounded up to a multiple of the devices; block · K scores are in
            memory.

    Returns:
        Centroids `[K, D]`, float32 or wider, and the cluster of each point, `[N]` int32. No
        derivative is meant to be taken.

    Raises:
        AssertionError: not two matrices of the same width.
        ValueError: `iterations` is negative, or `block` not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> points = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.0, -1.0]])
        >>> centroids, clusters = ops.spherical_kmeans(points, points[1:])
        >>> print(centroids.round(2), clusters)
        [[ 0.95  0.32]
         [ 0.   -1.  ]] [0 0 1]

    Dhillon and Modha, "Concept Decompositions for Large Sparse Text Data Using Clustering", Machine
    Learning 42, 2001; in DeepCluster v2: Caron et al., NeurIPS 2020, arXiv:2006.09882.
    """
    checks.assert_rank([points, start], 2)
    checks.assert_axis_dimension(start, 1, points.shape[1])
    if iterations < 0 or block < 1:
        raise ValueError(
            f"spherical_kmeans: iterations = {iterations} and block = {block}; they are at least "
            "0 and 1."
        )
    points, centroids = at_least_float32(points), at_least_float32(start)
    clusters, devices = len(start), platforms.devices()
    block = -(-min(block, len(points)) // devices) * devices
    missing = -len(points) % block
    # A last column counts: 1 of a point, 0 of what fills the last block.
    counted = jnp.pad(points, ((0, 0), (0, 1)), constant_values=1)
    blocks = jnp.pad(counted, ((0, missing), (0, 0))).reshape(-1, block, counted.shape[1])
    blocks = _over_devices(blocks)

    def nearest(centroids: Array, rows: Array) -> Array:
        return jnp.argmax(jnp.matmul(rows[:, :-1], centroids.T, precision="highest"), axis=-1)

    def move(_: Array, centroids: Array) -> Array:
        def add(i: Array, totals: Array) -> Array:
            one_hot = jax.nn.one_hot(nearest(centroids, blocks[i]), clusters, dtype=blocks.dtype)
            return totals + jnp.matmul(one_hot.T, blocks[i], precision="highest")

        totals = jnp.zeros((clusters, counted.shape[1]), counted.dtype)
        totals = jax.lax.fori_loop(0, len(blocks), add, totals)
        sums, counts = totals[:, :-1], totals[:, -1:]
        length = jnp.linalg.norm(sums, axis=-1, keepdims=True)
        moved = sums / jnp.maximum(length, jnp.finfo(sums.dtype).tiny)
        return jnp.where(counts > 0, moved, centroids)

    centroids = jax.lax.fori_loop(0, iterations, move, centroids)
    found = jax.lax.map(lambda rows: nearest(centroids, rows), blocks)
    return centroids, found.reshape(-1)[: len(points)].astype(jnp.int32)


def _over_devices(blocks: Array) -> Array:
    """The rows of each block, spread over the mesh in use."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or any(kind != AxisType.Auto for kind in mesh.axis_types):
        return blocks
    return jax.lax.with_sharding_constraint(blocks, PartitionSpec(None, mesh.axis_names))
