"""The protocol: which numbers there are, the table, the file."""

import json

import numpy as np
import pytest

from sslax.evaluate import representation


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    good = (np.eye(3)[labels] + 0.3 * rng.normal(size=(120, 3))).astype(np.float32)
    noise = rng.normal(size=(120, 2, 2, 3)).astype(np.float32)  # [N, h, w, C]
    parts = [{"features": good[i], "stage1": noise[i]} for i in (slice(90), slice(90, None))]
    return parts[0], labels[:90], parts[1], labels[90:]


@pytest.fixture(scope="module")
def results(sets):
    return representation.evaluate_features(*sets, num_classes=3)


def test_every_number_is_there_and_means_something(results):
    assert set(results) == {
        *("knn", "knn20", "linear", "linear_sgd", "linear_stage1"),
        *("knn_10_labels", "knn_10_labels_std", "linear_10_labels", "linear_10_labels_std"),
        *("embedding_std", "relative_embedding_std", "effective_rank", "rankme", "uniformity"),
    }
    assert all(type(value) is float and np.isfinite(value) for value in results.values())
    for name in ("knn20", "linear", "linear_sgd", "linear_10_labels"):
        assert results[name] > 0.8
    assert results["linear_stage1"] < 0.6  # pooled noise knows no class


def test_unlabelled_sets_have_only_collapse_measures(sets):
    train, _, test, _ = sets
    found = representation.evaluate_features(train, None, test, None)
    assert set(found) == set(representation._MEASURES)
    assert representation.results_table(found).endswith(representation.UNLABELLED)


def test_too_few_of_a_class_leaves_the_few_label_numbers_out(sets, results, monkeypatch):
    monkeypatch.setattr(representation, "_FEW", 31)  # of 30 there are
    found = representation.evaluate_features(*sets, num_classes=3)
    assert found == {name: value for name, value in results.items() if "10_labels" not in name}


def test_mistakes_are_named(sets):
    train, labels, test, truth = sets
    with pytest.raises(ValueError, match="must name the same arrays"):
        representation.evaluate_features(
            {"features": train["features"]}, labels, test, truth, num_classes=3
        )
    with pytest.raises(ValueError, match="without num_classes"):
        representation.evaluate_features(train, labels, test, truth)


def test_table_lines_up(results):
    everything = results | {"step": 2000}
    everything |= representation.suffixed({"knn": 0.123456, "rankme": 2.5}, "untrained")
    everything |= representation.suffixed({"knn": 1.0, "linear_10_labels": 0.5}, "pixels")
    table = representation.results_table(everything)
    lines = [line for line in table.splitlines() if line]
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["accuracy,", "%", "trained", "untrained", "pixels"]
    knn = next(line for line in lines if line.startswith("knn "))
    assert knn.split()[2:] == ["12.3", "100.0"]
    assert any(line.startswith("knn_10_labels ") and "±" in line for line in lines)
    assert not any("labels_std" in line for line in lines)
    assert any(line.split() == ["step", "2000", "-", "-"] for line in lines)


def test_results_file(tmp_path):
    path = tmp_path / "run" / "results.json"
    representation.write_results(path, {"b": np.float32(0.25), "a": np.nan, "step": 3})
    assert path.read_text() == '{\n  "a": null,\n  "b": 0.25,\n  "step": 3.0\n}\n'
    representation.write_results(path, {"b": 1})
    assert json.loads(path.read_text()) == {"b": 1.0}
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_pixel_features():
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    found = representation.pixel_features(images)
    np.testing.assert_allclose(found, images.reshape(5, -1) / 255, atol=1e-6)
    smaller = representation.pixel_features(np.full((5, 8, 4, 1), 0.5, np.float32), max_side=4)
    np.testing.assert_allclose(smaller, np.full((5, 8), 0.5), atol=1e-6)
