"""Functions that treat examples independently: equal on one device and on eight, no communication.

Losses in which examples interact have tests with `check_parallel` in their own files.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sslax import losses, ops

EXAMPLES, HEIGHT, WIDTH = 8, 7, 9


def make_batch() -> dict:
    rng = np.random.default_rng(0)

    def uniform(*shape, high=1.0):
        return jnp.float32(rng.uniform(0.05, high, (EXAMPLES, *shape)))

    def flow():
        return jnp.float32(rng.uniform(-2, 2, (EXAMPLES, HEIGHT, WIDTH, 2)))

    focal = jnp.array([[9.0, 0, 4], [0, 9, 3], [0, 0, 1]])
    return {
        "image": uniform(HEIGHT, WIDTH, 3),
        "other": uniform(HEIGHT, WIDTH, 3),
        "third": uniform(HEIGHT, WIDTH, 3),
        "forward": flow(),
        "backward": flow(),
        "left": uniform(HEIGHT, WIDTH, high=4.0),
        "right": uniform(HEIGHT, WIDTH, high=4.0),
        "rows": uniform(4, 6),
        "targets": uniform(4, 6),
        "negatives": uniform(4, 6),
        "hidden": uniform(4) > 0.4,
        "seen": uniform(HEIGHT, WIDTH) > 0.3,
        "twist": uniform(6, high=0.1),
        "intrinsics": jnp.broadcast_to(focal, (EXAMPLES, 3, 3)) + uniform(1, 1, high=0.1),
    }


def minimum_reprojection(x):
    errors = jnp.stack([losses.l1(x["image"] - x[name]).mean(-1) for name in ("other", "third")])
    seen = jnp.stack([x["seen"], ~x["seen"]])
    return losses.minimum_reprojection(errors, identity_errors=errors[::-1] * 1.1, valid=seen)


def smoothness(x, **options):
    one = lambda field, image: losses.edge_aware_smoothness(field, image, **options)  # noqa: E731
    return jax.vmap(one)(x["left"], x["image"])  # the loss of the batch is their mean


# Functions from a batch `[B, ...]` to arrays `[B, ...]`.
FUNCTIONS = {
    "forward_backward_difference": lambda x: ops.forward_backward_difference(
        x["forward"], x["backward"]
    ),
    "forward_backward_mask": lambda x: ops.forward_backward_mask(x["forward"], x["backward"]),
    "forward_backward_confidence": lambda x: ops.forward_backward_confidence(
        x["forward"], x["backward"], sigma=3.0
    ),
    "range_map_mask": lambda x: ops.range_map_mask(x["backward"]),
    "rigid_flow": lambda x: ops.rigid_flow(x["left"], ops.se3_exp(x["twist"]), x["intrinsics"]),
    "image_pyramid": lambda x: ops.image_pyramid(x["image"], 2),
    "photometric_error": lambda x: losses.photometric_error(x["image"], x["other"]),
    "census_error": lambda x: losses.census_error(x["image"], x["other"], mask=x["seen"], radius=1),
    "minimum_reprojection": minimum_reprojection,
    "disparity_consistency": lambda x: losses.disparity_consistency(x["left"], x["right"]),
    "forward_backward_error": lambda x: losses.forward_backward_error(x["forward"], x["backward"]),
    "edge_aware_smoothness": lambda x: [
        smoothness(x, mean_normalize=True),
        smoothness(x, order=2, edge_weight=10.0),
    ],
    "sequence_loss": lambda x: losses.sequence_loss(
        jnp.stack([x["forward"], x["backward"]]), x["forward"] + x["backward"], mask=x["seen"]
    ),
    "penalties": lambda x: [
        penalty(x["forward"])
        for penalty in (losses.l1, losses.charbonnier, losses.robust_l1, losses.robust_power)
    ],
    "explainability_regularization": lambda x: losses.explainability_regularization(x["left"]),
    "masked_reconstruction": lambda x: losses.masked_reconstruction(
        x["rows"], x["targets"], x["hidden"], normalize=True
    ),
    "negative_cosine": lambda x: losses.negative_cosine(x["rows"], x["targets"]),
    "distillation_cross_entropy": lambda x: losses.distillation_cross_entropy(
        x["rows"], x["targets"], center=jnp.full(6, 0.1)
    ),
    "masked_patch_distillation": lambda x: losses.masked_patch_distillation(
        x["rows"], x["targets"], x["hidden"], center=jnp.full(6, 0.1)
    ),
    "gram_anchoring": lambda x: losses.gram_anchoring(x["rows"] - 0.5, x["targets"] - 0.5),
    "view_invariance": lambda x: losses.view_invariance(x["rows"], global_views=2),
    "tico": lambda x: losses.tico(x["rows"][:, 0], x["targets"][:, 0], jnp.eye(6) + 0.1),
    "triplet": lambda x: losses.triplet(*(x[n][:, 0] for n in ("rows", "targets", "negatives"))),
}


def _float_leaves(tree: dict) -> dict:
    return {k: v for k, v in tree.items() if jnp.issubdtype(v.dtype, jnp.floating)}


def values_and_gradients(batch: dict) -> dict:
    """`{name: (values, gradient of their weighted sum)}` of every function."""

    def value_and_gradient(function):
        def total(floating):
            values = function(batch | floating)
            leaves = [v for v in jax.tree.leaves(values) if jnp.issubdtype(v.dtype, jnp.floating)]
            return sum((((0.5 + v) * v).sum() for v in leaves), jnp.float32(0)), values

        gradient, values = jax.grad(total, has_aux=True)(_float_leaves(batch))
        return values, gradient

    return {name: value_and_gradient(function) for name, function in FUNCTIONS.items()}


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


@pytest.fixture(scope="module")
def expected():
    result = jax.tree.map(np.asarray, jax.jit(values_and_gradients)(make_batch()))
    for name, (values, gradient) in result.items():
        assert all(np.isfinite(v).all() and v.any() for v in jax.tree.leaves(values)), name
        has_gradient = any(g.any() for g in gradient.values())
        assert has_gradient != name.endswith(("_mask", "_confidence")), name
    return result


@pytest.mark.parametrize("transform", ["global arrays", "shard_map", "shard_map unchecked", "pmap"])
def test_one_device_equals_eight(mesh, expected, transform):
    batch, spec = make_batch(), P("data")
    if transform == "global arrays":
        sharded = jax.device_put(batch, NamedSharding(mesh, spec))
        step = jax.jit(values_and_gradients).lower(sharded).compile()
        for message in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
            assert message not in step.as_text()
        result = step(sharded)
    elif transform == "pmap":
        parts = jax.tree.map(lambda x: x[:, None], batch)
        result = jax.pmap(values_and_gradients)(parts)
        result = jax.tree.map(lambda x: np.asarray(x)[:, 0], result)
    else:
        step = jax.shard_map(
            values_and_gradients,
            mesh=mesh,
            in_specs=spec,
            out_specs=spec,
            check_vma=transform == "shard_map",
        )
        result = jax.jit(step)(batch)
    assert jax.tree.structure(result) == jax.tree.structure(expected)
    for name in FUNCTIONS:
        for ours, theirs in zip(jax.tree.leaves(result[name]), jax.tree.leaves(expected[name])):
            scale = max(1.0, np.abs(theirs).max())
            np.testing.assert_allclose(ours, theirs, atol=2e-5 * scale, err_msg=name)


KEY = jax.random.key(0)
SCALARS = {  # of views [N, V, D]
    "barlow_twins": lambda z, **axis: losses.barlow_twins(z[:, 0], z[:, 1], **axis),
    "emp_ssl": losses.emp_ssl,
    "frossl": losses.frossl,
    "lejepa": lambda z, **axis: losses.lejepa(z, KEY, slices=8, **axis),
    "mmcr": lambda z, **axis: losses.mmcr(z, local_weight=0.1, **axis),
    "msn": lambda z, **axis: losses.msn(z, z[:, 0], **axis),
    "vicreg": lambda z, **axis: losses.vicreg(z[:, 0], z[:, 1], **axis),
    "visreg": lambda z, **axis: losses.visreg(z, KEY, slices=8, **axis),
    "w_mse": lambda z, **axis: losses.w_mse(z, KEY, group_size=8, **axis),
}


@pytest.mark.parametrize("dimensions", [3, 80])
@pytest.mark.parametrize("name", SCALARS)
def test_scalars_are_known_to_be_equal_on_all_devices(mesh, name, dimensions):
    """So that `out_specs` may say it, which JAX checks when it traces."""
    local = lambda z: SCALARS[name](z, axis_name="data")  # noqa: E731
    everywhere = jax.shard_map(local, mesh=mesh, in_specs=P("data"), out_specs=P())
    views = jax.ShapeDtypeStruct((16, 2, dimensions), jnp.float32)
    assert jax.eval_shape(everywhere, views).shape == ()


def test_masked_mean_of_sharded_arrays_equals_one_device(mesh):
    values = np.arange(24, dtype=np.float32).reshape(8, 3) ** 2
    # Nothing valid on the first device, unequal counts elsewhere.
    mask = np.tri(8, 3, -1, np.float32)
    step = jax.jit(jax.value_and_grad(losses.masked_mean))
    expected = step(values, mask)
    assert abs(expected[0] - step(values, np.ones_like(mask))[0]) > 1

    sharded = jax.device_put((values, mask), NamedSharding(mesh, P("data")))
    text = step.lower(*sharded).compile().as_text()
    assert "all-reduce" in text and "all-gather" not in text

    def global_mean(values, mask):
        """Inside shard_map and pmap both sums are reduced over devices before the division."""
        count = jax.lax.psum(mask.sum(), "data")
        return jax.lax.psum(losses.masked_mean(values, mask) * mask.sum(), "data") / count

    def mapped(check_vma):
        return jax.shard_map(
            global_mean, mesh=mesh, in_specs=P("data"), out_specs=P(), check_vma=check_vma
        )

    results = [step(*sharded)]
    results += [jax.jit(jax.value_and_grad(mapped(check)))(*sharded) for check in (True, False)]
    for value, gradient in results:
        np.testing.assert_allclose(value, expected[0], rtol=1e-6)
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-6)
    per_device = jax.pmap(global_mean, axis_name="data")(values[:, None], mask[:, None])
    np.testing.assert_allclose(per_device, np.full(8, expected[0]), rtol=1e-6)
