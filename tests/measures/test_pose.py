"""Ego-motion measures against SciPy, plain loops as published codes have them, and by hand."""

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sslax.measures import pose


def motions(turns, moves):
    poses = np.tile(np.eye(4), (len(turns), 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(turns).as_matrix()
    poses[:, :3, 3] = moves
    return poses


@pytest.fixture(scope="module")
def drive():
    """A car's trajectory of 400 frames and about 390 meters, in an arbitrary world frame."""
    rng = np.random.default_rng(0)
    turns = np.cumsum(rng.normal(0, 0.002, (399, 3)), 0) * [0.1, 1, 0.1]
    moves = rng.normal([0, 0, 1], [0.02, 0.02, 0.2], (399, 3))
    start = motions([[0.3, -0.2, 0.5]], [[7.0, -3.0, 2.0]])[0]
    return start @ pose.compose_poses(motions(turns, moves))


@pytest.fixture(scope="module")
def estimate(drive):
    rng = np.random.default_rng(1)
    relative = pose.relative_poses(drive)
    noise = motions(rng.normal(0, 0.002, (399, 3)), rng.normal(0, 0.02, (399, 3)))
    noisy = relative @ noise
    noisy[:, :3, 3] *= 0.3
    return pose.compose_poses(noisy)


def test_composing_undoes_relative_poses(drive):
    relative = pose.relative_poses(drive)
    np.testing.assert_allclose(drive[0] @ pose.compose_poses(relative), drive, atol=1e-9)
    np.testing.assert_allclose(relative[5], np.linalg.inv(drive[5]) @ drive[6], atol=1e-12)
    np.testing.assert_allclose(pose.inverse_poses(drive), np.linalg.inv(drive), atol=1e-12)
    apart = pose.relative_poses(drive, step=3)
    assert len(apart) == len(drive) - 3
    np.testing.assert_allclose(apart[7], relative[7] @ relative[8] @ relative[9], atol=1e-10)


@pytest.mark.parametrize("frames", [2, 3, 5])
def test_motions_of_overlapping_records_compose_to_the_trajectory(frames):
    """Records of consecutive frames, each with poses from its target to all of its frames."""
    rng = np.random.default_rng(3)
    trajectory = motions(0.3 * rng.normal(size=(9, 3)), rng.normal(size=(9, 3)))
    trajectory = np.linalg.inv(trajectory[0]) @ trajectory
    target = frames // 2
    poses = np.stack(
        [
            np.linalg.inv(trajectory[i : i + frames]) @ trajectory[i + target]
            for i in range(9 - frames + 1)
        ]
    )
    composed = pose.compose_poses(pose.consecutive_motions(poses))
    np.testing.assert_allclose(composed, trajectory, atol=1e-9)


def test_direction_of_relative_poses():
    """The pose takes points of camera 1 to camera 0: a point ahead of camera 1, seen by both."""
    trajectory = motions([[0, 0, 0], [0, np.pi / 2, 0]], [[0, 0, 0], [0, 0, 10.0]])
    (to_first,) = pose.relative_poses(trajectory)
    # Camera 1 is ten ahead and looks to the right, so two ahead of it is at (2, 0, 10).
    np.testing.assert_allclose(to_first @ [0, 0, 2, 1], [2, 0, 10, 1], atol=1e-12)


def test_composed_rotations_stay_rotations(drive):
    relative = pose.relative_poses(drive).astype(np.float32)
    many = pose.compose_poses(np.tile(relative, (20, 1, 1)))[:, :3, :3]
    product = many @ many.swapaxes(1, 2)
    assert np.abs(product - np.eye(3)).max() < 1e-10


def test_angles_equal_scipy():
    rng = np.random.default_rng(2)
    turns = rng.normal(size=(60, 3))
    turns *= (np.geomspace(1e-9, np.pi, 60) / np.linalg.norm(turns, axis=1))[:, None]
    matrices = Rotation.from_rotvec(turns).as_matrix()
    wanted = np.degrees(np.linalg.norm(turns, axis=1))
    np.testing.assert_allclose(pose.rotation_angle(matrices), wanted, rtol=1e-6, atol=1e-12)


def test_relative_errors_one_by_one():
    truth = motions([[0, 0, 0.1], [0, 0, 0], [0, 0.2, 0]], [[1.0, 0, 0], [0, 0, 0], [0, 3.0, 0]])
    turned = motions(
        [[0, 0, 0.15], [0.3, 0, 0], [0, 0.2, 0]], [[0, 2.0, 0], [0, 0, 1.0], [0, 0, 0]]
    )
    errors = pose.relative_pose_errors(turned, truth, scale=0.5)
    np.testing.assert_allclose(errors["rotation"], np.degrees([0.05, 0.3, 0]), atol=1e-9)
    np.testing.assert_allclose(errors["translation"], [2**0.5, 0.5, 3.0], rtol=1e-12)
    # The second camera is static, and the third is predicted static.
    np.testing.assert_allclose(errors["direction"], [90.0, 90.0])
    opposite = pose.relative_pose_errors(pose.inverse_poses(truth), truth)
    assert opposite["direction"][0] == pytest.approx(180 - np.degrees(0.1))
    for name, error in pose.relative_pose_errors(truth, truth).items():
        np.testing.assert_allclose(error, 0, atol=1e-7, err_msg=name)


def test_relative_errors_equal_a_loop(drive, estimate):
    truth, found = pose.relative_poses(drive), pose.relative_poses(estimate)
    scale = pose.translation_scale(found[:, :3, 3], truth[:, :3, 3])
    assert scale == pytest.approx(1 / 0.3, rel=0.02)
    errors = pose.relative_pose_errors(found, truth, scale=scale)
    for i in range(0, 399, 40):
        scaled = found[i].copy()
        scaled[:3, 3] *= scale
        error = np.linalg.inv(truth[i]) @ scaled
        turn = Rotation.from_matrix(error[:3, :3]).magnitude()
        assert errors["rotation"][i] == pytest.approx(np.degrees(turn))
        assert errors["translation"][i] == pytest.approx(np.linalg.norm(error[:3, 3]))
        cosine = scaled[:3, 3] @ truth[i, :3, 3]
        cosine /= np.linalg.norm(scaled[:3, 3]) * np.linalg.norm(truth[i, :3, 3])
        assert errors["direction"][i] == pytest.approx(np.degrees(np.arccos(cosine)), rel=1e-5)


def test_snippets_equal_the_published_loop(drive, estimate):
    """Snippet by snippet: shift to the first camera, fit a scale, sqrt of the sum over N."""
    found = pose.snippet_errors(pose.snippets(estimate), pose.snippets(drive))
    assert len(found["ate"]) == 396
    for i in (0, 17, 395):
        g, x = ((np.linalg.inv(t[i]) @ t[i : i + 5])[:, :3, 3] for t in (drive, estimate))
        x = x + (g[0] - x[0])
        scale = np.sum(g * x) / np.sum(x**2)
        legacy = np.sqrt(np.sum((x * scale - g) ** 2)) / 5
        assert found["ate_legacy"][i] == pytest.approx(legacy, rel=1e-9)
        assert found["scale"][i] == pytest.approx(scale, rel=1e-9)
        assert found["ate"][i] == pytest.approx(legacy * 5**0.5, rel=1e-9)
        angles = [
            Rotation.from_matrix(
                (drive[i, :3, :3].T @ drive[k, :3, :3]).T
                @ (estimate[i, :3, :3].T @ estimate[k, :3, :3])
            ).magnitude()
            for k in range(i, i + 5)
        ]
        assert found["rotation"][i] == pytest.approx(np.degrees(np.mean(angles)), rel=1e-6)


def test_snippet_of_a_static_camera():
    truth = motions(np.zeros((5, 3)), np.arange(5)[:, None] * [0, 0, 1.0])[None]
    static = np.tile(np.eye(4), (1, 5, 1, 1))
    errors = pose.snippet_errors(static, truth)
    assert errors["scale"] == [0] and errors["ate"] == pytest.approx([(30 / 5) ** 0.5])
    errors = pose.snippet_errors(truth, static)
    assert errors["scale"] == [0] and errors["ate"] == [0]


def test_umeyama_recovers_a_known_similarity():
    rng = np.random.default_rng(3)
    points = rng.normal(size=(30, 3))
    rotation = Rotation.random(random_state=4).as_matrix()
    moved = 2.5 * points @ rotation.T + [1, -2, 3]
    fit = pose.umeyama(points, moved, with_scale=True)
    assert fit.scale == pytest.approx(2.5)
    np.testing.assert_allclose(fit.rotation, rotation, atol=1e-12)
    np.testing.assert_allclose(fit.translation, [1, -2, 3], atol=1e-12)


def test_umeyama_equals_scipy_and_is_a_minimum():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 20, 3))
    rigid, similar = (pose.umeyama(x, y, with_scale=s) for s in (False, True))
    by_scipy, _ = Rotation.align_vectors(y - y.mean(0), x - x.mean(0))
    np.testing.assert_allclose(rigid.rotation, by_scipy.as_matrix(), atol=1e-9)
    np.testing.assert_allclose(similar.rotation, rigid.rotation, atol=1e-12)
    assert rigid.scale == 1.0

    def cost(scale, rotation, translation):
        return np.sum((scale * x @ rotation.T + translation - y) ** 2)

    least = cost(*similar)
    assert least < cost(*rigid)
    for scale in (-0.01, 0, 0.01):
        for turn in Rotation.from_rotvec(0.01 * np.array([*np.eye(3), *-np.eye(3)])):
            for shift in 0.01 * np.array([*np.eye(3), *-np.eye(3)]):
                other = cost(
                    similar.scale + scale,
                    turn.as_matrix() @ similar.rotation,
                    similar.translation + shift,
                )
                assert other > least


def test_umeyama_never_mirrors():
    rng = np.random.default_rng(6)
    points = rng.normal(size=(20, 3))
    fit = pose.umeyama(points, points * [1, 1, -1], with_scale=True)
    assert np.linalg.det(fit.rotation) == pytest.approx(1)
    flat = points * [1, 0, 1]  # points of a plane could be mirrored without loss
    assert np.linalg.det(pose.umeyama(flat, flat, with_scale=False).rotation) == pytest.approx(1)


def test_umeyama_of_degenerate_points():
    line = np.arange(5.0)[:, None] * [0, 0, 1]
    fit = pose.umeyama(line, 2 * line[:, [2, 1, 0]] + 1, with_scale=True)
    assert fit.scale == pytest.approx(2) and np.linalg.det(fit.rotation) == pytest.approx(1)
    np.testing.assert_allclose(
        fit.scale * line @ fit.rotation.T + fit.translation, 2 * line[:, [2, 1, 0]] + 1, atol=1e-12
    )
    fit = pose.umeyama(np.ones((4, 3)), line[:4], with_scale=True)
    assert fit.scale == 1 and fit.rotation.tolist() == np.eye(3).tolist()
    assert fit.translation.tolist() == [-1.0, -1.0, 0.5]


@pytest.mark.parametrize("align", ["none", "first", "scale", "se3", "sim3"])
def test_alignment_undoes_its_transform(drive, align):
    frame = motions([[0.4, 1.0, -0.3]], [[5.0, 6.0, -7.0]])[0]
    moved = drive.copy()
    if align in ("scale", "sim3"):
        moved[:, :3, 3] *= 0.05
    if align != "none":
        moved = frame @ moved
    np.testing.assert_allclose(pose.align_trajectory(moved, drive, align=align), drive, atol=1e-8)
    assert pose.absolute_trajectory_error(moved, drive, align=align) < 1e-8
    if align != "none":
        assert pose.absolute_trajectory_error(moved, drive, align="none") > 1


def test_absolute_error_falls_with_degrees_of_freedom(drive, estimate):
    by_mode = {
        mode: pose.absolute_trajectory_error(estimate, drive, align=mode)
        for mode in ("first", "scale", "se3", "sim3")
    }
    assert by_mode["first"] > by_mode["scale"] > by_mode["sim3"]
    assert by_mode["first"] > by_mode["se3"] > by_mode["sim3"] > 0.1
    # By hand: two of four cameras are off by 3 and 4.
    truth = motions(np.zeros((4, 3)), np.zeros((4, 3)))
    off = motions(np.zeros((4, 3)), [[0, 0, 0], [3.0, 0, 0], [0, 4.0, 0], [0, 0, 0]])
    assert pose.absolute_trajectory_error(off, truth, align="none") == 2.5


def test_odometry_equals_the_benchmark_loop(drive, estimate):
    aligned = pose.align_trajectory(estimate, drive, align="sim3")
    path = [0.0]
    for a, b in itertools.pairwise(drive):
        path.append(path[-1] + np.linalg.norm(a[:3, 3] - b[:3, 3]))
    assert 300 < path[-1] < 400
    rows = []
    for length in pose.LENGTHS:
        for first in range(0, 400, 10):
            last = next((i for i in range(first, 400) if path[i] > path[first] + length), None)
            if last is None:
                continue
            true = np.linalg.inv(drive[first]) @ drive[last]
            found = np.linalg.inv(aligned[first]) @ aligned[last]
            error = np.linalg.inv(found) @ true
            angle = np.arccos(np.clip((np.trace(error[:3, :3]) - 1) / 2, -1, 1))
            rows.append((length, np.linalg.norm(error[:3, 3]) / length, np.degrees(angle) / length))
    segments = pose.odometry_segments(aligned, drive)
    np.testing.assert_allclose(np.stack(segments, 1), rows, rtol=1e-6)
    assert set(segments.length) == {100.0, 200.0, 300.0}
    numbers = pose.odometry_errors(segments)
    assert numbers == {
        "segments": len(rows),
        "t_rel": pytest.approx(100 * np.mean([row[1] for row in rows])),
        "r_rel": pytest.approx(100 * np.mean([row[2] for row in rows])),
    }


def test_odometry_by_hand():
    """One meter per frame; an estimate that is 2 % too long and rolls 0.01 degrees per meter."""
    straight = np.arange(151.0)[:, None] * [0, 0, 1]
    truth = motions(np.zeros((151, 3)), straight)
    turns = np.radians(0.01) * np.arange(151)[:, None] * [0, 0, 1.0]  # roll
    numbers = pose.odometry_errors(
        pose.odometry_segments(motions(turns, 1.02 * straight), truth, step=10)
    )
    # Segments start at 0, 10, ..., 40 (50 + 101 > 150) and end at the first frame beyond 100 m.
    assert numbers == {
        "segments": 5,
        "t_rel": pytest.approx(2.02),
        "r_rel": pytest.approx(1.01),
    }
    short = pose.odometry_segments(truth[:100], truth[:100])
    assert pose.odometry_errors(short) == {"segments": 0}
    both = pose.Segments(*map(np.concatenate, zip(short, pose.odometry_segments(truth, truth))))
    assert pose.odometry_errors(both) == {
        "segments": 5,
        "t_rel": pytest.approx(0, abs=1e-9),
        "r_rel": pytest.approx(0, abs=1e-6),
    }


def test_errors(drive):
    with pytest.raises(ValueError, match="align is 'se2'"):
        pose.align_trajectory(drive, drive, align="se2")
    with pytest.raises(ValueError, match="4 poses has no snippet of 5"):
        pose.snippets(drive[:4])
    for factor in (np.nan, 2.0):
        broken = drive.copy()
        broken[3, :3, :3] *= factor
        with pytest.raises(ValueError, match="must be rigid motions"):
            pose.compose_poses(broken)
    mirrored = drive.copy()
    mirrored[3, 0, :3] *= -1
    with pytest.raises(ValueError, match="must be rigid motions"):
        pose.absolute_trajectory_error(mirrored, drive)
    with pytest.raises(AssertionError):
        pose.relative_poses(drive[:, :3])
    with pytest.raises(AssertionError):
        pose.relative_pose_errors(drive, drive[1:])
