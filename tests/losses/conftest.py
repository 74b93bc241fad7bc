"""Shared by the tests of sslax.losses."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P


@pytest.fixture
def x64():
    """float64 within one test, for finite differences and comparison to float64 references."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def representation():
    """Inputs, values and gradients from experiments/golden/representation_losses.py."""
    with np.load(pathlib.Path(__file__).parent / "golden" / "representation.npz") as values:
        return dict(values)


@pytest.fixture
def check_golden(representation, x64):
    """Checks the mean of a loss and its gradients against the reference."""

    def check(loss, name, *arguments, rtol=1e-7):
        def mean(*arguments):
            return loss(*arguments).mean()

        arguments = tuple(jnp.asarray(x) for x in arguments)
        every = tuple(range(len(arguments)))
        value, gradients = jax.jit(jax.value_and_grad(mean, argnums=every))(*arguments)
        np.testing.assert_allclose(value, representation[name], rtol=rtol)
        for i, gradient in enumerate(gradients):
            expected = representation[f"{name}_gradient_{i}"]
            np.testing.assert_allclose(gradient, expected, rtol=rtol, atol=rtol)

    return check


@pytest.fixture
def check_derivatives(x64):
    """Checks the derivatives of a function's weighted sum, up to `order`, against central
    differences."""

    def check(function, *arguments, order=1, step=1e-5, rtol=1e-6):
        rng = np.random.default_rng(3)
        arguments = tuple(np.asarray(x, np.float64) for x in arguments)
        direction = tuple(rng.standard_normal(x.shape) for x in arguments)
        weights = rng.uniform(0.5, 1.5, jax.eval_shape(function, *arguments).shape)

        def slope_of(value):
            def slope(*arguments):
                gradients = jax.grad(value, argnums=tuple(range(len(arguments))))(*arguments)
                return sum(jnp.vdot(g, d) for g, d in zip(gradients, direction))

            return slope

        functions = [lambda *arguments: (weights * function(*arguments)).sum()]
        for _ in range(order):
            functions.append(slope_of(functions[-1]))
        slopes = jax.jit(lambda *arguments: [f(*arguments) for f in functions])
        here, ahead, behind = (
            np.array(slopes(*(x + by * d for x, d in zip(arguments, direction))))
            for by in (0, step, -step)
        )
        for i in range(order):
            difference = (ahead[i] - behind[i]) / (2 * step)
            np.testing.assert_allclose(here[i + 1], difference, rtol=rtol, atol=1e-7)

    return check


@pytest.fixture(scope="session")
def check_parallel():
    """Checks that a loss and its gradients are the same on one device and on eight.

    `loss(temperature, weights, a, b, axis_name)` takes a and b `[N, D]`, split over the devices,
    and a temperature and weights `[D, D]` that are the same on all, and returns rows or a scalar.
    `all_transforms` adds the gradient outside shard_map, which differs in JAX's code only.
    """
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    in_specs = (P(), P(), P("data"), P("data"))

    def check(loss, a, b, *, all_transforms=False, rtol=2e-5):
        arguments = jnp.float32(0.3), np.float32(np.eye(a.shape[1]) + 0.3), a, b
        rows = jax.eval_shape(lambda *x: loss(*x, None), *arguments).shape != ()
        out_specs = P("data") if rows else P()

        def local(*arguments):
            return loss(*arguments, "data")

        def gradient(function, argnums=(0, 1, 2, 3)):
            return jax.value_and_grad(lambda *x: function(*x).mean(), argnums=argnums)

        def mapped(function, out_specs, check_vma):
            return jax.jit(
                jax.shard_map(
                    function,
                    mesh=mesh,
                    in_specs=in_specs,
                    out_specs=out_specs,
                    check_vma=check_vma,
                )
            )

        one_device = jax.jit(gradient(lambda *x: loss(*x, None)))
        expected = one_device(*arguments)

        def compare(name, result, expected=expected):
            for ours, theirs in zip(jax.tree.leaves(result), jax.tree.leaves(expected)):
                scale = np.abs(theirs).max()
                assert np.isfinite(ours).all() and scale > 0, name
                np.testing.assert_allclose(ours, theirs, atol=rtol * scale, err_msg=name)

        sharded = [jax.device_put(x, NamedSharding(mesh, s)) for x, s in zip(arguments, in_specs)]
        compare("global arrays", one_device(*sharded))

        # shard_map with its default check: the derivative of the mean over devices.
        def checked(*arguments):
            return gradient(lambda *x: jax.lax.pmean(local(*x).mean(), "data"))(*arguments)

        compare("gradient inside", mapped(checked, (P(), in_specs), True)(*sharded))

        # pmap, and shard_map without the check: the mean over devices of the derivative.
        def unchecked(*arguments):
            return jax.lax.pmean(gradient(local, (0, 1))(*arguments), "data")

        parameters = expected[0], expected[1][:2]
        by_device = [np.reshape(x, (8, -1, x.shape[-1])) for x in (a, b)]
        inside = jax.pmap(unchecked, axis_name="data", in_axes=(None, None, 0, 0))
        inside = jax.device_get(inside(*arguments[:2], *by_device))
        for device in (0, 5):
            compare("pmap", jax.tree.map(lambda x, i=device: x[i], inside), parameters)

        if not all_transforms:
            return
        # The derivative outside shard_map.
        for check_vma in (True, False):
            outside = gradient(mapped(local, out_specs, check_vma))
            compare(f"gradient outside, check_vma={check_vma}", jax.jit(outside)(*sharded))

    return check
