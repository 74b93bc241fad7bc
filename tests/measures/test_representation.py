"""The protocol: which numbers there are, the table, the file."""

import json

import numpy as np
import pytest

from sslax.measures import representation


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
        *("knn", "knn20", "linear", "linear_sgd", "linear_stage1", "linear_best_stage"),
        *("knn_10_labels", "knn_10_labels_std", "linear_10_labels", "linear_10_labels_std"),
        *("linear_10_percent", "linear_10_percent_std"),  # 1 % of 30 a class is less than one
        *("embedding_std", "relative_embedding_std", "effective_rank", "rankme", "uniformity"),
    }
    assert all(type(value) is float and np.isfinite(value) for value in results.values())
    for name in ("knn20", "linear", "linear_sgd", "linear_10_labels", "linear_10_percent"):
        assert results[name] > 0.8
    assert results["linear_stage1"] < 0.6  # pooled noise knows no class


def test_unlabeled_sets_have_only_collapse_measures(sets):
    train, _, test, _ = sets
    found = representation.evaluate_features(train, None, test, None)
    assert set(found) == set(representation._MEASURES)
    assert representation.results_table(found).endswith(representation.UNLABELED)


def test_too_few_of_a_class_leaves_the_few_label_numbers_out(sets, results, monkeypatch):
    monkeypatch.setattr(representation, "_FEW", 31)  # of 30 there are
    found = representation.evaluate_features(*sets, num_classes=3)
    assert found == {name: value for name, value in results.items() if "10_labels" not in name}


def test_one_percent_needs_one_of_a_class(sets, results, monkeypatch):
    monkeypatch.setattr(representation, "_PERCENT", (3, 4))  # of 30: 0.9 and 1.2
    found = representation.evaluate_features(*sets, num_classes=3)
    names = set(found) - set(results)
    assert names == {"linear_4_percent", "linear_4_percent_std"}


def test_best_stage_is_chosen_on_held_out_data(sets):
    train, labels, test, truth = sets
    both = [
        {**part, "stage0": part["features"], "stage2": part["features"][:, :1]}
        for part in (train, test)
    ]
    found = representation.evaluate_features(both[0], labels, both[1], truth, num_classes=3)
    assert found["linear_best_stage"] == found["linear_stage0"] > found["linear_stage2"] > 0.5
    # A test set on which another stage is better changes nothing.
    poor = {**both[1], "stage0": both[1]["stage1"]}
    again = representation.evaluate_features(both[0], labels, poor, truth, num_classes=3)
    assert again["linear_best_stage"] == again["linear_stage0"] < again["linear_stage2"]


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
    everything |= {"finetune": 0.91, "finetune_untrained": 0.875, "alignment": 0.25}
    table = representation.results_table(everything)
    lines = [line for line in table.splitlines() if line]
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["accuracy,", "%", "trained", "untrained", "pixels"]
    knn = next(line for line in lines if line.startswith("knn "))
    assert knn.split()[2:] == ["12.3", "100.0"]
    assert any(line.startswith("knn_10_labels ") and "±" in line for line in lines)
    assert not any("labels_std" in line for line in lines)
    assert any(line.split() == ["step", "2000", "-", "-"] for line in lines)
    assert any(line.split() == ["finetune", "91.0", "87.5", "-"] for line in lines)
    (best,) = (line for line in lines if line.startswith("linear_best_stage"))
    assert best.split()[2:] == ["(stage1)", "-", "-"]
    assert lines.index(next(line for line in lines if line.startswith("alignment"))) > (
        lines.index(next(line for line in lines if line.startswith("collapse")))
    )


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
