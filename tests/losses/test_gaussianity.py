"""LeJEPA and VISReg against NumPy, their values for Gaussians and at collapse, eight devices."""

from functools import partial
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import losses

KEY = jax.random.key(5)


def embeddings(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def directions(dimensions, slices):
    """In float64, where the caller enables it."""
    normal = np.asarray(jax.random.normal(KEY, (dimensions, slices), jnp.float64))
    return normal / np.sqrt((normal**2).sum(0))


def numpy_sigreg(z, slices):
    """The integral over both halves of the axis."""
    t = np.linspace(-3, 3, 33)
    phi = np.exp(-(t**2) / 2)
    values = []
    for view in np.moveaxis(z, 1, 0):
        for x in (view @ directions(z.shape[-1], slices)).T:
            error = np.abs(np.exp(1j * np.outer(t, x)).mean(1) - phi) ** 2
            values.append(len(z) * np.trapezoid(error * phi, t))
    return np.mean(values)


def numpy_visreg(z, slices, sigma=None):
    """With the given standard deviations instead of its own in the third term."""
    n, total = len(z), 0
    quantiles = [NormalDist().inv_cdf(i / (n + 1)) for i in range(1, n + 1)]
    for v in range(z.shape[1]):
        mean, deviation = z[:, v].mean(0), z[:, v].std(0)
        scaled = (z[:, v] - mean) / (deviation if sigma is None else sigma[v])
        x = np.sort(scaled @ directions(z.shape[-1], slices), axis=0)
        total += (mean**2).mean() + ((deviation - 1) ** 2).mean()
        total += ((x - np.array(quantiles)[:, None]) ** 2).mean()
    return total / z.shape[1]


def test_values_equal_numpy(x64):
    z = 0.5 + 1.5 * embeddings(9, 2, 3)

    @jax.jit
    def ours(z):
        return (
            losses.sigreg(z, KEY, slices=6),
            losses.visreg(z, KEY, slices=6),
            losses.lejepa(z, KEY, slices=6, weight=0.2, global_views=1),
            losses.view_invariance(z),
        )

    sigreg, visreg, lejepa, invariance = ours(z)
    expected = numpy_sigreg(z, 6)
    np.testing.assert_allclose(sigreg, expected, rtol=1e-10)
    np.testing.assert_allclose(visreg, numpy_visreg(z, 6), rtol=1e-9)
    to_first = ((z - z[:, :1]) ** 2).mean()
    np.testing.assert_allclose(lejepa, 0.8 * to_first + 0.2 * expected, rtol=1e-10)
    np.testing.assert_allclose(invariance, z.var(1).mean(1), rtol=1e-10)


def test_sigreg_of_gaussians_and_of_collapsed_embeddings():
    """Its smallest value does not depend on the number of examples or dimensions, the others grow
    with the number of examples."""
    loss = jax.jit(partial(losses.sigreg, key=KEY, slices=128))
    z = np.float32(embeddings(2048, 1, 64))
    line = 8 * z[:, :, :1] * np.eye(64, dtype=np.float32)[0]  # rank one, the same trace
    np.testing.assert_allclose(loss(z), 1.0525, rtol=0.1)
    np.testing.assert_allclose(loss(0 * z) / 2048, 0.4020, rtol=1e-3)
    np.testing.assert_allclose(loss(z / 2) / 2048, 0.151, rtol=0.03)
    np.testing.assert_allclose(loss(2 * z) / 2048, 0.236, rtol=0.03)
    np.testing.assert_allclose(loss(line) / 2048, 0.164, rtol=0.2)


def test_derivatives_of_lejepa(check_derivatives):
    z = embeddings(5, 2, 3)
    check_derivatives(partial(losses.lejepa, key=KEY, slices=4, weight=0.3), z, order=2)


def test_derivative_of_visreg(x64):
    """Standard deviations are constants of the slices."""
    z, step = 0.5 + 1.5 * embeddings(7, 2, 3), 1e-6
    direction = embeddings(*z.shape, seed=1)
    gradient = jax.jit(jax.grad(partial(losses.visreg, key=KEY, slices=4)))(z)
    ahead, behind = (numpy_visreg(z + by * direction, 4, sigma=z.std(0)) for by in (step, -step))
    slope = (ahead - behind) / (2 * step)
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-6)


@pytest.mark.parametrize("loss", [losses.sigreg, losses.visreg])
def test_equal_embeddings_have_finite_gradients(loss):
    total = jax.jit(jax.value_and_grad(partial(loss, key=KEY, slices=16)))
    same = np.float32(embeddings(1, 2, 4)).repeat(8, 0)
    for z in (same, 0 * same):
        value, gradient = total(z)
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_visreg_of_collapsed_embeddings():
    """The mean square of the quantiles, and one for the scale."""
    square = np.mean([NormalDist().inv_cdf(i / 65) ** 2 for i in range(1, 65)])
    value = jax.jit(partial(losses.visreg, key=KEY, slices=16))(np.zeros((64, 1, 4), np.float32))
    np.testing.assert_allclose(value, 1 + square, rtol=1e-4)
    assert 0.88 < square < 0.9


def test_one_device_equals_eight(check_parallel):
    a, b = np.float32(embeddings(2, 16, 3))

    def loss(temperature, weights, a, b, axis_name):
        z = jnp.stack([a @ weights / temperature, b @ weights], axis=1)
        visreg = losses.visreg(z, KEY, slices=16, axis_name=axis_name)
        return visreg + losses.lejepa(z, KEY, slices=4, weight=0.5, axis_name=axis_name)

    check_parallel(loss, a, b)


def test_slices_that_eight_devices_cannot_share():
    """Each of them sorts all."""
    z = np.float32(embeddings(16, 1, 3))
    visreg = partial(losses.visreg, key=KEY, slices=3)
    ours = jax.pmap(partial(visreg, axis_name="data"), axis_name="data")(z.reshape(8, 2, 1, 3))
    np.testing.assert_allclose(ours, np.full(8, jax.jit(visreg)(z)), rtol=1e-5)


def test_sines_and_cosines_of_all_knots_are_never_in_memory():
    """They would take 17 times the projections, and twice that."""
    z = jax.ShapeDtypeStruct((128, 4, 16), jnp.float32)
    step = jax.jit(jax.grad(partial(losses.sigreg, key=KEY, slices=256)))
    memory = step.lower(z).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 8 * (4 * 128 * 4 * 256)


def test_bfloat16_is_reduced_in_float32():
    z = jnp.asarray(embeddings(16, 2, 4), jnp.bfloat16)
    for loss in (losses.sigreg, losses.visreg):
        coarse, fine = jax.jit(lambda z, f=loss: [f(x, KEY, slices=8) for x in z])(
            (z, z.astype(jnp.float32))
        )
        assert coarse.dtype == jnp.float32
        np.testing.assert_allclose(coarse, fine, rtol=1e-5)


def test_errors():
    z = jnp.ones((4, 2, 3))
    for options, message in (
        ({"slices": 0}, "sigreg: slices must be at least 1; got 0"),
        ({"knots": 1}, "knots must be at least 2"),
        ({"t_max": 0.0}, "t_max must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            losses.sigreg(z, KEY, **options)
    with pytest.raises(ValueError, match="lejepa: weight must be in"):
        losses.lejepa(z, KEY, weight=1.5)
    with pytest.raises(ValueError, match="global_views is 3 of 2"):
        losses.view_invariance(z, global_views=3)
    with pytest.raises(AssertionError, match="visreg expects"):
        losses.visreg(z[0], KEY)
