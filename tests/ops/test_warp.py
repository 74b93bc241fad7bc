"""Warps against other libraries, their conventions, gradients, transformations and devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sslax import ops

PADDINGS = ["border", "zeros", "reflection", "symmetric"]

bilinear_sample = jax.jit(ops.bilinear_sample, static_argnames="padding")
warp_flow = jax.jit(ops.warp_flow, static_argnames="padding")
warp_disparity = jax.jit(ops.warp_disparity, static_argnames=("padding", "direction"))
splat = jax.jit(ops.splat)
range_map = jax.jit(ops.range_map)


def random(*shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def hats(x, size):
    """Bilinear weights [..., size] by their definition."""
    return np.maximum(0.0, 1.0 - np.abs(np.asarray(x, np.float64)[..., None] - np.arange(size)))


def total(f, *args):
    return jnp.sum(f(*args)[0] ** 2)


# Values and gradients against other libraries.


def test_sample_equals_torch_with_gradients(golden, x64):
    data = golden("warp")
    image, coords = jnp.array(data["image"]), jnp.array(data["coords"])
    # No coordinate is an integer, where PyTorch takes another slope.
    names = {p: [p] for p in PADDINGS}
    names["border"] += ["border_half_pixel"]
    names["zeros"] += ["zeros_half_pixel"]
    for padding, torch_names in names.items():

        def sample(image, coords, p=padding):
            return bilinear_sample(image, coords, padding=p)[0]

        values, vjp = jax.vjp(sample, image, coords)
        gradients = vjp(jnp.array(data["cotangent"]))
        for name in torch_names:
            ours = [values, *gradients]
            for part, mine in zip(["values", "image_gradient", "coords_gradient"], ours):
                theirs = data[f"torch_{name}_{part}"]
                np.testing.assert_allclose(mine, theirs, atol=1e-11, err_msg=f"{name} {part}")


def test_sample_equals_scipy_and_opencv(golden, x64):
    data = golden("warp")
    image, coords = jnp.array(data["image"]), jnp.array(data["coords"])
    for padding in PADDINGS:
        values, _ = bilinear_sample(image, coords, padding=padding)
        np.testing.assert_allclose(values, data[f"scipy_{padding}_values"], atol=1e-12)
        if f"opencv_{padding}_values" in data:
            np.testing.assert_allclose(values, data[f"opencv_{padding}_values"], atol=1e-6)


def test_float32_equals_float64_definition():
    image, coords = random(7, 9, 3), random(40, 2, seed=1, scale=4.0) + 4
    expected = np.einsum("nj,ni,jic->nc", hats(coords[:, 1], 7), hats(coords[:, 0], 9), image)
    values, valid = bilinear_sample(image, coords, padding="zeros")
    np.testing.assert_allclose(values, expected, atol=1e-5)
    inside = np.all((coords >= 0) & (coords <= [8, 6]), axis=-1)
    np.testing.assert_array_equal(valid, inside)
    assert 0 < inside.sum() < 40


def test_splat_equals_definition_and_is_the_adjoint_of_the_warp():
    values, flow = random(2, 5, 6, 3), random(2, 5, 6, 2, seed=1, scale=2.0)
    grid = np.stack(np.meshgrid(np.arange(6), np.arange(5)), axis=-1) + flow
    weights_y, weights_x = hats(grid[..., 1], 5), hats(grid[..., 0], 6)
    expected = np.einsum("bhwj,bhwi,bhwc->bjic", weights_y, weights_x, values)
    splatted = splat(values, flow)
    np.testing.assert_allclose(splatted, expected, atol=1e-5)

    image = random(2, 5, 6, 3, seed=2)
    warped, _ = warp_flow(image, flow, padding="zeros")
    np.testing.assert_allclose(np.vdot(warped, values), np.vdot(image, splatted), rtol=1e-5)


# Conventions.


def test_disparity_direction_on_a_stereo_pair(stereo):
    left, right, disparity = stereo
    known = np.isfinite(disparity)

    def error(image, valid):
        return np.abs(image - left).mean(-1)[known & valid].mean()

    warped, valid = warp_disparity(right[None], disparity[None])
    assert np.isfinite(warped).all() and not valid[0][~known].any()
    assert abs(error(np.asarray(warped[0]), np.asarray(valid[0])) - 0.030) < 0.001
    wrong, inside = warp_disparity(right[None], disparity[None], direction=1)
    assert error(np.asarray(wrong[0]), np.asarray(inside[0])) > 0.15
    assert error(right, known) > 0.15

    # The right view from the left, with the disparities splatted to the right view.
    flow = np.stack([-disparity, np.zeros_like(disparity)], axis=-1)[None]
    carried = np.stack([np.where(known, disparity, 0), known], axis=-1)[None].astype(np.float32)
    carried = np.asarray(splat(carried, flow))[0]
    covered = (carried[..., 1] > 0.9) & (carried[..., 1] < 1.1)
    right_disparity = carried[..., 0] / np.maximum(carried[..., 1], 0.1)
    from_left, valid = warp_disparity(left[None], right_disparity[None], direction=1)
    residual = np.abs(np.asarray(from_left[0]) - right).mean(-1)[covered & np.asarray(valid[0])]
    assert residual.mean() < 0.04


def test_disparity_is_horizontal_flow():
    image, disparity = random(2, 5, 9, 2), np.abs(random(2, 5, 9, seed=1, scale=4.0))
    for direction, padding in [(-1, "border"), (1, "symmetric")]:

        def by_flow(image, disparity, direction=direction, padding=padding):
            flow = jnp.stack([direction * disparity, jnp.zeros_like(disparity)], axis=-1)
            return warp_flow(image, flow, padding=padding)

        by_rows = functools.partial(warp_disparity, direction=direction, padding=padding)
        for ours, theirs in zip(by_rows(image, disparity), by_flow(image, disparity)):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
        for ours, theirs in zip(
            jax.jit(jax.grad(functools.partial(total, by_rows), argnums=(0, 1)))(image, disparity),
            jax.jit(jax.grad(functools.partial(total, by_flow), argnums=(0, 1)))(image, disparity),
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_zero_flow_is_the_identity():
    image = random(2, 5, 7, 3)
    for padding in PADDINGS:
        warped, valid = warp_flow(image, np.zeros((2, 5, 7, 2), np.float32), padding=padding)
        # The last row and column are interpolated from the previous pixel, with rounding.
        np.testing.assert_array_equal(warped[:, :-1, :-1], image[:, :-1, :-1])
        np.testing.assert_allclose(warped, image, atol=1e-6)
        assert valid.all()
    np.testing.assert_array_equal(splat(image, np.zeros((2, 5, 7, 2), np.float32)), image)


def test_valid_includes_the_outermost_centers_and_nothing_beyond():
    image = random(3, 4, 1)
    edges = np.array([[0, 0], [3, 0], [0, 2], [3, 2]], np.float32)
    assert bilinear_sample(image, edges)[1].all()
    beyond = np.float32([[np.nextafter(np.float32(3), 4), 1], [-1e-6, 1], [1, 2.0001], [1, -1e-6]])
    assert not bilinear_sample(image, beyond)[1].any()


def test_non_finite_coordinates_are_invalid_with_finite_values():
    image = random(4, 5, 2)
    bad = [np.nan, np.inf, -np.inf, 3e38, -3e38]
    coords = np.array([[b, 1.5] for b in bad] + [[1.5, b] for b in bad], np.float32)
    for padding in PADDINGS:
        sample = functools.partial(bilinear_sample, padding=padding)
        values, valid = sample(image, coords)
        gradients = jax.jit(jax.grad(functools.partial(total, sample), argnums=(0, 1)))(
            image, coords
        )
        assert not valid.any()
        assert all(np.isfinite(x).all() for x in [values, *gradients])
        if padding == "zeros":
            assert not np.any(values)
    flow = np.full((1, 4, 5, 2), np.nan, np.float32)
    assert not np.any(splat(image[None], flow))
    gradients = jax.jit(jax.grad(lambda f: jnp.sum(splat(image[None], f) ** 2)))(flow)
    assert not np.any(gradients)


def test_range_map_of_a_constant_shift():
    def shift(x, y):
        return np.full((1, 6, 8, 2), [x, y], np.float32)

    expected = np.ones((6, 8))
    expected[:, :3] = 0
    np.testing.assert_array_equal(range_map(shift(3, 0))[0], expected)
    expected = np.ones((6, 8))
    expected[-2:] = 0
    expected[-3] = 0.5
    np.testing.assert_array_equal(range_map(shift(0, -2.5))[0], expected)
    # Two pixels that land on one are counted twice.
    flow = np.zeros((1, 1, 3, 2), np.float32)
    flow[0, 0, 0, 0] = 2
    np.testing.assert_array_equal(range_map(flow)[0, 0], [0, 1, 2])


def test_single_rows_columns_and_pixels():
    for height, width in [(1, 1), (1, 4), (4, 1)]:
        image, flow = random(2, height, width, 2), random(2, height, width, 2, seed=1)
        reflected, _ = warp_flow(image, flow, padding="reflection")
        assert reflected.shape == image.shape and np.isfinite(reflected).all()
        rows, valid = warp_disparity(image, np.zeros(image.shape[:3], np.float32))
        np.testing.assert_allclose(rows, image, atol=1e-6)
        assert valid.shape == image.shape[:3] and valid.all()
        black, _ = warp_flow(image, flow, padding="zeros")
        adjoint = np.vdot(image, splat(image, flow))
        np.testing.assert_allclose(np.vdot(black, image), adjoint, rtol=1e-5)


# Gradients.


def test_gradients_equal_finite_differences(check_derivatives):
    image = random(1, 3, 4, 2)
    # Coordinates stay away from integers by more than the step of the differences.
    flow = np.random.default_rng(1).integers(-2, 3, (1, 3, 4, 2)) + 0.2
    flow += np.random.default_rng(2).uniform(0, 0.6, (1, 3, 4, 2))
    check_derivatives(lambda i, f: ops.warp_flow(i, f)[0], image, flow)
    check_derivatives(lambda i, d: ops.warp_disparity(i, d)[0], image, flow[..., 0])
    check_derivatives(ops.splat, image, flow)


def test_slope_at_integer_coordinates_is_the_right_one_and_the_left_one_at_the_last_pixel():
    image = random(1, 4, 5, 1)
    for padding in PADDINGS:

        def f(flow, p=padding):
            return jnp.sum(warp_flow(image, flow, padding=p)[0])

        slope = jax.jit(jax.grad(f))(jnp.zeros((1, 4, 5, 2)))[0]
        rows, columns = np.diff(image[0, ..., 0], axis=0), np.diff(image[0, ..., 0], axis=1)
        np.testing.assert_allclose(
            slope[..., 0], np.concatenate([columns, columns[:, -1:]], axis=1), atol=1e-6
        )
        np.testing.assert_allclose(
            slope[..., 1], np.concatenate([rows, rows[-1:]], axis=0), atol=1e-6
        )
    by_rows = jax.jit(jax.grad(lambda d: jnp.sum(warp_disparity(image, d)[0])))(
        jnp.zeros((1, 4, 5))
    )
    np.testing.assert_allclose(-by_rows[0], slope[..., 0], atol=1e-6)


def test_half_precision_images_are_interpolated_and_summed_in_float32():
    image, flow = random(1, 6, 7, 3), random(1, 6, 7, 2, seed=1)
    for dtype, tolerance in [(jnp.bfloat16, 2e-2), (jnp.float16, 2e-3)]:
        rounded = jnp.asarray(image, dtype)
        warped, _ = warp_flow(rounded, flow)
        exact, _ = warp_flow(rounded.astype(jnp.float32), flow)
        assert warped.dtype == dtype
        np.testing.assert_array_equal(warped, exact.astype(dtype))
        np.testing.assert_allclose(np.float32(warped), warp_flow(image, flow)[0], atol=tolerance)
    # 4096 samples of one pixel: a sum in bfloat16 would stop at 256.
    ones = jnp.ones((2, 2, 1), jnp.bfloat16)

    def sample(image):
        return jnp.sum(bilinear_sample(image, jnp.zeros((4096, 2)))[0])

    assert jax.grad(sample)(ones)[0, 0, 0] == 4096
    piled = -jnp.broadcast_to(ops.pixel_grid(64, 64), (1, 64, 64, 2))
    assert splat(jnp.ones((1, 64, 64, 1), jnp.bfloat16), piled)[0, 0, 0, 0] == 4096


# Transformations and devices.


def test_vmap_checkpoint_and_forward_mode_agree():
    image, flow = random(2, 3, 4, 2), random(2, 3, 4, 2, seed=1)

    def loss(image, flow):
        return total(ops.warp_flow, image, flow)

    def of_one(image, flow):
        return loss(image[None], flow[None])

    expected = jax.jit(jax.grad(loss, argnums=(0, 1)))(image, flow)
    for gradient in [
        jax.grad(loss, argnums=(0, 1)),
        jax.jit(jax.vmap(jax.grad(of_one, argnums=(0, 1)))),
        jax.jit(jax.grad(jax.checkpoint(loss), argnums=(0, 1))),
        jax.jit(jax.jacfwd(loss, argnums=(0, 1))),
    ]:
        for ours, theirs in zip(gradient(image, flow), expected):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_image_gradient_is_compiled_only_if_needed():
    image, flow = random(2, 4, 5, 2), random(2, 4, 5, 2, seed=1)

    def loss(i, f):
        return total(warp_flow, i, f)

    def network(i, w):
        return loss(jax.lax.stop_gradient(i * w), w * flow)

    def compiled(f, *args):
        return jax.jit(f).lower(*args).compile().as_text()

    assert "scatter" not in compiled(jax.grad(loss, argnums=1), image, flow)
    assert "scatter" not in compiled(jax.grad(network, argnums=1), image, 0.5)
    assert "scatter" not in compiled(jax.grad(jax.checkpoint(loss), argnums=1), image, flow)
    assert "scatter" not in compiled(
        jax.grad(lambda d: total(warp_disparity, image, d)), flow[..., 0]
    )
    assert "scatter" in compiled(jax.grad(loss, argnums=0), image, flow)


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def everything(image, flow):
    """All warps and their gradients."""

    def loss(image, flow):
        warped, valid = warp_flow(image, flow)
        by_rows, _ = warp_disparity(image, flow[..., 0])
        splatted = splat(image, flow)
        per_example = jnp.sum(warped**2 * valid[..., None] + by_rows**2 + splatted**2, (1, 2, 3))
        return jnp.sum(per_example), (warped, by_rows, splatted)

    gradients, values = jax.grad(loss, argnums=(0, 1), has_aux=True)(image, flow)
    return (*values, *gradients)


def test_sharded_warps_need_no_communication(mesh):
    image, flow = random(8, 4, 5, 2), random(8, 4, 5, 2, seed=1)
    expected = jax.jit(everything)(image, flow)

    spec = PartitionSpec("data")
    sharded = [jax.device_put(x, NamedSharding(mesh, spec)) for x in (image, flow)]
    jitted = jax.jit(everything)
    text = jitted.lower(*sharded).compile().as_text()
    for collective in ["all-gather", "all-reduce", "all-to-all", "collective-permute"]:
        assert collective not in text
    mapped = jax.shard_map(everything, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
    pmapped = jax.pmap(everything, axis_name="data")
    per_device = pmapped(image[:, None], flow[:, None])
    for results in [
        jitted(*sharded),
        jax.jit(mapped)(*sharded),
        [np.asarray(x)[:, 0] for x in per_device],
    ]:
        for ours, theirs in zip(results, expected):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


# Errors.


def test_errors():
    image, flow = random(1, 4, 5, 2), random(1, 4, 5, 2)
    with pytest.raises(TypeError, match="convert it to float32"):
        ops.warp_flow((image * 255).astype(np.uint8), flow)
    with pytest.raises(TypeError, match="too coarse for pixels"):
        ops.bilinear_sample(image[0], jnp.zeros((3, 2), jnp.bfloat16))
    with pytest.raises(ValueError, match="Known: border, reflection, symmetric, zeros"):
        ops.warp_flow(image, flow, padding="wrap")
    with pytest.raises(ValueError, match="ratio of the widths"):
        ops.warp_disparity(image, np.zeros((1, 2, 3), np.float32))
    with pytest.raises(ValueError, match="x \\+ d"):
        ops.warp_disparity(image, flow[..., 0], direction=0)
    with pytest.raises(AssertionError, match="warp_flow expects"):
        ops.warp_flow(image, np.zeros((2, 4, 5, 2), np.float32))
