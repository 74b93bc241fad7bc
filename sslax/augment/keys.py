"""Random keys of examples, independent of batch composition and devices."""

import jax

from sslax import checks
from sslax.types import Array, Batch


def example_keys(rng: Array, index: Array) -> Array:
    """One random key per example: `fold_in(rng, index)`.

    An example's key depends only on `rng` and its index in the data set, not on its position in the
    batch, the batch size or the number of devices.

    Args:
        rng: random key, usually one per training step.
        index: `[B]` integers, positions in the data set.

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
    """One random key per example of a batch, `example_keys` of its 'index'.

    Args:
        rng: random key, usually one per training step.
        batch: a batch with 'index' `[B]`.

    Returns:
        Keys `[B]`.

    Raises:
        ValueError: the batch has no 'index'.

    Example:
        >>> batch_keys(jax.random.key(0), {"index": jax.numpy.array([3, 5])}).shape
        (2,)
    """
    if "index" not in batch:
        raise checks.value_error(
            "the batch has no 'index' [B], the examples' positions in the data set, which their "
            "random keys are derived from; add it."
        )
    return example_keys(rng, batch["index"])
