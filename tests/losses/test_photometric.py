"""Photometric losses against PyTorch and loops in float64, at generic and at singular points."""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sslax import losses

GOLDEN = pathlib.Path(__file__).parent / "golden" / "geometric.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as values:
        golden = dict(values)
    return golden | {"images": [jnp.asarray(x) for x in np.float32(golden["pixels"]) / 255]}


def numerical_gradient(f, x, step=1e-6):
    """Central differences of a scalar function, in float64."""
    x = np.asarray(x, np.float64)
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[i] = step
        gradient[i] = (f(jnp.asarray(x + moved)) - f(jnp.asarray(x - moved))) / (2 * step)
    return gradient


def test_photometric_error_equals_torch(golden):
    a, b, _ = golden["images"]
    error, gradient = jax.jit(
        lambda b: (losses.photometric_error(a, b), jax.grad(_mean_error, 1)(a, b))
    )(b)
    np.testing.assert_allclose(error, golden["photometric"], atol=1e-4)
    reference = golden["photometric_gradient"]
    np.testing.assert_allclose(gradient, reference, atol=1e-3 * abs(reference).max())


def _mean_error(a, b):
    return losses.photometric_error(a, b).mean()


def test_photometric_error_without_ssim_is_the_absolute_difference(golden):
    a, b, _ = golden["images"]
    error = jax.jit(partial(losses.photometric_error, ssim_weight=0.0))(a, b)
    np.testing.assert_allclose(error, np.abs(a - b).mean(-1), atol=1e-7)


@pytest.mark.parametrize("window", ["box3", "gaussian"])
def test_equal_images_have_no_error_and_a_finite_gradient(golden, window):
    a = golden["images"][0]
    for image in (a, jnp.zeros_like(a)):
        loss = lambda x, y=image: losses.photometric_error(y, x, window=window).mean()  # noqa: E731
        value, gradient = jax.jit(jax.value_and_grad(loss))(image)
        np.testing.assert_allclose(value, 0, atol=1e-5)
        np.testing.assert_allclose(gradient, 0, atol=1e-4)


def test_photometric_gradient_equals_finite_differences():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        a, b = rng.random((2, 4, 5, 1))
        loss = jax.jit(lambda b: losses.photometric_error(jnp.asarray(a), b).sum())
        numerical = numerical_gradient(loss, b)
        np.testing.assert_allclose(jax.jit(jax.grad(loss))(jnp.asarray(b)), numerical, atol=1e-6)


def test_penalties_equal_their_formulas(golden):
    flow = jnp.asarray(golden["forward"])
    for name in ("charbonnier", "robust_l1", "robust_power"):
        penalty = getattr(losses, name)
        np.testing.assert_allclose(jax.jit(penalty)(flow), golden[name], rtol=2e-6)
        assert jax.jit(jax.grad(penalty))(0.0) == 0
        assert jax.jit(penalty)(flow.astype(jnp.bfloat16)).dtype == jnp.float32
        with pytest.raises(ValueError, match="positive"):
            penalty(flow, epsilon=0.0)


def test_census_error_and_gradient_equal_loops(golden):
    a, b, _ = golden["images"]
    error, valid = jax.jit(partial(losses.census_error, radius=2))(a, b)
    np.testing.assert_allclose(error, golden["census"], rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(valid, np.pad(np.ones((10, 12), bool), 2))
    cotangent = jnp.asarray(golden["cotangent"])
    weighted = lambda a, b: (losses.census_error(a, b, radius=2)[0] * cotangent).sum()  # noqa: E731
    reference = golden["census_gradient"]
    both = jax.jit(jax.grad(weighted, (0, 1)))
    for gradient in (both(a, b)[1], both(b, a)[0]):  # the distance is symmetric
        np.testing.assert_allclose(gradient, reference, atol=2e-3 * abs(reference).max())


def test_census_error_is_invariant_to_brightness(golden):
    a = golden["images"][0]
    loss = jax.jit(lambda b: losses.census_error(a, b)[0].mean())
    value, gradient = jax.jit(jax.value_and_grad(loss))(a)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    # Only rounding errors of the gray levels, 1e-5 of 255, remain.
    scale = np.abs(jax.jit(jax.grad(loss))(a[::-1])).max()
    np.testing.assert_allclose(gradient, 0, atol=2e-3 * scale)
    np.testing.assert_allclose(loss(a + 0.1), 0, atol=1e-4)
    assert loss(a[::-1]) > 1


def test_masked_pixels_do_not_affect_the_census_error(golden):
    # The images are equal except where the mask is 0. Multiplying both images by the mask would
    # leave its outline; ignoring it, masked pixels would affect their neighbors.
    a = golden["images"][0]
    mask = np.ones(a.shape[:2], bool)
    mask[4:7, 4:7] = False

    @jax.jit
    def value_and_grad(b, mask):
        loss = lambda b: losses.masked_mean(*losses.census_error(a, b, mask=mask, radius=2))  # noqa: E731
        return jax.value_and_grad(loss)(b)

    hidden = np.where(mask[..., None], a, 1 - a)
    np.testing.assert_allclose(value_and_grad(hidden, mask)[0], 0, atol=1e-6)
    assert value_and_grad(hidden, np.ones_like(mask))[0] > 1
    # Nothing changes away from the mask, and masked pixels have no gradient.
    b = golden["images"][1]
    census_error = jax.jit(partial(losses.census_error, radius=2))
    plain, _ = census_error(a, b)
    masked, valid = census_error(a, b, mask=mask)
    np.testing.assert_allclose(masked[9:], plain[9:], rtol=1e-5)
    np.testing.assert_array_equal(valid, mask & np.pad(np.ones((10, 12), bool), 2))
    gradient = np.asarray(value_and_grad(b, mask)[1])
    np.testing.assert_array_equal(gradient[~mask], 0)
    assert (gradient[mask] != 0).mean() > 0.9
    # Everything masked: zero loss and zero gradient, not NaN.
    value, gradient = value_and_grad(b, np.zeros_like(mask))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_masked_census_gradient_equals_finite_differences():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        a, b = rng.random((2, 5, 6, 1)) / 100  # a few gray levels, where the transform is nonlinear
        mask, cotangent = jnp.asarray(rng.random((5, 6)) > 0.3), jnp.asarray(rng.random((5, 6)))

        @jax.jit
        def loss(b):
            return (
                losses.census_error(jnp.asarray(a), b, mask=mask, radius=1)[0] * cotangent
            ).sum()

        gradient = jax.jit(jax.grad(loss))(jnp.asarray(b))
        np.testing.assert_allclose(gradient, numerical_gradient(loss, b), rtol=1e-5, atol=1e-4)


def test_minimum_reprojection_equals_pytorch(golden):
    a, *sources = golden["images"]
    sources = np.stack(sources)
    identity = jax.jit(losses.photometric_error)(a, np.roll(sources, 1, 2))
    np.testing.assert_allclose(identity, golden["identity_errors"], atol=1e-4)

    def loss(sources):
        errors = losses.photometric_error(a, sources)
        error, automask = losses.minimum_reprojection(errors, identity_errors=identity)
        return (automask * error).mean(), (error, automask)

    gradient, (error, automask) = jax.jit(jax.grad(loss, has_aux=True))(sources)
    np.testing.assert_allclose(error, golden["minimum"], atol=1e-4)
    np.testing.assert_array_equal(automask, golden["automask"])
    reference = golden["minimum_gradient"]
    np.testing.assert_allclose(gradient, reference, atol=1e-3 * abs(reference).max())


def test_ties_are_kept_and_a_key_breaks_them_at_random():
    errors = np.full((1, 40, 50), 0.2, np.float32)
    minimum = jax.jit(losses.minimum_reprojection)
    _, mask = minimum(errors, identity_errors=errors)
    assert mask.all()
    key = jax.random.key(0)
    _, mask = minimum(errors, identity_errors=errors, key=key)
    assert 0.45 < np.mean(mask) < 0.55
    with pytest.raises(ValueError, match="identity_errors"):
        losses.minimum_reprojection(errors, key=key)


def test_invalid_sources_are_ignored():
    errors = jnp.array([[[0.0, 0.3, 0.0]], [[0.5, 0.4, 0.0]]])
    valid = jnp.array([[[0, 1, 0]], [[1, 1, 0]]])
    error, mask = jax.jit(losses.minimum_reprojection)(errors, valid=valid)
    np.testing.assert_allclose(error, [[0.5, 0.3, 0.0]])
    np.testing.assert_array_equal(mask, [[True, True, False]])
    loss = lambda e: losses.masked_mean(*losses.minimum_reprojection(e, valid=valid))  # noqa: E731
    gradient = jax.jit(jax.grad(loss))(errors)
    np.testing.assert_allclose(gradient, [[[0, 0.5, 0]], [[0.5, 0, 0]]])


def test_explainability_is_the_cross_entropy_with_one():
    logits = np.float32([-200.0, -1.0, 0.0, 2.0, 200.0])
    loss = jax.jit(losses.explainability_regularization)
    expected = np.logaddexp(0, -np.asarray(logits, np.float64))
    np.testing.assert_allclose(loss(logits), expected, rtol=1e-6, atol=1e-7)
    pair = np.stack([logits, np.zeros_like(logits)], -1)
    softmax = -np.asarray(jax.nn.log_softmax(pair))[..., 0]
    np.testing.assert_allclose(loss(pair[..., 0] - pair[..., 1]), softmax, rtol=1e-6)


def test_sharded_shard_map_and_pmap_equal_one_device(golden):
    """All losses combined on a batch of 8: on one device, sharded, under shard_map and pmap."""
    rng = np.random.default_rng(0)
    target, source, other = jnp.asarray(rng.random((3, 8, 10, 12, 3)), jnp.float32)

    def loss(source, target, other, reduce=lambda x: x):
        errors = losses.photometric_error(target, jnp.stack([source, other]))
        error, mask = losses.minimum_reprojection(errors, identity_errors=errors[1:] * 1.1)
        census, valid = losses.census_error(target, source, radius=1)
        # A ratio of sums over the batch: both are reduced over devices before the division.
        total = reduce(jnp.stack([(mask * error).sum(), mask.sum(), (valid * census).sum()]))
        return total[0] / total[1] + 1e-3 * total[2] / valid.size

    value, gradient = jax.jit(jax.value_and_grad(loss))(source, target, other)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")
    batch = jax.device_put((source, target, other), NamedSharding(mesh, spec))
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    sharded_value, sharded_gradient = jax.jit(jax.value_and_grad(loss))(*batch)
    close(sharded_value, value)
    close(sharded_gradient, gradient)

    def summed(source, target, other):
        reduce = lambda x: jax.lax.psum(x, "data")  # noqa: E731
        # `valid.size` is the number of pixels of one device.
        errors = losses.photometric_error(target, jnp.stack([source, other]))
        error, mask = losses.minimum_reprojection(errors, identity_errors=errors[1:] * 1.1)
        census, valid = losses.census_error(target, source, radius=1)
        total = reduce(jnp.stack([(mask * error).sum(), 1.0 * mask.sum(), (valid * census).sum()]))
        return total[0] / total[1] + 1e-3 * total[2] / (8 * valid.size)

    mapped = jax.shard_map(summed, mesh=mesh, in_specs=spec, out_specs=PartitionSpec())
    mapped_value, mapped_gradient = jax.jit(jax.value_and_grad(mapped))(*batch)
    close(mapped_value, value)
    close(mapped_gradient, gradient)
    per_device = jax.pmap(summed, axis_name="data")(
        *(x.reshape(8, 1, *x.shape[1:]) for x in (source, target, other))
    )
    close(per_device, np.full(8, value))


def test_bfloat16_images_give_float32_losses(golden):
    a, b, _ = (x.astype(jnp.bfloat16) for x in golden["images"])
    photometric_error = jax.jit(losses.photometric_error)
    exact = photometric_error(a.astype(jnp.float32), b.astype(jnp.float32))
    np.testing.assert_allclose(photometric_error(a, b), exact, atol=1e-6)
    assert photometric_error(a, b).dtype == jnp.float32
    assert jax.jit(losses.census_error)(a, b)[0].dtype == jnp.float32


def test_errors(golden):
    a, b, _ = golden["images"]
    with pytest.raises(ValueError, match="must be in"):
        losses.photometric_error(a, b, ssim_weight=85)
    with pytest.raises(AssertionError, match="photometric_error expects"):
        losses.photometric_error(a, b[:-1])
    with pytest.raises(ValueError, match="3 "):
        losses.census_error(a[..., :2], b[..., :2])


def test_census_error_of_batches_in_float64(x64):
    a, b = np.random.default_rng(0).uniform(size=(2, 2, 6, 7, 3))
    census_error = jax.jit(partial(losses.census_error, radius=1))
    error, valid = census_error(a, b)
    assert error.dtype == jnp.float64
    single = census_error(np.float32(a), np.float32(b))
    np.testing.assert_allclose(error, single[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(valid, single[1])
