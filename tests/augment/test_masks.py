"""Pixel masks: how much they hide, where, and how often."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from sslax import augment

KEYS = jax.random.split(jax.random.key(0), 2000)


def draw(function, *sizes, count=2000, **options):
    """`function` for the first `count` of KEYS, in one compiled call."""
    return jax.jit(jax.vmap(lambda key: function(key, *sizes, **options)))(KEYS[:count])


@pytest.mark.parametrize(("height", "width", "side"), [(12, 16, 6), (11, 14, 5), (9, 9, 9)])
def test_the_center_is_that_of_center_crop(height, width, side):
    numbers = np.arange(height * width).reshape(height, width, 1)
    square = np.asarray(augment.center_mask(height, width, side=side))
    assert square.dtype == bool
    np.testing.assert_array_equal(
        numbers[square][:, 0], augment.center_crop(numbers, size=side).ravel()
    )
    # The visible band is inside the square: the hidden part is its erosion.
    hidden = augment.center_mask(height, width, side=side, overlap=2)
    eroded = ndimage.binary_erosion(square, np.ones((5, 5)))
    np.testing.assert_array_equal(hidden, eroded)
    assert hidden.sum() == (side - 4) ** 2


def test_blocks():
    masks = np.asarray(draw(augment.random_block_mask, 9, 7, blocks=1, side=3))
    assert masks.shape == (2000, 9, 7) and masks.dtype == bool
    corners = np.array([np.argwhere(mask)[0] for mask in masks])
    for mask, (top, left) in zip(masks[:50], corners):
        assert mask.sum() == 9 and mask[top : top + 3, left : left + 3].all()
    # All 7 x 5 positions are about equally frequent.
    counts = np.unique(corners, axis=0, return_counts=True)[1]
    assert len(counts) == 35 and np.abs(counts - 2000 / 35).max() < 5 * np.sqrt(2000 / 35)


def test_several_blocks_may_overlap():
    masks = np.asarray(draw(augment.random_block_mask, 9, 7, blocks=2, side=3))
    # Mean overlap of two independent squares: a product over axes with 7 and 5 positions.
    overlap = 1.0
    for positions in (7, 5):
        gap = np.abs(np.subtract.outer(np.arange(positions), np.arange(positions)))
        overlap *= np.maximum(3 - gap, 0).mean()
    assert abs(masks.sum(axis=(1, 2)).mean() - (18 - overlap)) < 0.3
    assert masks.sum(axis=(1, 2)).max() == 18


@pytest.fixture(scope="module")
def regions():
    return np.asarray(draw(augment.random_region_mask, 24, 30, count=1000, cells=4))


def test_regions_hide_the_share_asked_for(regions):
    shares = regions.mean(axis=(1, 2))
    assert 0.2 - 1e-3 < shares.min() < 0.202 and 0.298 < shares.max() < 0.3 + 1e-3
    # Mean and standard deviation of the uniform distribution.
    assert abs(shares.mean() - 0.25) < 0.003 and abs(shares.std() - 0.1 / np.sqrt(12)) < 0.002
    exact = draw(augment.random_region_mask, 24, 30, count=20, share=(0.25, 0.25), cells=4)
    exact = np.asarray(exact)
    assert (exact.sum(axis=(1, 2)) == 180).all()
    one = jax.jit(lambda key: augment.random_region_mask(key, 24, 30, cells=4))(KEYS[5])
    np.testing.assert_array_equal(one, regions[5])


def test_regions_are_uniform_over_the_image(regions):
    """Neither the borders nor the points of the coarse grid are favored."""
    often = regions.mean(axis=0)
    assert np.abs(often - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 1000)
    assert abs(often[1:-1, 1:-1].mean() - np.mean([often[0].mean(), often[-1].mean()])) < 0.015


def test_regions_are_smooth(regions):
    """Most neighbors agree, fewer on a finer grid; independent pixels would agree in 62.5 %."""
    fine = np.asarray(draw(augment.random_region_mask, 24, 30, count=100, cells=12))
    coarse_rate, fine_rate = ((m[:, 1:] == m[:, :-1]).mean() for m in (regions, fine))
    assert coarse_rate > 0.9 > fine_rate > 0.7
    # Distant pixels are independent.
    assert abs((regions[:, 0, 0] & regions[:, -1, -1]).mean() - 0.0625) < 0.03


def test_mistakes_are_named():
    key = KEYS[0]
    with pytest.raises(ValueError, match=r"square of 9 pixels does not fit into a \(8, 12\) image"):
        augment.center_mask(8, 12, side=9)
    with pytest.raises(ValueError, match=r"in 0, ..., 3 for a square of 8 pixels; got 4"):
        augment.center_mask(8, 12, side=8, overlap=4)
    with pytest.raises(ValueError, match="cannot have 2 squares of 9 pixels"):
        augment.random_block_mask(key, 8, 12, blocks=2, side=9)
    with pytest.raises(ValueError, match="share must be an increasing pair"):
        augment.random_region_mask(key, 8, 8, share=(0.3, 0.2))
    with pytest.raises(ValueError, match="cells must be positive"):
        augment.random_region_mask(key, 8, 8, cells=0)
