"""Linear probes of frozen features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sslax.measures import linear, logistic


@pytest.fixture(scope="module")
def problem():
    rng = np.random.RandomState(0)
    centers = rng.normal(size=(4, 6))
    labels = np.arange(240) % 4
    features = (centers[labels] + 1.2 * rng.normal(size=(240, 6))).astype(np.float32)
    return features[:160], labels[:160], features[160:], labels[160:]


def test_constant_feature_does_no_harm(problem):
    x, y, t, truth = problem
    wide = [np.concatenate([a, np.full((len(a), 1), 0.1, np.float32)], 1) for a in (x, t)]
    assert np.isfinite(logistic.principal_coordinates(*wide)[1]).all()
    plain = linear.logistic_regression(x, y, t, truth, num_classes=4, l2=1e-2).accuracy
    found = linear.logistic_regression(wide[0], y, wide[1], truth, num_classes=4, l2=1e-2).accuracy
    assert found == plain


def test_strength_is_chosen_on_held_out_data(problem):
    x, y, t, truth = problem
    result = linear.logistic_regression(x, y, t, truth, num_classes=4)
    assert result.accuracy == pytest.approx(0.83, abs=0.04)
    held_out = result.held_out_accuracy
    assert held_out[result.chosen] == max(held_out.values())
    # The strongest of equals; the search ended two strengths after the best.
    assert result.chosen == next(k for k, v in held_out.items() if v == max(held_out.values()))
    tried = list(held_out)
    assert tried == list(linear.L2_GRID[: tried.index(result.chosen) + 3])
    # Test labels have no influence.
    shuffled = linear.logistic_regression(x, y, t, truth[::-1], num_classes=4)
    assert (shuffled.chosen, shuffled.held_out_accuracy) == (result.chosen, held_out)


def test_sgd_probe(problem):
    x, y, t, truth = problem
    result = linear.sgd_probe(x, y, t, truth, num_classes=4, epochs=30, batch_size=32)
    assert result.accuracy == pytest.approx(0.83, abs=0.05)
    assert result.held_out_accuracy[result.chosen] == max(result.held_out_accuracy.values())
    again = linear.sgd_probe(x, y, t, truth, num_classes=4, epochs=30, batch_size=32)
    assert again == result


def test_sgd_steps_are_momentum_sgd_with_cosine_decay():
    """Against NumPy, with full batches so that the order of examples does not matter."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)).astype(np.float32), np.arange(12) % 2
    ones, onehot = np.concatenate([x, np.ones((12, 1), np.float32)], 1), np.eye(2)[y]

    def take(index):
        return jnp.asarray(ones)[index], jnp.asarray(y)[index]

    w = linear._sgd(jax.random.key(0), take, jnp.arange(12), jnp.array([0.5]), (2, 4), 4, 12)[0]
    expected, velocity = np.zeros((2, 4)), np.zeros((2, 4))
    for step in range(4):
        p = np.exp(ones @ expected.T)
        p /= p.sum(1, keepdims=True)
        velocity = 0.9 * velocity + (p - onehot).T @ ones / 12
        expected -= 0.5 * 0.5 * (1 + np.cos(np.pi * step / 4)) * velocity
    np.testing.assert_allclose(w, expected, atol=1e-5)


def test_few_labels(problem):
    x, y, t, truth = problem
    result = linear.few_label_accuracy(x, y, t, truth, num_classes=4, labels_per_class=5, trials=3)
    assert 0.4 < result.knn < 0.9 and 0.4 < result.linear < 0.9
    assert result.knn_std > 0 and result.linear_std > 0
    # With every example of each class there is only one draw, so no spread.
    full = linear.few_label_accuracy(x, y, t, truth, num_classes=4, labels_per_class=40, trials=2)
    assert full.knn_std == 0
    with pytest.raises(ValueError, match="Class 0 has 40 training examples; 41 of each"):
        linear.few_label_accuracy(x, y, t, truth, num_classes=4, labels_per_class=41)


def test_a_fraction_of_the_labels_matches_scikit_learn_on_the_same_draws(problem):
    x, y, t, truth = problem
    found = linear.label_fraction_accuracy(
        x, y, t, truth, num_classes=4, fraction=0.2, trials=3, seed=5
    )
    train, test = ((a - x.mean(0)) / x.std(0) for a in (x, t))
    accuracies = []
    for trial in range(3):
        index = linear.draw_fraction(y, 0.2, seed=5 + trial)
        reference = LogisticRegression(C=1 / (len(index) * 1e-2), tol=1e-8, max_iter=10000)
        accuracies.append(reference.fit(train[index], y[index]).score(test, truth))
    assert found.accuracy == pytest.approx(np.mean(accuracies), abs=1e-6)
    assert found.std == pytest.approx(np.std(accuracies), abs=1e-6)
    assert found.std > 0


def test_draws_are_class_balanced():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], 200))
    for fraction, each in ((0.01, 2), (0.1, 20), (1.0, 200)):
        index = linear.draw_fraction(labels, fraction)
        assert np.bincount(labels[index]).tolist() == [each] * 3
        assert (np.diff(index) > 0).all()
    # Proportions are kept, and no class is dropped.
    labels = np.repeat([0, 1, 2, 3], [100, 30, 4, 1])
    counts = np.bincount(labels[linear.draw_fraction(labels, 0.1)])
    assert counts.tolist() == [10, 3, 1, 1]
    np.testing.assert_array_equal(linear.draw_fraction(labels, 1.0), np.arange(135))
    draws = [linear.draw_fraction(labels, 0.1, seed=seed).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    for fraction in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"lies in .0, 1.; got {fraction}"):
            linear.draw_fraction(labels, fraction)


def test_held_out_is_stratified():
    labels = np.repeat([0, 1, 2, 3], [50, 10, 2, 1])
    mask = linear.held_out_mask(labels)
    assert [int(mask[labels == c].sum()) for c in range(4)] == [10, 2, 1, 0]
    with pytest.raises(ValueError, match="No class has two"):
        linear.held_out_mask(np.arange(3))
