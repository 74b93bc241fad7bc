"""Color operations against torchvision's definition on a photograph."""

import itertools
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data

from sslax import augment
from sslax.augment import color

GOLDEN = np.load(Path(__file__).parent / "golden" / "augment.npz")
BYTES = data.coffee()[::8, ::8][20:44, 20:44]
IMAGE = BYTES / np.float32(255)
POINTWISE = [
    ("adjust_brightness", 0.3),
    ("adjust_brightness", 1.7),
    ("adjust_contrast", 0.3),
    ("adjust_contrast", 1.8),
    ("adjust_saturation", 0.0),
    ("adjust_saturation", 1.8),
    ("adjust_hue", -0.5),
    ("adjust_hue", -0.13),
    ("adjust_hue", 0.2),
    ("adjust_hue", 0.45),
]
ADJUSTMENTS = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")
JITTERED = {name: jax.jit(getattr(augment, name)) for name in ADJUSTMENTS}


@pytest.mark.parametrize(("name", "argument"), POINTWISE)
def test_adjustments_equal_torchvision(name, argument):
    result = JITTERED[name](IMAGE, argument)
    np.testing.assert_allclose(result, GOLDEN[f"{name}_{argument}"], atol=5e-4)


@pytest.mark.parametrize("name", ADJUSTMENTS)
def test_saturation_and_hue_do_not_change_one_channel_images(name):
    gray = IMAGE[..., :1]
    result = JITTERED[name](gray, 0.4)
    np.testing.assert_allclose(result, GOLDEN[f"{name}_gray"], atol=5e-4)
    if name in ("adjust_saturation", "adjust_hue"):
        np.testing.assert_array_equal(result, gray)


def test_grayscale():
    np.testing.assert_allclose(augment.to_grayscale(IMAGE), GOLDEN["to_grayscale"], atol=5e-4)
    np.testing.assert_array_equal(augment.to_grayscale(IMAGE[..., :1]), IMAGE[..., :1])


def test_solarize_inverts_128_and_above():
    np.testing.assert_allclose(augment.solarize(IMAGE), GOLDEN["solarize"], atol=5e-4)
    # Exact for 8-bit images with threshold 128, on the photograph and at every value.
    np.testing.assert_array_equal(
        np.round(augment.solarize(IMAGE) * 255).astype(np.uint8), GOLDEN["solarize_bytes"]
    )
    values = np.arange(256)
    solarize = jax.jit(lambda image: augment.solarize(augment.to_float(image)))
    result = solarize(values.astype(np.uint8).reshape(16, 16, 1))
    expected = np.where(values >= 128, 255 - values, values)
    np.testing.assert_allclose(np.ravel(result) * 255, expected, atol=1e-4)


def test_hue_of_gray_and_of_pure_colors():
    adjust_hue = JITTERED["adjust_hue"]
    gray = np.full((1, 1, 3), np.float32(0.3))
    np.testing.assert_array_equal(adjust_hue(gray, 0.3), gray)
    np.testing.assert_array_equal(adjust_hue(np.zeros((1, 1, 3), np.float32), 0.3), 0.0)
    colors = np.eye(3, dtype=np.float32)[None]
    shifted = adjust_hue(colors, 1 / 3)
    np.testing.assert_allclose(shifted, np.roll(colors, 1, axis=2), atol=1e-6)
    np.testing.assert_allclose(adjust_hue(IMAGE, 0.0), IMAGE, atol=1e-6)


def test_jitter_in_every_order_equals_torchvision():
    """All 24 orders with factors 1.6, 1.7, 1.8 and hue 0.2, clipped between operations."""
    orders = np.array(list(itertools.permutations(range(4))))
    blends = np.array([[op for op in order if op < 3] for order in orders])
    before_hue = np.argmax(orders == 3, axis=1)
    factors = jnp.array([1.6, 1.7, 1.8])
    image = IMAGE[:12, :12]
    jitter = partial(color._jitter, image, factors, jnp.float32(0.2), shift_hue=True)
    results = jax.jit(jax.vmap(jitter))(blends, before_hue)
    np.testing.assert_allclose(results, GOLDEN["jitter_orders"], atol=5e-4)
    # The orders give different results, so the test can tell them apart.
    gaps = np.abs(GOLDEN["jitter_orders"][:, None] - GOLDEN["jitter_orders"]).max(axis=(2, 3, 4))
    assert np.median(gaps) > 0.02


def test_jitter_factors_and_orders_are_uniform():
    draws = 24_000
    sample = partial(color._sample_jitter, strengths=(0.4, 1.5, 0.0), hue=0.1, probability=0.75)
    keys = jax.random.split(jax.random.key(2), draws)
    factors, shift, order, before_hue = jax.tree.map(np.asarray, jax.jit(jax.vmap(sample))(keys))

    active = factors[:, 0] != 1.0
    assert abs(active.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / draws)
    assert np.all(factors[~active] == 1.0) and np.all(shift[~active] == 0.0)
    for values, low, high in [
        (factors[active, 0], 0.6, 1.4),
        (factors[active, 1], 0.0, 2.5),
        (shift[active], -0.1, 0.1),
    ]:
        assert low <= values.min() and values.max() <= high
        levels = np.linspace(0.1, 0.9, 9)
        np.testing.assert_allclose(
            np.quantile(values, levels), low + (high - low) * levels, atol=0.02 * (high - low)
        )
    assert np.all(factors[:, 2] == 1.0)

    names, counts = np.unique(np.column_stack([order, before_hue]), axis=0, return_counts=True)
    assert len(names) == 24
    expected = draws / 24
    # Chi-square with 23 degrees of freedom: 60 is exceeded by chance once in 25,000.
    assert np.sum((counts - expected) ** 2 / expected) < 60


def test_color_jitter_on_one_channel_is_brightness_and_contrast():
    gray = IMAGE[:12, :12, :1]
    jitter = partial(color.color_jitter, image=gray, saturation=0.9, hue=0.4)
    keys = jax.random.split(jax.random.key(0), 8)
    jittered = jax.jit(jax.vmap(jitter))(keys)
    np.testing.assert_allclose(jittered, np.stack([gray] * 8), atol=1e-6)
    jitter = jax.jit(partial(color.color_jitter, image=gray, brightness=0.4, contrast=0.4))
    changed = np.asarray(jitter(jax.random.key(0)))
    assert np.abs(changed - gray).max() > 0.02


def test_random_operations_have_their_probability():
    image = np.float32([[[0.9, 0.2, 0.1]]])
    keys = jax.random.split(jax.random.key(3), 4096)
    for operation, probability in [
        (augment.random_grayscale, 0.2),
        (augment.random_solarize, 0.3),
    ]:
        run = jax.vmap(partial(operation, image=image, probability=probability))
        results = np.asarray(jax.jit(run)(keys))
        share = np.mean(np.any(results != image, axis=(1, 2, 3)))
        assert abs(share - probability) < 4 * np.sqrt(probability * (1 - probability) / 4096)


def test_errors():
    with pytest.raises(ValueError, match=r"hue in \[0, 0.5\]"):
        augment.color_jitter(jax.random.key(0), IMAGE, hue=0.6)
    with pytest.raises(ValueError, match="channels last"):
        augment.adjust_saturation(jnp.zeros((3, 8, 8)), 0.5)
    with pytest.raises(TypeError, match="to_float"):
        augment.adjust_contrast(jnp.asarray(BYTES), 0.5)
