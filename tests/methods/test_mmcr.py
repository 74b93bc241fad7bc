"""Steps of MMCR equal those of a reference in NumPy, with and without a momentum copy."""

import jax
import miniature
import numpy as np
import pytest
from descent import descend
from miniature import encoded, unit

from sslax.methods.representation.mmcr import mmcr
from sslax.types import Variables

RATE, EXAMPLES, DIMENSIONS = 0.1, 4, 3

WEIGHTS = miniature.weights(0, 5, projector=(5, DIMENSIONS))
VIEWS = np.random.default_rng(1).normal(size=(3, EXAMPLES, 3, 4, 4, 3))  # of three steps


def centers(params, views):
    z = [unit(encoded(params, x) @ params["projector"]["kernel"]) for x in views.swapaxes(0, 1)]
    return np.mean(z, axis=0)


def reference_loss(params, views, copies):
    """`copies`: the means of the momentum copy, as constants."""
    means = centers(params, views)
    means = means if copies is None else (means + copies) / 2
    return -np.sqrt(np.linalg.eigvalsh(means.T @ means)).sum()


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_steps_equal_the_reference(momentum):
    params, copy = WEIGHTS, WEIGHTS
    method = miniature.method(mmcr, WEIGHTS, momentum=momentum)
    steps = miniature.train(method, [{"views": views} for views in VIEWS], RATE)
    for views, step in zip(VIEWS, steps):
        given = views, centers(copy, views) if momentum else None
        expected = reference_loss(params, *given)
        params = descend(lambda p: reference_loss(p, *given), params, RATE)  # noqa: B023
        copy = jax.tree.map(lambda a, b: momentum * a + (1 - momentum) * b, copy, params)
        assert float(step.metrics["loss"]) == pytest.approx(expected, rel=1e-9)
        miniature.assert_close(step.after.params, params)
        if momentum:
            miniature.assert_close(step.after.extra["momentum"].params, copy)
        else:
            assert step.after.extra == {}


@pytest.mark.parametrize(("count", "width"), [(64, 64), (384, 128), (24, 256)])
def test_chance_is_the_loss_of_random_unit_vectors(count, width):
    z = np.random.default_rng(2).standard_normal((count, 8, width)).astype(np.float32)
    outputs, nothing = (np.zeros((count, 8, 1)), z), Variables({}, {}, {})
    couple = jax.jit(miniature.method(mmcr, WEIGHTS).couple)
    value, output = couple(outputs, nothing, {}, jax.random.key(0), 0)
    np.testing.assert_allclose(value, output.metrics["loss_at_chance"], rtol=0.01)
