"""Steps of EMP-SSL equal those of a reference in NumPy; features are means over a bag."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from descent import descend

from sslax import augment
from sslax.methods.representation.emp_ssl import emp_ssl, patch_grid
from sslax.training.step import init_state, train_step
from sslax.types import Encoding, Model, Variables

RATE, WEIGHT, EPSILON = 0.01, 20.0, 0.3
EXAMPLES, FEATURES, HIDDEN, DIMENSIONS = 4, 5, 6, 3

_rng = np.random.default_rng(0)
WEIGHTS = {
    "encoder": {"kernel": _rng.normal(size=(3, FEATURES)), "bias": _rng.normal(size=FEATURES)},
    "expander": {"kernel": _rng.normal(size=(FEATURES, HIDDEN))},
    "projector": {"kernel": _rng.normal(size=(HIDDEN, DIMENSIONS))},
}
VIEWS = _rng.normal(size=(2, EXAMPLES, 3, 4, 4, 3))  # of two steps


def reference_loss(params, views):
    """With the determinant of the D x D matrix, whose logarithm is that of the N x N one."""
    z = []
    for view in np.moveaxis(views, 1, 0):
        pixels = np.tanh(view @ params["encoder"]["kernel"] + params["encoder"]["bias"])
        hidden = np.maximum(pixels.mean((1, 2)) @ params["expander"]["kernel"], 0)
        outputs = hidden @ params["projector"]["kernel"]
        z.append(outputs / np.linalg.norm(outputs, axis=1, keepdims=True))
    scale = DIMENSIONS / (EXAMPLES * EPSILON)
    rates = [np.linalg.slogdet(np.eye(DIMENSIONS) + scale * x.T @ x)[1] / 2 for x in z]
    mean = np.mean(z, axis=0)
    mean = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    cosines = [(x * mean).sum(1) for x in z]
    return -np.mean(rates) - WEIGHT * np.mean(cosines)


def small_model(part, apply):
    return Model(
        lambda rng, x: (jax.tree.map(jnp.asarray, WEIGHTS[part]), {}),
        lambda params, state, x, train: (apply(params, x), state),
    )


def encode(p, images):
    stage = jnp.tanh(images @ p["kernel"] + p["bias"])
    return Encoding(stage.mean((1, 2)), {"map": stage})


def small_method():
    return emp_ssl(
        small_model("encoder", encode),
        *(small_model(part, lambda p, x: x @ p["kernel"]) for part in ("expander", "projector")),
        augmentation=lambda rng, batch: batch,
        evaluation_view=lambda images: images,
        evaluation_patches=patch_grid(PATCH, 2),
        invariance_weight=WEIGHT,
        epsilon=EPSILON,
    )


PATCH = augment.ViewRecipe(size=3, crop_scale=(0.25, 0.25))


def test_steps_equal_the_reference():
    params = WEIGHTS
    with jax.enable_x64(True):
        method, tx = small_method(), optax.sgd(RATE)
        state = init_state(method, tx, jax.random.key(0), {"views": VIEWS[0]})
        step = jax.jit(lambda state, batch: train_step(method, tx, state, batch))
        for views in VIEWS:
            expected = reference_loss(params, views)
            params = descend(partial(reference_loss, views=views), params, RATE)
            state, metrics = step(state, {"views": views})
            assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-9)
            terms = metrics["coding_rate"] + WEIGHT * metrics["similarity"]
            assert float(terms) == pytest.approx(-expected, rel=1e-9)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8), state.params, params
            )


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
        encodings.append(encode(params["encoder"], resized).features)
    np.testing.assert_allclose(found.features, np.mean(encodings, axis=0), rtol=1e-5)
    hidden = [np.maximum(x @ params["expander"]["kernel"], 0) for x in encodings]
    np.testing.assert_allclose(found.stages["hidden"], np.mean(hidden, axis=0), rtol=1e-5)


def test_a_grid_of_one_patch_is_the_center():
    image = np.arange(36, dtype=np.float32).reshape(1, 6, 6, 1) / 36
    patch = jax.jit(patch_grid(augment.ViewRecipe(size=4, crop_scale=(0.4444, 0.4444)), 1))(image)
    np.testing.assert_allclose(patch[:, 0], image[:, 1:5, 1:5], atol=1e-6)
