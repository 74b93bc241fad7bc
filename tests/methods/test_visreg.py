"""Steps of VISReg equal those of a reference in NumPy, whose gradients are finite differences."""

import jax
import jax.numpy as jnp
import miniature
import numpy as np
import pytest
from descent import descend
from miniature import encoded
from scipy.special import ndtri

from sslax.methods.representation.visreg import visreg
from sslax.types import Variables

RATE, WEIGHT, SLICES = 0.2, 0.3, 6
EXAMPLES, DIMENSIONS = 4, 3

WEIGHTS = miniature.weights(0, 5, projector=(5, DIMENSIONS))
_rng = np.random.default_rng(1)
VIEWS = _rng.normal(size=(2, EXAMPLES, 2, 4, 4, 3))  # of two steps
LOCAL_VIEWS = _rng.normal(size=(2, EXAMPLES, 3, 2, 2, 3))


def embed(params, batch):
    views = [*np.moveaxis(batch["views"], 1, 0), *np.moveaxis(batch["local_views"], 1, 0)]
    return [encoded(params, view) @ params["projector"]["kernel"] for view in views]


def deviations(z):
    return [view.std(0) for view in z]


def reference_loss(params, batch, normal, constants):
    """View by view and slice by slice; slices are divided by `constants`."""
    z = embed(params, batch)
    center = (z[0] + z[1]) / 2
    invariance = np.mean([((view - center) ** 2).mean() for view in z])
    quantiles = ndtri(np.arange(1, EXAMPLES + 1) / (EXAMPLES + 1))
    terms = []
    for view, sigma, constant in zip(z, deviations(z), constants):
        whole = (view - view.mean(0)) / constant
        errors = []
        for direction in normal.T:
            ordered = np.sort(whole @ direction / np.sqrt(direction @ direction))
            errors.append(((ordered - quantiles) ** 2).mean())
        terms.append((view.mean(0) ** 2).mean() + ((sigma - 1) ** 2).mean() + np.mean(errors))
    return (1 - WEIGHT) * invariance + WEIGHT * np.mean(terms)


def small_method(weight=WEIGHT, slices=SLICES):
    return miniature.method(visreg, WEIGHTS, weight=weight, slices=slices)


def test_steps_equal_the_reference():
    batches = [{"views": v, "local_views": w} for v, w in zip(VIEWS, LOCAL_VIEWS)]
    params, drawn = WEIGHTS, []
    for batch, step in zip(batches, miniature.train(small_method(), batches, RATE)):
        with jax.enable_x64(True):
            key = jax.random.split(step.key)[1]
            drawn.append(np.asarray(jax.random.normal(key, (DIMENSIONS, SLICES), jnp.float64)))
        given = batch, drawn[-1], deviations(embed(params, batch))
        expected = reference_loss(params, *given)
        params = descend(lambda p: reference_loss(p, *given), params, RATE)  # noqa: B023
        assert float(step.metrics["loss"]) == pytest.approx(expected, rel=1e-7)
        miniature.assert_close(step.after.params, params)
    assert np.abs(drawn[0] - drawn[1]).min() > 0  # other slices in each step


@pytest.mark.parametrize("count", [32, 512])
def test_chance_is_the_loss_of_unrelated_gaussian_views(count):
    z = np.random.default_rng(1).standard_normal((count, 6, 16)).astype(np.float32)
    outputs, nothing = (z, np.zeros((count, 2, 1))), Variables({}, {}, {})
    couple = jax.jit(small_method(weight=0.9, slices=64).couple)
    value, output = couple(outputs, nothing, {}, jax.random.key(2), 0)
    np.testing.assert_allclose(value, output.metrics["loss_at_chance"], rtol=0.1)
