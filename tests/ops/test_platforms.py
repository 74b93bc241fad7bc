"""Code chosen for the device that it is compiled for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, PartitionSpec

from sslax.ops.platforms import choose


def twice_or_thrice(x):
    return choose(x, cpu=lambda x: 2 * jnp.sin(x), default=lambda x: 3 * jnp.sin(x))


@jax.custom_vjp
def by_hand(x):
    return twice_or_thrice(x)


by_hand.defvjp(
    lambda x: (by_hand(x), x),
    lambda x, g: (choose(x, g, cpu=lambda x, g: 2 * g * jnp.cos(x), default=lambda x, g: 3 * g),),
)
X = np.linspace(0.1, 0.8, 8, dtype=np.float32)


def mapped(function):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = PartitionSpec("data")
    return jax.shard_map(function, mesh=mesh, in_specs=rows, out_specs=rows)


@pytest.mark.parametrize("function", [twice_or_thrice, by_hand])
@pytest.mark.parametrize("around", [lambda f: f, jax.jit, jax.vmap, jax.pmap, mapped])
def test_values_and_gradients_in_every_transformation(function, around):
    f = around(function)
    np.testing.assert_allclose(f(X), 2 * np.sin(X), rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(f(x))))(X)
    np.testing.assert_allclose(gradient, 2 * np.cos(X), rtol=1e-6)


def test_each_platform_gets_its_own_code_from_one_export():
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(by_hand(x))))
    shape = jax.ShapeDtypeStruct(export.symbolic_shape("b"), jnp.float32)
    exported = export.export(gradient, platforms=("cpu", "cuda", "tpu"))(shape)
    np.testing.assert_allclose(exported.call(X[:3]), 2 * np.cos(X[:3]), rtol=1e-6)
    for platform, cosines in (("cpu", 1), ("tpu", 0)):
        text = gradient.trace(shape_of(X)).lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.cosine") == cosines


def shape_of(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
