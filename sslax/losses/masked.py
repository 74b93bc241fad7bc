"""Masked image modeling: reconstruct masked patches."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.ops.dtypes import accumulation_dtype
from sslax.types import Array


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
    e_it = mean_p penalty(predictions_itp - targets_itp)
    loss_i = sum_t mask_it e_it / sum_t mask_it
    ```

    Args:
        predictions: `[N, T, P]`, the P values of each of T patches.
        targets: `[N, T, P]`.
        mask: `[N, T]`, 1 (or True) for the masked patches, which count; or any weights.
        normalize: standardizes each target patch by its own mean and (unbiased) standard deviation
            (MAE's normalized pixels).
        penalty: elementwise, `jnp.square` (MAE, context encoders) or `jnp.abs` (SimMIM).

    Returns:
        `[N]`, float32 or wider; 0 for an example without masked patches.

    Raises:
        AssertionError: predictions and targets differ in shape, or the mask is not `[N, T]`.
        ValueError: `normalize` with P = 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> targets = jnp.array([[[1.0, 3.0], [0.0, 0.0]]])
        >>> losses.masked_reconstruction(0 * targets, targets, jnp.array([[1, 0]])).tolist()
        [5.0]

    He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, arXiv:2111.06377;
    Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling", CVPR 2022,
    arXiv:2111.09886; Pathak et al., "Context Encoders: Feature Learning by Inpainting", CVPR 2016,
    arXiv:1604.07379.
    """
    checks.assert_rank([predictions, mask], [3, 2])
    checks.assert_equal_shape([predictions, targets])
    checks.assert_equal_shape_prefix([predictions, mask], 2)
    dtype = accumulation_dtype(predictions, targets)
    predictions, targets, mask = (x.astype(dtype) for x in (predictions, targets, mask))
    if normalize:
        if targets.shape[-1] < 2:
            raise checks.value_error(
                "patches with one value have no variance; use normalize=False."
            )
        variance = targets.var(-1, ddof=1, keepdims=True)
        targets = (targets - targets.mean(-1, keepdims=True)) * jax.lax.rsqrt(variance + 1e-6)
    errors = penalty(predictions - targets).mean(-1)
    count = mask.sum(-1)
    return (jnp.where(mask > 0, errors, 0) * mask).sum(-1) / jnp.where(count > 0, count, 1)
