"""Occlusion masks: constant shifts by hand, smooth flows by loops over pixels in float64."""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import ops

forward_backward_mask = jax.jit(ops.forward_backward_mask)
range_map_mask = jax.jit(ops.range_map_mask, static_argnames="threshold")
GOLDEN = pathlib.Path(__file__).parents[1] / "losses" / "golden" / "geometric.npz"


@pytest.fixture(scope="module")
def flows():
    with np.load(GOLDEN) as values:
        golden = dict(values)
    return golden, jnp.asarray(golden["forward"])[None], jnp.asarray(golden["backward"])[None]


def test_masks_equal_loops_over_pixels(flows):
    golden, forward, backward = flows
    assert 0.1 < golden["brox"].mean() < 0.9
    np.testing.assert_array_equal(forward_backward_mask(forward, backward)[0], golden["brox"])
    confidence = jax.jit(partial(ops.forward_backward_confidence, sigma=0.03))(forward, backward)[0]
    np.testing.assert_allclose(confidence, golden["confidence"], atol=2e-5)
    np.testing.assert_allclose(range_map_mask(backward)[0], golden["wang"], atol=1e-5)
    hard = range_map_mask(backward, threshold=0.75)[0]
    np.testing.assert_array_equal(hard, golden["wang_hard"])


@pytest.mark.parametrize("shift", [(4, 0), (-3, 0), (0, 2), (2, -5)])
def test_a_constant_shift_occludes_its_border(shift):
    height, width = 9, 12
    forward = jnp.broadcast_to(jnp.array(shift, jnp.float32), (1, height, width, 2))
    x, y = np.meshgrid(np.arange(width) + shift[0], np.arange(height) + shift[1])
    visible = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    np.testing.assert_array_equal(forward_backward_mask(forward, -forward)[0], visible)
    np.testing.assert_array_equal(range_map_mask(-forward)[0], visible)


def test_a_moving_foreground_occludes_what_it_covers():
    # An object in columns 2 to 4 moves 4 pixels to the right over a static background: exactly
    # columns 6 to 8 of the first frame are occluded.
    forward = jnp.zeros((1, 9, 12, 2)).at[:, :, 2:5, 0].set(4.0)
    backward = jnp.zeros((1, 9, 12, 2)).at[:, :, 6:9, 0].set(-4.0)
    visible = np.ones((9, 12), bool)
    visible[:, 6:9] = False
    np.testing.assert_array_equal(forward_backward_mask(forward, backward)[0], visible)
    np.testing.assert_array_equal(range_map_mask(backward)[0], visible)


def test_masks_have_no_gradient(flows):
    _, forward, backward = flows

    def soft(forward, backward):
        confidence = ops.forward_backward_confidence(forward, backward, sigma=0.03)
        return (confidence + range_map_mask(backward)).sum()

    for gradient in jax.jit(jax.grad(soft, (0, 1)))(forward, backward):
        np.testing.assert_array_equal(gradient, 0)


def test_zero_flow_has_no_occlusion_and_bfloat16_flow_keeps_positions_exact():
    zero = jnp.zeros((1, 4, 300, 2), jnp.bfloat16)
    assert forward_backward_mask(zero, zero).all()
    moved = zero.at[..., 0].set(1)
    assert range_map_mask(-moved).sum() == 4 * 299
    assert forward_backward_mask(moved, -moved).sum() == 4 * 299
