"""The unified camera model against its definition, solved by bisection, and against pinholes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import ops
from sslax.ops import UnifiedCamera

HEIGHT, WIDTH = 12, 20
INTRINSICS = np.array([[9.0, 0.3, 10.0], [0.0, 8.0, 5.0], [0.0, 0.0, 1.0]])
ALPHA = 0.62  # above 1/2, where the lens could see behind itself

backproject = jax.jit(ops.backproject)
project = jax.jit(ops.project)
rigid_flow = jax.jit(ops.rigid_flow)
CAMERA = UnifiedCamera(INTRINSICS, np.array(ALPHA))


def grid():
    return np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), axis=-1).astype(float)


def depths(shape=(HEIGHT, WIDTH)):
    return np.random.default_rng(0).uniform(2.0, 8.0, shape)


def by_definition(points, intrinsics, alpha):
    """The projection in NumPy: onto a sphere, then from a point above its center."""
    x, y, z = np.moveaxis(np.asarray(points, float), -1, 0)
    divisor = alpha * np.sqrt(x * x + y * y + z * z) + (1 - alpha) * z
    m = np.stack([x / divisor, y / divisor, np.ones_like(x)], axis=-1)
    return (m @ np.asarray(intrinsics, float).T)[..., :2]


def rays_by_bisection(alpha):
    """x / z and y / z of every pixel's ray: the tangent of its angle, found by bisection."""
    m = (np.concatenate([grid(), np.ones((HEIGHT, WIDTH, 1))], -1) @ np.linalg.inv(INTRINSICS).T)[
        ..., :2
    ]
    radius = np.linalg.norm(m, axis=-1)
    low, high = np.zeros_like(radius), np.full_like(radius, 1e6)
    for _ in range(200):
        middle = (low + high) / 2
        short = middle / (alpha * np.sqrt(1 + middle**2) + 1 - alpha) < radius
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return m * (low / np.maximum(radius, 1e-12))[..., None]


def test_rays_are_those_of_the_definition(x64):
    for alpha in (0.0, 0.3, 0.5, ALPHA):
        camera = UnifiedCamera(INTRINSICS, np.array(alpha))
        points = np.asarray(backproject(np.ones((HEIGHT, WIDTH)), camera))
        np.testing.assert_allclose(points[..., :2], rays_by_bisection(alpha), atol=1e-9)
        np.testing.assert_array_equal(points[..., 2], 1)
        coords, in_front = project(depths()[..., None] * points, camera)
        np.testing.assert_allclose(coords, grid(), atol=1e-10)
        np.testing.assert_allclose(by_definition(points, INTRINSICS, alpha), grid(), atol=1e-10)
        assert in_front.all()


def test_a_camera_without_alpha_is_a_pinhole():
    pose = ops.se3_exp(np.float32([0.2, -0.1, 0.3, 0.02, 0.05, -0.04]))
    pinhole, flat = np.float32(INTRINSICS), UnifiedCamera(np.float32(INTRINSICS), np.float32(0))
    depth = np.float32(depths())
    np.testing.assert_array_equal(backproject(depth, pinhole), backproject(depth, flat))
    for ours, theirs in zip(rigid_flow(depth, pose, flat), rigid_flow(depth, pose, pinhole)):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


@pytest.mark.parametrize("source_alpha", [None, 0.2, "pinhole"])
def test_flow_is_the_difference_of_two_projections(source_alpha, x64):
    pose = ops.se3_exp(np.array([0.2, -0.1, 0.3, 0.02, 0.05, -0.04]))
    other = INTRINSICS * [[1.1], [0.9], [1]]
    source = {
        None: None,
        0.2: UnifiedCamera(other, np.array(0.2)),
        "pinhole": other,
    }[source_alpha]
    flow, _ = rigid_flow(depths(), pose, CAMERA, source_intrinsics=source)
    points = ops.transform_points(pose, backproject(depths(), CAMERA))
    alpha = {None: ALPHA, 0.2: 0.2, "pinhole": 0.0}[source_alpha]
    there = by_definition(points, INTRINSICS if source is None else other, alpha)
    np.testing.assert_allclose(flow + grid(), there, atol=1e-10)
    # A pinhole's view can be warped to a wide lens's, too.
    back, _ = rigid_flow(depths(), pose, other, source_intrinsics=CAMERA)
    points = ops.transform_points(pose, backproject(depths(), other))
    np.testing.assert_allclose(
        back + grid(), by_definition(points, INTRINSICS, ALPHA), rtol=1e-10, atol=1e-10
    )


def test_identity_has_exactly_zero_flow():
    camera = UnifiedCamera(np.float32(INTRINSICS), np.float32(ALPHA))
    flow, valid = rigid_flow(np.float32(depths()), np.eye(4, dtype=np.float32), camera)
    assert not np.any(flow) and valid.all()


def test_pixels_that_see_sideways_have_no_depth_and_no_gradient():
    camera = UnifiedCamera(np.float32(INTRINSICS * [[0.6], [0.6], [1]]), np.float32(0.8))
    m = np.linalg.norm((grid() - [6, 3]) / [5.4, 4.8], axis=-1)  # centers are scaled as well
    pose = ops.se3_exp(np.float32([0.1, 0.0, 0.1, 0.0, 0.1, 0.0]))

    def loss(depth, pose, camera):
        flow, valid = ops.rigid_flow(depth, pose, camera)
        return jnp.sum(flow**2), (flow, valid)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
    gradients, (flow, valid) = gradient(np.float32(depths()), pose, camera)
    sideways = 0.8 * m >= 1.2
    assert sideways.sum() > 20 and not valid[sideways].any() and not np.any(flow[sideways])
    assert valid[0.8 * m < 0.8].mean() > 0.9
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((gradients, flow)))
    points = backproject(np.float32(depths()), camera)
    np.testing.assert_array_equal(np.asarray(points)[sideways][:, :2], 0)


def test_derivatives_equal_finite_differences(check_derivatives):
    def flows(depth, twist, factors, alpha):
        camera = UnifiedCamera(factors * INTRINSICS, alpha)
        return ops.rigid_flow(depth, ops.se3_exp(twist), camera)[0]

    twists = 0.1 * np.random.default_rng(1).standard_normal((2, 6))
    shapes = depths((2, 2, 3)), twists, np.ones((2, 3, 3))
    check_derivatives(flows, *shapes, np.array([0.3, 0.62]))
    check_derivatives(
        lambda points, alpha: ops.project(points, UnifiedCamera(INTRINSICS, alpha))[0],
        *(np.random.default_rng(2).uniform([-2, -2, 1], [2, 2, 4], (5, 3)), np.array(0.4)),
    )


def test_batches_equal_vmap_and_cameras_follow_the_image():
    cameras = UnifiedCamera(
        np.float32(INTRINSICS) * np.float32([[[1]], [[0.9]]]), np.float32([0.1, 0.7])
    )
    pose = ops.se3_exp(np.float32([[0.1, 0, 0.1, 0, 0.1, 0], [0, 0.1, 0, 0.05, 0, 0]]))
    depth = np.float32(depths((2, HEIGHT, WIDTH)))
    mapped = jax.jit(jax.vmap(ops.rigid_flow))(depth, pose, cameras)
    for ours, theirs in zip(rigid_flow(depth, pose, cameras), mapped):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)

    points = np.random.default_rng(0).uniform([-2, -2, 1], [2, 2, 6], (2, 7, 3)).astype(np.float32)
    coords = np.asarray(project(points, cameras)[0])
    flipped = jax.jit(partial(ops.flip_intrinsics, width=WIDTH))(cameras)
    np.testing.assert_allclose(
        project(points * np.float32([-1, 1, 1]), flipped)[0],
        coords * [-1, 1] + [WIDTH - 1, 0],
        atol=1e-4,
    )
    resized = jax.jit(partial(ops.resize_intrinsics, scale=(2.0, 0.5)))(cameras)
    np.testing.assert_allclose(
        project(points, resized)[0], (coords + 0.5) * [2, 0.5] - 0.5, atol=1e-4
    )
    cropped = jax.jit(ops.crop_intrinsics)(cameras, 3, 1.5)
    np.testing.assert_allclose(project(points, cropped)[0], coords - [3, 1.5], atol=1e-4)
    for camera in (flipped, resized, cropped):
        np.testing.assert_array_equal(camera.alpha, cameras.alpha)


def test_alpha_goes_with_the_intrinsics():
    with pytest.raises(ValueError, match="leading axes of its intrinsics"):
        ops.project(np.ones((2, 3)), UnifiedCamera(np.stack([INTRINSICS] * 2), np.array(0.5)))
