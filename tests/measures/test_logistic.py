"""The logistic-regression solver; golden values of experiments/golden/evaluate.py."""

import numpy as np
import pytest

from sslax.measures import logistic


@pytest.fixture(scope="module")
def problem():
    rng = np.random.RandomState(0)
    centers = rng.normal(size=(4, 6))
    labels = np.arange(240) % 4
    features = (centers[labels] + 1.2 * rng.normal(size=(240, 6))).astype(np.float32)
    return features[:160], labels[:160], features[160:], labels[160:]


# l2: loss, test accuracy, the first feature's weights minus their mean over classes
GOLDEN = {
    1e-1: (0.69109012, 0.85, [0.21056, 0.02731, -0.01675, -0.22111]),
    1e-2: (0.49766677, 0.8375, [0.35836, -0.00634, 0.02167, -0.37369]),
    1e-4: (0.43482134, 0.8125, [0.45141, -0.03758, 0.05995, -0.47378]),
}


@pytest.mark.parametrize("l2", GOLDEN)
def test_logistic_regression_matches_scikit_learn(problem, l2):
    x, y, t, truth = problem
    loss, accuracy, weights = GOLDEN[l2]
    fit = logistic.fit_logistic(x, y, num_classes=4, l2=l2, tolerance=1e-5)
    assert fit.gradient_norm <= 1e-5
    assert fit.loss == pytest.approx(loss, abs=2e-6)
    np.testing.assert_allclose(fit.weights[0] - fit.weights[0].mean(), weights, atol=1e-3)
    predicted = (t @ fit.weights + fit.bias).argmax(-1)
    assert np.mean(predicted == truth) == pytest.approx(accuracy, abs=1e-6)


def test_zero_weight_leaves_an_example_out(problem):
    x, y, _, _ = problem
    a = np.where(np.arange(160) < 100, 1.0, 0.0).astype(np.float32)
    zeroed = logistic.fit_logistic(x, y, num_classes=4, l2=1e-2, example_weights=a, tolerance=1e-5)
    absent = logistic.fit_logistic(x[:100], y[:100], num_classes=4, l2=1e-2, tolerance=1e-5)
    np.testing.assert_allclose(zeroed.weights, absent.weights, atol=1e-3)
    again = logistic.fit_logistic(
        x, y, num_classes=4, l2=1e-2, example_weights=a, initial=zeroed, tolerance=1e-5
    )
    assert again.iterations == 0


def test_solver_converges_where_classes_separate(problem):
    _, y, _, _ = problem
    x = 3.0 * np.eye(4, dtype=np.float32)[y]  # separable: without a penalty the weights diverge
    fit = logistic.fit_logistic(x, y, num_classes=4, l2=1e-6)
    assert fit.gradient_norm <= 1e-4
    assert np.isfinite(fit.weights).all()


def test_rotation_does_not_change_the_fit(problem):
    x, y, t, _ = problem
    turned, turned_test = logistic.principal_coordinates(x, t)
    plain = (x - x.mean(0)) / x.std(0), (t - x.mean(0)) / x.std(0)
    np.testing.assert_allclose(turned @ turned.T, plain[0] @ plain[0].T, atol=1e-3)
    one = logistic.fit_logistic(turned, y, num_classes=4, l2=1e-2, tolerance=1e-5)
    other = logistic.fit_logistic(plain[0], y, num_classes=4, l2=1e-2, tolerance=1e-5)
    logits = turned_test @ one.weights + one.bias
    expected = plain[1] @ other.weights + other.bias
    # A shift common to all classes changes no probability, so it is arbitrary.
    logits, expected = (a - a.mean(-1, keepdims=True) for a in (logits, expected))
    np.testing.assert_allclose(logits, expected, atol=1e-3)
