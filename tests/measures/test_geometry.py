"""The evaluation protocol of depth, ego-motion and flow, and its trivial baselines."""

import numpy as np
import pytest

from sslax.measures import geometry, pose
from sslax.types import DepthMaps, DepthTruth, FlowMaps, FlowTruth

RNG = np.random.default_rng(0)
COUNT, SIZE = 8, (6, 10)


def motion(angle, forward):
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [np.cos(angle), 0, np.sin(angle)],
        [0, 1, 0],
        [-np.sin(angle), 0, np.cos(angle)],
    ]
    matrix[2, 3] = forward
    return matrix


@pytest.fixture(scope="module")
def truth():
    """Eight records of three consecutive frames of one video."""
    depth = RNG.uniform(2.0, 9.0, (COUNT, *SIZE)).astype(np.float32)
    depth[:, 0] = 0.0
    steps = [motion(0.02 * (i % 3), -0.5 - 0.1 * i) for i in range(COUNT)]
    return DepthTruth(
        depth=depth,
        pose=np.stack([[pose.inverse_poses(step), np.eye(4), step] for step in steps]),
        intrinsics=np.tile(np.diag([20.0, 20.0, 1.0]).astype(np.float32), (COUNT, 1, 1)),
        baseline=np.full(COUNT, 0.3, np.float32),
        sequence=np.zeros(COUNT, np.int32),
    )


@pytest.fixture(scope="module")
def perfect(truth):
    """The truth itself, at a third of its scale, which video alone does not determine."""
    poses = truth.pose.copy()
    poses[..., :3, 3] /= 3
    disparity, _ = geometry.true_disparity(truth)
    return DepthMaps(np.where(truth.depth > 0, truth.depth, 5.0) / 3, disparity, poses)


@pytest.fixture(scope="module")
def flow_truth():
    return FlowTruth(
        flow=RNG.normal(0, 4, (COUNT, *SIZE, 2)).astype(np.float32),
        known=np.ones((COUNT, *SIZE), bool),
        visible=RNG.random((COUNT, *SIZE)) < 0.8,
    )


def test_perfect_depth(truth, perfect):
    numbers = geometry.measure_depth(perfect, truth)
    assert numbers["scale"] == pytest.approx(3.0, rel=1e-5)
    zeros = "abs_rel rmse disparity_error d1 rotation direction translation ate ate_legacy"
    for name in zeros.split():
        assert numbers[name] == pytest.approx(0.0, abs=2e-5), name
    assert numbers["delta_1"] == 1.0


def test_perfect_flow(flow_truth):
    perfect = FlowMaps(flow_truth.flow, visible=flow_truth.visible.astype(np.float32))
    numbers = geometry.measure_flow(perfect, flow_truth)
    assert numbers["epe"] == numbers["fl"] == 0.0
    assert numbers["occlusion_f1"] == 1.0


def test_disparity_is_focal_times_baseline_over_depth(truth):
    disparity, known = geometry.true_disparity(truth)
    np.testing.assert_allclose(disparity[known], 6.0 / truth.depth[known], rtol=1e-6)
    assert not known[:, 0].any() and known[:, 1:].all()
    assert geometry.true_disparity(DepthTruth(depth=truth.depth)) is None


def test_trivial_depth(truth, perfect):
    trivial = geometry.trivial_depth(perfect, truth)
    numbers = geometry.measure_depth(trivial, truth, scaling="none")
    depth = truth.depth[truth.depth > 0]
    error = np.abs(depth - depth.mean()) / depth
    assert numbers["abs_rel"] == pytest.approx(error.mean(), rel=1e-5)
    disparity, known = geometry.true_disparity(truth)
    spread = [np.abs(d[k] - disparity[known].mean()).mean() for d, k in zip(disparity, known)]
    assert numbers["disparity_error"] == pytest.approx(np.mean(spread), rel=1e-5)
    assert numbers["direction"] == 90.0
    angles = np.degrees(0.02 * (np.arange(COUNT) % 3))
    assert numbers["rotation"] == pytest.approx(angles.mean(), rel=1e-5)


def test_trivial_flow(flow_truth):
    predicted = FlowMaps(flow_truth.flow, visible=flow_truth.visible.astype(np.float32))
    numbers = geometry.measure_flow(geometry.trivial_flow(predicted, flow_truth), flow_truth)
    speed = np.linalg.norm(flow_truth.flow, axis=-1)
    assert numbers["epe"] == pytest.approx(speed.mean(), rel=1e-5)
    assert "occlusion_f1" not in numbers  # it predicts no visibility


def test_a_baseline_has_what_is_predicted_and_known(truth, perfect):
    only_poses = geometry.trivial_depth(DepthMaps(pose=perfect.pose), truth)
    assert only_poses.depth is None and only_poses.disparity is None
    assert only_poses.pose.shape == truth.pose.shape
    assert geometry.trivial_depth(perfect, DepthTruth()) == DepthMaps()


def test_measures_need_a_prediction_and_a_truth(truth, perfect, flow_truth):
    assert geometry.measure_depth(DepthMaps(depth=perfect.depth), DepthTruth(pose=truth.pose)) == {}
    assert geometry.measure_flow(FlowMaps(flow_truth.flow), FlowTruth()) == {}
    squeezed = FlowTruth(np.zeros((1, 2, 3, 2), np.float32), pixel=np.float32([[2.0, 1.0]]))
    off = FlowMaps(np.broadcast_to(np.float32([1.5, 4.0]), (1, 2, 3, 2)))
    assert geometry.measure_flow(off, squeezed)["epe"] == 5.0
    assert "ate" not in geometry.measure_depth(perfect, DepthTruth(pose=truth.pose))
    two = truth._replace(sequence=np.arange(COUNT) // 4)  # two sequences of six frames
    assert geometry.measure_depth(perfect, two)["ate"] == pytest.approx(0.0, abs=2e-5)


def test_trajectories_are_aligned_to_the_truth(truth, perfect):
    paths = geometry.trajectories(perfect, truth)
    assert list(paths) == ["ground truth", "predicted"]
    assert len(paths["predicted"]) == COUNT + 2  # record i has frames i, i + 1 and i + 2
    np.testing.assert_allclose(paths["predicted"], paths["ground truth"], atol=1e-9)
    unknown = geometry.trajectories(perfect, DepthTruth(sequence=truth.sequence))
    assert list(unknown) == ["predicted"]
    three = truth._replace(sequence=np.array([0, 0, 1, 1, 1, 2, 2, 2]))  # the longest: 3 records
    assert len(geometry.trajectories(perfect, three)["predicted"]) == 5
    for nothing in (DepthTruth(pose=truth.pose), DepthTruth(sequence=np.arange(COUNT))):
        assert geometry.trajectories(perfect, nothing) == {}
    assert geometry.trajectories(DepthMaps(depth=perfect.depth), truth) == {}


def test_trajectories_are_chained_in_the_right_direction(truth):
    trajectory = pose.compose_poses(pose.consecutive_motions(truth.pose))
    # The camera looks along z, and points come nearer by what it advances.
    assert trajectory[2, 2, 3] - trajectory[1, 2, 3] == pytest.approx(0.5, abs=0.02)
    relative = pose.inverse_poses(trajectory[5]) @ trajectory[6]
    np.testing.assert_allclose(pose.inverse_poses(relative), truth.pose[4, 2], atol=1e-9)
    pair = pose.consecutive_motions(truth.pose[:3, :2])  # two frames, the second is the target
    np.testing.assert_allclose(pair, truth.pose[:3, 0], atol=1e-9)


def test_a_learned_camera_is_measured_beside_the_usual_guess(truth):
    """By the formula, and None where there is no learned camera."""
    wrong = truth.intrinsics + RNG.normal(0, 1, (COUNT, 3, 3)) * [[1, 0, 1], [0, 1, 1], [0, 0, 0]]
    numbers = geometry.measure_depth(DepthMaps(depth=truth.depth, intrinsics=wrong), truth)
    errors = [abs(k[i, i] - 20) / 20 for k in wrong for i in (0, 1)]
    assert numbers["focal_error"] == pytest.approx(100 * np.mean(errors))
    offsets = [np.hypot(k[0, 2], k[1, 2]) for k in wrong]
    assert numbers["center_error"] == pytest.approx(np.mean(offsets))
    trivial = geometry.trivial_depth(DepthMaps(depth=truth.depth, intrinsics=wrong), truth)
    guess = geometry.measure_depth(trivial, truth)
    assert guess["focal_error"] == 50.0  # a width of 10 pixels, for 20
    assert guess["center_error"] == pytest.approx(np.hypot(4.5, 2.5))
    given = geometry.measure_depth(DepthMaps(depth=truth.depth), truth)
    assert "focal_error" not in given
    assert geometry.trivial_depth(DepthMaps(depth=truth.depth), truth).intrinsics is None
