"""Steps of NNCLR equal those of a reference in NumPy, with the queue that they leave."""

import jax
import miniature
import numpy as np
import pytest
from descent import descend
from miniature import encoded, unit

from sslax.methods.representation.nnclr import nnclr
from sslax.types import Variables

RATE, TEMPERATURE, QUEUE = 0.2, 0.3, 8
EXAMPLES, DIMENSIONS = 4, 3

WEIGHTS = miniature.weights(0, 5, projector=(5, DIMENSIONS), predictor=(DIMENSIONS, DIMENSIONS))
VIEWS = np.random.default_rng(1).normal(size=(3, EXAMPLES, 2, 4, 4, 3))  # of three steps


def project(params, views):
    return [encoded(params, views[:, v]) @ params["projector"]["kernel"] for v in range(2)]


def reference_loss(params, views, found):
    """`found`: for each view, the neighbors of its images, as constants."""
    predictions = [unit(z @ params["predictor"]["kernel"]) for z in project(params, views)]
    total = 0.0
    for neighbors, other in zip(found, predictions[::-1]):
        for i, neighbor in enumerate(neighbors):
            scores = other @ neighbor / TEMPERATURE
            total += np.log(np.exp(scores).sum()) - scores[i]
    return total / (2 * EXAMPLES)


def neighbors(params, views, queue):
    return [queue[(unit(z) @ queue.T).argmax(1)] for z in project(params, views)]


def small_method():
    return miniature.method(nnclr, WEIGHTS, queue_size=QUEUE, temperature=TEMPERATURE)


def test_steps_equal_the_reference():
    steps = miniature.train(small_method(), [{"views": views} for views in VIEWS], RATE)
    params, queue = WEIGHTS, np.asarray(steps[0].before.extra["queue"])
    np.testing.assert_allclose(np.linalg.norm(queue, axis=1), 1)
    for number, (views, step) in enumerate(zip(VIEWS, steps)):
        found = neighbors(params, views, queue)
        expected = reference_loss(params, views, found)
        newest = unit(project(params, views)[0])
        params = descend(lambda p: reference_loss(p, views, found), params, RATE)  # noqa: B023
        queue = queue.copy()
        first = number * EXAMPLES % QUEUE  # the third step replaces the first one's
        queue[first : first + EXAMPLES] = newest
        assert float(step.metrics["loss"]) == pytest.approx(expected, rel=1e-9)
        miniature.assert_close(step.after.params, params)
        miniature.assert_close(step.after.extra, {"queue": queue})


def test_chance_is_the_loss_of_unrelated_views():
    z = np.random.default_rng(2).standard_normal((2, 64, 2, 256)).astype(np.float32)
    queue = unit(np.random.default_rng(3).standard_normal((64, 256)).astype(np.float32))
    outputs, variables = (np.zeros((64, 2, 1)), *z), Variables({}, {}, {"queue": queue})
    value, output = jax.jit(small_method().couple)(outputs, variables, {}, jax.random.key(0), 0)
    np.testing.assert_allclose(value, output.metrics["loss_at_chance"], rtol=0.02)
