"""Gaussian blur against torchvision's definition on a photograph."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data

from sslax import augment

GOLDEN = np.load(Path(__file__).parent / "golden" / "augment.npz")
IMAGE = data.coffee()[::8, ::8][20:44, 20:44] / np.float32(255)


@pytest.mark.parametrize(("kernel_size", "sigma"), [(3, 0.1), (3, 1.5), (9, 1.0), (23, 2.0)])
def test_blur_equals_torchvision(kernel_size, sigma):
    blurred = jax.jit(partial(augment.gaussian_blur, kernel_size=kernel_size))(IMAGE, sigma)
    np.testing.assert_allclose(blurred, GOLDEN[f"blur_{kernel_size}_{sigma}"], atol=5e-4)


def test_each_example_of_a_batch_has_its_own_sigma():
    sigmas = np.float32([0.1, 1.0])
    blur = jax.vmap(lambda sigma: augment.gaussian_blur(IMAGE, sigma, kernel_size=9))
    blurred = np.asarray(jax.jit(blur)(sigmas))
    np.testing.assert_allclose(blurred[0], IMAGE, atol=1e-6)
    np.testing.assert_allclose(blurred[1], GOLDEN["blur_9_1.0"], atol=5e-4)


def test_random_blur_has_its_probability_and_uniform_sigma():
    # The neighbor of a single bright pixel reveals sigma: g_1 / g_0 = exp(-1 / (2 sigma^2)).
    image = np.zeros((5, 5, 1), np.float32)
    image[2, 2] = 1.0
    blur = partial(
        augment.random_gaussian_blur, image=image, kernel_size=3, sigma=(0.5, 1.5), probability=0.3
    )
    keys = jax.random.split(jax.random.key(0), 4096)
    blurred = np.asarray(jax.jit(jax.vmap(blur))(keys))
    happened = blurred[:, 2, 2, 0] != 1.0
    assert abs(happened.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 4096)
    ratio = blurred[happened, 2, 1, 0] / blurred[happened, 2, 2, 0]
    sigma = np.sqrt(-1 / (2 * np.log(ratio)))
    levels = np.linspace(0.1, 0.9, 9)
    np.testing.assert_allclose(np.quantile(sigma, levels), 0.5 + levels, atol=0.06)


def test_errors():
    with pytest.raises(ValueError, match="odd and positive"):
        augment.gaussian_blur(IMAGE, 1.0, kernel_size=4)
    with pytest.raises(ValueError, match="needs more than 5 pixels"):
        augment.gaussian_blur(jnp.zeros((5, 9, 1)), 1.0, kernel_size=11)
    with pytest.raises(ValueError, match="sigma must be"):
        augment.random_gaussian_blur(jax.random.key(0), IMAGE, kernel_size=3, sigma=(0.0, 1.0))
