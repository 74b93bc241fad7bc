"""Random keys of examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sslax import augment

RNG = jax.random.key(3)
INDEX = jnp.array([7, 0, 123_456, 7])


def bits(keys):
    return np.asarray(jax.random.key_data(keys))


def test_a_key_is_the_step_key_folded_with_the_index():
    keys = augment.example_keys(RNG, INDEX)
    assert keys.shape == (4,)
    expected = np.stack([bits(jax.random.fold_in(RNG, index)) for index in INDEX.tolist()])
    np.testing.assert_array_equal(bits(keys), expected)


def test_keys_do_not_depend_on_the_rest_of_the_batch():
    keys = bits(augment.example_keys(RNG, INDEX))
    np.testing.assert_array_equal(bits(augment.example_keys(RNG, INDEX[::-1])), keys[::-1])
    np.testing.assert_array_equal(bits(augment.example_keys(RNG, INDEX[2:3])), keys[2:3])
    np.testing.assert_array_equal(keys[0], keys[3])  # the same example twice
    assert len(np.unique(keys[:3], axis=0)) == 3
    other = bits(augment.example_keys(jax.random.fold_in(RNG, 1), INDEX))
    assert (other != keys).any(axis=1).all()


def test_keys_on_eight_devices_need_no_communication():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    index = jnp.arange(8)
    sharded = jax.device_put(index, NamedSharding(mesh, PartitionSpec("data")))
    rng = jax.device_put(RNG, NamedSharding(mesh, PartitionSpec()))
    draw = jax.jit(lambda rng, index: jax.random.key_data(augment.example_keys(rng, index)))
    compiled = draw.lower(rng, sharded).compile()
    np.testing.assert_array_equal(compiled(rng, sharded), bits(augment.example_keys(RNG, index)))
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in compiled.as_text()


def test_keys_of_a_batch_are_those_of_its_index():
    batch = {"image": jnp.zeros((4, 2, 2, 1)), "index": INDEX}
    keys = augment.batch_keys(RNG, batch)
    np.testing.assert_array_equal(bits(keys), bits(augment.example_keys(RNG, INDEX)))


def test_errors():
    with pytest.raises(ValueError, match="has no 'index'"):
        augment.batch_keys(RNG, {"image": jnp.zeros((4, 2, 2, 1))})
    with pytest.raises(AssertionError, match="example_keys expects an array of rank 1"):
        augment.example_keys(RNG, INDEX[None])
