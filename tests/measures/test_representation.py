"""The evaluation protocol of an encoder: which numbers there are, and from what."""

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


def test_all_numbers_are_plausible(results):
    assert set(results) == {
        *("knn", "knn20", "linear", "linear_sgd", "linear_stage1", "linear_best_stage"),
        *("knn_10_labels", "knn_10_labels_std", "linear_10_labels", "linear_10_labels_std"),
        *("linear_10_percent", "linear_10_percent_std"),  # 1 % of 30 per class is less than one
        *("embedding_std", "relative_embedding_std", "effective_rank", "rankme", "uniformity"),
    }
    assert all(type(value) is float and np.isfinite(value) for value in results.values())
    for name in ("knn20", "linear", "linear_sgd", "linear_10_labels", "linear_10_percent"):
        assert results[name] > 0.8
    assert results["linear_stage1"] < 0.6  # pooled noise has no class information


def test_unlabeled_sets_have_only_collapse_measures(sets):
    train, _, test, _ = sets
    found = representation.evaluate_features(train, None, test, None)
    of_views = {representation.ALIGNMENT, representation.LIDAR}
    assert set(found) | of_views == set(representation.COLLAPSE)


def test_few_label_accuracies_need_enough_examples_per_class(sets, results, monkeypatch):
    monkeypatch.setattr(representation, "_FEW", 31)  # of 30
    found = representation.evaluate_features(*sets, num_classes=3)
    assert found == {name: value for name, value in results.items() if "10_labels" not in name}


def test_percentages_need_one_example_per_class(sets, results, monkeypatch):
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
    # A test set on which another stage is better does not change the choice.
    poor = {**both[1], "stage0": both[1]["stage1"]}
    again = representation.evaluate_features(both[0], labels, poor, truth, num_classes=3)
    assert again["linear_best_stage"] == again["linear_stage0"] < again["linear_stage2"]


def test_errors(sets):
    train, labels, test, truth = sets
    with pytest.raises(ValueError, match="must name the same arrays"):
        representation.evaluate_features(
            {"features": train["features"]}, labels, test, truth, num_classes=3
        )
    with pytest.raises(ValueError, match="without num_classes"):
        representation.evaluate_features(train, labels, test, truth)


def test_pixel_features():
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    found = representation.pixel_features(images)
    np.testing.assert_allclose(found, images.reshape(5, -1) / 255, atol=1e-6)
    smaller = representation.pixel_features(np.full((5, 8, 4, 1), 0.5, np.float32), max_side=4)
    np.testing.assert_allclose(smaller, np.full((5, 8), 0.5), atol=1e-6)
