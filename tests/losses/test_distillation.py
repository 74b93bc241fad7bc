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


def patches(dimensions=4, seed=0):
    """Student, teacher, and masks with three, no, one and two of three patches."""
    student, teacher = np.random.default_rng(seed).standard_normal((2, 4, 3, dimensions))
    return student, teacher, np.array([[1, 1, 1], [0, 0, 0], [0, 1, 0], [1, 0, 1]], bool)


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def patch_cross_entropy(student, targets, mask):
    """Image by image, patch by patch; `targets` of masked patches only, in their order."""
    rows, targets = [], iter(targets)
    for logits, masked in zip(student, mask):
        errors = [-next(targets) @ np.log(softmax(x / 0.1)) for x in logits[masked]]
        rows.append(sum(errors) / max(1, len(errors)))
    return rows


def test_masked_patches_equal_numpy(x64):
    """With a center, and with Sinkhorn-Knopp over the masked patches of all images."""
    student, teacher, mask = patches()
    center = np.array([0.1, -0.2, 0.3, 0.0])
    targets = softmax((teacher[mask] - center) / 0.07)
    loss = jax.jit(losses.masked_patch_distillation, static_argnames="iterations")
    ours = loss(student, teacher, mask, center=center)
    np.testing.assert_allclose(ours, patch_cross_entropy(student, targets, mask), rtol=1e-9)

    q = np.exp(teacher[mask] / 0.07).T
    q /= q.sum()
    for _ in range(3):
        q /= q.sum(1, keepdims=True) * len(q)
        q /= q.sum(0, keepdims=True) * mask.sum()
    targets = q.T * mask.sum()
    ours = loss(student, teacher, mask, iterations=3)
    np.testing.assert_allclose(ours, patch_cross_entropy(student, targets, mask), rtol=1e-9)


@pytest.mark.parametrize("iterations", [0, 3])
def test_patches_that_do_not_count_may_be_anything(iterations):
    student, teacher, mask = patches()
    spoiled = [np.float32(np.where(mask[..., None], x, np.nan)) for x in (student, teacher)]

    @jax.jit
    def step(student, teacher, mask):
        def total(student, teacher):
            options = {"iterations": iterations}
            return losses.masked_patch_distillation(student, teacher, mask, **options).sum()

        return jax.value_and_grad(total, (0, 1))(student, teacher)

    value, (of_student, of_teacher) = step(*spoiled, mask)
    np.testing.assert_allclose(value, step(student, teacher, mask)[0], rtol=1e-6)
    assert not of_teacher.any()
    assert np.abs(of_student[mask]).min() > 0 and not of_student[~mask].any()
    value, gradients = step(*spoiled, 0 * mask)
    assert value == 0 and not any(g.any() for g in gradients)


def test_outputs_that_tell_nothing_have_the_loss_of_chance():
    """The logarithm of the number of prototypes: 9.011 for 8,192."""
    student, teacher, mask = np.zeros((1, 2, 8192)), np.ones((1, 2, 8192)), np.ones((1, 2))
    for iterations in (0, 3):
        loss = partial(losses.masked_patch_distillation, iterations=iterations)
        np.testing.assert_allclose(jax.jit(loss)(student, teacher, mask), 9.011, atol=1e-3)


def test_gram_anchoring_equals_numpy(x64):
    x, y, _ = patches(5)
    unit = [z / np.linalg.norm(z, axis=-1, keepdims=True) for z in (x, y)]
    expected = [((a @ a.T - b @ b.T) ** 2).mean() for a, b in zip(*unit)]
    np.testing.assert_allclose(jax.jit(losses.gram_anchoring)(x, y), expected, rtol=1e-10)


def test_gram_anchoring_at_equal_and_zero_patches():
    x = np.float32(patches(5)[0])
    step = jax.jit(jax.value_and_grad(lambda x, y: losses.gram_anchoring(x, y).sum(), (0, 1)))
    value, (of_student, of_teacher) = step(x, 2 * x)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    assert not of_teacher.any() and np.abs(of_student).max() < 1e-5
    for student in (0 * x, np.ones_like(x)):
        value, (of_student, _) = step(student, x)
        assert np.isfinite(value) and np.isfinite(of_student).all()


def test_derivatives_of_patch_losses(check_derivatives):
    student, teacher, mask = patches()

    def both(x):
        distilled = losses.masked_patch_distillation(x, teacher, mask, student_temperature=0.5)
        return jnp.stack([distilled, losses.gram_anchoring(x, teacher)])

    check_derivatives(both, student, order=2)


def test_balanced_patches_on_one_device_equal_those_on_eight(check_parallel):
    """Each device has other numbers of masked patches, some none."""
    a, b = np.float32(np.random.default_rng(0).standard_normal((2, 16, 5)))

    def loss(temperature, weights, a, b, axis_name):
        student = jnp.stack([a, b], axis=1) @ weights
        teacher = student[:, ::-1, ::-1]
        return losses.masked_patch_distillation(
            *(student, teacher, teacher[..., 0] > 0.3),
            iterations=3,
            student_temperature=temperature,
            teacher_temperature=0.2,
            axis_name=axis_name,
        )

    check_parallel(loss, a, b)


def test_center_of_masked_patches():
    """Their mean over all devices; without any, the center stays."""
    rng = np.random.default_rng(0)
    center, teacher = np.ones(5, np.float32), np.float32(rng.standard_normal((8, 3, 5)))
    mask = rng.uniform(size=(8, 3)) > 0.6
    expected = 0.9 * center + 0.1 * teacher[mask].mean(0)
    teacher[~mask] = np.nan
    update = jax.jit(losses.update_center)
    np.testing.assert_allclose(update(center, teacher, mask=mask), expected, rtol=1e-5)
    np.testing.assert_array_equal(update(center, teacher, mask=0 * mask), center)

    def local(teacher, mask):
        return losses.update_center(center, teacher, mask=mask, axis_name="data")

    for one in np.asarray(jax.pmap(local, axis_name="data")(teacher, mask)):
        np.testing.assert_allclose(one, expected, rtol=1e-5)


def test_errors():
    student = jnp.ones((2, 3, 4))
    with pytest.raises(ValueError, match="a center or iterations of Sinkhorn-Knopp, not both"):
        losses.masked_patch_distillation(
            student, student, jnp.ones((2, 3)), center=jnp.ones(4), iterations=3
        )
    with pytest.raises(AssertionError, match="masked_patch_distillation expects"):
        losses.masked_patch_distillation(student, student, jnp.ones((2, 4)))
    with pytest.raises(AssertionError, match="gram_anchoring expects"):
        losses.gram_anchoring(student, student[:, :2])
    with pytest.raises(AssertionError, match="negative_cosine expects"):
        losses.negative_cosine(jnp.ones((2, 3)), jnp.ones((2, 4)))
    with pytest.raises(AssertionError, match="distillation_cross_entropy expects"):
        losses.distillation_cross_entropy(jnp.ones((2, 3)), jnp.ones((2, 3)), center=jnp.ones(2))
