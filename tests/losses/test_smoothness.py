"""Edge-aware smoothness against loops over pixels in float64, and on planes, steps, constants."""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sslax import losses

GOLDEN = pathlib.Path(__file__).parent / "golden" / "geometric.npz"
VARIANTS = [  # field, options: the order of the golden values
    ("disparity", {}),
    ("disparity", {"mean_normalize": True}),
    ("forward", {"edge_weight": 150.0, "penalty": losses.robust_l1}),
    (
        "forward",
        {"order": 2, "edge_weight": 10.0, "edge": "gaussian", "penalty": losses.robust_l1},
    ),
    ("disparity", {"order": 2, "edge_weight": 0.0, "cross_terms": True}),
]


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as values:
        golden = dict(values)
    return {
        "image": jnp.asarray(np.float32(golden["pixels"][0]) / 255),
        "disparity": jnp.asarray(golden["disparity"][0]),
        "forward": jnp.asarray(golden["forward"]),
        "smoothness": golden["smoothness"],
    }


def smoothness(field, image, **options):
    return jax.jit(partial(losses.edge_aware_smoothness, **options))(field, image)


@pytest.mark.parametrize("index", range(len(VARIANTS)))
def test_variants_equal_loops(golden, index):
    field, options = VARIANTS[index]
    ours = smoothness(golden[field], golden["image"], **options)
    np.testing.assert_allclose(ours, golden["smoothness"][index], rtol=1e-4)


def test_a_plane_has_slope_but_no_curvature(golden):
    y, x = np.mgrid[:14, :16]
    plane = np.float32(2.0 * x - 3.0 * y)
    flat = np.zeros_like(golden["image"])
    assert smoothness(plane, flat) == 5
    second = smoothness(plane, golden["image"], order=2, cross_terms=True)
    assert second == 0


def test_a_step_at_an_image_edge_is_downweighted():
    step = np.float32(np.arange(8) >= 4) * np.ones((6, 1), np.float32)
    image = np.repeat(step[..., None], 3, -1)
    plain = smoothness(step, np.zeros_like(image))
    for edge, expected in (("exponential", np.exp(-2.0)), ("gaussian", np.exp(-4.0))):
        aware = smoothness(step, image, edge_weight=2.0, edge=edge)
        np.testing.assert_allclose(aware / plain, expected, rtol=1e-5)


def test_mean_normalization_removes_the_scale(golden):
    loss = partial(smoothness, image=golden["image"], mean_normalize=True)
    slope = jax.jit(jax.grad(loss))
    disparity = golden["disparity"]
    np.testing.assert_allclose(loss(disparity), loss(0.01 * disparity), rtol=1e-4)
    # Shrinking the disparity does not help: the gradient has no part along the disparity itself.
    along = np.vdot(slope(disparity), disparity)
    np.testing.assert_allclose(along, 0, atol=1e-5)
    assert np.isfinite(slope(np.zeros_like(disparity))).all()


def test_gradient_is_finite_for_constant_fields_and_matches_finite_differences():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        image, field = jnp.asarray(rng.random((5, 6, 3))), rng.random((5, 6, 2))
        for order in (1, 2):
            loss = jax.jit(
                lambda f, order=order: losses.edge_aware_smoothness(
                    f, image, order=order, edge_weight=3.0, penalty=losses.robust_l1
                )
            )
            slope = jax.jit(jax.grad(loss))
            gradient = slope(field)
            direction = rng.normal(size=field.shape)
            difference = (loss(field + 1e-6 * direction) - loss(field - 1e-6 * direction)) / 2e-6
            np.testing.assert_allclose(np.vdot(gradient, direction), difference, rtol=1e-6)
            np.testing.assert_array_equal(slope(np.ones_like(field)), 0)
        plain = jax.jit(jax.grad(lambda f: losses.edge_aware_smoothness(f, image)))
        np.testing.assert_array_equal(plain(np.ones_like(field)), 0)


def test_eight_devices_equal_one_and_examples_count_alike(golden):
    rng = np.random.default_rng(1)
    fields = jnp.asarray(rng.random((8, 6, 7)), jnp.float32)
    images = jnp.asarray(rng.random((8, 6, 7, 3)), jnp.float32)
    loss = lambda f, i: losses.edge_aware_smoothness(f, i, mean_normalize=True)  # noqa: E731
    value, gradient = jax.jit(jax.value_and_grad(loss))(fields, images)
    each = jax.jit(jax.vmap(loss))(fields, images)
    np.testing.assert_allclose(np.mean(each), value, rtol=1e-5)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")
    batch = jax.device_put((fields, images), NamedSharding(mesh, spec))
    mean = lambda f, i: jax.lax.pmean(loss(f, i), "data")  # noqa: E731
    mapped = jax.shard_map(mean, mesh=mesh, in_specs=spec, out_specs=PartitionSpec())
    for function in (loss, mapped):
        sharded_value, sharded_gradient = jax.jit(jax.value_and_grad(function))(*batch)
        np.testing.assert_allclose(sharded_value, value, rtol=1e-5)
        np.testing.assert_allclose(sharded_gradient, gradient, rtol=1e-4, atol=1e-7)
    per_device = jax.pmap(mean, axis_name="data")(fields[:, None], images[:, None])
    np.testing.assert_allclose(per_device, np.full(8, value), rtol=1e-5)


def test_bfloat16_is_reduced_in_float32(golden):
    field, image = golden["forward"].astype(jnp.bfloat16), golden["image"].astype(jnp.bfloat16)
    exact = smoothness(field.astype(jnp.float32), image.astype(jnp.float32))
    ours = smoothness(field, image)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, exact, rtol=1e-6)


def test_the_image_difference_may_span_the_last_two_of_three_pixels():
    """A curve at columns 2 to 4, an edge between columns 3 and 4: only there is it relaxed."""
    field = np.zeros((3, 6), np.float32)
    field[:, 4:] = 1.0
    image = np.repeat(field[..., None], 3, -1)
    loss = partial(smoothness, field, image, order=2)
    # The second derivative is 1 at columns 2 to 4 and -1 at columns 3 to 5.
    np.testing.assert_allclose(loss(edge_weight=2.0), 2 * np.exp(-2.0) / 4, rtol=1e-6)
    short = loss(edge_weight=2.0, edge_stride=1)
    np.testing.assert_allclose(short, (np.exp(-2.0) + 1) / 4, rtol=1e-6)


def test_errors(golden):
    field, image = golden["disparity"], golden["image"]
    with pytest.raises(ValueError, match="order is 3: Known: 1, 2"):
        losses.edge_aware_smoothness(field, image, order=3)
    with pytest.raises(ValueError, match="exponential, gaussian"):
        losses.edge_aware_smoothness(field, image, edge="gauss")
    with pytest.raises(ValueError, match="edge_stride is 2: Known: 1"):
        losses.edge_aware_smoothness(field, image, edge_stride=2)
    with pytest.raises(ValueError, match="order=2"):
        losses.edge_aware_smoothness(field, image, cross_terms=True)
    with pytest.raises(AssertionError, match="edge_aware_smoothness expects"):
        losses.edge_aware_smoothness(field[:-1], image)
