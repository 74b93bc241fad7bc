"""Cameras against other libraries, their geometry, gradients and intrinsics."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import ops

INTRINSICS = np.array([[50.0, 0.0, 30.0], [0.0, 45.0, 18.0], [0.0, 0.0, 1.0]], np.float32)
HEIGHT, WIDTH = 40, 64

backproject = jax.jit(ops.backproject)
crop_intrinsics = jax.jit(ops.crop_intrinsics)
depth_to_disparity = jax.jit(ops.depth_to_disparity)
disparity_to_depth = jax.jit(ops.disparity_to_depth)
project = jax.jit(ops.project)
rigid_flow = jax.jit(ops.rigid_flow)
se3_exp = jax.jit(ops.se3_exp)
se3_inverse = jax.jit(ops.se3_inverse)
so3_exp = jax.jit(ops.so3_exp)
transform_points = jax.jit(ops.transform_points)


def depths(seed=0, shape=(HEIGHT, WIDTH)):
    return np.random.default_rng(seed).uniform(2.0, 8.0, shape).astype(np.float32)


def grid():
    return np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), axis=-1)


# Against other libraries.


def test_projection_equals_kornia(golden, x64):
    data = golden("camera")
    intrinsics, pose = data["intrinsics"], data["pose"]
    points = backproject(data["depth"], intrinsics)
    np.testing.assert_allclose(points, data["kornia_points"], atol=1e-12)
    coords, in_front = project(transform_points(pose, points), intrinsics)
    np.testing.assert_allclose(coords, data["kornia_coords"], atol=1e-12)
    assert in_front.all()
    flow, valid = rigid_flow(data["depth"], pose, intrinsics)
    np.testing.assert_allclose(flow, data["kornia_flow"], atol=1e-12)
    coords = np.asarray(coords)
    inside = (coords >= 0).all(-1) & (coords <= np.array([5, 3])).all(-1)
    np.testing.assert_array_equal(valid, inside)
    assert 0 < inside.sum() < inside.size


def test_rotations_and_motions_equal_kornia_and_scipy(golden, x64):
    data = golden("camera")
    twists = data["twists"]
    np.testing.assert_allclose(so3_exp(twists[:, 3:]), data["kornia_rotations"], atol=1e-7)
    np.testing.assert_allclose(so3_exp(twists[:, 3:]), data["scipy_poses"][:, :3, :3], atol=1e-14)
    np.testing.assert_allclose(se3_exp(twists), data["scipy_poses"], atol=1e-13)
    rotations = jax.jit(ops.euler_to_matrix)(data["angles"])
    np.testing.assert_allclose(rotations, data["scipy_euler"], atol=1e-14)


def test_motions_are_exact_in_float32(golden):
    data = golden("camera")
    np.testing.assert_allclose(
        se3_exp(data["twists"].astype(np.float32)), data["scipy_poses"], atol=2e-6
    )
    # On both sides of the switch from the series to the closed form at |ω| = 0.5.
    for angle in [0.499, 0.501]:
        rotation = np.asarray(so3_exp(np.float32([0, 0, angle])))
        expected = [np.cos(angle), -np.sin(angle), 0]
        np.testing.assert_allclose(rotation[0], expected, atol=1e-7)


# Geometry.


def test_identity_has_exactly_zero_flow():
    flow, valid = rigid_flow(depths(), np.eye(4, dtype=np.float32), INTRINSICS)
    assert not np.any(flow)
    assert valid.all()


def test_plane_moves_by_its_homography():
    normal, distance = np.array([0.1, -0.2, 0.97]), 4.0  # n · P = distance
    pose = np.asarray(se3_exp(np.float32([0.2, -0.1, 0.3, 0.02, 0.05, -0.04])), np.float64)
    K = INTRINSICS.astype(np.float64)
    pixels = np.concatenate([grid(), np.ones((HEIGHT, WIDTH, 1))], axis=-1)
    rays = pixels @ np.linalg.inv(K).T
    depth = (distance / (rays @ normal)).astype(np.float32)
    homography = K @ (pose[:3, :3] + np.outer(pose[:3, 3], normal) / distance) @ np.linalg.inv(K)
    moved = pixels @ homography.T
    flow, _ = rigid_flow(depth, pose.astype(np.float32), INTRINSICS)
    np.testing.assert_allclose(flow, moved[..., :2] / moved[..., 2:] - grid(), atol=2e-4)


def test_rotation_flow_does_not_depend_on_depth_and_infinite_depth_only_rotates():
    pose = se3_exp(np.float32([0, 0, 0, 0.02, -0.05, 0.1]))
    flow, valid = rigid_flow(depths(0), pose, INTRINSICS)
    other, _ = rigid_flow(depths(1), pose, INTRINSICS)
    np.testing.assert_array_equal(flow, other)
    forward = np.array(pose)
    forward[:3, 3] = [1.0, 2.0, 3.0]
    horizon, seen = rigid_flow(np.full((HEIGHT, WIDTH), np.inf, np.float32), forward, INTRINSICS)
    np.testing.assert_array_equal(horizon, flow)
    np.testing.assert_array_equal(seen, valid)


def test_camera_moving_right_sees_the_scene_move_left():
    # The source camera is 0.5 to the right, so points move 0.5 to the left.
    pose = np.eye(4, dtype=np.float32)
    pose[0, 3] = -0.5
    flow, valid = jax.device_get(rigid_flow(depths(), pose, INTRINSICS))
    disparity = np.asarray(depth_to_disparity(depths(), INTRINSICS[0, 0], 0.5))
    np.testing.assert_allclose(flow[..., 0], -disparity, atol=1e-4)
    np.testing.assert_allclose(flow[..., 1], 0, atol=1e-4)
    np.testing.assert_array_equal(valid, grid()[..., 0] + flow[..., 0] >= 0)


def test_source_camera_may_differ():
    pose = se3_exp(np.float32([0.2, -0.1, 0.3, 0.02, 0.05, -0.04]))
    source = INTRINSICS * np.float32([[1.1], [0.9], [1]]) + np.float32(
        [[0, 0.5, 3], [0] * 3, [0] * 3]
    )
    flow, _ = rigid_flow(depths(), pose, INTRINSICS, source_intrinsics=source)
    points = transform_points(pose, backproject(depths(), INTRINSICS))
    np.testing.assert_allclose(flow + grid(), project(points, source)[0], atol=1e-4)


def test_invisible_points_are_invalid_with_finite_gradients():
    depth = depths()
    depth[0, :6] = [0, -1, np.nan, np.inf, 1e-30, -np.inf]
    back = np.diag([-1.0, 1, -1, 1]).astype(
        np.float32
    )  # turned around: all points are behind the camera

    def loss(depth, pose, intrinsics):
        flow, valid = ops.rigid_flow(depth, pose, intrinsics)
        return jnp.sum(flow**2), (flow, valid)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
    near = se3_exp(np.float32([0.1, 0, -2.5, 0, 0.01, 0]))  # some points move behind the camera
    for pose in [back, near, np.eye(4, dtype=np.float32)]:
        gradients, (flow, valid) = jax.device_get(gradient(depth, pose, INTRINSICS))
        assert all(np.isfinite(x).all() for x in [flow, *gradients])
        assert not valid[0, [0, 1, 2, 4, 5]].any()
    assert valid[0, 3] and valid[1:].all()
    _, (flow, valid) = gradient(depth, back, INTRINSICS)
    assert not valid.any() and not np.any(flow)

    points = np.float32(
        [[1, 2, 0], [0, 0, 0], [1, 1, -3], [np.nan, 0, 1], [0, np.inf, 1], [0, 0, 1]]
    )
    coords, in_front = project(points, INTRINSICS)
    np.testing.assert_array_equal(in_front, [False] * 5 + [True])
    slope = jax.jit(jax.grad(lambda p: jnp.sum(ops.project(p, INTRINSICS)[0] ** 2)))(points)
    assert np.isfinite(coords).all() and np.isfinite(slope).all()
    slope = np.asarray(slope)
    assert np.any(slope[5]) and not np.any(slope[:5])


def test_inverse():
    pose = se3_exp(np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32))
    inverse = se3_inverse(pose)
    np.testing.assert_allclose(np.asarray(inverse) @ np.asarray(pose), [np.eye(4)] * 5, atol=2e-6)
    points = np.random.default_rng(1).standard_normal((5, 7, 3)).astype(np.float32)
    there = transform_points(pose, points)
    np.testing.assert_allclose(transform_points(inverse, there), points, atol=3e-6)
    twist = np.float32([0.3, -0.2, 0.1, 0.5, -0.4, 0.2])
    np.testing.assert_allclose(se3_inverse(se3_exp(twist)), se3_exp(-twist), atol=1e-6)


def test_batches_equal_vmap():
    twists = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32) * 0.1
    pose, depth = np.asarray(se3_exp(twists)), depths(0, (3, 4, 5))
    intrinsics = INTRINSICS * np.linspace(0.9, 1.1, 3, dtype=np.float32)[:, None, None]
    intrinsics[:, 2, 2] = 1
    for arguments, axes in [
        ((depth, pose, intrinsics), (0, 0, 0)),
        ((depth, pose, INTRINSICS), (0, 0, None)),
        ((depth, pose[0], intrinsics), (0, None, 0)),
    ]:
        mapped = jax.jit(jax.vmap(ops.rigid_flow, in_axes=axes))(*arguments)
        for ours, theirs in zip(rigid_flow(*arguments), mapped):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
    points = jax.jit(jax.vmap(ops.backproject))(depth, intrinsics)
    np.testing.assert_allclose(backproject(depth, intrinsics), points, rtol=1e-6)
    coords, _ = jax.jit(jax.vmap(ops.project))(points, intrinsics)
    np.testing.assert_allclose(project(points, intrinsics)[0], coords, rtol=1e-6)
    # Projecting backprojected points gives their pixels.
    y, x = np.mgrid[:4, :5]
    np.testing.assert_allclose(
        coords, np.broadcast_to(np.stack([x, y], -1), coords.shape), atol=1e-4
    )


# Gradients.


def test_derivatives_equal_finite_differences_also_at_zero_rotation(check_derivatives):
    twist = np.array([0.3, -0.2, 0.1, 0.4, -0.7, 0.2])
    no_rotation = twist * [1, 1, 1, 0, 0, 0]
    ramp = np.arange(16.0).reshape(4, 4)  # so that sums of squares are not stationary at zero

    def motions(twist, no_rotation, angles):
        pose = ops.se3_exp(jnp.stack([twist, no_rotation]))
        return jnp.append(pose + ramp, ops.euler_to_matrix(angles) + ramp[:3, :3])

    check_derivatives(motions, twist, no_rotation, np.zeros(3))

    def flows(depth, twists, intrinsics):
        return ops.rigid_flow(depth, ops.se3_exp(twists), intrinsics * INTRINSICS)[0]

    twists = 0.1 * np.stack([twist, no_rotation])
    check_derivatives(flows, depths(0, (2, 2, 3)), twists, np.ones((2, 3, 3)))


def test_derivative_at_zero_rotation_equals_the_generators():
    slopes = jax.jit(jax.jacobian(ops.so3_exp))(jnp.zeros(3))
    generators = np.zeros((3, 3, 3))
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        generators[k, j, i], generators[j, k, i] = 1, -1
    np.testing.assert_array_equal(slopes, generators)


# Flip, resize and crop.


def test_intrinsics_follow_flip_resize_and_crop():
    intrinsics = INTRINSICS.copy()
    intrinsics[0, 1] = 0.7  # a skew
    points = np.random.default_rng(0).uniform([-2, -2, 3], [2, 2, 6], (20, 3)).astype(np.float32)
    coords = np.asarray(project(points, intrinsics)[0])

    mirrored = points * np.float32([-1, 1, 1])
    flipped, _ = project(mirrored, jax.jit(ops.flip_intrinsics)(intrinsics, WIDTH))
    np.testing.assert_allclose(
        flipped, coords * np.array([-1, 1]) + np.array([WIDTH - 1, 0]), atol=1e-4
    )

    for scale in [0.5, (2.0, 0.25)]:
        resize = jax.jit(partial(ops.resize_intrinsics, scale=scale))
        resized, _ = project(points, resize(intrinsics))
        np.testing.assert_allclose(resized, (coords + 0.5) * np.array(scale) - 0.5, atol=1e-4)

    cropped, _ = project(points, crop_intrinsics(intrinsics, 7, 3.5))
    np.testing.assert_allclose(cropped, coords - np.array([7, 3.5]), atol=1e-4)
    batch = np.stack([intrinsics] * 2)
    many = np.asarray(crop_intrinsics(batch, np.array([7, 0]), np.array([7, 0])))
    np.testing.assert_array_equal(many[0], crop_intrinsics(intrinsics, 7, 7))


def test_resized_intrinsics_agree_with_a_resized_image():
    # Averaging pairs of pixels of a linear ramp is exact: the halved x image holds positions in the
    # full image.
    ramp = np.broadcast_to(np.arange(16, dtype=np.float32), (8, 16))
    halved = ramp.reshape(4, 2, 8, 2).mean((1, 3))
    camera = np.float32([[10, 0, 7.5], [0, 10, 3.5], [0, 0, 1]])
    small = jax.jit(partial(ops.resize_intrinsics, scale=0.5))(camera)
    rays = backproject(np.ones((4, 8), np.float32), small)
    coords = np.asarray(project(rays, camera)[0])
    np.testing.assert_allclose(coords[..., 0], halved, atol=1e-5)


# Depth and disparity.


def test_disparity_and_depth_are_inverse():
    # Calibration of Middlebury's motorcycle at the resolution of scikit-image, in mm.
    focal, baseline, doffs = 994.978, 193.001, 31.086
    disparity = np.float32([7.19, 38.7, 59.91])
    depth = disparity_to_depth(disparity, focal, baseline, doffs=doffs)
    np.testing.assert_allclose(depth, focal * baseline / (disparity + doffs), rtol=1e-6)
    back = depth_to_disparity(depth, focal, baseline, doffs=doffs)
    np.testing.assert_allclose(back, disparity, rtol=1e-5)

    odd = np.float32([0, np.inf, np.nan])
    np.testing.assert_array_equal(disparity_to_depth(odd, 2.0, 3.0), [np.inf, 0, 0])
    np.testing.assert_array_equal(depth_to_disparity(odd, 2.0, 3.0), [np.inf, 0, 0])

    def finite(d):
        return jnp.sum(jnp.where(d > 0, 0.0, ops.disparity_to_depth(d, 2.0, 3.0)))

    assert not np.any(jax.jit(jax.grad(finite))(odd))


def test_sigmoid_to_depth_spans_the_range():
    inverse, depth = ops.sigmoid_to_depth(jnp.array([0.0, 0.5, 1.0]), min_depth=0.5, max_depth=20.0)
    np.testing.assert_allclose(inverse, [0.05, 1.025, 2.0], rtol=1e-6)
    np.testing.assert_allclose(depth, [20.0, 1 / 1.025, 0.5], rtol=1e-6)
    with pytest.raises(ValueError, match="min_depth < max_depth"):
        ops.sigmoid_to_depth(jnp.zeros(1), min_depth=2.0, max_depth=1.0)


def test_shapes_are_checked():
    with pytest.raises(AssertionError, match="backproject expects"):
        ops.backproject(depths(), np.eye(4))
    with pytest.raises(AssertionError, match="se3_exp expects"):
        ops.se3_exp(np.zeros(3))
    with pytest.raises(ValueError, match="leading axes"):
        ops.project(np.ones(3, np.float32), np.ones((2, 3, 3), np.float32))
