"""Losses of iterative flow networks."""

import jax.numpy as jnp

from sslax import checks
from sslax.losses.photometric import l1
from sslax.ops.dtypes import accumulation_dtype
from sslax.types import Array


def sequence_weights(iterations: int, *, gamma: float = 0.8) -> Array:
    """Weights of the outputs of an iterative network, which increase with the iteration.

    `w_i = γ^(I - 1 - i)`

    Args:
        iterations: I, number of outputs.
        gamma: γ.

    Returns:
        `[I]`, float32; the last weight is 1.

    Example:
        >>> from sslax import losses
        >>> losses.sequence_weights(3, gamma=0.5).tolist()
        [0.25, 0.5, 1.0]
    """
    exponents = jnp.arange(iterations - 1, -1, -1, dtype=jnp.float32)
    return jnp.asarray(gamma, jnp.float32) ** exponents


def sequence_loss(
    flows: Array,
    target: Array,
    *,
    mask: Array | None = None,
    gamma: float = 0.8,
    max_flow: float = 400.0,
) -> tuple[Array, Array]:
    """RAFT's loss: absolute error of every iteration, with exponentially increasing weights.

    ```
    error(p) = Σ_i γ^(I - 1 - i) mean_k |flows_i(p)_k - target(p)_k|
    ```
    over the two components `k`. The target is a teacher's flow (stop its gradient) or ground
    truth.

    Args:
        flows: `[I, ..., H, W, 2]`, one estimate per iteration, in pixels.
        target: `[..., H, W, 2]`, in pixels; NaN or infinite where unknown.
        mask: `[..., H, W]`, 1 where the target is reliable; None for everywhere.
        gamma: γ.
        max_flow: targets longer than this are ignored, in pixels.

    Returns:
        The error `[..., H, W]`, float32 or wider, and the mask without unknown and too long
        targets, in the dtype of `mask` (bool if None). The loss is `masked_mean(error, mask)`.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> flows = jnp.ones((3, 1, 2, 2, 2))
        >>> error, valid = losses.sequence_loss(flows, jnp.zeros((1, 2, 2, 2)), gamma=0.5)
        >>> float(losses.masked_mean(error, valid))
        1.75

    Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020.
    """
    checks.assert_equal_rank([flows, target[None]])
    checks.assert_equal_shape_suffix([flows, target], target.ndim)
    checks.assert_axis_dimension(target, -1, 2)
    dtype = accumulation_dtype(flows, target)
    known = jnp.isfinite(target).all(-1)
    # Unknown targets are replaced first, because NaN times zero is NaN.
    target = jnp.where(known[..., None], target.astype(dtype), 0)
    known &= (target**2).sum(-1) < max_flow**2
    weights = sequence_weights(flows.shape[0], gamma=gamma).astype(dtype)
    errors = l1(flows.astype(dtype) - target).mean(-1)
    error = jnp.tensordot(weights, errors, 1, precision="highest")
    if mask is None:
        return error, known
    checks.assert_equal_shape([mask, known])
    return error, mask * known.astype(mask.dtype)
