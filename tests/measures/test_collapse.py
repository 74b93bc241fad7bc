"""Collapse measures on embeddings whose answer is known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax.measures import collapse

MEASURES = [
    collapse.embedding_std,
    collapse.relative_embedding_std,
    collapse.effective_rank,
    collapse.rankme,
    collapse.uniformity,
]
WHEN_COLLAPSED = [0.0, 0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(("measure", "expected"), list(zip(MEASURES, WHEN_COLLAPSED)))
def test_collapsed_and_zero_embeddings(measure, expected):
    row = np.random.default_rng(0).normal(size=8).astype(np.float32)
    for z in (np.tile(row, (40, 1)), np.zeros((40, 8)), np.tile(1e3 * row, (40, 1))):
        assert jax.jit(measure)(z) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("measure", [collapse.embedding_std, collapse.effective_rank])
def test_gradients_are_finite_where_collapsed(measure):
    slope = jax.jit(jax.grad(measure))
    for z in (np.ones((6, 4)), np.zeros((6, 4)), np.eye(6, 4)):
        assert np.isfinite(slope(z)).all()


def test_effective_rank_counts_dimensions():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(50, 7)) * np.array([3, 2, 1, 1, 0.5, 0.1, 0]) + 5
    values = np.linalg.eigvalsh(np.cov(z.T))
    expected = values.sum() ** 2 / (values**2).sum()
    effective_rank = jax.jit(collapse.effective_rank)
    assert effective_rank(z) == pytest.approx(expected, rel=1e-4)
    # The same from the [N, N] side, and in any unit.
    wide = rng.normal(size=(7, 50))
    values = np.linalg.eigvalsh(np.cov(wide.T))
    expected = values.sum() ** 2 / (values**2).sum()
    for scale in (1e-4, 1.0, 1e4):
        assert effective_rank(scale * wide) == pytest.approx(expected, rel=1e-4)


def test_rankme_and_std_of_known_embeddings():
    z = np.random.default_rng(0).normal(size=(30, 5))
    sigma = np.linalg.svd(z, compute_uv=False)
    p = sigma / sigma.sum()
    assert jax.jit(collapse.rankme)(z) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    found = jax.jit(collapse.embedding_std)(z)
    assert found == pytest.approx(unit.std(0).mean(), rel=1e-5)


def lidar_in_float64(z, delta):
    """By the paper's matrices, with the square root of the inverse itself."""
    n, q, width = z.shape
    means = z.mean(1)
    between = sum(np.outer(m, m) for m in means - means.mean(0)) / (n - 1)
    within = sum(np.outer(v, v) for v in (z - means[:, None]).reshape(-1, width)) / (n * (q - 1))
    values, axes = np.linalg.eigh(within + delta * np.eye(width))
    root = axes @ np.diag(values**-0.5) @ axes.T
    p = np.clip(np.linalg.eigvalsh(root @ between @ root), 1e-300, None)
    p /= p.sum()
    return np.exp(-(p * np.log(p)).sum())


@pytest.mark.parametrize(("images", "width"), [(40, 6), (5, 9)])  # of full rank, and fewer images
def test_lidar_by_the_papers_matrices(images, width):
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(images, 1, width)) * np.linspace(3, 0.3, width)
    z = centers + rng.normal(size=(images, 4, width)) * np.linspace(0.2, 1, width) + 7
    for delta in (1e-4, 0.1):
        found = jax.jit(partial(collapse.lidar, delta=delta))(z)
        assert found == pytest.approx(lidar_in_float64(z, delta), rel=1e-3)


def test_lidar_of_known_embeddings():
    rng = np.random.default_rng(1)
    informative = np.concatenate([np.eye(3), -np.eye(3)])[:, None]  # three directions of images
    z = np.concatenate([informative.repeat(200, 1), rng.normal(size=(6, 200, 5))], axis=2)
    # Five more, in which only the views differ: RankMe counts them, LiDAR hardly does.
    lidar = jax.jit(collapse.lidar)
    assert lidar(z) == pytest.approx(3.0, abs=0.05)
    assert jax.jit(collapse.rankme)(z.reshape(-1, 8)) > 6
    # It does not depend on the unit while delta is negligible, nor on a rotation.
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    noisy = (z + 0.1 * rng.normal(size=z.shape)) @ rotation
    large, small = (float(lidar(scale * noisy)) for scale in (100, 10))
    assert large == pytest.approx(small, rel=1e-3)
    one = np.full((4, 3, 5), 2.0)
    assert lidar(one) == pytest.approx(1.0, abs=2e-3)  # collapsed
    line = np.linspace(0, 1, 6)[:, None, None] * np.ones((6, 2, 4))
    assert lidar(line) == pytest.approx(1.0, abs=1e-3)
    for shape in ((1, 4, 3), (4, 1, 3)):
        with pytest.raises(ValueError, match="at least 2 of each"):
            collapse.lidar(jnp.zeros(shape))


def test_alignment_and_uniformity_by_the_papers_sums():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 9, 4))
    u, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    gap = np.linalg.norm(u - v, axis=1)
    for alpha in (1.0, 2.0):
        found = jax.jit(partial(collapse.alignment, alpha=alpha))(x, y)
        assert found == pytest.approx((gap**alpha).mean(), rel=1e-5)
    pairs = [np.exp(-2 * ((u[i] - u[j]) ** 2).sum()) for i in range(9) for j in range(i)]
    uniformity = jax.jit(collapse.uniformity)
    assert uniformity(x) == pytest.approx(np.log(np.mean(pairs)), rel=1e-5)
    assert jax.jit(collapse.alignment)(x, 3 * x) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="at least 2"):
        collapse.uniformity(jnp.ones((1, 3)))
