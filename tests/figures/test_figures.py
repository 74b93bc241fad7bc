"""Figures are written, have the right size, and show what they should."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sslax import figures
from sslax.figures import embedding, grids, progress, style
from sslax.types import FlowField, InverseDepth


def read(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def near(picture, color):
    """How many pixels have nearly the color."""
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(picture - wanted).max(-1) <= 6).sum())


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return {
        "gray": rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8),
        "rgb": rng.random((40, 12, 10, 3), dtype=np.float32),
    }


def test_importing_sslax_does_not_import_matplotlib():
    code = "import sys, sslax, sslax.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_curves(tmp_path):
    log = tmp_path / "metrics.jsonl"
    lines = [{"step": s, "loss": 5.0 / (1 + s), "accuracy": 0.1 * s, "x": "a"} for s in range(5)]
    lines += [{"step": 4, "loss": 7.0}, {"step": 5, "loss": float("nan"), "accuracy": 0.5}]
    log.write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 6, "lo')
    series = progress.read_series(log)
    assert series["loss"][0].tolist() == [0, 1, 2, 3, 4] and series["loss"][1][-1] == 7.0
    assert series["accuracy"][0].tolist() == [0, 1, 2, 3, 4, 5]
    figures.curves(log, tmp_path / "new" / "curves.png")
    picture = read(tmp_path / "new" / "curves.png")
    assert picture.shape[1] == round((3.6 * 2 + 0.3) * style.DPI)  # two panels
    assert near(picture, style.LINE) > 200
    log.write_text('{"step": 1, "loss": 2.0}\n')
    figures.curves(log, tmp_path / "one.png")
    assert near(read(tmp_path / "one.png"), style.LINE) > 10
    log.write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.curves(log, tmp_path / "none.png")


def test_task_grid_shows_its_columns(tmp_path):
    red, blue = np.zeros((2, 6, 6, 3), np.uint8), np.zeros((2, 4, 4, 3), np.float32)
    red[..., 0], blue[..., 2] = 255, 1.0
    columns = {"red": red, "blue": blue, "a title of several words": blue, "blue again": blue}
    figures.task_grid(columns, tmp_path / "a.png")
    picture = read(tmp_path / "a.png")
    assert 2.7 < near(picture, "#0000ff") / near(picture, "#ff0000") < 3.3
    figures.task_grid({"gray": red[:1, ..., :1]}, tmp_path / "b.png", title="One")
    assert read(tmp_path / "b.png").std() > 5


def test_task_grid_colors_its_maps(tmp_path):
    flow = np.zeros((2, 6, 6, 2), np.float32)
    flow[..., 0] = 3.0
    columns = {"flow": FlowField(flow), "depth": InverseDepth(np.full((2, 6, 6), np.nan))}
    figures.task_grid(columns, tmp_path / "a.png")
    picture = read(tmp_path / "a.png")
    assert near(picture, "#ff0000") > 5000 and near(picture, "#808080") > 5000


def test_neighbors_frames_tell_right_from_wrong(tmp_path, images):
    for kind in images.values():
        test, train = kind[:6], kind[6:]
        labels, train_labels = np.arange(6) % 2, np.arange(34) % 2
        good, bad = np.eye(2), np.eye(2)[::-1]
        figures.neighbors(
            test,
            train,
            before=(bad[labels], good[train_labels]),
            after=(good[labels], good[train_labels]),
            labels=labels,
            train_labels=train_labels,
            class_names=("a", "a name that is far too long"),
            path=tmp_path / "n.png",
            queries=4,
        )
        picture = read(tmp_path / "n.png")
        before, after = picture[:, : picture.shape[1] // 2], picture[:, picture.shape[1] // 2 :]
        assert near(before, style.WRONG) > 500 and near(before, style.RIGHT) == 0
        assert near(after, style.RIGHT) > 500


def test_neighbors_without_labels_and_with_few_images(tmp_path, images):
    test, train = images["rgb"][:1], images["rgb"][1:3]
    features = np.zeros((1, 4)), np.zeros((2, 4))
    figures.neighbors(test, train, before=features, after=features, path=tmp_path / "n.png")
    picture = read(tmp_path / "n.png")
    assert picture.std() > 5
    assert near(picture, style.RIGHT) == near(picture, style.WRONG) == 0


def test_queries_take_the_classes_in_turn():
    labels = np.repeat([0, 1, 2], [100, 5, 5])
    chosen = grids._spread_choice(labels, 110, 6, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [2, 2, 2]


def test_embedding_map(tmp_path, images):
    labels = np.arange(40) % 3
    features = np.eye(3)[labels] + 0.01 * np.random.default_rng(0).normal(size=(40, 3))
    gray = images["gray"]
    figures.embedding_map(features, gray, labels, ("a", "b", "c"), tmp_path / "m.png")
    picture = read(tmp_path / "m.png")
    assert picture.shape[:2] == (round(8.0 * style.DPI), round(9.1 * style.DPI))
    assert all(near(picture, style.color(c)) > 50 for c in range(3))
    figures.embedding_map(features, images["rgb"], None, None, tmp_path / "u.png")
    assert all(near(read(tmp_path / "u.png"), style.color(c)) == 0 for c in range(3))


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_embedding_map_of_few_collapsed_or_one_class(tmp_path, images, count):
    for features in (np.ones((count, 4)), np.zeros((count, 4)), np.random.rand(count, 1)):
        points = embedding.project(features)
        assert points.shape == (count, 2) and points.min() >= 0 and points.max() <= 1
    figures.embedding_map(
        np.ones((count, 4)), images["rgb"][:count], np.zeros(count, int), None, tmp_path / "m.png"
    )
    assert read(tmp_path / "m.png").std() > 2


def test_projection_keeps_clusters_apart():
    labels = np.repeat([0, 1], 30)
    features = np.eye(5)[labels] + 0.01 * np.random.default_rng(0).normal(size=(60, 5))
    points = embedding.project(features)
    centers = [points[labels == c].mean(0) for c in (0, 1)]
    spread = max(points[labels == c].std() for c in (0, 1))
    assert np.linalg.norm(centers[0] - centers[1]) > spread
    np.testing.assert_array_equal(points, embedding.project(features))


def test_thumbnails_do_not_overlap():
    points = np.random.default_rng(0).random((200, 2))
    taken = points[embedding._apart(points, 0.1, 30)]
    gaps = np.abs(taken[:, None] - taken[None]).max(-1) + np.eye(len(taken))
    assert gaps.min() >= 0.1 and len(taken) == 30


def dense(seed, *, object_at):
    """Features of an object, at a place of its own in each image, before a background."""
    rng = np.random.default_rng(seed)
    features = 0.05 * rng.normal(size=(2, 6, 8, 16)) + np.eye(16)[0]
    for image, (row, column) in enumerate(object_at):
        place = features[image, row : row + 2, column : column + 3]
        place += -3 * np.eye(16)[1] + np.arange(3)[:, None] * np.eye(16)[2]
    return features


def test_dense_features_have_the_same_colors_in_all_images(tmp_path, images):
    features = dense(0, object_at=[(2, 1), (3, 4)])
    colors = figures.patch_colors(features)
    assert colors.shape == (2, 6, 8, 3) and colors.min() == 0 and colors.max() == 1
    alike = colors[0, 2:4, 1:4, :2], colors[1, 3:5, 4:7, :2]  # blue is noise: there are two parts
    np.testing.assert_allclose(*alike, atol=0.3)
    assert np.abs(colors[0, 2, 1] - colors[0, 0, 0]).max() > 0.5
    front = figures.patch_colors(features, foreground=True)
    shown = front.any(-1)
    assert shown[0, 2:4, 1:4].all() and shown[1, 3:5, 4:7].all() and shown.sum() == 12
    left, right = front[0, 2:4, 1], front[0, 2:4, 3]  # what the background hid
    assert np.abs(left - right).max(-1).min() > 0.5
    figures.patch_features(images["rgb"][:2], features, tmp_path / "patches.png", foreground=True)
    assert read(tmp_path / "patches.png").shape[1] > 300
