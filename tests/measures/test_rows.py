"""Sets that are spread over devices: eight measure what one does, block by block."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from sslax.measures import knn, linear, representation, rows


def mesh(devices):
    return Mesh(np.asarray(jax.devices()[:devices]), ("data",))


def problem(train, test, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, train + test)
    features = 1.5 * np.eye(3, 5)[labels] + rng.normal(size=(train + test, 5))
    features = features.astype(np.float32)
    return features[:train], labels[:train], features[train:], labels[train:]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of the bank and of the queries that none of the sets divides by."""
    monkeypatch.setattr(knn, "_BANK", 4)
    monkeypatch.setattr(knn, "_QUERIES", 16)
    jax.clear_caches()
    yield
    jax.clear_caches()


def knn_in_float64(x, y, t, k, temperature):
    """Predictions from the whole matrix of similarities."""
    x, t = (a.astype(np.float64) / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, t))
    similarity = t @ x.T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    weights = np.exp(np.take_along_axis(similarity, nearest, 1) / temperature)
    return np.argmax([np.bincount(y[n], w, 3) for n, w in zip(nearest, weights)], axis=1)


@pytest.mark.parametrize("k", [1, 5, 45])  # a device has 6 of the 45 rows, the last one 3
def test_neighbors_of_eight_devices_are_those_of_the_whole_matrix(k, small_blocks):
    x, y, t, _ = problem(45, 21)
    expected = knn_in_float64(x, y, t, k, 0.1)
    for devices in (1, 8):
        # The accuracy against these predictions is 1 where all of them agree.
        knobs = {"num_classes": 3, "k": k, "mesh": mesh(devices)}
        assert knn.knn_accuracy(x, y, t, expected, **knobs) == 1.0
        assert knn.knn_accuracy(x, y, t, (expected + 1) % 3, **knobs) == 0.0
    similarity, index = knn.nearest_neighbors(x, t, k=k)
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, t)]
    whole = unit[1] @ unit[0].T
    np.testing.assert_allclose(similarity, -np.sort(-whole, axis=1)[:, :k], atol=1e-6)
    np.testing.assert_allclose(
        np.take_along_axis(whole, np.asarray(index), 1), similarity, atol=1e-6
    )


def test_of_equal_neighbors_the_first_is_the_nearest(small_blocks):
    x = np.tile(np.float32([[1, 0], [0, 1]]), (11, 1))  # every second row is alike
    y = np.repeat([0, 1, 2], [2, 10, 10])  # the first of each kind has class 0
    t = np.float32([[2, 0], [0, 3]])
    assert knn.nearest_neighbors(x, t, k=3)[1].tolist() == [[0, 2, 4], [1, 3, 5]]
    for devices in (1, 8):
        found = knn.knn_accuracy(x, y, t, np.array([0, 0]), num_classes=3, k=1, mesh=mesh(devices))
        assert found == 1.0


def test_probes_of_eight_devices_are_those_of_one():
    x, y, t, truth = problem(203, 101)
    knobs = {"num_classes": 3, "epochs": 5, "batch_size": 32, "learning_rates": (0.3, 1e-5)}
    one, eight = (linear.sgd_probe(x, y, t, truth, mesh=mesh(n), **knobs) for n in (1, 8))
    assert one.chosen == eight.chosen == 0.3 and 0.6 < one.accuracy < 0.95
    assert eight.accuracy == pytest.approx(one.accuracy, abs=1.01 / 101)  # a tie may turn
    for rate, accuracy in one.held_out_accuracy.items():
        assert eight.held_out_accuracy[rate] == pytest.approx(accuracy, abs=1.01 / 40)
    few, many = (
        linear.few_label_accuracy(
            x, y, t, truth, num_classes=3, labels_per_class=5, trials=2, mesh=mesh(n)
        )
        for n in (1, 8)
    )
    np.testing.assert_allclose(few, many, atol=1.01 / 101)


def test_the_protocol_on_eight_devices_and_what_does_not_fit():
    x, y, t, truth = problem(120, 60)
    sets = {"features": x, "stage1": x[:, :2]}, y, {"features": t, "stage1": t[:, :2]}, truth
    one, eight = (
        representation.evaluate_features(*sets, num_classes=3, mesh=mesh(n)) for n in (1, 8)
    )
    assert one.keys() == eight.keys()
    for name, value in one.items():
        assert eight[name] == pytest.approx(value, abs=1.01 / 60, rel=1e-5), name
    needed = 4 * 120 * (3 * 5 + 7 * 3)
    for limit, left_out in ((needed, set()), (needed - 1, {"linear"})):
        found = representation.evaluate_features(*sets, num_classes=3, linear_bytes=limit)
        assert one.keys() - found.keys() == left_out
    # A tenth of the rows fits where all do not; what streams is there in any case.
    found = representation.evaluate_features(*sets, num_classes=3, linear_bytes=needed // 8)
    whole = {"linear", "linear_stage1", "linear_best_stage"}
    assert one.keys() - found.keys() == whole | {"linear_10_labels", "linear_10_labels_std"} | {
        "knn_10_labels",
        "knn_10_labels_std",
    }
    assert found["linear_sgd"] == one["linear_sgd"]


def test_collapse_is_measured_on_a_part_of_a_large_set(monkeypatch):
    z = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    drawn = np.random.default_rng(7).choice(40, 25, replace=False)
    monkeypatch.setattr(representation, "_COLLAPSE_ROWS", 25)
    parts = [{"features": rows} for rows in (z, z[drawn])]
    found, expected = (
        representation.evaluate_features(part, None, part, None, seed=7) for part in parts
    )
    assert found == expected


def test_a_layout_gives_every_device_its_rows():
    values = np.arange(10.0).reshape(5, 2)
    layout = rows.Layout(5, mesh(4))  # two rows on each device, three of them padding
    spread = layout.put(values, np.float32, fill=-1)
    assert spread.shape == (8, 2) and spread.dtype == np.float32
    assert {shard.data.shape for shard in spread.addressable_shards} == {(2, 2)}
    np.testing.assert_array_equal(np.asarray(spread)[layout.positions], values)
    assert (np.asarray(spread)[5:] == -1).all()
    np.testing.assert_array_equal(rows.own(spread), spread)
    index = np.array([4, 0, 4])
    np.testing.assert_array_equal(rows.take(values, index, mesh(4)), values[index])
