"""Patches: where they are cut from, how often, and what the operations on them do."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data

from sslax import augment
from sslax.augment import patches

GOLDEN = np.load(Path(__file__).parent / "golden" / "pretext.npz")
KEYS = jax.random.split(jax.random.key(0), 4000)
NEIGHBORS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
PHOTOGRAPH = jnp.asarray(np.float32(data.coffee()[::8, ::8][20:44, 20:40] / 255))
ROUND_TRIPS = jax.jit(jax.vmap(patches._round_trip_weights, in_axes=(None, 0)), static_argnums=0)
# Each pixel holds its row and column, so a patch shows where it comes from.
PLACES = np.stack(np.mgrid[:30, :26], -1).astype(np.uint8)


def draw(function, image, **knobs):
    """`function` for each of KEYS, in one compiled call."""
    return jax.jit(jax.vmap(lambda key: function(key, image, **knobs)))(KEYS)


def corners(windows):
    """First row and column of windows of PLACES, which must be whole windows of it."""
    windows = np.asarray(windows).astype(int)
    corner = windows[..., :1, :1, :]
    offsets = np.stack(np.mgrid[: windows.shape[-3], : windows.shape[-2]], -1)
    np.testing.assert_array_equal(windows - corner, np.broadcast_to(offsets, windows.shape))
    return corner[..., 0, 0, :]


def assert_uniform(values, choices):
    """Each of `choices` occurs about equally often, and nothing else: within 5 deviations."""
    found, counts = np.unique(values, return_counts=True)
    np.testing.assert_array_equal(found, choices)
    expected = np.size(values) / len(choices)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize(("grid", "tile", "jitter"), [(3, 4, 2), (3, 5, 1), (2, 13, 0)])
def test_tiles_lie_in_their_cells(grid, tile, jitter):
    tiles = draw(augment.grid_tiles, PLACES, grid=grid, tile=tile, jitter=jitter)
    assert tiles.dtype == np.uint8 and tiles.shape == (4000, grid**2, tile, tile, 2)
    cell = np.array([30 // grid, 26 // grid])  # 10 x 8 of 30 x 26: a column is left at each side
    start = (np.array([30, 26]) - grid * cell) // 2 + (cell - tile) // 2 - jitter
    index = np.stack(np.divmod(np.arange(grid**2), grid), -1)
    moves = corners(tiles) - start - index * cell
    for axis in range(2):
        for place in range(grid**2):
            assert_uniform(moves[:, place, axis], np.arange(2 * jitter + 1))
    if jitter:  # independent moves: of two tiles, and of the two axes
        columns = moves.reshape(4000, -1).T
        correlation = np.corrcoef(columns) - np.eye(len(columns))
        assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_tiles_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"cells of \(10, 8\) pixels; a tile of 5 .* needs 9"):
        augment.grid_tiles(KEYS[0], PLACES, tile=5, jitter=2)
    with pytest.raises(ValueError, match="jitter is a number of pixels, at least 0; got -1"):
        augment.grid_tiles(KEYS[0], PLACES, tile=5, jitter=-1)


def test_pairs_are_neighbors():
    pairs, directions = draw(augment.patch_pair, PLACES, patch=4, gap=3, jitter=2)
    assert pairs.shape == (4000, 2, 4, 4, 2) and pairs.dtype == np.uint8
    assert directions.dtype == np.int32
    assert_uniform(directions, np.arange(8))
    first, second = np.moveaxis(corners(pairs), 1, 0)
    moves = second - first - (4 + 3) * np.array(NEIGHBORS)[directions]
    for axis, last in enumerate((30 - 4, 26 - 4)):
        assert_uniform(moves[:, axis], np.arange(-2, 3))
        assert_uniform(first[:, axis], np.arange(9, last - 9 + 1))
    # Every neighbor of every first patch fits: nothing was pushed back into the image.
    assert second.min() == 0 and tuple(second.max(axis=0)) == (26, 22)
    # The direction does not depend on the place, nor the move on the direction.
    assert abs(np.corrcoef(directions, first[:, 0])[0, 1]) < 5 / np.sqrt(4000)
    assert abs(np.corrcoef(directions, moves[:, 0])[0, 1]) < 5 / np.sqrt(4000)


def test_pairs_need_room():
    augment.patch_pair(KEYS[0], PLACES, patch=4, gap=3, jitter=4)  # 26 pixels exactly
    with pytest.raises(ValueError, match="need 28 x 28 pixels; got 30 x 26"):
        augment.patch_pair(KEYS[0], PLACES, patch=4, gap=4, jitter=4)


def test_a_patch_knows_its_place():
    windows, position = draw(augment.patch_at, PLACES, patch=21)
    first = corners(windows)
    for axis, last in enumerate((9, 5)):
        assert_uniform(first[:, axis], np.arange(last + 1))
    np.testing.assert_allclose(position, first / np.array([9, 5]), atol=1e-6)
    # Ten rows and six columns of places fall into a 2 x 2 grid of equal cells.
    cells = augment.location_class(position, 2)
    assert_uniform(cells, np.arange(4))
    np.testing.assert_array_equal(cells, (first[:, 0] >= 5) * 2 + (first[:, 1] >= 3))
    whole, middle = augment.patch_at(KEYS[0], PLACES[:26], patch=26)
    np.testing.assert_array_equal(whole, PLACES[:26])
    np.testing.assert_array_equal(middle, [0.5, 0.5])
    with pytest.raises(ValueError, match="has no patch of 27 x 27"):
        augment.patch_at(KEYS[0], PLACES, patch=27)


def test_one_key_at_a_time_gives_the_same():
    for function, knobs in (
        (augment.grid_tiles, {"tile": 4, "jitter": 2}),
        (augment.patch_pair, {"patch": 4, "gap": 3, "jitter": 2}),
        (augment.patch_at, {"patch": 21}),
    ):
        many = draw(function, PLACES, **knobs)
        for i in (0, 17):
            for one, row in zip(
                jax.tree.leaves(function(KEYS[i], PLACES, **knobs)), jax.tree.leaves(many)
            ):
                np.testing.assert_array_equal(one, row[i])


def test_rotations_turn_counter_clockwise():
    image = PLACES[:26]
    turned = augment.rotations(image)
    assert turned.dtype == np.uint8
    # What stood on the right stands on top after a quarter turn, on the left after a half.
    np.testing.assert_array_equal(turned[0], image)
    np.testing.assert_array_equal(turned[1, 0], image[:, -1])
    np.testing.assert_array_equal(turned[2, :, 0], image[::-1, -1])
    np.testing.assert_array_equal(turned[3], turned[1, ::-1, ::-1])
    with pytest.raises(ValueError, match=r"\(30, 26\) image has another shape"):
        augment.rotations(PLACES)


def test_standardized_channels():
    y = augment.standardize(PHOTOGRAPH)
    np.testing.assert_allclose(y.mean(axis=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=(0, 1)), 1, atol=1e-5)
    bright = augment.standardize(PHOTOGRAPH * jnp.array([0.5, 0.9, 0.2]) + 0.1)
    np.testing.assert_allclose(y, bright, atol=1e-4)
    # Less contrast than the floor is divided by the floor.
    faint = np.float32([[[0.5], [0.502]]])
    np.testing.assert_allclose(augment.standardize(faint).ravel(), [-0.255, 0.255], atol=1e-4)
    gradient = jax.grad(lambda x: jnp.sum(augment.standardize(x)[0, 0]))(jnp.full((4, 4, 3), 0.3))
    assert np.all(np.isfinite(gradient)) and np.abs(gradient).max() > 1
    with pytest.raises(TypeError, match="float image"):
        augment.standardize(PLACES)


@pytest.mark.parametrize("small", [(1, 1), (4, 3), (10, 8), (17, 14), (23, 19)])
def test_down_and_up_is_pytorchs(small):
    rows, columns = (ROUND_TRIPS(size, jnp.array([s]))[0] for size, s in zip((24, 20), small))
    patch = jnp.asarray(np.random.default_rng(0).random((24, 20, 3)), jnp.float32)
    result = augment.apply_separable(patch, rows, columns)
    np.testing.assert_allclose(result, GOLDEN["down_up_{}_{}".format(*small)], atol=2e-6)


def test_down_up_draws():
    ramp = jnp.stack(jnp.meshgrid(jnp.arange(24.0), jnp.arange(20.0), indexing="ij"), -1)
    result = np.asarray(draw(augment.down_up, ramp, probability=0.4, smallest=30))
    kept = (result == ramp).all(axis=(1, 2, 3))
    assert abs(kept.mean() - 0.6) < 0.04
    # The first pixel tells to how many rows and columns the ramp shrank.
    sides = []
    for axis, size in enumerate((24, 20)):
        first = ROUND_TRIPS(size, jnp.arange(1, size + 1))[:, 0] @ np.arange(size)
        gap = np.abs(result[~kept, 0, 0, axis, None] - first)
        assert gap.min(axis=1).max() < 1e-4
        sides.append(gap.argmin(axis=1) + 1)
    rows, columns = sides
    assert np.abs(columns - rows * 20 / 24).max() <= 1  # the aspect, up to rounding
    assert (rows.min(), columns.min()) == (6, 5) and (rows.max(), columns.max()) == (23, 20)
    # The number of pixels is uniform: P(less than m - 1/2 rows) is linear in its square.
    for m in (9, 15, 20):
        expected = ((m - 0.5) ** 2 * 20 / 24 - 30) / (24 * 20 - 30)
        assert abs((rows < m).sum() / (0.4 * 4000) - expected) < 0.05
    with pytest.raises(ValueError, match=r"1, ..., 480 for a patch of 24 x 20; got 481"):
        augment.down_up(KEYS[0], ramp, smallest=481)


def test_down_up_differentiates():
    key = KEYS[3]
    f = partial(augment.down_up, key, probability=1.0, smallest=10)
    gradient = jax.grad(lambda x: jnp.sum(f(x) ** 2))(PHOTOGRAPH)
    # A linear map: <f(x), f(x)> = <x, gradient> / 2.
    value = jnp.sum(f(PHOTOGRAPH) ** 2)
    np.testing.assert_allclose(jnp.sum(gradient * PHOTOGRAPH), 2 * value, rtol=1e-4)
