"""Corruptions are deterministic functions of images and a key, and do what they say."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from sslax.errors import UserError
from sslax.testbed import corruptions
from sslax.testbed.corruptions import CORRUPTIONS, corrupt

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(3, 40, 48, 3)), (0, 2, 2, 0))
    return np.uint8(np.clip(110 + 250 * smooth, 0, 255))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_grade_is_farther_from_the_clean_images(images, name):
    found = [corrupt(images, KEY, name, grade) for grade in (1, 2, 3)]
    for image in found:
        assert image.shape == images.shape and image.dtype == np.uint8
    errors = [np.abs(image - np.float64(images)).mean() for image in found]
    assert 1 < errors[0] < errors[1] < errors[2]
    np.testing.assert_array_equal(corrupt(images, KEY, name, 2), found[1])


def test_exposure_alternates(images):
    dim = images // 3 + 10  # nothing is clipped
    found = corruptions.brightness(dim, KEY, 2.0)
    gains = [(a / np.float64(b)).mean() for a, b in zip(found, dim)]
    assert sorted(gains[:2]) == pytest.approx([0.5**0.5, 2**0.5], rel=0.01)
    assert gains[2] == pytest.approx(gains[0], rel=0.01)
    firsts = {
        corruptions.brightness(dim, jax.random.key(i), 2.0)[0].mean() > dim[0].mean()
        for i in range(8)
    }
    assert firsts == {True, False}


@pytest.mark.parametrize("deviation", CORRUPTIONS["noise"][1])
def test_the_noise_has_its_deviation(deviation):
    gray = np.full((2, 100, 100, 3), 127, np.uint8)
    error = corruptions.noise(gray, KEY, deviation) - 127.0
    assert error.std() == pytest.approx(deviation, rel=0.02)
    assert abs(error.mean()) < 0.02 * deviation
    image, other = error
    assert abs(np.corrcoef(image.ravel(), other.ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(image[..., 0].ravel(), image[..., 1].ravel())[0, 1]) < 0.03


@pytest.mark.parametrize("sigma", CORRUPTIONS["blur"][1])
def test_blur_equals_scipy(images, sigma):
    found = corruptions.blur(images, KEY, sigma)
    wanted = ndimage.gaussian_filter(
        np.float64(images), (0, sigma, sigma, 0), mode="mirror", truncate=4.0
    )
    assert np.abs(found - wanted).max() < 0.501


def test_the_dark_is_dark_and_noisy(images):
    for factor in CORRUPTIONS["darkness"][1]:
        flat = np.full((1, 100, 100, 3), 160, np.uint8)
        found = corruptions.darkness(flat, KEY, factor)
        assert found.mean() == pytest.approx(160 / factor, abs=0.05)
        # Rounding adds the variance of a uniform distribution.
        assert found.std() == pytest.approx((1 + 1 / 12) ** 0.5, rel=0.03)


def test_mistakes_are_named(images):
    with pytest.raises(UserError, match='did you mean "noise"'):
        corrupt(images, KEY, "nose", 1)
    with pytest.raises(UserError, match="grade is 4"):
        corrupt(images, KEY, "noise", 4)
    with pytest.raises(ValueError, match="uint8"):
        corruptions.blur(images / 255, KEY, 1.0)
