"""The task of depth: baselines, numbers, pictures."""

from types import SimpleNamespace

import numpy as np
import pytest

from sslax import figures
from sslax.inference.run import Run
from sslax.tasks import depth, tables
from sslax.tasks.base import Evaluated, Subject
from sslax.training import configuration
from sslax.types import Depth, DepthMaps, DepthTruth, InverseDepth

RNG = np.random.default_rng(0)
COUNT, SIZE = 10, (6, 10)


def subject_of(images, **settings):
    config = configuration.defaults()
    config.evaluate.depth.update(settings)
    dataset = SimpleNamespace(train=[], test=[{"image": image} for image in images])
    plan = SimpleNamespace(method=SimpleNamespace(task=Depth(frames=3, metric=True)))
    return Subject(Run(None, config, plan), None, dataset, {}, 0, "")


@pytest.fixture(scope="module")
def images():
    """Three frames of each example; all pixels of a frame are its number."""
    values = np.arange(3 * COUNT, dtype=np.uint8).reshape(COUNT, 3, 1, 1, 1)
    return np.broadcast_to(values, (COUNT, 3, *SIZE, 3))


@pytest.fixture(scope="module")
def truth():
    """Consecutive frames of one video, the camera driving ahead; the first row is unknown."""
    meters = RNG.uniform(2.0, 9.0, (COUNT, *SIZE)).astype(np.float32)
    meters[:, 0] = 0.0
    pose = np.tile(np.eye(4), (COUNT, 3, 1, 1))
    pose[:, 0, 2, 3], pose[:, 2, 2, 3] = 0.5, -0.5
    return DepthTruth(depth=meters, pose=pose, sequence=np.zeros(COUNT, np.int32))


@pytest.fixture(scope="module")
def prediction(truth):
    """The truth at a third of its scale, and anything where it is unknown."""
    pose = truth.pose.copy()
    pose[..., :3, 3] /= 3
    return DepthMaps(depth=np.where(truth.depth > 0, truth.depth, 5.0) / 3, pose=pose)


def test_the_config_says_how_depth_is_measured(images, prediction, truth):
    parts = {"test": Evaluated(prediction, truth)}
    numbers = depth.measure(subject_of(images), None, parts)
    assert numbers["scale"] == pytest.approx(3.0, rel=1e-5)
    assert numbers["abs_rel"] == pytest.approx(0.0, abs=1e-6)
    assert numbers["translation"] == pytest.approx(0.0, abs=1e-6)
    unscaled = depth.measure(subject_of(images, scaling="none"), None, parts)
    assert unscaled["abs_rel"] == pytest.approx(2 / 3, rel=1e-5)
    near = depth.measure(subject_of(images, scaling="none", max_depth=5.0), None, parts)
    assert near["rmse"] < 0.8 * unscaled["rmse"]


def test_the_baseline_is_a_constant_and_a_static_camera(images, prediction, truth):
    subject = subject_of(images)
    ((suffix, parts),) = depth.baselines(subject, {"test": Evaluated(prediction, truth)}).items()
    assert suffix == tables.TRIVIAL
    trivial, same_truth = parts["test"]
    assert same_truth is truth
    known = truth.depth[truth.depth > 0]
    np.testing.assert_allclose(trivial.depth, np.full(truth.depth.shape, known.mean()), rtol=1e-6)
    np.testing.assert_array_equal(trivial.pose, np.broadcast_to(np.eye(4), truth.pose.shape))
    numbers = depth.measure(subject_of(images, scaling="none"), None, parts)
    error = np.abs(known - known.mean()) / known
    assert numbers["abs_rel"] == pytest.approx(error.mean(), rel=1e-5)


@pytest.mark.parametrize("post_process", [False, True])
def test_the_config_says_whether_to_average_with_the_mirror_image(post_process):
    """Disparity of a network that sees everything more to the left as nearer."""
    slope = np.linspace(1.0, 2.0, 40, dtype=np.float32)
    batches = []

    def predictor(batch):
        batches.append(batch)
        return DepthMaps(disparity=np.broadcast_to(slope, (1, 4, 40))), {}

    subject = subject_of([], post_process=post_process)
    maps, _ = depth.predict(subject, predictor, {"image": np.zeros((1, 1, 4, 40, 3), np.uint8)})
    assert len(batches) == 1 + post_process
    middle = maps.disparity[0, 0, 10]
    assert middle == pytest.approx(1.5 if post_process else slope[10], rel=1e-5)


def drawn(monkeypatch, subject, prediction, truth, folder):
    """Columns of the picture, and the files."""
    grids, task_grid = [], figures.task_grid

    def spy(columns, path, **knobs):
        grids.append(columns)
        task_grid(columns, path, **knobs)

    monkeypatch.setattr(figures, "task_grid", spy)
    depth.draw(subject, {"": {"test": Evaluated(prediction, truth)}}, folder)
    (columns,) = grids
    return columns, {path.name for path in folder.iterdir()}


def test_depth_is_drawn_beside_its_truth(monkeypatch, images, prediction, truth, tmp_path):
    columns, files = drawn(monkeypatch, subject_of(images), prediction, truth, tmp_path)
    assert files == {"predictions.png", "trajectory.png"}
    error = "relative error, black 0 to white 0.5"
    assert list(columns) == ["image", "inverse depth", "ground truth", error]
    rows = [0, 1, 2, 3, 5, 6, 7, 9]  # eight of ten, evenly
    assert columns["image"][:, 0, 0, 0].tolist() == [3 * row + 1 for row in rows]  # the middle
    for title, values in (("inverse depth", prediction.depth), ("ground truth", truth.depth)):
        assert type(columns[title]) is InverseDepth
        expected = np.where(values > 0, 1 / np.where(values > 0, values, 1), np.nan)[rows]
        np.testing.assert_allclose(columns[title].values, expected, rtol=1e-6)
    assert np.max(columns[error][:, 1:]) <= 1  # of 255: right but for the scale
    assert (columns[error][:, 0] == 128).all()  # unknown


def test_what_is_unknown_is_not_drawn(monkeypatch, images, prediction, truth, tmp_path):
    without = DepthMaps(depth=prediction.depth)
    columns, files = drawn(monkeypatch, subject_of(images[:, :1]), without, DepthTruth(), tmp_path)
    assert files == {"predictions.png"} and list(columns) == ["image", "inverse depth"]
    disparity = DepthMaps(disparity=1 / prediction.depth)
    monkeypatch.undo()
    columns, _ = drawn(monkeypatch, subject_of(images[:, :1]), disparity, truth, tmp_path)
    assert list(columns) == ["image", "inverse depth"]
    np.testing.assert_array_equal(columns["inverse depth"].values[0], disparity.disparity[0])
