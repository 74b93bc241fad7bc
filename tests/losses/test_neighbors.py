"""Losses on nearest neighbors against NumPy, tile by tile, at equal rows, on eight devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import losses
from sslax.losses import neighbors


def embeddings(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def numpy_koleo(z):
    x, rows = unit(z), []
    for i in range(len(x)):
        others = [np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i]
        rows.append(-np.log(min(others)))
    return rows


def numpy_nnclr(z, predictions, queue, temperature):
    rows = []
    for i in range(len(z)):
        cosines = [q @ z[i] / np.linalg.norm(q) for q in queue]
        neighbor = unit(queue[int(np.argmax(cosines))])
        logits = unit(predictions) @ neighbor / temperature
        rows.append(np.log(np.exp(logits).sum()) - logits[i])
    return rows


def test_values_equal_numpy(x64):
    z, predictions, queue = embeddings(6, 4), embeddings(6, 4, seed=1), embeddings(9, 4, seed=2)
    ours = jax.jit(losses.koleo)(z)
    np.testing.assert_allclose(ours, numpy_koleo(z), rtol=1e-6)
    ours = jax.jit(partial(losses.nearest_neighbor_contrastive, temperature=0.2))(
        z, predictions, queue
    )
    np.testing.assert_allclose(ours, numpy_nnclr(z, predictions, queue, 0.2), rtol=1e-9)


@pytest.mark.parametrize("excluded", [False, True])
def test_search_in_tiles_equals_numpy(monkeypatch, excluded):
    """Three tiles, the last one padded; of two equal columns the first one counts."""
    monkeypatch.setattr(neighbors, "_TILE", 1)
    rows, columns = np.float32(embeddings(20, 4)), np.float32(embeddings(300, 4, seed=1))
    columns[250] = columns[3]
    if excluded:
        columns[100:120] = rows
    products = np.float64(rows) @ np.float64(columns).T
    if excluded:
        products[np.arange(20), 100 + np.arange(20)] = -np.inf
    ours = jax.jit(partial(neighbors.nearest, exclude=100 if excluded else None))(rows, columns)
    np.testing.assert_array_equal(ours, products.argmax(1))


def test_derivatives(check_derivatives):
    z, predictions, queue = embeddings(5, 3), embeddings(5, 3, seed=1), embeddings(7, 3, seed=2)
    check_derivatives(losses.koleo, z, order=2)
    check_derivatives(
        lambda p: losses.nearest_neighbor_contrastive(z, p, queue), predictions, order=2
    )


def test_neighbors_have_no_gradient():
    arrays = [np.float32(embeddings(4, 3, seed=seed)) for seed in range(3)]
    total = lambda *x: losses.nearest_neighbor_contrastive(*x).sum()  # noqa: E731
    z, predictions, queue = jax.jit(jax.grad(total, (0, 1, 2)))(*arrays)
    assert not z.any() and not queue.any() and np.abs(predictions).max() > 0


@pytest.mark.parametrize(("dimensions", "expected"), [(384, 15.396), (768, 15.063)])
def test_koleo_of_equal_embeddings(dimensions, expected):
    """The largest loss, -log(1e-8 (sqrt(D) + 1)), with finite gradients; the zero vector likewise.

    A compiler that fuses the normalization into the difference leaves 1e-9 of rounding there.
    """
    total = jax.jit(jax.value_and_grad(lambda z: losses.koleo(z).mean()))
    same = np.float32(embeddings(1, dimensions)).repeat(4, 0)
    for z in (same, 0 * same):
        value, gradient = total(z)
        np.testing.assert_allclose(value, expected, rtol=1e-3)
        assert np.isfinite(gradient).all()


def test_embeddings_that_tell_nothing_have_the_loss_of_chance():
    z, queue = np.float32(embeddings(8, 3)), np.float32(embeddings(5, 3))
    loss = jax.jit(losses.nearest_neighbor_contrastive)(z, np.ones_like(z), queue)
    np.testing.assert_allclose(loss, np.log(8), rtol=1e-5)


def test_one_device_equals_eight(check_parallel, monkeypatch):
    a, b = np.float32(embeddings(2, 32, 3))
    queue = jnp.asarray(embeddings(300, 3, seed=1), jnp.float32)
    monkeypatch.setattr(neighbors, "_TILE", 1)

    def loss(temperature, weights, a, b, axis_name):
        a, b = a @ weights, b @ weights
        contrast = losses.nearest_neighbor_contrastive(
            a, b, queue, temperature=temperature, axis_name=axis_name
        )
        return contrast + losses.koleo(a, axis_name=axis_name)

    check_parallel(loss, a, b)


def test_the_similarities_of_a_large_batch_are_not_stored():
    """32,768 embeddings: they would take 4 GiB."""
    z = jax.ShapeDtypeStruct((32_768, 16), jnp.float32)
    step = jax.jit(jax.grad(lambda z: losses.koleo(z).mean()))
    assert step.lower(z).compile().memory_analysis().temp_size_in_bytes < 64 * 2**20


def test_errors():
    z = jnp.ones((4, 3))
    with pytest.raises(ValueError, match="koleo: a single embedding has no neighbor"):
        losses.koleo(z[:1])
    with pytest.raises(ValueError, match="epsilon must be positive"):
        losses.koleo(z, epsilon=0.0)
    with pytest.raises(AssertionError, match="nearest_neighbor_contrastive expects"):
        losses.nearest_neighbor_contrastive(z, z, z[:, :2])
