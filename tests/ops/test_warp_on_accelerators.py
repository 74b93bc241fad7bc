"""The warps as accelerators compile them, run on a CPU: against NumPy and the CPU's own form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from sslax import ops
from sslax.ops import platforms

PADDINGS = ["border", "zeros", "reflection", "symmetric"]


@pytest.fixture
def accelerator(monkeypatch):
    """Chooses the code for accelerators; functions have to be traced anew."""

    def run(function, compiled=jax.jit):
        def traced(*args):
            with monkeypatch.context() as patch:
                patch.setattr(platforms, "choose", lambda *args, cpu, default: default(*args))
                return function(*args)

        return compiled(traced)

    return run


def random(*shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def hats(x, size):
    """Bilinear weights [..., size] by their definition."""
    return np.maximum(0.0, 1.0 - np.abs(np.asarray(x, np.float64)[..., None] - np.arange(size)))


def value_and_gradients(warp, cotangent):
    def run(image, flow):
        value, vjp = jax.vjp(warp, image, flow)
        return value, *vjp(cotangent)

    return run


def test_values_and_gradients_equal_float64(accelerator):
    image, flow = random(2, 7, 9, 3), random(2, 7, 9, 2, seed=1, scale=4.0)
    cotangent = random(2, 7, 9, 3, seed=2)
    grid = np.stack(np.meshgrid(np.arange(9), np.arange(7)), axis=-1) + flow.astype(np.float64)
    weights_y, weights_x = hats(grid[..., 1], 7), hats(grid[..., 0], 9)
    read = np.einsum("bhwj,bhwi,bjic->bhwc", weights_y, weights_x, image.astype(np.float64))
    added = np.einsum("bhwj,bhwi,bhwc->bjic", weights_y, weights_x, cotangent.astype(np.float64))

    def slope(axis, size):
        inner = (grid[..., axis, None] - np.arange(size))[..., None, :]
        return np.where(np.abs(inner) < 1, -np.sign(inner), 0.0)[..., 0, :]

    by_x = np.einsum("bhwj,bhwi,bjic->bhwc", weights_y, slope(0, 9), image.astype(np.float64))
    by_y = np.einsum("bhwj,bhwi,bjic->bhwc", slope(1, 7), weights_x, image.astype(np.float64))
    by_flow = np.stack([np.sum(s * cotangent, axis=-1) for s in (by_x, by_y)], axis=-1)

    def warp(image, flow):
        return ops.warp_flow(image, flow, padding="zeros")[0]

    results = accelerator(value_and_gradients(warp, cotangent))(image, flow)
    for ours, exact in zip(results, (read, added, by_flow)):
        # Coordinates of about ten are rounded by half a millionth; sums have up to four terms.
        np.testing.assert_allclose(ours, exact, atol=2e-5)
    np.testing.assert_allclose(accelerator(ops.splat)(cotangent, flow), added, atol=2e-5)
    coverage = np.einsum("bhwj,bhwi->bji", weights_y, weights_x)
    np.testing.assert_allclose(accelerator(ops.range_map)(flow), coverage, atol=2e-5)


WARPS = {
    **{p: lambda i, f, p=p: ops.warp_flow(i, f, padding=p)[0] for p in PADDINGS},
    "rows": lambda i, f: ops.warp_disparity(i, f[..., 0])[0],
    "splat": ops.splat,
}


@pytest.mark.parametrize("name", WARPS)
def test_equals_the_form_for_cpus_with_derivatives(accelerator, name):
    warp, shape = WARPS[name], (2, 6, 8, 3)
    image, flow = random(*shape), random(2, 6, 8, 2, seed=1, scale=3.0)
    flow[:, 0], flow[0, 1, 0] = np.round(flow[:, 0]), np.nan

    def loss(image, flow):
        return jnp.sum(warp(image, flow) ** 3)

    def derivatives(image, flow):
        gradient = jax.grad(loss, argnums=(0, 1))
        tangents = random(*shape, seed=2), random(2, 6, 8, 2, seed=3)
        first, second = jax.jvp(gradient, (image, flow), tangents)
        return warp(image, flow), first, second, jax.jvp(warp, (image, flow), tangents)[1]

    ours, theirs = accelerator(derivatives)(image, flow), jax.jit(derivatives)(image, flow)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.isfinite(a).all()
        # Equal terms of up to some hundreds, added in another order.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 4), (4, 1)])
def test_single_rows_columns_and_pixels(accelerator, height, width):
    image, flow = random(2, height, width, 2), random(2, height, width, 2, seed=1)
    for warp in (WARPS["zeros"], WARPS["splat"], WARPS["rows"]):
        ours, theirs = accelerator(warp)(image, flow), jax.jit(warp)(image, flow)
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_half_precision_is_summed_in_float32(accelerator):
    # 4096 samples of one pixel: a sum in bfloat16 would stop at 256.
    ones = jnp.ones((2, 2, 1), jnp.bfloat16)

    def sample(image):
        return jnp.sum(ops.bilinear_sample(image, jnp.zeros((4096, 2)))[0])

    assert accelerator(jax.grad(sample))(ones)[0, 0, 0] == 4096
    piled = -jnp.broadcast_to(ops.pixel_grid(64, 64), (1, 64, 64, 2))
    splatted = accelerator(ops.splat)(jnp.ones((1, 64, 64, 1), jnp.bfloat16), piled)
    assert splatted[0, 0, 0, 0] == 4096


def test_devices_and_checkpoints(accelerator):
    image, flow = random(8, 4, 5, 2), random(8, 4, 5, 2, seed=1)

    def everything(image, flow):
        def loss(image, flow):
            warped = [warp(image, flow) for warp in (WARPS["border"], WARPS["rows"], ops.splat)]
            return sum(jnp.sum(x**2) for x in warped)

        return jax.grad(jax.checkpoint(loss), argnums=(0, 1))(image, flow)

    expected = jax.jit(everything)(image, flow)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")
    mapped = jax.shard_map(everything, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
    single = accelerator(jax.vmap(lambda i, f: everything(i[None], f[None])))(image, flow)
    per_device = accelerator(everything, jax.pmap)(image[:, None], flow[:, None])
    for results in [
        accelerator(mapped)(image, flow),
        *([np.asarray(x)[:, 0] for x in gradients] for gradients in (single, per_device)),
    ]:
        for ours, theirs in zip(results, expected):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def operations(function, platform, *args):
    """How many gathers and scatters a function becomes on a platform, before any optimization."""
    text = jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()
    return tuple(text.count(f'"stablehlo.{name}"') for name in ("gather", "scatter"))


def test_one_index_per_sample_on_a_tpu():
    image, flow = random(2, 4, 5, 2), random(2, 4, 5, 2, seed=1)

    def loss(image, flow):
        return jnp.sum(ops.warp_flow(image, flow)[0] ** 2)

    by_flow, by_both = partial(jax.grad, argnums=1), partial(jax.grad, argnums=(0, 1))
    assert operations(by_flow(loss), "tpu", image, flow) == (1, 0)
    assert operations(by_both(loss), "tpu", image, flow) == (1, 1)
    assert operations(ops.splat, "tpu", image, flow) == (0, 1)
    assert operations(by_flow(loss), "cpu", image, flow) == (4, 0)
    assert operations(by_both(loss), "cpu", image, flow) == (4, 1)
