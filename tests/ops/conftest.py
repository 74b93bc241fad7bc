"""Shared by the tests of sslax.ops."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data


@pytest.fixture
def x64():
    """float64 within one test, for finite differences and comparison to float64 references."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def golden():
    """`golden('warp')`: the arrays of golden/warp.npz, from experiments/golden/warp.py."""
    return lambda name: np.load(pathlib.Path(__file__).parent / "golden" / f"{name}.npz")


@pytest.fixture(scope="session")
def stereo():
    """Middlebury's motorcycle: left, right [500, 741, 3] in [0, 1]; disparity, +inf if unknown."""
    left, right, disparity = skimage.data.stereo_motorcycle()
    return np.float32(left) / 255, np.float32(right) / 255, np.float32(disparity)


@pytest.fixture
def check_derivatives(x64):
    """First and second derivatives of a function's squared sum equal central differences."""

    def check(f, *args, step=1e-5):
        rng = np.random.default_rng(9)
        args = tuple(np.asarray(a, np.float64) for a in args)
        direction = tuple(rng.standard_normal(a.shape) for a in args)
        gradient = jax.grad(lambda *args: jnp.sum(f(*args) ** 2), argnums=tuple(range(len(args))))

        @jax.jit
        def derivatives(*args):  # backward, and forward over backward
            first, second = jax.jvp(gradient, args, direction)
            return jnp.sum(f(*args) ** 2), first, second

        here, ahead, behind = (
            jax.device_get(derivatives(*(a + sign * step * d for a, d in zip(args, direction))))
            for sign in (0, 1, -1)
        )
        _, first, second = here
        slope = sum(np.vdot(g, d) for g, d in zip(first, direction))
        difference = (ahead[0] - behind[0]) / (2 * step)
        np.testing.assert_allclose(slope, difference, rtol=1e-6, atol=1e-8)
        assert abs(difference) > 1e-3
        for ours, a, b in zip(second, ahead[1], behind[1]):
            np.testing.assert_allclose(ours, (a - b) / (2 * step), rtol=1e-5, atol=1e-5)

    return check
