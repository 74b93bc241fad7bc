"""Correlations against sums written out, one form against the other, and their directions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import ops
from sslax.models.correlation import correlation_lookup, correlation_pyramid, cost_volume, lookup

RANDOM = np.random.RandomState(0)


def normal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def shifts(first, second, radius):
    """float64, displacement by displacement."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    _, h, w, _ = first.shape
    side = 2 * radius + 1
    padded = np.pad(second, ((0, 0), (radius, radius), (radius, radius), (0, 0)))
    volume = [
        (first * padded[:, i : i + h, j : j + w]).mean(-1) for i in range(side) for j in range(side)
    ]
    return np.stack(volume, axis=-1)


# A row of several blocks, of one, of fewer pixels than the window; no window at all.
@pytest.mark.parametrize("height, width, radius", [(3, 70, 2), (5, 7, 4), (2, 3, 1), (2, 3, 0)])
def test_cost_volume_equals_its_definition(height, width, radius):
    first, second = normal(2, height, width, 3), normal(2, height, width, 3)
    volume = jax.jit(cost_volume, static_argnames="radius")(first, second, radius=radius)
    np.testing.assert_allclose(volume, shifts(first, second, radius), atol=2e-6)


def test_cost_volume_gradient():
    first, second, weight = normal(1, 4, 6, 2), normal(1, 4, 6, 2), normal(1, 4, 6, 25)
    loss = lambda *x: jnp.sum(cost_volume(*x, radius=2) * weight)  # noqa: E731
    gradients = jax.jit(jax.grad(loss, (0, 1)))(first, second)
    # Bilinear: the gradient along a direction is the value with the direction in its place.
    for argument, gradient in enumerate(gradients):
        direction = normal(1, 4, 6, 2)
        pair = [direction if i == argument else x for i, x in enumerate((first, second))]
        expected = (shifts(*pair, 2) * weight).sum()
        np.testing.assert_allclose(np.sum(gradient * direction), expected, rtol=1e-4)


def test_normalized_cost_is_of_each_image_alone_and_blind_to_gain_and_offset():
    volume = jax.jit(lambda a, b: cost_volume(a, b, radius=1, normalize=True))
    first, second = normal(2, 4, 5, 3), normal(2, 4, 5, 3)
    standard = [(x - x.mean((1, 2, 3), keepdims=True)) for x in (first, second)]
    standard = [x / x.std((1, 2, 3), keepdims=True) for x in standard]
    expected = volume(first, second)
    np.testing.assert_allclose(expected, shifts(*standard, 1), atol=1e-5)
    np.testing.assert_allclose(volume(3 * first + 1, 0.5 * second - 2), expected, atol=1e-5)
    other = np.concatenate([first[:1], 100 * first[1:] + 7])
    np.testing.assert_array_equal(volume(other, second)[0], expected[0])
    flat = np.zeros((1, 4, 5, 3), np.float32)
    gradient = jax.jit(jax.grad(lambda x: volume(x, x).sum()))(flat)
    assert np.all(np.asarray(volume(flat, flat)) == 0) and np.all(np.isfinite(gradient))


def test_cost_peaks_where_the_second_image_has_moved_to():
    features = normal(1, 12, 14, 32)
    moved = np.roll(features, (2, -3), axis=(1, 2))  # 2 down, 3 to the left
    volume = jax.jit(partial(cost_volume, normalize=True))(features, moved)
    best = np.argmax(np.asarray(volume)[0, 4:8, 5:9], -1)
    assert np.all(best == (2 + 4) * 9 + (-3 + 4))


def sampled(pyramid, coords, radius):
    """The same lookup by `ops.bilinear_sample`, x before y as in torchvision's `CorrBlock`."""
    offsets = jnp.arange(-radius, radius + 1.0)
    delta = jnp.stack(jnp.meshgrid(offsets, offsets, indexing="ij"), -1)
    found = []
    for level, volume in enumerate(pyramid):
        maps = volume.reshape(-1, *volume.shape[3:], 1)
        places = (coords / 2**level).reshape(-1, 1, 1, 2) + delta
        values = jax.vmap(lambda m, p: ops.bilinear_sample(m, p, padding="zeros")[0])(maps, places)
        found.append(values.reshape(*coords.shape[:3], -1))
    return jnp.concatenate(found, -1)


def test_lookups_agree_with_samples_and_with_each_other():
    first, second = normal(2, 6, 7, 5), normal(2, 6, 7, 5)
    coords = np.asarray(ops.pixel_grid(6, 7)) + 3 * normal(2, 6, 7, 2)
    weight = normal(2, 6, 7, 2 * 25)

    def dense(first, second, coords):
        return lookup(correlation_pyramid(first, second, levels=2), coords, radius=2)

    def reference(first, second, coords):
        return sampled(correlation_pyramid(first, second, levels=2), coords, 2)

    def on_demand(first, second, coords):
        return correlation_lookup(first, second, coords, levels=2, radius=2, rows=4)

    def with_gradients(form):
        run = jax.value_and_grad(lambda *x: jnp.sum(form(*x) * weight), (0, 1, 2))
        return jax.jit(lambda *x: (form(*x), *run(*x)))(first, second, coords)

    expected = with_gradients(reference)
    for form in (dense, on_demand):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-4),
            with_gradients(form),
            expected,
        )


def test_slope_at_whole_coordinates_is_the_right_hand_one():
    first, second = normal(1, 4, 5, 3), normal(1, 4, 5, 3)
    coords = np.full((1, 4, 5, 2), np.float32([2.0, 1.0]))

    @jax.jit
    def run(first, second, coords):
        pyramid = correlation_pyramid(first, second, levels=1)
        return pyramid, jax.grad(lambda c: lookup(pyramid, c, radius=0).sum())(coords)

    pyramid, slope = jax.device_get(run(first, second, coords))
    volume = pyramid[0][0]
    expected = np.stack([volume[..., 1, 3], volume[..., 2, 2]], -1) - volume[..., 1, 2, None]
    np.testing.assert_allclose(slope[0], expected, atol=1e-5)


def test_pyramid_averages_the_second_map_and_divides_by_the_root_of_the_channels():
    first, second = normal(1, 5, 6, 4), normal(1, 5, 6, 4)
    fine, coarse = jax.jit(partial(correlation_pyramid, levels=2))(first, second)
    expected = np.einsum("nhwc,nyxc->nhwyx", first, second) / 2
    np.testing.assert_allclose(fine, expected, atol=1e-5)
    pooled = expected[:, :, :, :4].reshape(1, 5, 6, 2, 2, 3, 2).mean((4, 6))
    np.testing.assert_allclose(coarse, pooled, atol=1e-5)
    with pytest.raises(ValueError, match="need 8 pixels"):
        correlation_pyramid(first, second, levels=4)


def test_lookup_on_demand_takes_less_memory():
    features = jax.ShapeDtypeStruct((1, 32, 32, 4), jnp.float32)
    coords = jax.ShapeDtypeStruct((1, 32, 32, 2), jnp.float32)

    def temporary(form):
        run = jax.grad(lambda *x: jnp.sum(jnp.square(form(*x))), (0, 1))
        compiled = jax.jit(run).lower(features, features, coords).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    def dense(first, second, coords):
        return lookup(correlation_pyramid(first, second, levels=2), coords, radius=1)

    def on_demand(first, second, coords):
        return correlation_lookup(first, second, coords, levels=2, radius=1, rows=1)

    assert temporary(on_demand) < temporary(dense) / 4
