"""Masks: how much they hide, where, and how often."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from sslax import augment

KEYS = jax.random.split(jax.random.key(0), 2000)


def draw(function, *sizes, count=2000, **knobs):
    """`function` for the first `count` of KEYS, in one compiled call."""
    return jax.jit(jax.vmap(lambda key: function(key, *sizes, **knobs)))(KEYS[:count])


@pytest.mark.parametrize(("height", "width", "side"), [(12, 16, 6), (11, 14, 5), (9, 9, 9)])
def test_the_center_is_that_of_center_crop(height, width, side):
    places = np.arange(height * width).reshape(height, width, 1)
    square = np.asarray(augment.center_mask(height, width, side=side))
    assert square.dtype == bool
    np.testing.assert_array_equal(
        places[square][:, 0], augment.center_crop(places, size=side).ravel()
    )
    # The band lies inside: what is hidden is what erosion leaves.
    hidden = augment.center_mask(height, width, side=side, overlap=2)
    eroded = ndimage.binary_erosion(square, np.ones((5, 5)))
    np.testing.assert_array_equal(hidden, eroded)
    assert hidden.sum() == (side - 4) ** 2


def test_blocks():
    masks = np.asarray(draw(augment.random_blocks_mask, 9, 7, blocks=1, side=3))
    assert masks.shape == (2000, 9, 7) and masks.dtype == bool
    corners = np.array([np.argwhere(mask)[0] for mask in masks])
    for mask, (top, left) in zip(masks[:50], corners):
        assert mask.sum() == 9 and mask[top : top + 3, left : left + 3].all()
    # Every one of the 7 x 5 places, about equally often.
    counts = np.unique(corners, axis=0, return_counts=True)[1]
    assert len(counts) == 35 and np.abs(counts - 2000 / 35).max() < 5 * np.sqrt(2000 / 35)


def test_several_blocks_may_overlap():
    masks = np.asarray(draw(augment.random_blocks_mask, 9, 7, blocks=2, side=3))
    # Of two independent squares, per axis with n places: E|i - j| gives the mean overlap.
    overlap = 1.0
    for places in (7, 5):
        gap = np.abs(np.subtract.outer(np.arange(places), np.arange(places)))
        overlap *= np.maximum(3 - gap, 0).mean()
    assert abs(masks.sum(axis=(1, 2)).mean() - (18 - overlap)) < 0.3
    assert masks.sum(axis=(1, 2)).max() == 18


@pytest.fixture(scope="module")
def regions():
    return np.asarray(draw(augment.random_region_mask, 24, 30, count=1000, cells=4))


def test_regions_hide_the_share_asked_for(regions):
    shares = regions.mean(axis=(1, 2))
    assert 0.2 - 1e-3 < shares.min() < 0.202 and 0.298 < shares.max() < 0.3 + 1e-3
    # Uniform: mean and deviation.
    assert abs(shares.mean() - 0.25) < 0.003 and abs(shares.std() - 0.1 / np.sqrt(12)) < 0.002
    exact = draw(augment.random_region_mask, 24, 30, count=20, share=(0.25, 0.25), cells=4)
    assert (exact.sum(axis=(1, 2)) == 180).all()
    one = augment.random_region_mask(KEYS[5], 24, 30, cells=4)
    np.testing.assert_array_equal(one, regions[5])


def test_regions_are_everywhere_alike(regions):
    """No place of the image is favored, neither its border nor the points of the grid."""
    often = regions.mean(axis=0)
    assert np.abs(often - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 1000)
    assert abs(often[1:-1, 1:-1].mean() - np.mean([often[0].mean(), often[-1].mean()])) < 0.015


def test_regions_are_smooth(regions):
    """Most neighbors agree, and fewer do on a finer grid; pixels drawn alone agree in 62.5 %."""
    fine = np.asarray(draw(augment.random_region_mask, 24, 30, count=100, cells=12))
    coarse_rate, fine_rate = ((m[:, 1:] == m[:, :-1]).mean() for m in (regions, fine))
    assert coarse_rate > 0.9 > fine_rate > 0.7
    # Far pixels are independent of each other.
    assert abs((regions[:, 0, 0] & regions[:, -1, -1]).mean() - 0.0625) < 0.03


@pytest.mark.parametrize(("tokens", "ratio", "visible"), [(16, 0.75, 4), (9, 0.5, 5), (5, 0.0, 5)])
def test_kept_tokens(tokens, ratio, visible):
    keep, mask = map(np.asarray, draw(augment.random_keep, tokens, ratio=ratio))
    assert keep.shape == (2000, visible) and keep.dtype == np.int32
    assert mask.shape == (2000, tokens) and mask.dtype == bool
    assert (np.diff(keep, axis=1) > 0).all() and (mask.sum(axis=1) == tokens - visible).all()
    assert not np.take_along_axis(mask, keep, axis=1).any()
    # Each token, and each pair of tokens, is kept equally often.
    seen = (~mask).astype(float)
    share = visible / tokens
    assert np.abs(seen.mean(axis=0) - share).max() <= 5 * np.sqrt(share * (1 - share) / 2000)
    pairs = (seen.T @ seen / 2000)[~np.eye(tokens, dtype=bool)]
    pair_share = share * (visible - 1) / (tokens - 1)
    assert np.abs(pairs - pair_share).max() <= 5 * np.sqrt(pair_share * (1 - pair_share) / 2000)


def test_mistakes_are_named():
    key = KEYS[0]
    with pytest.raises(ValueError, match=r"square of 9 pixels does not fit a \(8, 12\) image"):
        augment.center_mask(8, 12, side=9)
    with pytest.raises(ValueError, match=r"in 0, ..., 3; got 4"):
        augment.center_mask(8, 12, side=8, overlap=4)
    with pytest.raises(ValueError, match="2 squares of 9 pixels do not fit"):
        augment.random_blocks_mask(key, 8, 12, blocks=2, side=9)
    with pytest.raises(ValueError, match="share must be an increasing pair"):
        augment.random_region_mask(key, 8, 8, share=(0.3, 0.2))
    with pytest.raises(ValueError, match="cells must be positive"):
        augment.random_region_mask(key, 8, 8, cells=0)
    with pytest.raises(ValueError, match=r"a share in \[0, 1\) of the tokens; got 1.0 of 8"):
        augment.random_keep(key, 8, ratio=1.0)
