"""Filters, resizing, structural similarity and census against PyTorch, kornia, scikit-image."""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import ops

GOLDEN = pathlib.Path(__file__).parent / "golden" / "image.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as values:
        golden = dict(values)
    return golden | {k: np.float32(golden[k]) / 255 for k in "ab"}


def pair(golden):
    return jnp.asarray(golden["a"]), jnp.asarray(golden["b"])


@pytest.mark.parametrize(
    ("window", "padding", "name"),
    [
        ("box3", "reflect", "ssim_torch_box"),
        ("box3", "valid", "ssim_scikit_box"),
        ("gaussian", "reflect", "ssim_kornia_gaussian"),
        ("gaussian", "valid", "ssim_scikit_gaussian"),
    ],
)
def test_ssim_equals_references(golden, window, padding, name):
    ours = jax.jit(partial(ops.ssim, window=window, padding=padding))(*pair(golden))
    # Variances are differences of second moments: float32 has errors of 1e-7, against c2 = 9e-4.
    np.testing.assert_allclose(ours, golden[name], atol=5e-4)


def test_ssim_gradients_equal_torch(golden):
    loss = lambda a, b: (ops.ssim(a, b) ** 2).sum()  # noqa: E731
    for ours, name in zip(jax.jit(jax.grad(loss, (0, 1)))(*pair(golden)), "ab"):
        reference = golden[f"ssim_gradient_{name}"]
        np.testing.assert_allclose(ours, reference, atol=1e-3 * abs(reference).max())


def test_ssim_of_equal_images_is_one_with_zero_gradient(golden):
    a, _ = pair(golden)
    for image in (a, jnp.zeros_like(a), jnp.ones_like(a)):
        loss = lambda x, y=image: ops.ssim(x, y).mean()  # noqa: E731
        value, gradient = jax.jit(jax.value_and_grad(loss))(image)
        np.testing.assert_allclose(value, 1, atol=1e-5)
        np.testing.assert_allclose(gradient, 0, atol=1e-4)


def test_ssim_broadcasts_and_equals_vmap(golden):
    a, b = pair(golden)
    many = jnp.stack([a, b, a[::-1]])
    results = []
    for function in (ops.ssim, jax.vmap(ops.ssim, (None, 0))):
        loss = lambda x, f=function: ((f(x, many) ** 2).sum(), f(x, many))  # noqa: E731
        results.append(jax.jit(jax.grad(loss, has_aux=True))(a))
    (gradient, together), (mapped_gradient, mapped) = results
    np.testing.assert_allclose(together, mapped, atol=1e-4)
    np.testing.assert_allclose(gradient, mapped_gradient, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("padding", ["reflect", "valid"])
@pytest.mark.parametrize("taps", [(0.25, 0.5, 0.25), (0.1, 0.2, 0.4, 0.2, 0.1)])
def test_filter_backward_is_the_transpose(padding, taps):
    # The custom backward pass against JAX's transpose of a dense convolution of the padded image.
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 5, 6, 3)), jnp.float32)
    reach = len(taps) // 2
    kernel = np.float32(np.outer(taps, taps)[:, :, None, None] * np.ones((1, 1, 1, 3)))

    def reference(x):
        if padding == "reflect":
            x = jnp.pad(x, [(0, 0), (reach, reach), (reach, reach), (0, 0)], mode="reflect")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", None, None, ("NHWC", "HWIO", "NHWC"), 3, precision="highest"
        )

    @jax.jit
    def both(x, y):
        expected, transpose = jax.vjp(reference, x)
        ours, backward = jax.vjp(lambda x: ops.separable_filter(x, taps, padding=padding), x)
        return (ours, expected), (backward(y)[0], transpose(y)[0])

    y = jnp.asarray(rng.normal(size=jax.eval_shape(reference, x).shape), jnp.float32)
    for ours, expected in both(x, y):
        np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "size", "method"),
    [
        ("bilinear_twice", (32, 40), "bilinear"),
        ("bilinear_odd", (27, 33), "bilinear"),
        ("bilinear_smaller", (11, 13), "bilinear"),
        ("area_half", (8, 10), "area"),
        ("area_odd", (11, 13), "area"),
    ],
)
def test_resize_equals_references(golden, name, size, method):
    ours = jax.jit(partial(ops.resize, size=size, method=method))(golden["a"])
    np.testing.assert_allclose(ours, golden[name], atol=1e-5)


def test_resize_samples_a_ramp_at_pixel_centers():
    ramp = np.broadcast_to(np.arange(12, dtype=np.float32)[None, :, None], (4, 12, 1))
    for width in (24, 36, 18, 6):
        row = np.asarray(jax.jit(partial(ops.resize, size=(4, width)))(ramp))[0, :, 0]
        positions = (np.arange(width) + 0.5) * 12 / width - 0.5
        np.testing.assert_allclose(row, np.clip(positions, 0, 11), atol=1e-5)


def test_blur_gray_and_census_equal_references(golden):
    a, _ = pair(golden)
    blur = jax.jit(partial(ops.gaussian_blur, sigma=1.2, size=7))
    np.testing.assert_allclose(blur(a), golden["blur"], atol=1e-6)
    gray = np.asarray(jax.jit(ops.rgb_to_gray)(a))
    np.testing.assert_allclose(gray[..., 0], golden["gray"], atol=1e-6)
    census = jax.jit(partial(ops.census_transform, radius=2))
    np.testing.assert_allclose(census(a), golden["census"], atol=2e-4)


def test_image_gradients_and_pyramid():
    image = np.arange(48, dtype=np.float32).reshape(1, 6, 8, 1) ** 2
    dx, dy = jax.jit(partial(ops.image_gradients, stride=2))(image)
    np.testing.assert_array_equal(dx, image[:, :, 2:] - image[:, :, :-2])
    np.testing.assert_array_equal(dy, image[:, 2:] - image[:, :-2])
    pyramid = jax.jit(partial(ops.image_pyramid, levels=3))(image)
    assert [level.shape[1:3] for level in pyramid] == [(6, 8), (3, 4), (1, 2)]
    np.testing.assert_allclose([np.mean(x) for x in pyramid[:2]], image.mean(), rtol=1e-6)


def test_bfloat16_is_computed_in_float32(golden):
    a, b = (x.astype(jnp.bfloat16) for x in pair(golden))
    ssim = jax.jit(ops.ssim)
    exact = ssim(a.astype(jnp.float32), b.astype(jnp.float32))
    np.testing.assert_array_equal(ssim(a, b), exact)
    assert ssim(a, b).dtype == jnp.float32
    assert jax.jit(partial(ops.gaussian_blur, sigma=1.0))(a).dtype == jnp.bfloat16


def test_errors():
    image = jnp.zeros((4, 4, 3))
    with pytest.raises(ValueError, match="odd"):
        ops.separable_filter(image, (0.5, 0.5))
    with pytest.raises(ValueError, match="the kernel shifts"):
        ops.gaussian_blur(image, sigma=1.0, size=4)
    with pytest.raises(ValueError, match="at least 6"):
        ops.ssim(image, image, window="gaussian")
    with pytest.raises(ValueError, match='did you mean "box3"'):
        ops.ssim(image, image, window="box5")
    with pytest.raises(ValueError, match="Known: reflect, valid"):
        ops.ssim(image, image, padding="same")
    with pytest.raises(ValueError, match="too small for 4 levels"):
        ops.image_pyramid(image, 4)
    with pytest.raises(ValueError, match="must be 3"):
        ops.rgb_to_gray(image[..., :2])
    with pytest.raises(ValueError, match="Known: area, bilinear"):
        ops.resize(image, (2, 2), method="cubic")
    with pytest.raises(AssertionError, match="ssim expects"):
        ops.ssim(image, image[:, :3])
