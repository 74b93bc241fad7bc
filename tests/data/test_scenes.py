"""Scenes against a ray-caster of triangles in float64, analytic cases, and their own images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import ops
from sslax.data import scenes
from sslax.data.files import installed
from sslax.data.scenes.layered import Layers, _motion
from sslax.training import sharding

HEIGHT, WIDTH = SIZE = (24, 40)
BATCH = 8
K = np.array([[30.0, 0.0, 20.3], [0.0, 28.0, 11.1], [0.0, 0.0, 1.0]], np.float32)


@pytest.fixture(scope="module")
def textures():
    return scenes.textures("train", count=12, side=64)


flow_sample = functools.partial(scenes.flow, size=SIZE, moving=0.7)
layered_sample = functools.partial(scenes.layered, size=SIZE)
indices = np.arange(BATCH)


@pytest.fixture(scope="module")
def make_flow(textures):
    return scenes.sampler(flow_sample, textures, seed=5)


@pytest.fixture(scope="module")
def flow(make_flow):
    return jax.device_get(make_flow(indices))


@pytest.fixture(scope="module")
def stereo(textures):
    sample = functools.partial(scenes.stereo, size=SIZE)
    return jax.device_get(scenes.sampler(sample, textures, seed=5)(indices))


@pytest.fixture(scope="module")
def video(textures):
    sample = functools.partial(scenes.video, size=SIZE, still=0.5, moving=0.5, baseline=0.25)
    return jax.device_get(scenes.sampler(sample, textures, seed=5)(indices))


@pytest.fixture(scope="module")
def layered(textures):
    return jax.device_get(scenes.sampler(layered_sample, textures, seed=5)(indices))


def rigid_flow(depth, pose, intrinsics):
    return jax.device_get(jax.jit(ops.rigid_flow)(depth, pose, intrinsics))


warp_disparity = jax.jit(ops.warp_disparity, static_argnames="direction")
forward_backward_mask = jax.jit(ops.forward_backward_mask)


# Geometry, against triangles.

CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


def triangles(scene, camera):
    """`[T, 3, 3]` corners in the camera's frame and `[T]` surfaces: two triangles per face."""
    corners, surfaces = [], []
    for box, (pose, half) in enumerate(zip(*(np.float64(x) for x in scene[:2]))):
        to_camera = np.linalg.inv(np.float64(camera)) @ pose
        for face in range(6):
            axis, side = divmod(face, 2)
            a, b, c, d = CORNERS[CORNERS[:, axis] == 2 * side - 1] * half
            for triangle in ((a, b, c), (d, b, c)):
                corners.append(np.stack(triangle) @ to_camera[:3, :3].T + to_camera[:3, 3])
                surfaces.append(6 * box + face)
    return np.stack(corners), np.array(surfaces)


def crossings(origin, ends, corners):
    """`[R, T]`, where triangles cross the rays from the origin (0) to the ends (1), else inf."""
    first, edges = corners[:, 0], corners[:, 1:] - corners[:, :1]
    ends = np.broadcast_to(ends[:, None], (len(ends), len(corners), 3))
    columns = np.stack(
        [ends - origin, *(np.broadcast_to(-edges[:, i], ends.shape) for i in (0, 1))]
    )
    system = np.moveaxis(columns, 0, -1)
    with np.errstate(all="ignore"):
        singular = np.abs(np.linalg.det(system)) < 1e-12
        system[singular] = np.eye(3)
        solved = np.linalg.solve(system, (first - origin - 0 * ends)[..., None])[..., 0]
    distance, u, v = np.moveaxis(solved, -1, 0)
    hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 1e-9) & ~singular
    return np.where(hit, distance, np.inf)


def far_ends(coords):
    inverse = np.linalg.inv(np.float64(K))
    return np.concatenate([coords, np.ones((*coords.shape[:-1], 1))], axis=-1) @ inverse.T


def frame(both, i):
    return jax.tree.map(lambda x: x[i], both)


@pytest.fixture(scope="module")
def two_views():
    """Two frames of a scene in which the camera and a box move, and faces turn away."""
    keys = jax.random.split(jax.random.key(19), 3)

    @jax.jit
    def views():
        scene = scenes.random_scene(keys[0], 4)
        cameras = scenes.trajectory(keys[1], 2, speed=3.0)
        motions = scenes.random_motion(keys[2], scene, 3 * jnp.arange(2))
        both = jax.vmap(scenes.move, (None, 0))(scene, motions)
        grid = ops.pixel_grid(*SIZE)
        depth, surface = jax.vmap(scenes.cast, (0, 0, None, None))(both, cameras, K, grid)
        poses = ops.se3_inverse(cameras[1]) @ motions[1]
        view = {"depth": depth[0], "surface": surface[0]}
        second = frame(both, 1)
        return both, cameras, depth, surface, scenes.motion(view, poses, K, second, cameras[1])

    return jax.tree.map(np.asarray, views())


def test_depth_and_surface_equal_triangles(two_views):
    both, cameras, depth, surface, _ = two_views
    ends = far_ends(np.asarray(ops.pixel_grid(*SIZE), np.float64).reshape(-1, 2))
    for i, scene in enumerate((frame(both, 0), frame(both, 1))):
        corners, surfaces = triangles(scene, cameras[i])
        distance = crossings(np.zeros(3), ends, corners)
        np.testing.assert_array_equal(surface[i].ravel(), surfaces[distance.argmin(1)])
        np.testing.assert_allclose(depth[i].ravel(), distance.min(1), rtol=1e-5)
        assert len(np.unique(surface[i] // 6)) > 4  # the room and most boxes


def test_flow_and_visibility_equal_triangles(two_views):
    both, cameras, depth, surface, (flow, visible, occluded) = two_views
    grid = np.asarray(ops.pixel_grid(*SIZE), np.float64).reshape(-1, 2)
    points = far_ends(grid) * np.float64(depth[0]).reshape(-1, 1)
    box = surface[0].ravel() // 6
    chain = np.linalg.inv(np.float64(cameras[1])) @ np.float64(both.poses[1])
    chain = chain @ np.linalg.inv(np.float64(both.poses[0])) @ np.float64(cameras[0])
    chain = chain[box]
    points = np.einsum("rij,rj->ri", chain[:, :3, :3], points) + chain[:, :3, 3]
    coords = (points / points[:, 2:]) @ np.float64(K).T
    expected = (coords[:, :2] - grid).reshape(*SIZE, 2)
    np.testing.assert_allclose(flow, expected, atol=2e-4)
    assert np.abs(flow[surface[0] // 6 == 1]).max() > 3 and np.abs(flow).max() < WIDTH

    # A point is hidden if a triangle lies between it and the camera.
    corners, _ = triangles(frame(both, 1), cameras[1])
    nearest = crossings(np.zeros(3), points, corners).min(1)
    inside = ((coords[:, :2] >= 0) & (coords[:, :2] <= [WIDTH - 1, HEIGHT - 1])).all(1)
    expected = inside & (nearest > 1 - 1e-4)
    np.testing.assert_array_equal(visible.ravel(), expected)
    np.testing.assert_array_equal(occluded.ravel(), inside & ~expected)
    assert (inside & ~expected).sum() > 20 and expected.sum() > 400


def test_poses_in_a_static_scene_give_the_rigid_flow(flow, video):
    static = ~flow["moving"][:, 0]
    expected, seen = rigid_flow(flow["depth"][:, 0], flow["pose"], flow["intrinsics"])
    np.testing.assert_allclose(flow["flow"][:, 0][static], expected[static], atol=1e-4)
    assert not (flow["visible"][:, 0] & static & ~seen).any()
    back = jax.jit(ops.se3_inverse)(flow["pose"])
    back, _ = rigid_flow(flow["depth"][:, 1], back, flow["intrinsics"])
    static = ~flow["moving"][:, 1]
    np.testing.assert_allclose(flow["flow"][:, 1][static], back[static], atol=1e-4)
    # The moving box moves more than the camera's motion explains.
    moves = flow["moving"][:, 0]
    difference = np.linalg.norm(flow["flow"][:, 0] - expected, axis=-1)
    assert moves.any() and difference[moves].mean() > 0.3

    static = ~video["moving"]
    for i in (0, 2, 3):
        expected, _ = rigid_flow(video["depth"][:, 1], video["pose"][:, i], video["intrinsics"])
        np.testing.assert_allclose(video["flow"][:, i][static], expected[static], atol=1e-4)


# Images that are known analytically.


def room(**fields):
    """A room of 4 x 4 x 8 around the camera, which faces its back wall at depth 4."""
    shape = (1, 6)
    scene = scenes.Scene(
        np.eye(4, dtype=np.float32)[None],
        np.float32([[2.0, 2.0, 4.0]]),
        np.zeros(shape, np.int32),
        np.full(shape, np.float32(8.0)),
        np.full((*shape, 2), np.float32(0.5)),
        np.ones(shape, np.float32),
    )
    return scene._replace(**fields)


def render(*args):
    return jax.device_get(jax.jit(scenes.render, static_argnums=3)(*args))


def test_position_of_the_texture_on_a_wall():
    # 64 texels in 8 meters; red grows with the column and green with the row.
    ramp = np.zeros((1, 64, 64, 3), np.float32)
    ramp[..., 0] = (np.arange(64) + 0.5) / 64
    ramp[..., 1] = ramp[..., 0].swapaxes(1, 2)
    # 3 pixels per texel, the optical axis at the texture's center, 16 x 12 pixels visible.
    intrinsics = np.float32([[96.0, 0, 7.5], [0, 96, 5.5], [0, 0, 1]])
    view = render(room(), np.eye(4), intrinsics, (12, 16), ramp)
    np.testing.assert_array_equal(view["depth"], np.full((12, 16), 4.0, np.float32))
    np.testing.assert_array_equal(view["surface"], 5)
    x, y = np.arange(16) - 7.5, np.arange(12) - 5.5
    np.testing.assert_allclose(view["image"][..., 0], np.tile(0.5 + x / 192, (12, 1)), atol=1e-5)
    np.testing.assert_allclose(view["image"][..., 1].T, np.tile(0.5 + y / 192, (16, 1)), atol=1e-5)
    # A camera to the right sees it shifted left by the disparity f b / Z = 2, exactly.
    aside = np.eye(4)
    aside[0, 3] = 2 * 4 / 96
    right = render(room(), aside, intrinsics, (12, 16), ramp)
    np.testing.assert_allclose(right["image"][:, :-2], view["image"][:, 2:], atol=1e-5)


def test_small_texels_do_not_alias():
    # Stripes one texel wide; each pixel covers six or more.
    stripes = np.tile(np.float32([0.0, 1.0])[:, None], (1, 64, 32, 3)).reshape(1, 64, 64, 3)
    view = render(room(tile=np.ones((1, 6))), np.eye(4), K * 0.3, SIZE, stripes)
    np.testing.assert_allclose(view["image"], 0.5, atol=1e-5)
    assert set(np.unique(view["surface"])) == {0, 1, 3, 5}
    # A constant color is constant at all levels, and only the gain changes it.
    gain = np.linspace(0.5, 1.0, 6, dtype=np.float32)[None]
    view = render(room(gain=gain), np.eye(4), K * 0.3, SIZE, 0 * stripes + np.float32(0.8))
    at_center = np.abs(view["image"][..., 0] - 0.8 * gain[0][view["surface"]])
    assert np.mean(at_center < 1e-5) > 0.8 and at_center.max() < 0.4  # edges are mixed


def test_levels_of_detail_are_means():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), np.uint8)
    texels = np.asarray(jax.jit(lambda x: scenes.pyramid(x).texels)(pixels))
    np.testing.assert_allclose(texels[:, : 32 * 64].reshape(pixels.shape), pixels / 255, atol=1e-6)
    blocks = pixels.reshape(2, 1, 32, 2, 32, 3).mean((2, 4)) / 255
    np.testing.assert_allclose(texels[:, -2:].reshape(2, 1, 2, 3), blocks, atol=1e-6)
    for shape in [(48, 64), (16, 64)]:
        with pytest.raises(ValueError, match="powers of two, 32"):
            scenes.pyramid(np.zeros((1, *shape, 3), np.uint8))


# Images warped to each other.


@jax.jit
def photometric(target, source, flow, visible):
    """Mean error of the warped and of the unwarped source over visible pixels."""
    warped, _ = ops.warp_flow(source, flow)
    errors = (jnp.abs(image - target).mean(-1) for image in (warped, source))
    return [(error * visible).sum() / visible.sum() for error in errors]


def test_the_warped_right_image_is_the_left(stereo):
    left, right = stereo["image"][:, 0], stereo["image"][:, 1]
    for i, (target, source) in enumerate([(left, right), (right, left)]):
        disparity, visible = stereo["disparity"][:, i], stereo["visible"][:, i]
        focal = stereo["intrinsics"][:, 0, 0][:, None, None]
        expected = focal * stereo["baseline"][:, None, None] / stereo["depth"][:, i]
        np.testing.assert_allclose(disparity, expected, rtol=1e-6)
        direction = 2 * i - 1
        inside = np.asarray(warp_disparity(source, disparity, direction=direction)[1])
        assert not (visible & ~inside).any()
        flow = np.stack([direction * disparity, 0 * disparity], axis=-1)
        error, none = photometric(target, source, flow, visible)
        assert error < 0.03 and none > 4 * error
        # Hidden pixels have a nearer surface in front of them.
        other = stereo["disparity"][:, 1 - i, ..., None]
        there = np.asarray(warp_disparity(other, disparity, direction=direction)[0])[..., 0]
        hidden = inside & ~visible
        assert np.mean((there - disparity)[hidden] > 0.05) > 0.9
        assert np.mean(np.abs(there - disparity)[visible] < 0.05) > 0.9


@pytest.mark.parametrize("name", ["flow", "layered"])
def test_each_warped_frame_is_the_other(name, request):
    sample = request.getfixturevalue(name)
    for i in range(2):
        forward, visible = sample["flow"][:, i], sample["visible"][:, i]
        target, source = sample["image"][:, i], sample["image"][:, 1 - i]
        error, none = photometric(target, source, forward, visible)
        assert error < 0.03 and none > 3 * error
        estimate = np.asarray(forward_backward_mask(forward, sample["flow"][:, 1 - i]))
        assert np.mean(estimate == visible) > 0.93
        assert 0.6 < np.mean(visible) < 0.97


def test_video(video):
    shape = video["image"].shape
    assert shape == (BATCH, 4, *SIZE, 3)
    np.testing.assert_array_equal(video["pose"][:, 1], np.tile(np.eye(4), (BATCH, 1, 1)))
    np.testing.assert_array_equal(video["flow"][:, 1], 0)
    assert video["visible"][:, 1].all()
    for i in (0, 2, 3):
        error, none = photometric(
            video["image"][:, 1], video["image"][:, i], video["flow"][:, i], video["visible"][:, i]
        )
        assert error < 0.03 and none > 2 * error
    there = np.indices(SIZE)[::-1].transpose(1, 2, 0) + video["flow"]
    inside = ((there >= 0) & (there <= np.array(SIZE[::-1]) - 1)).all(-1)
    hidden = (inside & ~video["visible"]).any(1)
    assert 0.01 < hidden.mean() < 0.4
    assert np.mean(hidden == video["occluded"]) > 0.998  # except rays along borders
    # The last frame is the right-hand partner.
    disparity = video["intrinsics"][:, 0, 0][:, None, None] * 0.25 / video["depth"][:, 1]
    np.testing.assert_allclose(video["flow"][:, 3, ..., 0], -disparity, atol=1e-4)

    poses = video["pose"][:, :3]
    static_camera = np.array([(pose == np.eye(4)).all() for pose in poses])
    moves = video["moving"].any((1, 2))
    assert static_camera.any() and not static_camera.all() and moves.any() and not moves.all()
    frozen = static_camera & ~moves
    assert frozen.any() and (static_camera & moves).any()
    images, flow = video["image"], video["flow"]
    np.testing.assert_array_equal(images[frozen, 0], images[frozen, 1])
    np.testing.assert_array_equal(flow[frozen, :3], 0)
    # With a static camera only the moving box has flow.
    only = static_camera & moves
    np.testing.assert_array_equal((flow[only, 2] != 0).any(-1), video["moving"][only])


def test_a_following_box_has_no_flow(textures):
    size = (24, 40)
    sample = functools.partial(scenes.video, size=size, boxes=2, following=1.0, still=0.5)
    video = jax.tree.map(np.asarray, scenes.sampler(sample, textures, seed=5)(indices))
    static_camera = np.array([(pose == np.eye(4)).all() for pose in video["pose"]])
    moving = video["moving"]
    assert static_camera.any() and not moving[static_camera].any()
    assert moving[~static_camera].any() and not moving[~static_camera].all()
    for frame in (0, 2):
        flow = np.abs(video["flow"][~static_camera, frame]).max(-1)
        assert flow[moving[~static_camera]].max() < 1e-3 < np.median(flow[~moving[~static_camera]])


def test_a_car_drives_on_the_floor_of_all_boxes():
    @jax.jit
    def draw(keys):
        scene = jax.vmap(lambda key: scenes.random_scene(key, 4, boxes=5, drive=True))(keys)
        drive = functools.partial(scenes.trajectory, frames=3, reference=1, drive=True)
        return scene, jax.vmap(drive)(keys)

    scene, cameras = jax.tree.map(np.asarray, draw(jax.random.split(jax.random.key(2), 32)))
    up = np.float32([0, 1, 0])
    # Nothing is tilted relative to the camera, in any frame.
    for poses in (scene.poses, cameras):
        np.testing.assert_allclose(poses[..., 1, :3], np.broadcast_to(up, poses[..., 1, :3].shape))
    lowest = scene.poses[..., 1, 3] + scene.half_sizes[..., 1]
    np.testing.assert_allclose(lowest, np.repeat(lowest[:, :1], 6, axis=1), atol=1e-5)
    assert (lowest > 0.9).all()
    # Floor and lids are brighter than any wall, walls than ceilings. Faces: -x, x, -y, y, -z, z.
    room, boxes = scene.gain[:, 0], scene.gain[:, 1:]
    for bright, dark, walls in (
        (room[:, 3], room[:, 2], room[:, [0, 1, 4, 5]]),
        (boxes[..., 2], boxes[..., 3], boxes[..., [0, 1, 4, 5]]),
    ):
        assert (bright[..., None] > walls).all() and (walls > dark[..., None]).all()
    step = cameras[:, 2, :3, 3]
    np.testing.assert_array_equal(step[:, 1], 0)
    assert (step[:, 2] > 0).all() and (np.abs(step[:, 0]) < 0.5 * step[:, 2]).all()
    assert step[:, 0].std() > 0 and (cameras[:, 0, 2, 3] < 0).all()
    turn = np.arctan2(cameras[:, 2, 0, 2], cameras[:, 2, 2, 2])
    assert 1e-3 < turn.std() < 0.03


def test_a_camera_turns_by_a_factor_and_has_the_focal_length_it_is_given():
    draws = jax.random.split(jax.random.key(3), 16)

    @jax.jit
    def draw(keys):
        cameras = [
            jax.vmap(functools.partial(scenes.trajectory, frames=2, turn=turn))(keys)[:, 1]
            for turn in (0.0, 1.0, 5.0)
        ]
        known = jax.vmap(lambda key: scenes.random_intrinsics(key, (20, 40), focal=(0.5, 0.5)))
        return cameras, known(keys), jax.vmap(lambda k: scenes.random_intrinsics(k, (20, 40)))(keys)

    (still, once, often), fixed, free = jax.tree.map(np.asarray, draw(draws))
    angles = [np.arccos((np.trace(c[:, :3, :3], axis1=1, axis2=2) - 1) / 2) for c in (once, often)]
    np.testing.assert_allclose(angles[1], 5 * angles[0], rtol=1e-2)
    np.testing.assert_allclose(still[:, :3, :3], [np.eye(3)] * 16, atol=1e-6)
    np.testing.assert_allclose(fixed[:, 0, 0], 20.0, rtol=1e-6)
    assert free[:, 0, 0].min() >= 24.0 and free[:, 0, 0].std() > 2


def test_brightness_is_one_factor_per_image(textures, layered):
    sample = functools.partial(layered_sample, brightness=0.4)
    bright = np.asarray(scenes.sampler(sample, textures, seed=5)(indices)["image"])
    plain = layered["image"]
    inner = (plain > 0.05) & (bright < 1)
    ratio = np.where(inner, bright / np.maximum(plain, 1e-3), np.nan)
    of_image = np.nanmean(ratio, axis=(2, 3, 4), keepdims=True)
    assert np.nanmax(np.abs(ratio - of_image)) < 1e-4
    assert of_image.min() > np.exp(-0.41) and of_image.max() < np.exp(0.41)
    assert of_image.std() > 0.1


# Layers.


def test_a_disc_over_a_background():
    """A disc of radius 6.2 moves right by 4, the background down by 2."""
    center = np.array([15.0, 12.0])

    def layers(disc):
        inverse = np.tile(np.eye(3, dtype=np.float32), (2, 1, 1))
        inverse[1, :2] = np.array([[1, 0, -disc[0]], [0, 1, -disc[1]]]) / 6.2
        zeros = np.zeros((2, 6), np.float32)
        return Layers(inverse, np.array([1, 2]), zeros, zeros, *np.zeros((3, 2), np.float32))

    moves = np.tile(np.eye(3, dtype=np.float32), (2, 1, 1))
    moves[0, 1, 2], moves[1, 0, 2] = 2, 4
    motion = jax.jit(_motion, static_argnums=3)
    flow, visible = motion(layers(center), layers(center + np.array([4, 0])), moves, SIZE)

    grid = np.asarray(ops.pixel_grid(*SIZE), np.float64)
    disc = ((grid - center) ** 2).sum(-1) <= 6.2**2
    np.testing.assert_allclose(flow, np.where(disc[..., None], [4, 0], [0, 2]), atol=1e-6)
    under = ((grid - center - np.array([4, -2])) ** 2).sum(-1) <= 6.2**2
    inside = np.where(disc, grid[..., 0] + 4 <= WIDTH - 1, grid[..., 1] + 2 <= HEIGHT - 1)
    np.testing.assert_array_equal(visible, inside & (disc | ~under))


def test_layers_differ(layered):
    flow = layered["flow"]
    # Affine pieces have second differences only where they meet.
    second = np.abs(np.diff(flow, n=2, axis=3)).max((1, 2, 4))
    assert ((second > 0.2).any(1)).mean() > 0.8 and (second < 1e-3).mean() > 0.3
    assert 0.3 < np.linalg.norm(flow, axis=-1).mean() < 0.1 * WIDTH


# The sampler.


def assert_same(one, other):
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=2e-5, err_msg=name)


def test_samples_depend_on_seed_and_index_alone(make_flow, flow):
    again = jax.device_get(make_flow(indices[::-1]))
    assert_same(jax.tree.map(lambda x: x[::-1], again), flow)
    assert len({image.tobytes() for image in flow["image"]}) == BATCH


def test_another_seed_gives_other_samples(textures, layered):
    other = jax.device_get(scenes.sampler(layered_sample, textures, seed=6)(indices))
    assert all((a != b).any() for a, b in zip(other["flow"], layered["flow"]))


def test_indices_on_eight_devices_give_a_sharded_batch(make_flow, flow):
    mesh = sharding.make_mesh()
    assert len(mesh.devices) == 8
    split = sharding.batch_sharding(mesh)
    spread = make_flow(jax.device_put(indices, split))
    assert spread["image"].sharding.is_equivalent_to(split, 5)
    assert_same(spread, flow)


def test_training_and_test_share_no_photograph(monkeypatch):
    textures = scenes.textures("train", count=6, side=64)
    assert textures.shape == (6, 64, 64, 3) and textures.dtype == np.uint8
    np.testing.assert_array_equal(textures, scenes.textures("train", count=6, side=64))
    # Six photographs, all of them textured.
    assert np.abs(np.diff(textures.astype(float), axis=2)).mean((1, 2, 3)).min() > 4

    # Photographs whose pixels encode their index, their part, and their position.
    right, down = np.mgrid[:90, :120][::-1]
    parts = (
        [np.stack([right, down, 0 * down + 10 * i + part], -1).astype(np.uint8) for i in range(8)]
        for part in (0, 5)
    )
    both = installed.PhotographParts(*parts)
    monkeypatch.setattr(installed, "photograph_parts", lambda: both)
    kinds = [name.split("/")[-1].split(".")[0] for _, name in installed.FILES]
    for part, code, out in [
        ("train", 0, {"motorcycle_left", "rocket"}),
        ("test", 5, {"motorcycle_left", "rocket", "flower"}),
    ]:
        crops = scenes.textures(part, count=24, side=32).astype(int)
        assert (crops[..., 2] == crops[:, :1, :1, 2]).all()
        seen = {kinds[value // 10] for value in crops[:, 0, 0, 2]}
        assert (crops[..., 2] % 10 == code).all() and seen == set(kinds) - out
        # From 32 to 90 pixels on a side, neither stretched nor rotated.
        step = np.diff(crops[:, 8:24, 8:24], axis=2)[..., 0].mean((1, 2))
        np.testing.assert_allclose(
            np.diff(crops[:, 8:24], axis=1)[..., 1].mean((1, 2)), step, atol=0.07
        )
        assert step.min() < 1.7 and 2.3 < step.max() < 2.9
    with pytest.raises(ValueError, match="'train' or 'test'"):
        scenes.textures("validation")


# The real pair.


@pytest.mark.parametrize("size", [(80, 112), (48, 96), (64, 48)])
def test_motorcycle(size):
    pair = scenes.motorcycle(size)
    known, disparity = pair["known"], pair["disparity"]
    assert pair["image"].shape == (2, *size, 3) and pair["image"].dtype == np.uint8
    np.testing.assert_array_equal(known, np.isfinite(disparity))
    assert 0.9 < known.mean() < 0.97
    np.testing.assert_array_equal(pair["depth"] > 0, known)
    # The depth range of the garage.
    assert pair["depth"][known].min() > 2 and pair["depth"].max() < 6
    flow, seen = rigid_flow(pair["depth"], pair["pose"], pair["intrinsics"])
    np.testing.assert_allclose(flow[known], pair["flow"][known], atol=1e-4)
    left, right = pair["image"].astype(np.float32)[:, None] / 255

    def error(shift):
        warped, inside = jax.device_get(warp_disparity(right, (disparity + shift)[None]))
        return np.abs(warped - left).mean(-1)[inside & known].mean()

    # As good as at full resolution, and worse at any other offset.
    assert error(0) < 0.04
    assert error(0) < min(error(-0.5), error(0.5)) - 0.003
    np.testing.assert_array_equal(seen[~known], False)


# A wide lens.


@pytest.fixture(scope="module")
def fisheye(textures):
    knobs = {"size": SIZE, "frames": 2, "boxes": 3, "focal": (0.6, 0.6), "speed": 2.0}
    sample = functools.partial(scenes.video, **knobs, alpha=0.6)
    return jax.device_get(scenes.sampler(sample, textures, seed=5)(np.arange(3)))


def test_a_wide_lens_sees_what_a_pinhole_sees_elsewhere(two_views):
    """Its pixels are points of a pinhole's image, which have the same depth and surface."""
    both, cameras, *_ = two_views
    lens = ops.UnifiedCamera(K, jnp.float32(0.6))

    @jax.jit
    def compared():
        scene = jax.tree.map(jnp.asarray, frame(both, 0))
        camera, grid = cameras[0], ops.pixel_grid(*SIZE)
        ours = scenes.cast(scene, camera, lens, grid)
        coords, _ = ops.project(ops.backproject(ours[0], lens), K)
        return ours, scenes.cast(scene, camera, K, coords), coords

    (depth, surface), (expected, same), coords = jax.device_get(compared())
    agrees = surface == same
    assert agrees.mean() > 0.995  # rounding, at edges
    np.testing.assert_allclose(depth[agrees], expected[agrees], rtol=1e-4)
    outside = (coords < 0) | (coords > np.array(SIZE[::-1]) - 1)
    assert outside.any(-1).mean() > 0.2  # it is wide


def test_a_wide_lens_has_its_own_flow_and_its_images_agree(fisheye):
    images, flow = fisheye["image"], fisheye["flow"][:, 0]
    lens = ops.UnifiedCamera(fisheye["intrinsics"], fisheye["alpha"])
    np.testing.assert_array_equal(fisheye["alpha"], np.float32([0.6] * 3))
    pose = fisheye["pose"][:, 0]
    expected, _ = jax.jit(ops.rigid_flow)(fisheye["depth"][:, 1], pose, lens)
    np.testing.assert_allclose(flow, expected, atol=1e-4)
    pinhole, _ = jax.jit(ops.rigid_flow)(fisheye["depth"][:, 1], pose, lens.intrinsics)
    assert np.abs(flow - pinhole).max() > 0.4
    warped, _ = jax.jit(ops.warp_flow)(images[:, 0], flow)
    seen = fisheye["visible"][:, 0]
    error, still = (np.abs(x - images[:, 1])[seen].mean() for x in (warped, images[:, 0]))
    assert error < 0.4 * still
