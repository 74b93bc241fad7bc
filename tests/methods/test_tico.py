"""Steps of TiCo equal those of a reference in NumPy, the covariance and the copy too."""

import jax
import miniature
import numpy as np
import pytest
from descent import descend
from miniature import encoded, unit

from sslax.methods.representation.tico import tico
from sslax.types import Variables

RATE, WEIGHT, DECAY, MOMENTUM = 0.2, 5.0, 0.7, 0.8
EXAMPLES, DIMENSIONS = 4, 3

WEIGHTS = miniature.weights(0, 5, projector=(5, DIMENSIONS))
VIEWS = np.random.default_rng(1).normal(size=(3, EXAMPLES, 2, 4, 4, 3))  # of three steps


def embed(params, images):
    return unit(encoded(params, images) @ params["projector"]["kernel"])


def reference_loss(params, views, targets, covariance):
    z = embed(params, views[:, 0])
    terms = [1 - a @ b + WEIGHT * a @ covariance @ a for a, b in zip(z, targets)]
    return np.mean(terms)


def small_method(momentum=lambda step: MOMENTUM + 0.05 * step):
    knobs = {"covariance_weight": WEIGHT, "covariance_momentum": DECAY, "momentum": momentum}
    return miniature.method(tico, WEIGHTS, **knobs)


def test_steps_equal_the_reference():
    params, copy, covariance = WEIGHTS, WEIGHTS, np.zeros((DIMENSIONS, DIMENSIONS))
    steps = miniature.train(small_method(), [{"views": views} for views in VIEWS], RATE)
    for done, (views, step) in enumerate(zip(VIEWS, steps), start=1):
        moments = np.mean([np.outer(z, z) for z in embed(params, views[:, 0])], axis=0)
        covariance = DECAY * covariance + (1 - DECAY) * moments
        given = views, embed(copy, views[:, 1]), covariance
        expected = reference_loss(params, *given)
        params = descend(lambda p: reference_loss(p, *given), params, RATE)  # noqa: B023
        weight = MOMENTUM + 0.05 * done
        copy = jax.tree.map(lambda a, b: weight * a + (1 - weight) * b, copy, params)  # noqa: B023
        assert float(step.metrics["loss"]) == pytest.approx(expected, rel=1e-7)
        miniature.assert_close(step.after.params, params)
        miniature.assert_close(step.after.extra["momentum"].params, copy)
        miniature.assert_close(step.after.extra["covariance"], covariance)


def test_chance_is_the_loss_of_unrelated_views():
    a, b = np.random.default_rng(2).standard_normal((2, 64, 32)).astype(np.float32)
    variables = Variables({}, {}, {"covariance": np.eye(32, dtype=np.float32) / 32})
    outputs = np.zeros((64, 1)), a, b
    value, output = jax.jit(small_method().couple)(outputs, variables, {}, jax.random.key(0), 0)
    np.testing.assert_allclose(value, output.metrics["loss_at_chance"], rtol=0.03)
