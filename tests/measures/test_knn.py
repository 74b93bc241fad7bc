"""kNN against lightly and scikit-learn (values of experiments/golden/evaluate.py)."""

import jax.numpy as jnp
import numpy as np
import pytest

from sslax.measures import knn


@pytest.fixture(scope="module")
def problem():
    rng = np.random.RandomState(0)
    centers = rng.normal(size=(4, 6))
    labels = np.arange(240) % 4
    features = (centers[labels] + 1.2 * rng.normal(size=(240, 6))).astype(np.float32)
    return features[:160], labels[:160], features[160:], labels[160:]


GOLDEN = {
    (20, 0.07): (
        0.7875,
        [[0, 2, 1, 3], [1, 2, 0, 3], [3, 2, 1, 0], [3, 0, 1, 2], [0, 1, 2, 3]],
        [
            [0.820611, 0.0, 0.179389, 0.0],
            [0.107335, 0.766749, 0.123298, 0.002618],
            [0.027235, 0.136666, 0.26182, 0.57428],
        ],
    ),
    (100, 0.1): (
        0.8125,
        [[0, 2, 1, 3], [1, 2, 0, 3], [3, 2, 1, 0], [3, 0, 2, 1], [0, 2, 1, 3]],
        [
            [0.768187, 0.01103, 0.211495, 0.009288],
            [0.102817, 0.726262, 0.137749, 0.033172],
            [0.085348, 0.183717, 0.283789, 0.447146],
        ],
    ),
}


@pytest.mark.parametrize(("k", "temperature"), GOLDEN)
def test_matches_lightly_and_scikit_learn(problem, k, temperature):
    x, y, t, truth = problem
    accuracy, ranking, probabilities = GOLDEN[k, temperature]
    p = np.asarray(knn.knn_probabilities(x, y, t, num_classes=4, k=k, temperature=temperature))
    np.testing.assert_allclose(p[:3], probabilities, atol=2e-5)
    assert np.argsort(-p[:5], axis=1, kind="stable").tolist() == ranking
    found = knn.knn_accuracy(x, y, t, truth, num_classes=4, k=k, temperature=temperature)
    assert found == pytest.approx(accuracy, abs=1e-12)


def test_chunks_do_not_change_neighbors(problem):
    x, _, t, _ = problem
    whole = knn.nearest_neighbors(x, t, k=5)
    parts = knn.nearest_neighbors(x, t, k=5, chunk_size=33)  # 80 = 2 * 33 + 14
    np.testing.assert_array_equal(whole[1], parts[1])
    cosine = t @ x.T / np.linalg.norm(t, axis=1)[:, None] / np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(whole[0], -np.sort(-cosine, axis=1)[:, :5], atol=1e-6)


def test_small_temperature_and_low_precision_stay_finite(problem):
    x, y, t, _ = problem
    p = knn.knn_probabilities(x, y, t, num_classes=4, k=5, temperature=1e-3)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)  # exp(1 / T) alone would overflow
    zeros = knn.knn_probabilities(jnp.zeros_like(x), y, t, num_classes=4, k=5)
    assert np.isfinite(zeros).all()
    half = knn.nearest_neighbors(jnp.asarray(x, jnp.bfloat16), jnp.asarray(t, jnp.bfloat16), k=3)
    assert half[0].dtype == jnp.float32


def test_errors(problem):
    x, y, t, truth = problem
    with pytest.raises(ValueError, match="k = 161 neighbors were requested from 160"):
        knn.knn_accuracy(x, y, t, truth, num_classes=4, k=161)
    with pytest.raises(ValueError, match=r"labels span 1 to 4 but num_classes is 4"):
        knn.knn_accuracy(x, y + 1, t, truth, num_classes=4, k=5)
    with pytest.raises(AssertionError):
        knn.knn_accuracy(x, y[:-1], t, truth, num_classes=4, k=5)
