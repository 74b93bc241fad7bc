"""W-MSE, TiCo, MMCR and FroSSL against NumPy, at collapse, on eight devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sslax import losses
from sslax.losses.spectrum import _nuclear_norm

KEY = jax.random.key(5)


def embeddings(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def unit(x, axis=-1):
    return x / np.linalg.norm(x, axis=axis, keepdims=True)


def numpy_w_mse(x, group_size, epsilon):
    (key,) = jax.random.split(KEY, 1)
    order = np.asarray(jax.random.permutation(key, len(x)))
    total = []
    for group in order.reshape(-1, group_size):
        views = []
        for view in np.moveaxis(x[group], 1, 0):
            covariance = np.cov(view.T)
            covariance = (1 - epsilon) * covariance + epsilon * np.eye(len(covariance))
            factor = np.linalg.cholesky(covariance)
            views.append(unit((view - view.mean(0)) @ np.linalg.inv(factor).T))
        for v in range(len(views)):
            total += [2 - 2 * (views[v] * views[w]).sum(1) for w in range(v)]
    return np.mean(total)


def numpy_frossl(x):
    z = unit(x, axis=0)
    _, views, dimensions = x.shape
    total = 0
    for v in range(views):
        matrix = z[:, v].T @ z[:, v]
        total += 2 * np.log(np.linalg.norm(matrix / np.trace(matrix)))
        total += views * dimensions * ((z[:, v] - z.mean(1)) ** 2).mean()
    return total


@pytest.mark.parametrize("dimensions", [3, 15])
def test_values_equal_numpy(x64, dimensions):
    x, singular = embeddings(12, 3, dimensions), partial(np.linalg.svd, compute_uv=False)

    @jax.jit
    def ours(x):
        return losses.mmcr(x), losses.mmcr(x, local_weight=0.3), losses.frossl(x)

    mmcr, with_local, frossl = ours(x)
    expected = -singular(unit(x).mean(1)).sum()
    np.testing.assert_allclose(mmcr, expected, rtol=1e-10)
    expected += 0.3 * singular(unit(x)).sum(1).mean()
    np.testing.assert_allclose(with_local, expected, rtol=1e-10)
    np.testing.assert_allclose(frossl, numpy_frossl(x), rtol=1e-10)
    if dimensions == 3:
        loss = partial(losses.w_mse, key=KEY, epsilon=0.1)
        np.testing.assert_allclose(jax.jit(loss)(x), numpy_w_mse(x, 6, 0.1), rtol=1e-10)


def test_tico_equals_numpy(x64):
    a, b = embeddings(2, 6, 3)
    x, y, old = unit(a), unit(b), np.eye(3) / 3
    new = 0.9 * old + 0.1 * sum(np.outer(row, row) for row in x) / 6
    ours = jax.jit(losses.update_covariance)(old, a)
    np.testing.assert_allclose(ours, new, rtol=1e-10)
    expected = [1 - x[i] @ y[i] + 8 * x[i] @ new @ x[i] for i in range(6)]
    np.testing.assert_allclose(jax.jit(losses.tico)(a, b, new), expected, rtol=1e-10)


@pytest.mark.parametrize("dimensions", [2, 5])
def test_derivatives(check_derivatives, dimensions):
    """Those of the nuclear norm are written out, for tall and for wide matrices."""
    x = embeddings(4, 2, dimensions)
    check_derivatives(losses.mmcr, x, order=2)
    check_derivatives(losses.frossl, x)


def test_derivatives_of_whitened_views_and_of_tico(check_derivatives):
    x = embeddings(4, 2, 2)
    check_derivatives(partial(losses.w_mse, key=KEY, group_size=4), x)
    check_derivatives(lambda x: losses.tico(x[:, 0], x[:, 1], np.eye(2)), x)


def test_the_nuclear_norm_has_derivatives_at_equal_singular_values(x64):
    """Of the identity it is 2; along the diagonal it rises by 1, antisymmetric steps bend it."""
    turn = np.array([[0.0, 1], [-1, 0]])
    slope = jax.grad(_nuclear_norm)
    bend = jax.jit(jax.grad(lambda x: (slope(x) * turn).sum()))(np.eye(2))
    np.testing.assert_allclose(jax.jit(slope)(np.eye(2)), np.eye(2), atol=1e-12)
    # |I + t turn|_* = 2 sqrt(1 + t^2), whose second derivative is 2 at t = 0.
    np.testing.assert_allclose((bend * turn).sum(), 2, rtol=1e-10)


def test_collapsed_and_spread_embeddings():
    """Every loss at its bounds, with finite gradients."""
    same = np.ones((8, 2, 4), np.float32)
    spread = np.eye(4, dtype=np.float32)[:, None].repeat(2, 1).repeat(2, 0)

    def value_and_gradient(loss):
        return jax.jit(jax.value_and_grad(loss))

    cases = (
        (partial(losses.w_mse, key=KEY), 2, None),
        (losses.mmcr, -np.sqrt(8), -np.sqrt(8 * 4)),
        (losses.frossl, 0, -2 * np.log(4)),
        (lambda z: losses.tico(z[:, 0], z[:, 1], jnp.full((4, 4), 0.25)).mean(), 8, None),
        (lambda z: losses.tico(z[:, 0], z[:, 1], jnp.eye(4) / 4).mean(), 2, 2),
    )
    for loss, collapsed, best in cases:
        step = value_and_gradient(loss)
        value, gradient = step(same)
        np.testing.assert_allclose(value, collapsed, atol=1e-5)
        assert np.isfinite(gradient).all()
        if best is not None:
            np.testing.assert_allclose(step(spread)[0], best, rtol=1e-5)
        value, gradient = step(0 * same)
        assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("dimensions", [3, 20])
def test_one_device_equals_eight(check_parallel, dimensions):
    a, b = np.float32(embeddings(2, 16, dimensions))

    def loss(temperature, weights, a, b, axis_name):
        z = jnp.stack([a @ weights, b @ weights / temperature + 1], axis=1)
        if dimensions == 20:
            return losses.frossl(z, axis_name=axis_name)
        of_groups = losses.w_mse(z, KEY, group_size=8, axis_name=axis_name)
        return (
            of_groups + losses.mmcr(z, axis_name=axis_name) + losses.frossl(z, axis_name=axis_name)
        )

    check_parallel(loss, a, b)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_mesh_that_is_set_changes_no_value(kind):
    """Matrices are replicated before they are decomposed."""
    z = np.float32(embeddings(8, 2, 12))
    expected = jax.jit(lambda z: losses.mmcr(z) + losses.emp_ssl(z))(z)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        loss = lambda z: losses.mmcr(z) + losses.emp_ssl(z)  # noqa: E731
        if kind == AxisType.Explicit:
            loss = jax.sharding.auto_axes(loss, out_sharding=P())
        ours = jax.jit(loss)(jax.device_put(z, NamedSharding(mesh, P("data"))))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_the_covariance_is_that_of_all_devices():
    z, old = np.float32(embeddings(16, 3)), np.eye(3, dtype=np.float32)
    expected = jax.jit(losses.update_covariance)(old, z)
    update = partial(losses.update_covariance, old, axis_name="data")
    for one in np.asarray(jax.pmap(update, axis_name="data")(z.reshape(8, 2, 3))):
        np.testing.assert_allclose(one, expected, rtol=1e-5)


def test_errors():
    x = jnp.ones((8, 2, 3))
    with pytest.raises(ValueError, match="w_mse: groups of 6 images do not divide a batch of 8"):
        losses.w_mse(x, KEY)
    with pytest.raises(ValueError, match="at least two views"):
        losses.w_mse(x[:, :1], KEY)
    with pytest.raises(ValueError, match="frossl: epsilon must be positive"):
        losses.frossl(x, epsilon=0.0)
    with pytest.raises(AssertionError, match="tico expects"):
        losses.tico(x[:, 0], x[:, 1], jnp.eye(2))
    with pytest.raises(AssertionError, match="mmcr expects"):
        losses.mmcr(x[0])
