"""Lab against scikit-image in float64; the quantized ab plane against NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import color, data

from sslax import losses, ops
from sslax.ops import platforms

BYTES = data.astronaut()[::16, ::20]
RGB = BYTES / 255
LAB = color.rgb2lab(RGB)
RNG = np.random.default_rng(0)
COLORS = RNG.uniform(size=(400, 3))
TO_LAB, TO_RGB = jax.jit(ops.rgb_to_lab), jax.jit(ops.lab_to_rgb)
KINKS = (0.04045, 0.0031308 * 12.92, 0.008856)


def corners(levels):
    """All colors whose channels are `levels`."""
    return np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)


@pytest.fixture(scope="module")
def bins():
    return ops.in_gamut_ab_bins(step=10)


def test_lab_equals_scikit_image_in_float64(x64):
    dark = corners([0.0, 1e-4, 0.01, 0.039, 0.0405, 0.05])
    rgb = np.concatenate([RGB.reshape(-1, 3), COLORS, corners([0.0, 1.0]), dark])
    expected = color.rgb2lab(rgb)
    lab, back = jax.jit(lambda rgb, lab: (ops.rgb_to_lab(rgb), ops.lab_to_rgb(lab)))(rgb, expected)
    assert lab.dtype == back.dtype == np.float64
    # scikit-image rounds the slope of the linear part to 7.787: 5e-6 of 116 and 500.
    np.testing.assert_allclose(lab, expected, atol=3e-4)
    np.testing.assert_allclose(back, color.lab2rgb(expected), atol=1e-6)
    np.testing.assert_allclose(TO_RGB(lab), rgb, atol=1e-12)


def test_lab_in_float32():
    lab = TO_LAB(jnp.asarray(RGB, jnp.float32))
    assert lab.dtype == np.float32
    np.testing.assert_allclose(lab, LAB, atol=1e-3)
    np.testing.assert_allclose(TO_RGB(lab), RGB, atol=1e-5)
    half = TO_LAB(jnp.asarray(RGB[:2], jnp.bfloat16))
    assert half.dtype == np.float32
    with pytest.raises(TypeError, match="dtype uint8"):
        ops.rgb_to_lab(jnp.asarray(BYTES))
    with pytest.raises(AssertionError, match="length 3 along axis -1"):
        ops.rgb_to_lab(jnp.zeros((4, 4, 1)))


def test_grays_have_zero_ab():
    lab = TO_LAB(jnp.broadcast_to(jnp.linspace(0, 1, 50)[:, None], (50, 3)))
    assert np.abs(lab[:, 1:]).max() < 0.01
    assert (np.diff(lab[:, 0]) > 0).all() and lab[0, 0] == 0
    np.testing.assert_allclose(lab[-1, 0], 100, atol=1e-3)


def test_colors_out_of_the_gamut_are_clipped():
    wild = jnp.array([[50.0, 120.0, -120.0], [90.0, -120.0, 0.0], [0.0, 60.0, 60.0]])
    rgb = TO_RGB(wild)
    assert rgb.min() == 0 and rgb.max() == 1
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(ops.lab_to_rgb(x) ** 2)))(wild)
    assert np.isfinite(gradient).all()


def test_gradients_of_lab(check_derivatives):
    """Central differences away from the kinks, on both sides of each."""
    check_derivatives(ops.rgb_to_lab, corners([0.001, 0.02, 0.2, 0.9]), step=1e-7)
    inside = color.rgb2lab(corners([0.01, 0.2, 0.9]))
    check_derivatives(ops.lab_to_rgb, inside, step=1e-6)


@pytest.mark.parametrize("value", [-0.1, 0.0, 1.0, *KINKS])
def test_gradients_below_black_at_black_and_at_the_kinks(value):
    rgb = np.full((3,), value, np.float32)
    jacobian = np.asarray(jax.jit(jax.jacrev(ops.rgb_to_lab))(rgb))
    assert np.isfinite(jacobian).all() and (jacobian[0] > 0).all()
    back = jax.jit(jax.jacrev(ops.lab_to_rgb))(TO_LAB(rgb))
    assert np.isfinite(back).all()
    if 0 < value < 1:  # elsewhere the clip halves it
        np.testing.assert_allclose(back @ jacobian, np.eye(3), atol=0.1)


def test_bins_are_those_that_contain_colors(bins):
    assert bins.shape == (261, 2) and bins.dtype == np.float32
    np.testing.assert_array_equal(bins, 10 * np.round(bins / 10))
    np.testing.assert_array_equal(bins, np.unique(bins, axis=0))  # sorted, each once
    table = set(map(tuple, bins))
    # Every color on a grid of every fifth level has a bin.
    ab = color.rgb2lab(corners(np.arange(0, 256, 5) / 255))[:, 1:]
    occupied = set(map(tuple, 10 * np.floor(ab / 10 + 0.5)))
    assert occupied <= table and len(occupied) > 250
    assert (0, 0) in table and (-90, 50) not in table
    assert len(ops.in_gamut_ab_bins(step=20)) < 100
    with pytest.raises(ValueError, match="positive and finite; got 0"):
        ops.in_gamut_ab_bins(step=0)


@pytest.mark.parametrize(
    ("neighbors", "sigma", "form"),
    [(1, 5.0, "cpu"), (5, 5.0, "cpu"), (5, 5.0, "default"), (10, 3.0, "default")],
)
def test_soft_targets(bins, neighbors, sigma, form, monkeypatch):
    monkeypatch.setattr(platforms, "choose", lambda *arrays, **forms: forms[form](*arrays))
    # Random colors have no ties, which NumPy would break differently.
    ab = color.rgb2lab(COLORS).reshape(20, 20, 3)[..., 1:]
    targets = jax.jit(lambda ab: ops.soft_encode_ab(ab, bins, neighbors=neighbors, sigma=sigma))(
        jnp.asarray(ab, jnp.float32)
    )
    assert targets.shape == (20, 20, 261) and targets.dtype == np.float32
    distance = np.linalg.norm(ab[..., None, :] - bins.astype(float), axis=-1)
    nearest = np.argsort(distance, axis=-1)[..., :neighbors]
    near = np.take_along_axis(distance, nearest, -1)
    weight = np.exp(-(near**2) / (2 * sigma**2))
    expected = np.zeros((20, 20, 261))
    np.put_along_axis(expected, nearest, weight / weight.sum(-1, keepdims=True), -1)
    np.testing.assert_allclose(targets, expected, atol=1e-4)


def test_soft_targets_at_a_bin_and_far_away(bins):
    ab = jnp.array([[20.0, -30.0], [4000.0, 4000.0]])
    targets = np.asarray(jax.jit(partial(ops.soft_encode_ab, bins=bins, neighbors=5))(ab))
    around = np.exp(-(10**2) / (2 * 5**2))
    cross = {(20, -30): 1, (30, -30): around, (10, -30): around}
    cross |= {(20, -20): around, (20, -40): around}
    for center, share in cross.items():
        index = np.flatnonzero((bins == center).all(-1))
        np.testing.assert_allclose(targets[0, index], share / (1 + 4 * around), rtol=1e-4)
    # Targets sum to 1 even where every Gaussian underflows.
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-5)
    for options, message in (({"neighbors": 262}, "1, ..., 261"), ({"sigma": 0.0}, "positive")):
        with pytest.raises(ValueError, match=message):
            ops.soft_encode_ab(ab, bins, **options)


def test_equal_distances_go_to_the_first_bins_on_every_platform(bins, monkeypatch):
    ab = jnp.array([[25.0, -35.0], [20.0, 5.0]])  # between four bins, and two
    found = []
    for form in ("cpu", "default"):
        monkeypatch.setattr(platforms, "choose", lambda x, form=form, **forms: forms[form](x))
        encode = jax.jit(lambda ab: ops.soft_encode_ab(ab, bins, neighbors=3))
        found.append(np.asarray(encode(ab)))
    assert ((found[0] > 0).sum(-1) == 3).all()
    np.testing.assert_allclose(*found, atol=1e-6)


def test_annealed_mean(bins):
    logits = RNG.normal(size=(4, 6, 261)) * 3
    for temperature in (0.38, 1.0):
        # The paper's form: probabilities to the power 1 / T, renormalized.
        shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        shares = shares ** (1 / temperature)
        expected = shares / shares.sum(-1, keepdims=True) @ bins.astype(float)
        result = jax.jit(partial(ops.annealed_mean, temperature=temperature))(logits, bins)
        np.testing.assert_allclose(result, expected, atol=1e-3)
    sharp = jax.jit(partial(ops.annealed_mean, temperature=1e-3))(logits, bins)
    np.testing.assert_allclose(sharp, bins[logits.argmax(-1)], atol=1e-3)
    with pytest.raises(ValueError, match="temperature must be positive"):
        ops.annealed_mean(jnp.asarray(logits), bins, temperature=0)


def test_annealed_mean_inverts_soft_encoding(bins):
    ab = jnp.asarray(LAB[..., 1:], jnp.float32)
    targets = jax.jit(partial(ops.soft_encode_ab, bins=bins))(ab)
    logits = np.log(np.maximum(targets, 1e-9))
    back = jax.jit(partial(ops.annealed_mean, temperature=1.0))(logits, bins)
    assert np.abs(back - ab).mean() < 1.0


def test_histogram_gives_the_prior(bins):
    ab = LAB[..., 1:]
    counts = np.asarray(jax.jit(ops.ab_histogram)(jnp.asarray(ab, jnp.float32), bins))
    # On a regular grid the nearest center is the rounded color.
    rounded, expected = np.unique(
        10 * np.floor(ab.reshape(-1, 2) / 10 + 0.5), axis=0, return_counts=True
    )
    assert counts.dtype == np.int32 and counts.sum() == ab[..., 0].size
    for center, count in zip(rounded, expected):
        assert counts[np.flatnonzero((bins == center).all(-1))[0]] == count
    weights = np.asarray(jax.jit(losses.class_rebalancing_weights)(counts))
    assert weights[np.argmax(counts)] == weights.min()
    np.testing.assert_allclose((weights * counts).sum() / counts.sum(), 1, rtol=1e-5)


def test_vmap_equals_a_loop(bins):
    images = jnp.asarray(RGB[:6].reshape(2, 3, -1, 3), jnp.float32)

    def encode(image):
        ab = ops.rgb_to_lab(image)[..., 1:]
        return ops.soft_encode_ab(ab, bins, neighbors=5), ops.ab_histogram(ab, bins)

    many = jax.jit(jax.vmap(encode))(images)
    for i in range(2):
        for one, all_ in zip(jax.jit(encode)(images[i]), many):
            np.testing.assert_allclose(one, all_[i], atol=1e-5)
