"""Self-distillation losses against references and at singular points."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import losses


def test_equal_references(check_golden, representation):
    a, b = representation["a"], representation["b"]
    check_golden(losses.negative_cosine, "negative_cosine", a, b)

    def dino(student, teacher):
        return losses.distillation_cross_entropy(
            student,
            teacher,
            center=representation["center"],
            student_temperature=0.2,
            teacher_temperature=0.07,
        )

    check_golden(dino, "distillation_cross_entropy", a, b)


def test_negative_cosine_at_equal_opposite_and_zero_vectors(check_derivatives):
    a = np.float32([[1.0, 2.0], [0.5, -1.0]])
    loss = jax.jit(losses.negative_cosine)
    np.testing.assert_allclose(loss(a, 3 * a), -1, rtol=1e-6)
    np.testing.assert_allclose(loss(a, -a), 1, rtol=1e-6)
    check_derivatives(losses.negative_cosine, a, a, order=2)
    gradient = jax.jit(jax.grad(lambda x: losses.negative_cosine(x, a).sum()))(0 * a)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_views_broadcast():
    rng = np.random.default_rng(0)
    student, teacher = rng.standard_normal((3, 4, 5)), rng.standard_normal((3, 2, 5))
    loss = jax.jit(losses.distillation_cross_entropy)
    pairs = np.asarray(loss(student[:, None], teacher[:, :, None]))
    assert pairs.shape == (3, 2, 4)
    np.testing.assert_allclose(pairs[:, 1, 3], loss(student[:, 3], teacher[:, 1]), rtol=1e-5)


def test_distillation_cross_entropy_derivatives(check_derivatives):
    rng = np.random.default_rng(0)
    student, teacher = rng.standard_normal((2, 3, 5))
    loss = partial(losses.distillation_cross_entropy, teacher=jnp.asarray(teacher))
    check_derivatives(loss, student, order=2)
    slope = jax.jit(jax.grad(lambda t: losses.distillation_cross_entropy(student, t).sum()))
    assert (np.asarray(slope(teacher)) == 0).all()


def test_large_logits_and_bfloat16_stay_finite():
    student = jnp.array([[300.0, -300.0, 0.0]], jnp.bfloat16)
    value, gradient = jax.jit(
        jax.value_and_grad(lambda s: losses.distillation_cross_entropy(s, -student).sum())
    )(student)
    assert value == 6000 and np.isfinite(gradient).all()


def test_center_follows_the_mean_of_all_devices():
    rng = np.random.default_rng(0)
    center, teacher = np.ones(5, np.float32), np.float32(rng.standard_normal((8, 3, 2, 5)))
    expected = 0.7 * center + 0.3 * teacher.mean((0, 1, 2))
    ours = jax.jit(partial(losses.update_center, momentum=0.7))(center, teacher)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    update = partial(losses.update_center, center, momentum=0.7, axis_name="data")
    for one in np.asarray(jax.pmap(update, axis_name="data")(teacher)):
        np.testing.assert_allclose(one, expected, rtol=1e-5)


def test_errors():
    with pytest.raises(AssertionError, match="negative_cosine expects"):
        losses.negative_cosine(jnp.ones((2, 3)), jnp.ones((2, 4)))
    with pytest.raises(AssertionError, match="distillation_cross_entropy expects"):
        losses.distillation_cross_entropy(jnp.ones((2, 3)), jnp.ones((2, 3)), center=jnp.ones(2))
