"""Redundancy losses against references, with D x D and N x N matrices, on one device and eight."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sslax import losses


def embeddings(n, dimensions, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, dimensions))
    b = a + rng.standard_normal(a.shape)
    return jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)


def correlation(a, b, epsilon=1e-5):
    a, b = (x - x.mean(0) for x in (np.float64(a), np.float64(b)))
    a, b = (x / np.sqrt((x**2).mean(0) + epsilon) for x in (a, b))
    return a.T @ b / len(a)


def test_equal_references(check_golden, representation):
    a, b = representation["a"], representation["b"]
    check_golden(losses.barlow_twins, "barlow_twins", a, b)
    check_golden(losses.vicreg, "vicreg", a, b)


def test_cross_correlation():
    a, b = embeddings(9, 4)
    ours = jax.jit(losses.cross_correlation)(a, b)
    np.testing.assert_allclose(ours, correlation(a, b), atol=1e-6)


def test_equal_views_have_ones_on_the_diagonal():
    """Rather than (N - 1) / N, which the unbiased standard deviation would give."""
    a, _ = embeddings(4, 3)
    diagonal = np.diagonal(jax.jit(losses.cross_correlation)(a, a))
    np.testing.assert_allclose(diagonal, 1, atol=1e-4)


@pytest.mark.parametrize("dimensions", [4, 15, 16, 40])
def test_both_matrix_forms_are_equal(dimensions):
    """For eight examples, N x N matrices are used from 16 (Barlow Twins) or 32 dimensions on."""
    a, b = embeddings(8, dimensions)
    matrix = correlation(a, b)
    diagonal = np.diagonal(matrix)
    off_diagonal = (matrix**2).sum() - (diagonal**2).sum()
    expected = ((diagonal - 1) ** 2).sum() + 0.1 * off_diagonal
    ours = jax.jit(partial(losses.barlow_twins, off_diagonal_weight=0.1))(a, b)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)

    covariance = np.cov(np.float64(a).T)
    expected = ((covariance**2).sum() - (np.diagonal(covariance) ** 2).sum()) / dimensions
    np.testing.assert_allclose(jax.jit(losses.covariance_penalty)(a), expected, rtol=1e-5)
    expected = np.maximum(0, 2 - np.sqrt(np.diagonal(covariance) + 1e-4)).mean()
    ours = jax.jit(partial(losses.variance_hinge, target=2.0))(a)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def dominated(kind, n, dimensions, scale):
    """Embeddings whose variance is nearly all in a few dimensions."""
    x = np.random.default_rng(0).standard_normal((n, dimensions))
    factor = np.ones(dimensions)
    if kind == "one":
        factor[1] = scale
    elif kind == "few":
        factor[:3] = scale
    else:
        factor = scale * 2.0 ** -np.arange(dimensions).clip(max=40)
    return np.float32(x * factor)


@pytest.mark.parametrize("kind", ["one", "few", "geometric"])
@pytest.mark.parametrize(("n", "dimensions"), [(64, 128), (16, 200), (8, 32), (40, 12)])
def test_dominant_dimensions_do_not_cancel(kind, n, dimensions):
    function = jax.jit(jax.value_and_grad(losses.covariance_penalty))
    for scale in (1.0, 1e2, 1e3, 1e4):
        x = dominated(kind, n, dimensions, scale)
        centered = np.float64(x) - np.float64(x).mean(0)
        covariance = centered.T @ centered / (n - 1)
        np.fill_diagonal(covariance, 0)
        gradient = 4 * centered @ covariance / (n - 1) / dimensions
        ours = function(x)
        np.testing.assert_allclose(ours[0], (covariance**2).sum() / dimensions, rtol=1e-5)
        np.testing.assert_allclose(ours[1], gradient, atol=3e-6 * np.abs(gradient).max())


@pytest.mark.parametrize("dimensions", [3, 24])
def test_first_and_second_derivatives(check_derivatives, dimensions):
    a, b = embeddings(5, dimensions)
    check_derivatives(losses.barlow_twins, a, b, order=2)
    check_derivatives(losses.vicreg, a, b, order=2)


@pytest.mark.parametrize("dimensions", [3, 12])
def test_collapsed_embeddings(dimensions):
    """Constant dimensions have the largest loss and a finite, nonzero gradient."""
    a, b = embeddings(4, dimensions)
    ones = np.ones_like(a)
    collapsed = np.concatenate([ones[:, :1], a[:, 1:]], axis=1)
    for loss in (losses.barlow_twins, losses.vicreg):
        value, gradient = jax.jit(jax.value_and_grad(loss, (0, 1)))(collapsed, b)
        assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradient)
        assert np.abs(gradient[0]).max() > 0
        value, gradient = jax.jit(jax.value_and_grad(loss))(ones, ones)
        assert np.isfinite(value) and np.isfinite(gradient).all()
    np.testing.assert_allclose(jax.jit(losses.barlow_twins)(ones, ones), dimensions, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(losses.vicreg)(ones, ones), 25 * 0.99, rtol=1e-5)


@pytest.mark.parametrize("dimensions", [3, 40, 80])
def test_one_device_equals_eight(check_parallel, dimensions):
    def loss(temperature, weights, a, b, axis_name):
        a, b = a @ weights / temperature, b @ weights
        barlow_twins = losses.barlow_twins(a, b, axis_name=axis_name)
        return barlow_twins + 0.01 * losses.vicreg(a, b, axis_name=axis_name)

    check_parallel(loss, *embeddings(16, dimensions), all_transforms=dimensions == 3)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(("loss", "dimensions"), [("barlow_twins", 40), ("vicreg", 80)])
def test_each_view_is_gathered_once(loss, dimensions, mapped):
    """Value and gradient together, and no array of their size is reduced."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    function, spec = getattr(losses, loss), P("data")

    def step(views, axis_name=None):
        def value(views):
            return function(views[:, 0], views[:, 1], axis_name=axis_name)

        return jax.value_and_grad(value)(views)

    if mapped:
        local, specs = partial(step, axis_name="data"), (P(), spec)
        step = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=specs)
    sharding = NamedSharding(mesh, spec)
    views = jax.ShapeDtypeStruct((16, 2, dimensions), jnp.float32, sharding=sharding)
    text = jax.jit(step, out_shardings=(None, sharding)).lower(views).compile().as_text()
    assert len(re.findall(r" all-gather(?:-start)?\(", text)) == 2
    assert "reduce-scatter" not in text
    reduced = re.findall(r" = (.*) all-reduce(?:-start)?\(", text)
    assert reduced and not any(f"16,{dimensions}" in shapes for shapes in reduced)


def test_cross_correlation_over_devices():
    a, b = embeddings(16, 3)
    parts = [x.reshape(8, 2, 3) for x in (a, b)]
    ours = jax.pmap(partial(losses.cross_correlation, axis_name="i"), axis_name="i")(*parts)
    np.testing.assert_allclose(ours[5], correlation(a, b), atol=1e-6)


def test_bfloat16_is_reduced_in_float32():
    a, b = embeddings(8, 20)
    for loss in (jax.jit(losses.barlow_twins), jax.jit(losses.vicreg)):
        coarse = loss(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16))
        assert coarse.dtype == jnp.float32
        np.testing.assert_allclose(coarse, loss(a, b), rtol=0.02)


def test_many_dimensions_do_not_form_the_matrix():
    """8,192 dimensions: a D x D matrix would take 256 MiB, the loss takes 64 MiB."""
    a = jax.ShapeDtypeStruct((64, 8192), jnp.float32)
    for loss in (losses.barlow_twins, losses.vicreg):
        memory = jax.jit(jax.grad(loss)).lower(a, a).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 64 * 2**20


def test_errors():
    a, b = embeddings(4, 3)
    with pytest.raises(ValueError, match="two examples"):
        losses.vicreg(a[:1], b[:1])
    for loss in (losses.barlow_twins, losses.vicreg, losses.cross_correlation):
        with pytest.raises(AssertionError, match=f"^{loss.__name__} expects"):
            loss(a, b[:, :2])
