"""Patches: the distribution of their positions, and the operations on them."""

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
PHOTOGRAPH = np.float32(data.coffee()[::8, ::8][20:44, 20:40] / 255)
ROUND_TRIPS = jax.jit(jax.vmap(patches._round_trip_weights, in_axes=(None, 0)), static_argnums=0)
APPLY = jax.jit(augment.apply_separable)
# Each pixel holds its row and column, so the content of a patch is its position.
POSITIONS = np.stack(np.mgrid[:30, :26], -1).astype(np.uint8)


def draw(function, image, **options):
    """`function` for each of KEYS, in one compiled call."""
    return jax.jit(jax.vmap(lambda key: function(key, image, **options)))(KEYS)


def corners(windows):
    """First rows and columns of windows, which must be windows of POSITIONS."""
    windows = np.asarray(windows).astype(int)
    corner = windows[..., :1, :1, :]
    offsets = np.stack(np.mgrid[: windows.shape[-3], : windows.shape[-2]], -1)
    np.testing.assert_array_equal(windows - corner, np.broadcast_to(offsets, windows.shape))
    return corner[..., 0, 0, :]


def assert_uniform(values, choices):
    """Each of `choices` occurs about equally often, and nothing else: within 5 deviations."""
    unique, counts = np.unique(values, return_counts=True)
    np.testing.assert_array_equal(unique, choices)
    expected = np.size(values) / len(choices)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize(("grid", "tile", "jitter"), [(3, 4, 2), (3, 5, 1), (2, 13, 0)])
def test_tiles_are_uniform_within_their_cells(grid, tile, jitter):
    tiles = draw(augment.jigsaw_tiles, POSITIONS, grid=grid, tile=tile, jitter=jitter)
    assert tiles.dtype == np.uint8 and tiles.shape == (4000, grid**2, tile, tile, 2)
    cell = np.array([30 // grid, 26 // grid])  # 10 x 8 of 30 x 26: one column remains at each side
    start = (np.array([30, 26]) - grid * cell) // 2 + (cell - tile) // 2 - jitter
    index = np.stack(np.divmod(np.arange(grid**2), grid), -1)
    shifts = corners(tiles) - start - index * cell
    for axis in range(2):
        for tile_index in range(grid**2):
            assert_uniform(shifts[:, tile_index, axis], np.arange(2 * jitter + 1))
    if jitter:  # the shifts of different tiles and axes are independent
        columns = shifts.reshape(4000, -1).T
        correlation = np.corrcoef(columns) - np.eye(len(columns))
        assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_tiles_must_fit():
    with pytest.raises(ValueError, match=r"cells of \(10, 8\) pixels; a tile of 5 .* needs 9"):
        augment.jigsaw_tiles(KEYS[0], POSITIONS, tile=5, jitter=2)
    with pytest.raises(ValueError, match="jitter must be at least 0; got -1"):
        augment.jigsaw_tiles(KEYS[0], POSITIONS, tile=5, jitter=-1)


def test_pairs_are_neighbors():
    pairs, directions = draw(augment.patch_pair, POSITIONS, patch=4, gap=3, jitter=2)
    assert pairs.shape == (4000, 2, 4, 4, 2) and pairs.dtype == np.uint8
    assert directions.dtype == np.int32
    assert_uniform(directions, np.arange(8))
    first, second = np.moveaxis(corners(pairs), 1, 0)
    shifts = second - first - (4 + 3) * np.array(NEIGHBORS)[directions]
    for axis, last in enumerate((30 - 4, 26 - 4)):
        assert_uniform(shifts[:, axis], np.arange(-2, 3))
        assert_uniform(first[:, axis], np.arange(9, last - 9 + 1))
    # Every neighbor of every first patch fits: no window was clamped to the image.
    assert second.min() == 0 and tuple(second.max(axis=0)) == (26, 22)
    # Directions are independent of positions and shifts.
    assert abs(np.corrcoef(directions, first[:, 0])[0, 1]) < 5 / np.sqrt(4000)
    assert abs(np.corrcoef(directions, shifts[:, 0])[0, 1]) < 5 / np.sqrt(4000)


def test_pairs_must_fit():
    fitting = jax.jit(partial(augment.patch_pair, patch=4, gap=3, jitter=4))
    fitting(KEYS[0], POSITIONS)  # 26 pixels exactly
    with pytest.raises(ValueError, match="need 28 x 28 pixels; got 30 x 26"):
        augment.patch_pair(KEYS[0], POSITIONS, patch=4, gap=4, jitter=4)


def test_random_patch_returns_its_position():
    windows, position = draw(augment.random_patch, POSITIONS, patch=21)
    first = corners(windows)
    for axis, last in enumerate((9, 5)):
        assert_uniform(first[:, axis], np.arange(last + 1))
    np.testing.assert_allclose(position, first / np.array([9, 5]), atol=1e-6)
    # Ten rows and six columns of positions fall into a 2 x 2 grid of equal cells.
    cells = jax.jit(augment.location_class, static_argnums=1)(position, 2)
    assert_uniform(cells, np.arange(4))
    np.testing.assert_array_equal(cells, (first[:, 0] >= 5) * 2 + (first[:, 1] >= 3))
    full, center = jax.jit(partial(augment.random_patch, patch=26))(KEYS[0], POSITIONS[:26])
    np.testing.assert_array_equal(full, POSITIONS[:26])
    np.testing.assert_array_equal(center, [0.5, 0.5])
    with pytest.raises(ValueError, match="has no patch of 27 x 27"):
        augment.random_patch(KEYS[0], POSITIONS, patch=27)


def test_batched_equals_one_at_a_time():
    for function, options in (
        (augment.jigsaw_tiles, {"tile": 4, "jitter": 2}),
        (augment.patch_pair, {"patch": 4, "gap": 3, "jitter": 2}),
        (augment.random_patch, {"patch": 21}),
    ):
        many = jax.device_get(draw(function, POSITIONS, **options))
        single = jax.jit(partial(function, **options))
        for i in (0, 17):
            for one, row in zip(jax.tree.leaves(single(KEYS[i], POSITIONS)), jax.tree.leaves(many)):
                np.testing.assert_array_equal(one, row[i])


def test_rotations_are_counterclockwise():
    image = POSITIONS[:26]
    rotated = np.asarray(jax.jit(augment.rotations)(image))
    assert rotated.dtype == np.uint8
    # The right column becomes the top row after a quarter turn, the left column after a half.
    np.testing.assert_array_equal(rotated[0], image)
    np.testing.assert_array_equal(rotated[1, 0], image[:, -1])
    np.testing.assert_array_equal(rotated[2, :, 0], image[::-1, -1])
    np.testing.assert_array_equal(rotated[3], rotated[1, ::-1, ::-1])
    with pytest.raises(ValueError, match=r"\(30, 26\) image is not square"):
        augment.rotations(POSITIONS)


def test_standardize():
    standardize = jax.jit(augment.standardize)
    y = np.asarray(standardize(PHOTOGRAPH))
    np.testing.assert_allclose(y.mean(axis=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=(0, 1)), 1, atol=1e-5)
    bright = standardize(PHOTOGRAPH * np.float32([0.5, 0.9, 0.2]) + np.float32(0.1))
    np.testing.assert_allclose(y, bright, atol=1e-4)
    # A standard deviation below the floor is replaced by the floor.
    faint = np.float32([[[0.5], [0.502]]])
    np.testing.assert_allclose(np.ravel(standardize(faint)), [-0.255, 0.255], atol=1e-4)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(augment.standardize(x)[0, 0])))
    gradient = gradient(np.full((4, 4, 3), np.float32(0.3)))
    assert np.all(np.isfinite(gradient)) and np.abs(gradient).max() > 1
    with pytest.raises(TypeError, match="float image"):
        augment.standardize(POSITIONS)


@pytest.mark.parametrize("small", [(1, 1), (4, 3), (10, 8), (17, 14), (23, 19)])
def test_downsampling_equals_pytorch(small):
    patch = np.random.default_rng(0).random((24, 20, 3)).astype(np.float32)
    weights = [ROUND_TRIPS(size, np.array([s])) for size, s in zip((24, 20), small)]
    result = APPLY(patch, *(np.asarray(w)[0] for w in weights))
    np.testing.assert_allclose(result, GOLDEN["down_up_{}_{}".format(*small)], atol=2e-6)


def test_downsampling_has_its_probability_and_uniform_area():
    ramp = np.stack(np.mgrid[:24, :20], -1).astype(np.float32)
    result = np.asarray(draw(augment.random_downsample, ramp, probability=0.4, min_pixels=30))
    kept = (result == ramp).all(axis=(1, 2, 3))
    assert abs(kept.mean() - 0.6) < 0.04
    # The first pixel of the ramp reveals the size of the small patch.
    sides = []
    for axis, size in enumerate((24, 20)):
        first = np.asarray(ROUND_TRIPS(size, np.arange(1, size + 1)))[:, 0] @ np.arange(size)
        gap = np.abs(result[~kept, 0, 0, axis, None] - first)
        assert gap.min(axis=1).max() < 1e-4
        sides.append(gap.argmin(axis=1) + 1)
    rows, columns = sides
    assert np.abs(columns - rows * 20 / 24).max() <= 1  # the aspect ratio, up to rounding
    assert (rows.min(), columns.min()) == (6, 5) and (rows.max(), columns.max()) == (23, 20)
    # The number of pixels is uniform: P(less than m - 1/2 rows) is linear in its square.
    for m in (9, 15, 20):
        expected = ((m - 0.5) ** 2 * 20 / 24 - 30) / (24 * 20 - 30)
        assert abs((rows < m).sum() / (0.4 * 4000) - expected) < 0.05
    with pytest.raises(ValueError, match=r"1, ..., 480 for a patch of 24 x 20; got 481"):
        augment.random_downsample(KEYS[0], ramp, min_pixels=481)


def test_downsampling_has_a_gradient():
    key = KEYS[3]
    downsample = partial(augment.random_downsample, key, probability=1.0, min_pixels=10)
    run = jax.jit(jax.value_and_grad(lambda x: jnp.sum(downsample(x) ** 2)))
    value, gradient = run(PHOTOGRAPH)
    # For a linear map f: <f(x), f(x)> = <x, gradient> / 2.
    np.testing.assert_allclose(np.vdot(gradient, PHOTOGRAPH), 2 * value, rtol=1e-4)
