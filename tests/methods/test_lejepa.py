"""Steps of LeJEPA equal those of a reference in NumPy, whose gradients are finite differences."""

import jax
import jax.numpy as jnp
import miniature
import numpy as np
import pytest
from descent import descend
from miniature import encoded

from sslax.methods.representation.lejepa import lejepa
from sslax.types import Variables

RATE, WEIGHT, SLICES = 0.2, 0.3, 6
EXAMPLES, DIMENSIONS = 4, 3

WEIGHTS = miniature.weights(0, 5, projector=(5, DIMENSIONS))
_rng = np.random.default_rng(1)
VIEWS = _rng.normal(size=(2, EXAMPLES, 2, 4, 4, 3))  # of two steps
LOCAL_VIEWS = _rng.normal(size=(2, EXAMPLES, 3, 2, 2, 3))


def reference_loss(params, large, small, normal):
    """View by view and slice by slice, over both halves of the integral."""
    z = []
    for view in [*np.moveaxis(large, 1, 0), *np.moveaxis(small, 1, 0)]:
        z.append(encoded(params, view) @ params["projector"]["kernel"])
    center = (z[0] + z[1]) / 2
    invariance = np.mean([((view - center) ** 2).mean() for view in z])
    t = np.linspace(-3, 3, 33)
    phi = np.exp(-(t**2) / 2)
    distances = []
    for view in z:
        for direction in normal.T:
            x = view @ (direction / np.sqrt(direction @ direction))
            error = np.abs(np.exp(1j * np.outer(t, x)).mean(1) - phi) ** 2
            distances.append(EXAMPLES * np.trapezoid(error * phi, t))
    return (1 - WEIGHT) * invariance + WEIGHT * np.mean(distances)


def small_method(slices=SLICES):
    return miniature.method(lejepa, WEIGHTS, weight=WEIGHT, slices=slices)


def test_steps_equal_the_reference():
    batches = [{"views": v, "local_views": w} for v, w in zip(VIEWS, LOCAL_VIEWS)]
    params, drawn = WEIGHTS, []
    for batch, step in zip(batches, miniature.train(small_method(), batches, RATE)):
        with jax.enable_x64(True):
            key = jax.random.split(step.key)[1]
            drawn.append(np.asarray(jax.random.normal(key, (DIMENSIONS, SLICES), jnp.float64)))
        inputs = (*batch.values(), drawn[-1])
        expected = reference_loss(params, *inputs)
        params = descend(lambda p: reference_loss(p, *inputs), params, RATE)  # noqa: B023
        assert float(step.metrics["loss"]) == pytest.approx(expected, rel=1e-9)
        miniature.assert_close(step.after.params, params)
    assert np.abs(drawn[0] - drawn[1]).min() > 0  # other slices in each step


@pytest.mark.parametrize(("large", "small"), [(4, 0), (2, 6)])
def test_chance_is_the_loss_of_unrelated_gaussian_views(large, small):
    z = np.random.default_rng(1).standard_normal((256, large + small, 16)).astype(np.float32)
    couple = jax.jit(small_method(slices=64).couple)
    outputs, nothing = (z, np.zeros((256, large, 1))), Variables({}, {}, {})
    value, output = couple(outputs, nothing, {}, jax.random.key(2), 0)
    np.testing.assert_allclose(value, output.metrics["loss_at_chance"], rtol=0.05)
