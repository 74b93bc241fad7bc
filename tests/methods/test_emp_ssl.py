"""Steps of EMP-SSL equal those of a reference in NumPy; features are means over a bag."""

from functools import partial

import jax
import miniature
import numpy as np
import pytest
from descent import descend
from miniature import encoded, unit

from sslax import augment
from sslax.methods.representation.emp_ssl import emp_ssl, patch_grid
from sslax.types import Variables

RATE, WEIGHT, EPSILON = 0.01, 20.0, 0.3
EXAMPLES, HIDDEN, DIMENSIONS = 4, 6, 3

WEIGHTS = miniature.weights(0, 5, expander=(5, HIDDEN), projector=(HIDDEN, DIMENSIONS))
VIEWS = np.random.default_rng(1).normal(size=(2, EXAMPLES, 3, 4, 4, 3))  # of two steps


def reference_loss(params, views):
    """With the determinant of the D x D matrix, whose logarithm is that of the N x N one."""
    z = []
    for view in np.moveaxis(views, 1, 0):
        hidden = np.maximum(encoded(params, view) @ params["expander"]["kernel"], 0)
        z.append(unit(hidden @ params["projector"]["kernel"]))
    scale = DIMENSIONS / (EXAMPLES * EPSILON)
    rates = [np.linalg.slogdet(np.eye(DIMENSIONS) + scale * x.T @ x)[1] / 2 for x in z]
    mean = unit(np.mean(z, axis=0))
    cosines = [(x * mean).sum(1) for x in z]
    return -np.mean(rates) - WEIGHT * np.mean(cosines)


def small_method():
    knobs = {"invariance_weight": WEIGHT, "epsilon": EPSILON}
    return miniature.method(emp_ssl, WEIGHTS, evaluation_patches=patch_grid(PATCH, 2), **knobs)


PATCH = augment.ViewRecipe(size=3, crop_scale=(0.25, 0.25))


def test_steps_equal_the_reference():
    params = WEIGHTS
    steps = miniature.train(small_method(), [{"views": views} for views in VIEWS], RATE)
    for views, step in zip(VIEWS, steps):
        expected = reference_loss(params, views)
        params = descend(partial(reference_loss, views=views), params, RATE)
        assert float(step.metrics["loss"]) == pytest.approx(expected, rel=1e-9)
        terms = step.metrics["coding_rate"] + WEIGHT * step.metrics["similarity"]
        assert float(terms) == pytest.approx(-expected, rel=1e-9)
        miniature.assert_close(step.after.params, params)


@pytest.mark.parametrize(("count", "width"), [(48, 192), (96, 32)])
def test_chance_is_the_loss_of_random_unit_vectors(count, width):
    z = np.random.default_rng(1).standard_normal((count, 16, width)).astype(np.float32)
    outputs, nothing = (np.zeros((count, 16, 1)), z), Variables({}, {}, {})
    value, output = jax.jit(small_method().couple)(outputs, nothing, {}, jax.random.key(2), 0)
    np.testing.assert_allclose(value, output.metrics["loss_at_chance"], rtol=0.01)


def test_features_are_the_means_over_a_grid_of_patches():
    images = np.random.default_rng(0).random((2, 8, 12, 3), np.float32)
    method = small_method()
    params = jax.tree.map(np.float32, WEIGHTS)
    found = jax.jit(method.predict)(
        Variables(params, {part: {} for part in params}, {}), {"image": images}
    )
    corners = [images[:, y : y + 5, x : x + 5] for y in (0, 3) for x in (0, 7)]  # of 24 pixels
    patches = jax.jit(patch_grid(PATCH, 2))(images)
    assert patches.shape == (2, 4, 3, 3, 3)
    encodings = []
    for i, corner in enumerate(corners):
        resized = jax.jit(jax.vmap(partial(augment.resize, size=3)))(corner)
        np.testing.assert_allclose(patches[:, i], resized, atol=1e-6)
        encodings.append(encoded(params, resized))
    np.testing.assert_allclose(found.features, np.mean(encodings, axis=0), rtol=1e-5)
    hidden = [np.maximum(x @ params["expander"]["kernel"], 0) for x in encodings]
    np.testing.assert_allclose(found.stages["hidden"], np.mean(hidden, axis=0), rtol=1e-5)


def test_a_grid_of_one_patch_is_the_center():
    image = np.arange(36, dtype=np.float32).reshape(1, 6, 6, 1) / 36
    patch = jax.jit(patch_grid(augment.ViewRecipe(size=4, crop_scale=(0.4444, 0.4444)), 1))(image)
    np.testing.assert_allclose(patch[:, 0], image[:, 1:5, 1:5], atol=1e-6)
