"""Numbers of depth, disparity, poses and flow together, and of predictions without a thought."""

import numpy as np
import pytest

from sslax.measures import pose
from sslax.tasks import geometry

RNG = np.random.default_rng(0)
COUNT, SIZE = 8, (6, 10)


def moved(angle, forward):
    made = np.eye(4)
    made[:3, :3] = [
        [np.cos(angle), 0, np.sin(angle)],
        [0, 1, 0],
        [-np.sin(angle), 0, np.cos(angle)],
    ]
    made[2, 3] = forward
    return made


@pytest.fixture(scope="module")
def truth():
    """Eight consecutive frames of one video, of which the middle ones have two neighbors."""
    depth = RNG.uniform(2.0, 9.0, (COUNT, *SIZE)).astype(np.float32)
    depth[:, 0] = 0.0
    ways = [moved(0.02 * (i % 3), -0.5 - 0.1 * i) for i in range(COUNT)]
    poses = np.stack([[pose.inverse_poses(way), np.eye(4), way] for way in ways])
    flow = RNG.normal(0, 4, (COUNT, *SIZE, 2)).astype(np.float32)
    return {
        "depth": depth,
        "pose": poses,
        "flow": flow,
        "known": np.ones((COUNT, *SIZE), bool),
        "visible": RNG.random((COUNT, *SIZE)) < 0.8,
        "intrinsics": np.tile(np.diag([20.0, 20.0, 1.0]).astype(np.float32), (COUNT, 1, 1)),
        "baseline": np.full(COUNT, 0.3, np.float32),
        "sequence": np.zeros(COUNT, np.int32),
    }


@pytest.fixture(scope="module")
def perfect(truth):
    """The truth itself, but of a third of its scale where a network cannot know it."""
    poses = truth["pose"].copy()
    poses[..., :3, 3] /= 3
    disparity, _ = geometry.true_disparity(truth)
    return {
        "depth": np.where(truth["depth"] > 0, truth["depth"], 5.0) / 3,
        "disparity": disparity,
        "pose": poses,
        "flow": truth["flow"],
        "visible": truth["visible"].astype(np.float32),
    }


def test_perfect_predictions(truth, perfect):
    numbers = geometry.measure(perfect, truth)
    assert numbers["scale"] == pytest.approx(3.0, rel=1e-5)
    zeros = "abs_rel rmse disparity_error d1 rotation direction translation ate ate_legacy epe fl"
    for name in zeros.split():
        assert numbers[name] == pytest.approx(0.0, abs=2e-5), name
    assert numbers["delta_1"] == 1.0
    assert numbers["occlusion_f1"] == 1.0


def test_disparity_is_focal_times_baseline_over_depth(truth):
    disparity, known = geometry.true_disparity(truth)
    np.testing.assert_allclose(disparity[known], 6.0 / truth["depth"][known], rtol=1e-6)
    assert not known[:, 0].any() and known[:, 1:].all()
    assert geometry.true_disparity({"depth": truth["depth"]}) is None


def test_without_a_thought(truth, perfect):
    made = geometry.trivial(perfect, truth)
    numbers = geometry.measure(made, truth, scaling="none")
    depth = truth["depth"][truth["depth"] > 0]
    error = np.abs(depth - depth.mean()) / depth
    assert numbers["abs_rel"] == pytest.approx(error.mean(), rel=1e-5)
    assert numbers["direction"] == 90.0
    angles = np.degrees(0.02 * (np.arange(COUNT) % 3))
    assert numbers["rotation"] == pytest.approx(angles.mean(), rel=1e-5)
    assert numbers["epe"] == pytest.approx(np.linalg.norm(truth["flow"], axis=-1).mean(), rel=1e-5)
    assert "occlusion_f1" not in numbers  # nothing is said about it


def test_only_what_is_known_is_measured(truth, perfect):
    assert geometry.measure({"depth": perfect["depth"]}, {"flow": truth["flow"]}) == {}
    assert "ate" not in geometry.measure(perfect, {"pose": truth["pose"]})
    two = truth | {"sequence": np.arange(COUNT) // 4}  # five frames are four motions
    assert geometry.measure(perfect, two)["ate"] == pytest.approx(0.0, abs=2e-5)


def test_the_way_is_chained_in_the_right_direction(truth):
    way = pose.compose_poses(pose.consecutive_motions(truth["pose"]))
    assert len(way) == COUNT + 2  # record i has the frames i, i + 1 and i + 2
    # The camera looks along z, and points come nearer by what it advances.
    assert way[2, 2, 3] - way[1, 2, 3] == pytest.approx(0.5, abs=0.02)
    relative = pose.inverse_poses(way[5]) @ way[6]
    np.testing.assert_allclose(pose.inverse_poses(relative), truth["pose"][4, 2], atol=1e-9)
    pair = pose.consecutive_motions(truth["pose"][:3, :2])  # of two frames, the second the target
    np.testing.assert_allclose(pair, truth["pose"][:3, 0], atol=1e-9)


def test_post_processing_averages_inverse_depth():
    depth = RNG.uniform(1.0, 5.0, (2, 4, 40))
    same = geometry.post_processed({"depth": depth}, {"depth": depth[..., ::-1]})
    np.testing.assert_allclose(same["depth"], depth, rtol=1e-5)
    other = geometry.post_processed({"depth": depth}, {"depth": 2 * depth[..., ::-1]})
    np.testing.assert_allclose(1 / other["depth"][..., 20], 0.75 / depth[..., 20], rtol=1e-5)


def test_mirrored_batches_have_mirrored_cameras():
    image = RNG.integers(0, 255, (2, 1, 4, 6, 3), dtype=np.uint8)
    camera = np.tile(np.array([[5.0, 0, 1.5], [0, 5, 2], [0, 0, 1]], np.float32), (2, 1, 1))
    found = geometry.mirrored({"image": image, "intrinsics": camera, "mask": np.ones(2)})
    np.testing.assert_array_equal(found["image"][:, :, :, 0], image[:, :, :, 5])
    assert found["intrinsics"][0, 0, 2] == 3.5 and found["intrinsics"][0, 0, 0] == 5.0


@pytest.mark.parametrize("kind", ["depth", "flow"])
def test_pictures_can_be_drawn(kind, truth, perfect, tmp_path):
    images = RNG.integers(0, 255, (COUNT, 3, *SIZE, 3), dtype=np.uint8)
    predicted = {n: x for n, x in perfect.items() if n in ("depth", "pose") or kind == "flow"}
    geometry.draw(lambda rows: images[rows], predicted, truth, tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {"predictions.png", "trajectory.png"}
