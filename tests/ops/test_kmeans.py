"""Spherical k-means: against a loop in NumPy, empty clusters, blocks, eight devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sslax import ops

POINTS = np.random.default_rng(0).normal(size=(40, 5))
POINTS /= np.linalg.norm(POINTS, axis=1, keepdims=True)
START = POINTS[:6]
kmeans = jax.jit(ops.spherical_kmeans, static_argnames=("iterations", "block"))


def reference(points, centroids, iterations):
    centroids = centroids.copy()
    for _ in range(iterations):
        clusters = (points @ centroids.T).argmax(1)
        for k in range(len(centroids)):
            members = points[clusters == k]
            if len(members):
                mean = members.mean(0)
                centroids[k] = mean / np.linalg.norm(mean)
    return centroids, (points @ centroids.T).argmax(1)


@pytest.mark.parametrize(("iterations", "block"), [(0, 40), (1, 7), (10, 16), (10, 4096)])
def test_equals_a_loop(iterations, block):
    centroids, clusters = kmeans(
        np.float32(POINTS), np.float32(START), iterations=iterations, block=block
    )
    expected, expected_clusters = reference(POINTS, START, iterations)
    np.testing.assert_allclose(centroids, expected, atol=1e-5)
    np.testing.assert_array_equal(clusters, expected_clusters)
    assert clusters.dtype == jnp.int32


def test_a_centroid_without_points_stays():
    points = np.float32([[1, 0], [0.8, 0.6], [0.6, 0.8]])
    start = np.float32([[0, -1], [1, 0]])
    centroids, clusters = kmeans(points, start)
    np.testing.assert_array_equal(centroids[0], start[0])
    np.testing.assert_array_equal(clusters, [1, 1, 1])


def test_points_over_eight_devices_give_the_same():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    points = jax.device_put(np.float32(POINTS), NamedSharding(mesh, P("data")))
    expected = kmeans(np.float32(POINTS), np.float32(START), block=16)
    for ours, theirs in zip(kmeans(points, np.float32(START), block=16), expected):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)

    def shared(points, start):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return ops.spherical_kmeans(points, start, block=16)

    everywhere = NamedSharding(mesh, P())  # as the bank of a method lies on the devices
    given = jax.device_put((np.float32(POINTS), np.float32(START)), everywhere)
    compiled = jax.jit(shared).lower(*given).compile()
    assert "f32[3,2,6]" in compiled.as_text()  # a device's rows of three blocks
    assert "all-reduce" in compiled.as_text()
    for ours, theirs in zip(compiled(*given), expected):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("knobs", [{"iterations": -1}, {"block": 0}])
def test_knobs_out_of_range_are_refused(knobs):
    with pytest.raises(ValueError, match="spherical_kmeans"):
        partial(ops.spherical_kmeans, POINTS, START)(**knobs)
