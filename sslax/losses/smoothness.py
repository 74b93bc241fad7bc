"""Smoothness of a predicted field, relaxed where the image has edges."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.losses.photometric import l1
from sslax.ops.image import image_gradients


def edge_aware_smoothness(
    field: jax.Array,
    image: jax.Array,
    *,
    order: int = 1,
    edge_weight: float = 1.0,
    edge: str = "exponential",
    mean_normalize: bool = False,
    cross_terms: bool = False,
    penalty: Callable[[jax.Array], jax.Array] = l1,
) -> jax.Array:
    """Mean penalty of the field's derivatives, weighted down at the image's edges.

    ```
    loss = mean(w_x ρ(∂x^n field)) + mean(w_y ρ(∂y^n field))
    w_x  = exp(-mean_c |λ ∂x image|)   'exponential'
    w_x  = exp(-mean_c (λ ∂x image)²)  'gaussian'
    ```
    The second derivative at `x + 1` spans three pixels, and so does its image difference
    `image(x + 2) - image(x)`. monodepth and monodepth2 are `order=1, edge_weight=1` (the latter
    with `mean_normalize`); SfMLearner is `order=2, edge_weight=0, cross_terms=True`; UFlow is half
    of `edge_weight=150, penalty=losses.robust_l1`.

    Args:
        field: `[..., H, W]` (disparity) or `[..., H, W, K]` (flow), in its own units.
        image: `[..., H, W, C]` in [0, 1], at the field's resolution.
        order: of the derivative, 1 or 2. A plane has no second derivative.
        edge_weight: `λ`; 0 ignores the image.
        edge: 'exponential' or 'gaussian'.
        mean_normalize: divide the field by its mean over the image first, so that shrinking a
            disparity does not lower the loss. For positive fields only.
        cross_terms: with `order=2`, add the means of the unweighted `ρ(∂x∂y field)`, twice.
        penalty: `ρ`, per element.

    Returns:
        A scalar, float32 (float64 for float64 fields): the mean over everything. Examples count
        alike, so under `shard_map` or `pmap` with equal shards `lax.pmean` of it is the whole
        batch's value.

    Raises:
        ValueError: `order` or `edge` is unknown, or `cross_terms` without `order=2`.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> ramp = jnp.broadcast_to(jnp.arange(5.0), (1, 4, 5))
        >>> image = jnp.zeros((1, 4, 5, 3))
        >>> float(losses.edge_aware_smoothness(ramp, image))
        1.0
        >>> float(losses.edge_aware_smoothness(ramp, image, order=2))
        0.0

    Godard et al., CVPR 2017 and ICCV 2019; Jonschkowski et al., ECCV 2020.
    """
    if field.ndim == image.ndim - 1:
        field = field[..., None]
    checks.assert_equal_rank([field, image])
    checks.assert_equal_shape_prefix([field, image], field.ndim - 1)
    if order not in (1, 2):
        raise ValueError(f"order is {order}; choose 1 or 2.")
    if edge not in ("exponential", "gaussian"):
        raise ValueError(f"edge is {edge!r}; choose 'exponential' or 'gaussian'.")
    if cross_terms and order != 2:
        raise ValueError("cross_terms are second derivatives; pass order=2 with them.")
    field = field.astype(jnp.promote_types(field.dtype, jnp.float32))
    image = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    if mean_normalize:
        field = field / (field.mean((-3, -2), keepdims=True) + 1e-7)
    first = image_gradients(field)
    if order == 1:
        derivatives = first
    else:
        derivatives = image_gradients(first[0])[0], image_gradients(first[1])[1]
    weights = (
        _edge_weights(change, edge_weight, edge) for change in image_gradients(image, stride=order)
    )
    loss = sum((w * penalty(d)).mean() for w, d in zip(weights, derivatives))
    if cross_terms:
        loss = loss + 2 * penalty(image_gradients(first[0])[1]).mean()
    return loss


def _edge_weights(change: jax.Array, edge_weight: float, edge: str) -> jax.Array:
    change = edge_weight * change
    strength = jnp.abs(change) if edge == "exponential" else change * change
    return jnp.exp(-strength.mean(-1, keepdims=True))
