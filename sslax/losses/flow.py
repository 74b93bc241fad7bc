"""Losses of iterative flow networks."""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.losses.photometric import l1


def sequence_weights(iterations: int, *, gamma: float = 0.8) -> jax.Array:
    """Weights of an iterative network's outputs: later ones count more.

    `w_i = γ^(N - 1 - i)`

    Args:
        iterations: N, how many outputs there are.
        gamma: `γ`.

    Returns:
        `[N]`, float32; the last is 1.

    Example:
        >>> from sslax import losses
        >>> losses.sequence_weights(3, gamma=0.5).tolist()
        [0.25, 0.5, 1.0]
    """
    return jnp.asarray(gamma, jnp.float32) ** jnp.arange(iterations - 1, -1, -1)


def sequence_loss(
    flows: jax.Array,
    target: jax.Array,
    *,
    mask: jax.Array | None = None,
    gamma: float = 0.8,
    max_flow: float = 400.0,
) -> tuple[jax.Array, jax.Array]:
    """Error of every iteration's flow against one target, later iterations weighted more.

    ```
    error(p) = Σ_i γ^(N - 1 - i) mean_k |flows_i(p)_k - target(p)_k|
    ```
    over the two components `k`. The target is a teacher's flow (stop its gradient) or ground
    truth.

    Args:
        flows: `[N, ..., H, W, 2]`, an estimate per iteration, in pixels.
        target: `[..., H, W, 2]`. NaN or infinity marks what is unknown.
        mask: `[..., H, W]`, 1 where the target is to be trusted; None for everywhere.
        gamma: `γ`.
        max_flow: longer target vectors are left out, in pixels.

    Returns:
        The error `[..., H, W]`, float32, and the mask with unknown and too long targets removed, in
        the mask's dtype (bool without one); `masked_mean` of them is the loss.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> flows = jnp.ones((3, 1, 2, 2, 2))
        >>> error, valid = losses.sequence_loss(flows, jnp.zeros((1, 2, 2, 2)), gamma=0.5)
        >>> float(losses.masked_mean(error, valid))
        1.75

    Teed and Deng, RAFT: recurrent all-pairs field transforms for optical flow, ECCV 2020.
    """
    checks.assert_equal_rank([flows, target[None]])
    checks.assert_equal_shape_suffix([flows, target], target.ndim)
    checks.assert_axis_dimension(target, -1, 2)
    dtype = jnp.promote_types(jnp.result_type(flows, target), jnp.float32)
    known = jnp.isfinite(target).all(-1)
    # Unknown targets are replaced before anything is computed with them: NaN times zero is NaN.
    target = jnp.where(known[..., None], target, 0).astype(dtype)
    known &= (target**2).sum(-1) < max_flow**2
    weights = sequence_weights(flows.shape[0], gamma=gamma).astype(dtype)
    errors = l1(flows.astype(dtype) - target).mean(-1)
    error = jnp.tensordot(weights, errors, 1, precision="highest")
    if mask is None:
        return error, known
    checks.assert_equal_shape([mask, known])
    return error, mask * known.astype(mask.dtype)
