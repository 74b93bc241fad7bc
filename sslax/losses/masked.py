"""Masked image modeling: reconstruct what was hidden."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sslax import checks

Array = jax.Array


def masked_reconstruction(
    predictions: Array,
    targets: Array,
    mask: Array,
    *,
    normalize: bool = False,
    penalty: Callable[[Array], Array] = jnp.square,
) -> Array:
    """Reconstruction error over the masked patches of each example.

    ```
    e_nt = mean_p penalty(predictions_ntp - targets_ntp)
    loss_n = sum_t mask_nt e_nt / sum_t mask_nt
    ```

    Args:
        predictions: `[N, T, P]`, the P values of each of T patches.
        targets: `[N, T, P]`.
        mask: `[N, T]`, 1 (or True) for a patch that was hidden and counts; weights are allowed.
        normalize: whether each target patch is standardized first, by its own mean and its
            standard deviation over P - 1 (MAE's normalized pixels).
        penalty: of a difference: `jnp.square` (MAE, context encoders) or `jnp.abs` (SimMIM).

    Returns:
        `[N]`, float32 at least; zero for an example without a masked patch.

    Raises:
        AssertionError: predictions and targets differ in shape, or the mask is not `[N, T]`.
        ValueError: normalized patches have a single value.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> targets = jnp.array([[[1.0, 3.0], [0.0, 0.0]]])
        >>> losses.masked_reconstruction(0 * targets, targets, jnp.array([[1, 0]])).tolist()
        [5.0]

    He et al., `Masked Autoencoders Are Scalable Vision Learners
    <https://arxiv.org/abs/2111.06377>`_, 2022; Xie et al., `SimMIM
    <https://arxiv.org/abs/2111.09886>`_, 2022; Pathak et al., `Context Encoders
    <https://arxiv.org/abs/1604.07379>`_, 2016.
    """
    checks.assert_rank([predictions, mask], [3, 2])
    checks.assert_equal_shape([predictions, targets])
    checks.assert_equal_shape_prefix([predictions, mask], 2)
    dtype = jnp.promote_types(jnp.result_type(predictions, targets), jnp.float32)
    predictions, targets, mask = (x.astype(dtype) for x in (predictions, targets, mask))
    if normalize:
        if targets.shape[-1] < 2:
            raise ValueError("a patch of one value has no deviation; use normalize=False.")
        variance = targets.var(-1, ddof=1, keepdims=True)
        targets = (targets - targets.mean(-1, keepdims=True)) * jax.lax.rsqrt(variance + 1e-6)
    errors = penalty(predictions - targets).mean(-1)
    count = mask.sum(-1)
    return (jnp.where(mask > 0, errors, 0) * mask).sum(-1) / jnp.where(count > 0, count, 1)
