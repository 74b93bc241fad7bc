"""Masked reconstruction against PyTorch, and without masked patches."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import losses


def patches(shape=(2, 4, 6)):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(shape), rng.uniform(size=shape)
    return tuple(jnp.asarray(x, jnp.float32) for x in values)


def test_equals_reference(check_golden, representation):
    a, b = (representation[name].reshape(2, 3, -1) for name in "ab")
    masked = representation["hidden"]
    count = masked.sum(1)

    def of_all_patches(predictions, targets):
        rows = losses.masked_reconstruction(predictions, targets, masked, normalize=True)
        return (rows * count).sum() / count.sum()

    check_golden(of_all_patches, "masked_reconstruction", a, b)


@pytest.mark.parametrize("penalty", [jnp.square, jnp.abs])
def test_is_the_mean_over_masked_patches(penalty):
    predictions, targets = patches()
    mask = np.array([[1, 0, 1, 0], [0, 0, 0, 1]], bool)
    ours = jax.jit(partial(losses.masked_reconstruction, penalty=penalty))(
        predictions, targets, mask
    )
    errors = np.asarray(penalty(predictions - targets))
    expected = [errors[0, [0, 2]].mean(), errors[1, 3].mean()]
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_absolute_errors_are_those_of_simmim():
    """Its authors sum over the pixels of all masked patches, equally many in each image."""
    predictions, targets = patches()
    mask = np.array([[1, 0, 1, 0], [0, 1, 0, 1]], bool)
    absolute = jax.jit(partial(losses.masked_reconstruction, penalty=jnp.abs))
    pixels = np.abs(np.asarray(predictions - targets)) * mask[..., None]
    expected = pixels.sum() / (mask.sum() * pixels.shape[-1])
    np.testing.assert_allclose(absolute(predictions, targets, mask).mean(), expected, rtol=1e-6)


def test_no_masked_patch_gives_zero_with_zero_gradient():
    predictions, targets = patches()
    mask = jnp.array([[0, 0, 0, 0], [1, 1, 0, 0]])

    def total(predictions):
        rows = losses.masked_reconstruction(predictions, targets, mask)
        return rows.sum(), rows

    gradient, rows = jax.device_get(jax.jit(jax.grad(total, has_aux=True))(predictions))
    assert rows[0] == 0
    assert (gradient[0] == 0).all() and np.abs(gradient[1, :2]).min() > 0


def test_constant_patches_have_finite_gradients(check_derivatives):
    predictions, _ = patches()
    targets, mask = jnp.ones_like(predictions), jnp.ones(predictions.shape[:2])
    loss = partial(losses.masked_reconstruction, targets=targets, mask=mask, normalize=True)
    check_derivatives(loss, predictions)
    total = lambda t: losses.masked_reconstruction(t, t, mask, normalize=True).sum()  # noqa: E731
    assert np.isfinite(jax.jit(jax.grad(total))(targets)).all()


def test_bfloat16_is_reduced_in_float32():
    predictions, targets = patches()
    mask = jnp.ones((2, 4), jnp.bfloat16)
    loss = jax.jit(losses.masked_reconstruction)
    coarse = loss(predictions.astype(jnp.bfloat16), targets.astype(jnp.bfloat16), mask)
    assert coarse.dtype == jnp.float32
    fine = loss(predictions, targets, mask)
    np.testing.assert_allclose(coarse, fine, rtol=0.02)


def test_errors():
    predictions, targets = patches((2, 4, 1))
    with pytest.raises(ValueError, match="normalize=False"):
        losses.masked_reconstruction(predictions, targets, jnp.ones((2, 4)), normalize=True)
    with pytest.raises(AssertionError, match="masked_reconstruction expects"):
        losses.masked_reconstruction(predictions, targets, jnp.ones((2, 3)))
