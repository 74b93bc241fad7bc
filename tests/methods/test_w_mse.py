"""Steps of W-MSE equal those of a reference in NumPy, in the groups that its keys draw."""

import jax
import miniature
import numpy as np
import pytest
from descent import descend
from miniature import encoded, unit

from sslax.errors import UserError
from sslax.methods.representation.w_mse import w_mse
from sslax.training.plan import make_plan
from sslax.types import Variables

RATE, EPSILON, GROUP, ITERATIONS = 0.1, 0.1, 4, 2
EXAMPLES, DIMENSIONS = 8, 2

WEIGHTS = miniature.weights(0, 4, projector=(4, DIMENSIONS))
VIEWS = np.random.default_rng(1).normal(size=(2, EXAMPLES, 3, 4, 4, 3))  # of two steps


def whitened(x):
    covariance = (1 - EPSILON) * np.cov(x.T) + EPSILON * np.eye(DIMENSIONS)
    return unit((x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(covariance)).T)


def reference_loss(params, views, orders):
    """`orders`: of the images, a permutation for each iteration."""
    x = [encoded(params, view) @ params["projector"]["kernel"] for view in views.swapaxes(0, 1)]
    distances = []
    for order in orders:
        for group in order.reshape(-1, GROUP):
            z = [whitened(view[group]) for view in x]
            for a, b in ((0, 1), (0, 2), (1, 2)):
                distances.append(((z[a] - z[b]) ** 2).sum(1))
    return np.mean(distances)


def small_method(**knobs):
    knobs = {"group_size": GROUP, "iterations": ITERATIONS, "epsilon": EPSILON, **knobs}
    return miniature.method(w_mse, WEIGHTS, **knobs)


def test_steps_equal_the_reference():
    params, drawn = WEIGHTS, []
    steps = miniature.train(small_method(), [{"views": views} for views in VIEWS], RATE)
    for views, step in zip(VIEWS, steps):
        with jax.enable_x64(True):
            keys = jax.random.split(step.key, ITERATIONS)
            orders = [np.asarray(jax.random.permutation(key, EXAMPLES)) for key in keys]
        drawn += orders
        expected = reference_loss(params, views, orders)
        params = descend(lambda p: reference_loss(p, views, orders), params, RATE)  # noqa: B023
        assert float(step.metrics["loss"]) == pytest.approx(expected, rel=1e-9)
        miniature.assert_close(step.after.params, params)
    assert len(np.unique(drawn, axis=0)) == 2 * ITERATIONS  # other groups each time


def test_chance_is_the_loss_of_unrelated_views():
    z = np.random.default_rng(2).standard_normal((512, 2, 16)).astype(np.float32)
    couple = jax.jit(small_method(group_size=64).couple)
    outputs, nothing = (np.zeros((512, 2, 1)), z), Variables({}, {}, {})
    value, output = couple(outputs, nothing, {}, jax.random.key(2), 0)
    np.testing.assert_allclose(value, output.metrics["loss_at_chance"], rtol=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 96}, "w_mse.group_size = 64 does not divide .* = 96: choose 48, or"),
        ({"batch_size": 16}, "group_size = 64 does not divide .* = 16: choose another batch size"),
        ({"w_mse.group_size": 32}, "must be more than .*outputs = 32, .* choose 64 or fewer"),
        ({"augment.count": 1}, "compares views; choose 2 or 4"),
    ],
)
def test_groups_that_cannot_be_whitened_are_refused(load_config, changes, message):
    config = load_config("w_mse", "")
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        make_plan(config, examples=128, image_shape=(28, 28, 1), classes=None)
