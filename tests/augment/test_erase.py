"""Random erasing: color, area, probability."""

import jax
import numpy as np
import pytest

from sslax import augment


@pytest.fixture(scope="module")
def erased():
    """2,000 images whose values are negative except where they are erased."""
    image = -np.ones((20, 24, 3), np.float32)
    erase = jax.vmap(
        lambda key: augment.random_erasing(key, image, scale=(0.1, 0.2), probability=0.25)
    )
    return np.asarray(jax.jit(erase)(jax.random.split(jax.random.key(0), 2000)))


def test_one_color_in_one_box(erased):
    changed = [image for image in erased if (image >= 0).any()]
    for image in changed[:50]:
        rows, columns = np.nonzero(image[..., 0] >= 0)
        box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (box == box[0, 0]).all() and box.min() >= 0 and box.max() <= 1
        assert (image >= 0).sum() == box.size
    colors = np.array([image.max(axis=(0, 1)) for image in changed])
    np.testing.assert_allclose(colors.mean(axis=0), 0.5, atol=0.05)


def test_probability_and_area(erased):
    area = (erased[..., 0] >= 0).mean(axis=(1, 2))
    assert abs((area > 0).mean() - 0.25) < 0.03
    # Sides are rounded to pixels.
    assert area[area > 0].min() > 0.07 and area.max() < 0.24
    assert abs(area[area > 0].mean() - 0.15) < 0.01


def test_a_range_needs_two_numbers():
    recipe = augment.ViewRecipe(erase=0.5, erase_scale=(0.2,))
    with pytest.raises(ValueError, match="erase_scale must be a range"):
        augment.make_views((recipe,))
