"""Random keys of examples, whatever batch and device they are on."""

import jax

from sslax import checks
from sslax.types import Array, Batch


def example_keys(rng: Array, index: Array) -> Array:
    """A random key for each example: `fold_in(rng, index)`.

    An example's key depends on `rng` and on its index in the data set, not on its position in the
    batch, on the batch's size or on the number of devices.

    Args:
        rng: a key.
        index: `[B]` integers.

    Returns:
        Keys `[B]`.

    Example:
        >>> keys = example_keys(jax.random.key(0), jax.numpy.array([3, 5]))
        >>> bool((example_keys(jax.random.key(0), jax.numpy.array([5])) == keys[1]).all())
        True
    """
    checks.assert_rank(index, 1)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, index)


def batch_keys(rng: Array, batch: Batch) -> Array:
    """`example_keys` of a batch's 'index'.

    Raises:
        ValueError: the batch has no 'index'.
    """
    if "index" not in batch:
        raise ValueError(
            "The batch has no 'index' [B], the examples' positions in their data set, from which "
            "each example's random key is made; add it."
        )
    return example_keys(rng, batch["index"])
