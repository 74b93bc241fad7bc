"""Schedules against their equations, at the ends and outside of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax.methods import schedules

STEPS = np.arange(-2, 20)


def progress(first, total):
    return np.clip((STEPS - first) / (total - first), 0.0, 1.0)


@pytest.mark.parametrize(("first", "total"), [(0, 10), (4, 12)])
def test_cosine_follows_its_equation(first, total):
    schedule = schedules.cosine(0.9, 0.1, total, first=first)
    expected = 0.1 + 0.8 * 0.5 * (1 + np.cos(np.pi * progress(first, total)))
    found = jax.jit(jax.vmap(schedule))(jnp.asarray(STEPS, jnp.int32))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    assert float(schedule(first)) == pytest.approx(0.9, abs=1e-7)
    assert float(schedule(total)) == pytest.approx(0.1, abs=1e-7)


@pytest.mark.parametrize(("first", "total"), [(0, 10), (4, 12)])
def test_linear_follows_its_equation(first, total):
    schedule = schedules.linear(0.04, 0.07, total, first=first)
    found = jax.jit(jax.vmap(schedule))(jnp.asarray(STEPS, jnp.int32))
    np.testing.assert_allclose(found, 0.04 + 0.03 * progress(first, total), rtol=1e-6)


@pytest.mark.parametrize("make", [schedules.cosine, schedules.linear])
def test_a_schedule_without_steps_jumps(make):
    """No division by zero where a run, or a warm-up, has no length."""
    schedule = make(0.2, 0.8, 5, first=5)
    assert [float(schedule(step)) for step in (5, 6)] == pytest.approx([0.2, 0.8])
