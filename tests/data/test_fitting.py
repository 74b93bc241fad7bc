"""Crop and resize agree for images, intrinsics, dense and sparse maps."""

import jax
import numpy as np
import pytest

from sslax import ops
from sslax.data import fitting
from sslax.data.records import DataError

K = np.array([[80.0, 0, 41.0], [0, 70.0, 22.5], [0, 0, 1]])


@pytest.mark.parametrize("size", [(20, 30), (12, 60), (60, 100), (45, 23), ()])
@pytest.mark.parametrize("cut_bottom", [0.0, 0.2])
def test_crop_is_central_with_the_aspect_ratio_of_the_size(size, cut_bottom):
    fit = fitting.fit((50, 80), size, cut_bottom=cut_bottom)
    left, top, right, bottom = fit.box
    rows = 50 if not cut_bottom else 40
    assert fit.size == (size or (rows, 80))
    assert left + right == pytest.approx(80) and top + bottom == pytest.approx(rows)
    assert left == pytest.approx(0) or top == pytest.approx(0)
    assert (right - left) / (bottom - top) == pytest.approx(fit.size[1] / fit.size[0])


def test_a_stretched_image_is_whole_and_its_camera_follows():
    fit = fitting.fit((50, 80), (25, 80), fitting="stretch")
    assert fit.box == (0, 0, 80, 50) and fit.scale == (1.0, 0.5)
    new = fitting.fit_intrinsics(K, fit)
    np.testing.assert_allclose(new, [[80.0, 0, 41.0], [0, 35.0, 11.0], [0, 0, 1]])
    rows = np.broadcast_to(np.arange(50, dtype=np.uint8)[:, None, None], (50, 80, 3))
    image = fitting.fit_image(rows, fit)
    assert image.shape == (25, 80, 3)
    np.testing.assert_allclose(image[1:-1, 0, 0], 2 * np.arange(1, 24) + 0.5, atol=0.51)
    drawn = fitting.fit_points(np.array([7.0]), np.array([20.0]), np.array([3.0]), fit)
    assert drawn[10, 7] == 3 and np.count_nonzero(drawn) == 1


def test_a_window_is_cut_out_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (51, 80, 3), dtype=np.uint8)
    fit = fitting.fit((51, 80), (20, 32), fitting="window")
    np.testing.assert_array_equal(fitting.fit_image(pixels, fit), pixels[15:35, 24:56])
    np.testing.assert_allclose(fitting.fit_intrinsics(K, fit)[:2, 2], [41 - 24, 22.5 - 15])
    with pytest.raises(DataError, match="80 x 51 pixels has no window of 32 x 60"):
        fitting.fit((51, 80), (60, 32), fitting="window")


def test_intrinsics_are_those_of_ops():
    """Resizing and cropping match `ops`."""
    fit = fitting.fit((50, 80), (25, 40))
    expected = jax.jit(ops.resize_intrinsics)(np.float32(K), 0.5)
    np.testing.assert_allclose(fitting.fit_intrinsics(K, fit), expected, rtol=1e-6)
    fit = fitting.fit((50, 80), (50, 40))  # columns 20 to 59
    expected = jax.jit(ops.crop_intrinsics)(np.float32(K), 20.0, 0.0)
    np.testing.assert_allclose(fitting.fit_intrinsics(K, fit), expected, rtol=1e-6)


@pytest.mark.parametrize("size", [(25, 40), (30, 20), (75, 120), (16, 60)])
def test_image_and_intrinsics_move_together(size):
    """Pixels that encode their own ray still do so after the crop and resize."""
    y, x = np.mgrid[:50, :80]
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1]], axis=-1)
    levels = np.stack([100 + 100 * rays[..., 0], 100 + 100 * rays[..., 1], 0 * x], axis=-1)
    fit = fitting.fit((50, 80), size)
    image = fitting.fit_image(levels.round().astype(np.uint8), fit)
    assert image.shape == (*size, 3)
    new = fitting.fit_intrinsics(K, fit)
    y, x = np.mgrid[: size[0], : size[1]]
    expected = np.stack([(x - new[0, 2]) / new[0, 0], (y - new[1, 2]) / new[1, 1]], axis=-1)
    inner = np.s_[2:-2, 2:-2, :2]  # the filter is one-sided at the edge
    error = image[inner] - (100 + 100 * expected)[2:-2, 2:-2]
    assert np.abs(error).max() < 1.1 and abs(error.mean()) < 0.25


def test_an_image_of_the_size_is_untouched():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    assert fitting.fit_image(pixels, fitting.fit((6, 8), (6, 8))) is pixels
    np.testing.assert_array_equal(
        fitting.fit_image(pixels, fitting.fit((6, 8), cut_bottom=0.5)), pixels[:3]
    )
    gray = fitting.fit_image(pixels[..., :1], fitting.fit((6, 8), (3, 4)))
    assert gray.shape == (3, 4, 1)


@pytest.mark.parametrize("size", [(4, 8), (4, 4), (16, 32), (3, 8), (8, 16)])
def test_dense_and_sparse_maps_agree(size):
    """A point lands in the pixel that contains it; dense maps read the nearest value there."""
    depth = np.random.default_rng(0).uniform(1, 9, (8, 16)).astype(np.float32)
    fit = fitting.fit((8, 16), size)
    dense = fitting.fit_values(depth, fit)
    y, x = np.mgrid[:8, :16]
    sparse = fitting.fit_points(x.ravel(), y.ravel(), depth.ravel(), fit)
    assert sparse.dtype == np.float32 and sparse.shape == dense.shape == size
    # The nearest is at least as near as the one that is read.
    assert (sparse <= dense).all()
    if size == (16, 32):  # four pixels a point: it is at a corner of all, and lands in one
        np.testing.assert_array_equal(sparse[1::2, 1::2], depth)
        assert np.count_nonzero(sparse) == depth.size
    if size == (4, 8):
        np.testing.assert_array_equal(sparse, blocks_of(depth))
    if size == (4, 4):
        np.testing.assert_array_equal(sparse, blocks_of(depth[:, 4:12]))


def blocks_of(depth):
    height, width = depth.shape
    return depth.reshape(height // 2, 2, width // 2, 2).min((1, 3))


def test_points_keep_the_nearest_and_drop_the_invisible():
    x, y = np.array([0.0, 0.4, -0.6, 3.4, 3.6, 1]), np.array([0.0, -0.4, 0, 1.4, 0, 1])
    depth = np.array([5.0, 3, 1, 7, 1, -2])
    found = fitting.fit_points(x, y, depth, fitting.fit((2, 4)))
    np.testing.assert_array_equal(found, [[3, 0, 0, 0], [0, 0, 0, 7]])


def test_intrinsics_of_another_size_are_refused():
    fitting.check_intrinsics(K, (50, 80), "clip")
    with pytest.raises(DataError, match=r"\(41, 22.5\) is outside the images of 40 x 25"):
        fitting.check_intrinsics(K[None], (25, 40), "clip")
    with pytest.raises(DataError, match="fx and fy"):
        fitting.check_intrinsics(-K, (50, 80), "clip")


@pytest.mark.parametrize(("factor", "suggested"), [(0.5, "40 x 25"), (1.5, "120 x 75"), (2, "160")])
def test_intrinsics_of_another_resolution_name_it(factor, suggested):
    centered = np.array([[80.0, 0, 39.5], [0, 70.0, 24.5], [0, 0, 1]])
    other = np.asarray(jax.jit(ops.resize_intrinsics)(np.float32(centered), factor))
    fitting.check_intrinsics(centered, (50, 80), "clip")
    with pytest.raises(DataError, match=f"suggests images of about {suggested}"):
        fitting.check_intrinsics(np.stack([centered, other]), (50, 80), "clip")
    fitting.check_intrinsics(other, (50, 80), "clip", trusted=True)
    with pytest.raises(DataError, match="suggests images of about 80 x 50"):  # turned
        fitting.check_intrinsics(centered, (80, 50), "clip")


def test_real_cameras_pass():
    for numbers, size in (
        ((718.9, 718.9, 607.2, 185.2), (376, 1241)),  # KITTI
        ((2262.5, 2265.3, 1096.98, 513.137), (1024, 2048)),  # Cityscapes
        ((4161.2, 4161.2, 1444.0, 977.7), (1968, 2952)),  # Middlebury 2014
        ((1758.2, 1758.2, 953.3, 552.3), (1080, 1920)),
        ((2262.5, 2265.3, 1096.98, 513.137), (700, 2048)),  # without the car
    ):
        fx, fy, cx, cy = numbers
        fitting.check_intrinsics(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), size, "clip")


def test_focal_lengths_as_fractions_are_refused():
    for focal in ((0.58, 1.92), (40.0, 1.92), (9000.0, 9000.0)):
        wrong = K * [[1], [1], [1]]
        wrong[0, 0], wrong[1, 1] = focal
        with pytest.raises(DataError, match="field of view of"):
            fitting.check_intrinsics(wrong, (50, 80), "clip")
