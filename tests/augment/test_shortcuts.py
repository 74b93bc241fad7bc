"""Chromatic aberration: removing it, and adding it, against scipy's interpolation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from skimage import data

from sslax import augment

BYTES = data.astronaut()[::16, ::20]
PHOTOGRAPH = np.float32(BYTES / 255)  # [32, 26, 3]
GRAY = PHOTOGRAPH[..., :1]
ABERRATE = jax.jit(augment.chromatic_aberration)
DROP = jax.jit(augment.drop_colors)
KEYS = jax.random.split(jax.random.key(0), 600)


@pytest.fixture(scope="module")
def dropped():
    return np.asarray(jax.jit(jax.vmap(lambda key: augment.drop_colors(key, PHOTOGRAPH)))(KEYS))


def test_one_channel_is_kept(dropped):
    kept = (dropped == PHOTOGRAPH).all(axis=(1, 2))
    assert (kept.sum(axis=1) == 1).all()
    assert np.abs(kept.mean(axis=0) - 1 / 3).max() < 0.08
    np.testing.assert_allclose(DROP(KEYS[5], PHOTOGRAPH), dropped[5], atol=1e-6)


def test_the_other_channels_are_noise_around_its_mean(dropped):
    for image in dropped[:5]:
        kept = (image == PHOTOGRAPH).all(axis=(0, 1))
        channel, (first, second) = image[..., kept][..., 0], np.moveaxis(image[..., ~kept], -1, 0)
        for noise in (first, second):
            assert abs(noise.mean() - channel.mean()) < 5 * 0.01 * channel.std() / np.sqrt(32 * 26)
            np.testing.assert_allclose(noise.std(), 0.01 * channel.std(), rtol=0.15)
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.2
        assert abs(np.corrcoef(first.ravel(), channel.ravel())[0, 1]) < 0.2


def test_dropping_commutes_with_centering(dropped):
    centered = DROP(KEYS[0], PHOTOGRAPH - np.float32(0.5))
    np.testing.assert_allclose(centered, dropped[0] - 0.5, atol=1e-6)


def test_the_projection_equals_the_papers():
    a = np.array([[-1.0, 2.0, -1.0]])
    matrix = np.eye(3) - a.T @ a / (a @ a.T)
    result = np.asarray(jax.jit(augment.project_colors)(PHOTOGRAPH))
    np.testing.assert_allclose(result, BYTES / 255 @ matrix, atol=1e-6)
    np.testing.assert_allclose(result @ a[0], 0, atol=1e-6)
    np.testing.assert_array_equal(augment.project_colors(GRAY), GRAY)


@pytest.mark.parametrize(("red", "blue"), [(1.07, 0.95), (0.6, 1.0), (1.5, 3.0)])
def test_aberration_equals_magnification_by_scipy(red, blue):
    result = np.asarray(ABERRATE(PHOTOGRAPH, scale_red=red, scale_blue=blue))
    center = (np.array(PHOTOGRAPH.shape[:2]) - 1)[:, None, None] / 2
    positions = np.mgrid[:32, :26]
    for channel, scale in enumerate((red, 1.0, blue)):
        source = center + (positions - center) / scale
        expected = map_coordinates(BYTES[..., channel] / 255, source, order=1, mode="nearest")
        np.testing.assert_allclose(result[..., channel], expected, atol=5e-6)


def test_a_scale_of_one_is_the_identity():
    result = ABERRATE(PHOTOGRAPH, scale_red=1.0, scale_blue=1.0)
    np.testing.assert_allclose(result, PHOTOGRAPH, atol=1e-6)
    np.testing.assert_array_equal(
        augment.chromatic_aberration(GRAY, scale_red=2.0, scale_blue=0.5), GRAY
    )


def test_aberration_moves_edges_outward():
    disc = np.hypot(*(np.mgrid[:41, :41] - 20)) <= 10
    image = np.repeat(disc[..., None], 3, -1).astype(np.float32)
    aberrated = np.asarray(ABERRATE(image, scale_red=1.2, scale_blue=0.8))
    area = aberrated.sum(axis=(0, 1)) / disc.sum()
    np.testing.assert_allclose(area, [1.2**2, 1.0, 0.8**2], rtol=0.03)


@pytest.mark.parametrize("scale", [1.0, 1.013])
def test_gradient_to_the_scale(scale):
    """Central differences; at 1, where all positions are pixels, they average both slopes."""
    weight = np.random.default_rng(0).random(PHOTOGRAPH.shape).astype(np.float32)

    @jax.jit
    def value(red):
        return jnp.sum(weight * ABERRATE(PHOTOGRAPH, scale_red=red, scale_blue=1.0))

    step = 2e-4
    difference = (value(scale + step) - value(scale - step)) / (2 * step)
    gradient = jax.jit(jax.grad(value))(np.float32(scale))
    assert abs(difference) > 1
    np.testing.assert_allclose(gradient, difference, rtol=0.02)


def test_gradients_are_finite_on_flat_images():
    flat = np.full((4, 4, 3), np.float32(0.5))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(augment.drop_colors(KEYS[0], x) ** 2)))(flat)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    two = jnp.ones((4, 4, 2))
    for function in (
        lambda x: augment.drop_colors(KEYS[0], x),
        augment.project_colors,
        lambda x: augment.chromatic_aberration(x, scale_red=1.0, scale_blue=1.0),
    ):
        with pytest.raises(ValueError, match="channels last"):
            function(two)
