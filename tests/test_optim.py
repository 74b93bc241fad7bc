"""Learning rates and optimisers, against the equations in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import optim
from sslax.errors import UserError


def test_warmup_cosine_follows_its_equation():
    rate = optim.warmup_cosine(2.0, warmup=4, total=12, final_fraction=0.1)
    steps = np.arange(13)
    cosine = 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * np.clip((steps - 4) / 8, 0, 1)))
    expected = 2.0 * np.where(steps < 4, (steps + 1) / 4, cosine)
    np.testing.assert_allclose(jax.vmap(rate)(jnp.asarray(steps)), expected, rtol=1e-6)


def test_warmup_that_leaves_no_decay_is_refused():
    with pytest.raises(UserError, match=r"warm-up takes 10 of 10 steps"):
        optim.warmup_cosine(1.0, warmup=10, total=10)


@pytest.mark.parametrize(("scaling", "expected"), [("linear", 0.8), ("sqrt", 6.4), ("none", 0.2)])
def test_scaling_rules(scaling, expected):
    base = 0.2
    assert optim.scaled_learning_rate(base, scaling, 1024) == pytest.approx(expected)


def _one_step(name, **knobs):
    config = optim.defaults()
    config.update(name=name, momentum=0.0, weight_decay=0.1, **knobs)
    tx = optim.build(config, lambda step: 0.5)
    params = {"kernel": jnp.full((2, 2), 2.0), "scale": jnp.full(2, 2.0)}
    gradient = {"kernel": jnp.full((2, 2), 1.0), "scale": jnp.full(2, 1.0)}
    updates, _ = tx.update(gradient, tx.init(params), params)
    return {name: float(update.ravel()[0]) for name, update in updates.items()}


def test_sgd_decays_kernels_and_spares_scales():
    updates = _one_step("sgd")
    assert updates["kernel"] == pytest.approx(-0.5 * (1.0 + 0.1 * 2.0))
    assert updates["scale"] == pytest.approx(-0.5 * 1.0)


def test_lars_adapts_kernels_and_spares_scales():
    updates = _one_step("lars", trust_coefficient=0.01)
    # ||w|| = 4, ||g + 0.1 w|| = 2.4; the direction has entries of 1.2.
    assert updates["kernel"] == pytest.approx(-0.5 * 0.01 * 4.0 / 2.4 * 1.2, rel=1e-5)
    assert updates["scale"] == pytest.approx(-0.5 * 1.0)


def test_clipping_bounds_the_global_norm():
    updates = _one_step("sgd", clip_norm=0.6)
    # The gradient's norm is sqrt(6); it is clipped before the weight decay is added.
    assert updates["scale"] == pytest.approx(-0.5 * 0.6 / np.sqrt(6), rel=1e-5)


def test_unknown_optimiser_names_its_neighbour():
    config = optim.defaults()
    config.name = "lrs"
    with pytest.raises(UserError, match='did you mean "lars"'):
        optim.build(config, lambda step: 0.1)
