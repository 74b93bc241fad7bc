"""The task of optical flow: baselines, numbers, pictures."""

from types import SimpleNamespace

import numpy as np
import pytest

from sslax import figures
from sslax.tasks import flow, tables
from sslax.tasks.base import Evaluated, Subject
from sslax.types import FlowField, FlowMaps, FlowTruth

RNG = np.random.default_rng(0)
COUNT, SIZE = 5, (6, 10)


def subject_of(frames):
    values = np.arange(frames * COUNT, dtype=np.uint8).reshape(COUNT, frames, 1, 1, 1)
    images = np.broadcast_to(values, (COUNT, frames, *SIZE, 3))
    dataset = SimpleNamespace(train=[], test=[{"image": image} for image in images])
    return Subject(None, None, dataset, {}, 0, "")


@pytest.fixture(scope="module")
def truth():
    known = np.ones((COUNT, *SIZE), bool)
    known[:, 0] = False
    return FlowTruth(
        flow=RNG.normal(0, 4, (COUNT, *SIZE, 2)).astype(np.float32),
        known=known,
        visible=RNG.random((COUNT, *SIZE)) < 0.8,
    )


@pytest.fixture(scope="module")
def prediction(truth):
    return FlowMaps(truth.flow + np.float32([3.0, 4.0]), visible=truth.visible.astype(np.float32))


def test_the_baseline_is_zero_flow(prediction, truth):
    parts = {"test": Evaluated(prediction, truth)}
    numbers = flow.measure(subject_of(2), None, parts)
    assert numbers["epe"] == pytest.approx(5.0, rel=1e-5) and numbers["occlusion_f1"] == 1.0
    ((suffix, trivial),) = flow.baselines(subject_of(2), parts).items()
    assert suffix == tables.TRIVIAL and not np.any(trivial["test"].prediction.flow)
    numbers = flow.measure(subject_of(2), None, trivial)
    speed = np.linalg.norm(truth.flow, axis=-1)[:, 1:]
    assert numbers["epe"] == pytest.approx(speed.mean(), rel=1e-5)
    assert "occlusion_f1" not in numbers  # nothing is said about it


@pytest.mark.parametrize(("frames", "first"), [(2, 0), (3, 1)])
def test_flow_is_drawn_beside_its_truth(monkeypatch, prediction, truth, tmp_path, frames, first):
    grids, task_grid = [], figures.task_grid

    def spy(columns, path, **knobs):
        grids.append(columns)
        task_grid(columns, path, **knobs)

    monkeypatch.setattr(figures, "task_grid", spy)
    predicted = {"": {"test": Evaluated(prediction, truth)}}
    flow.draw(subject_of(frames), predicted, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"predictions.png"}
    (columns,) = grids
    titles = ["image", "flow", "ground truth", "visible", "truly visible"]
    assert list(columns) == titles
    assert columns["image"][:, 0, 0, 0].tolist() == [frames * i + first for i in range(COUNT)]
    ours, theirs = columns["flow"], columns["ground truth"]
    assert type(ours) is type(theirs) is FlowField
    np.testing.assert_array_equal(ours.max_radius, theirs.max_radius)  # of the true speeds
    np.testing.assert_array_equal(ours.values, prediction.flow)
    assert np.isnan(theirs.values[:, 0]).all()
    np.testing.assert_array_equal(theirs.values[:, 1:], truth.flow[:, 1:])
    np.testing.assert_array_equal(columns["visible"][..., 0], prediction.visible)


def test_without_truth_flow_is_drawn_alone(monkeypatch, prediction, tmp_path):
    grids = []
    monkeypatch.setattr(figures, "task_grid", lambda columns, *_, **__: grids.append(columns))
    predicted = {"": {"test": Evaluated(FlowMaps(prediction.flow), FlowTruth())}}
    flow.draw(subject_of(2), predicted, tmp_path)
    assert list(grids[0]) == ["image", "flow"]
    assert np.isfinite(grids[0]["flow"].max_radius).all()
