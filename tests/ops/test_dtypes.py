"""The precision of intermediate results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax.ops.dtypes import accumulation_dtype, at_least_float32


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.int32, jnp.bool_])
def test_narrow_types_become_float32(dtype):
    x = jnp.ones(3, dtype)
    assert accumulation_dtype(x) == jnp.float32
    wide = at_least_float32(x)
    assert wide.dtype == jnp.float32 and not wide.weak_type
    np.testing.assert_array_equal(wide, 1)


def test_float64_stays(x64):
    x = jnp.ones(3, jnp.float64)
    assert at_least_float32(x).dtype == jnp.float64
    assert accumulation_dtype(jnp.ones(3, jnp.bfloat16), x) == jnp.float64


def test_several_arrays_have_their_common_type():
    half = jnp.ones(3, jnp.bfloat16)
    assert accumulation_dtype(half, jnp.ones(3, jnp.float16)) == jnp.float32
    assert accumulation_dtype(half, half) == jnp.float32


def test_numbers_and_numpy_arrays():
    assert at_least_float32(2.0).dtype == jnp.float32
    assert isinstance(at_least_float32(np.ones(2, np.float32)), jax.Array)
