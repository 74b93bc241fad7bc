"""Edge-aware smoothness of a predicted field."""

from collections.abc import Callable

import jax.numpy as jnp

from sslax import checks
from sslax.errors import check_choice
from sslax.losses.photometric import l1
from sslax.ops.dtypes import accumulated
from sslax.ops.image import image_gradients
from sslax.types import Array


def edge_aware_smoothness(
    field: Array,
    image: Array,
    *,
    order: int = 1,
    edge_weight: float = 1.0,
    edge: str = "exponential",
    edge_stride: int | None = None,
    mean_normalize: bool = False,
    cross_terms: bool = False,
    penalty: Callable[[Array], Array] = l1,
) -> Array:
    """Mean penalty of the field's derivatives, downweighted at the edges of the image.

    ```
    loss = mean(w_x ρ(∂x^n field)) + mean(w_y ρ(∂y^n field))
    w_x  = exp(-mean_c |λ ∂x image|)   'exponential'
    w_x  = exp(-mean_c (λ ∂x image)²)  'gaussian'
    ```
    with `n` the order. The second derivative at `x + 1` spans three pixels, and so does its image
    difference `image(x + 2) - image(x)`. monodepth and monodepth2 use `order=1, edge_weight=1` (the
    latter with `mean_normalize`); SfMLearner `order=2, edge_weight=0, cross_terms=True`; UFlow half
    of `edge_weight=150, penalty=losses.robust_l1`; ARFlow a quarter of `edge_weight=10`, or half of
    `order=2, edge_weight=10, edge_stride=1`.

    Args:
        field: `[..., H, W]` (disparity) or `[..., H, W, F]` (flow, F = 2), in its own units.
        image: `[..., H, W, C]` in [0, 1], at the field's resolution.
        order: order of the derivative, 1 or 2. A plane has no second derivative.
        edge_weight: λ; 0 ignores the image.
        edge: 'exponential' or 'gaussian'.
        edge_stride: distance of the two pixels of an image difference, at most `order`; None for
            `order`. With `order=2` and 1 it is `image(x + 2) - image(x + 1)`.
        mean_normalize: divides the field by its mean over the image first, so that scaling down a
            disparity does not lower the loss. For positive fields only.
        cross_terms: with `order=2`, adds twice the mean of the unweighted `ρ(∂x∂y field)`.
        penalty: ρ, elementwise.

    Returns:
        A scalar, float32 or wider: the mean over all axes. Examples have equal weights, so inside
        shard_map or pmap `jax.lax.pmean` of it is the value of the whole batch.

    Raises:
        TypeError: the image has an integer dtype.
        ValueError: `order`, `edge` or `edge_stride` is unknown, `cross_terms` without `order=2`,
            the image has another range, such as 0 to 255, or the field is too small for a
            derivative.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> ramp = jnp.broadcast_to(jnp.arange(5.0), (1, 4, 5))
        >>> image = jnp.zeros((1, 4, 5, 3))
        >>> float(losses.edge_aware_smoothness(ramp, image))
        1.0
        >>> float(losses.edge_aware_smoothness(ramp, image, order=2))
        0.0

    Godard et al., "Unsupervised Monocular Depth Estimation with Left-Right Consistency", CVPR 2017,
    and "Digging Into Self-Supervised Monocular Depth Estimation", ICCV 2019; Jonschkowski et al.,
    "What Matters in Unsupervised Optical Flow", ECCV 2020.
    """
    if field.ndim == image.ndim - 1:
        field = field[..., None]
    checks.assert_equal_rank([field, image])
    checks.assert_equal_shape_prefix([field, image], field.ndim - 1)
    check_choice("order", order, (1, 2))
    check_choice("edge", edge, ("exponential", "gaussian"))
    checks.assert_unit_range(image)
    stride = order if edge_stride is None else edge_stride
    check_choice("edge_stride", stride, range(1, order + 1))
    if cross_terms and order != 2:
        raise checks.value_error("cross_terms are second derivatives; pass order=2 with them.")
    field, image = accumulated(field, image)
    if mean_normalize:
        field = field / (field.mean((-3, -2), keepdims=True) + 1e-7)
    first = image_gradients(field)
    if order == 1:
        derivatives = first
    else:
        derivatives = image_gradients(first[0])[0], image_gradients(first[1])[1]
    gradient_x, gradient_y = image_gradients(image, stride=stride)
    edges = gradient_x[..., order - stride :, :], gradient_y[..., order - stride :, :, :]
    weights = (_edge_weights(gradient, edge_weight, edge) for gradient in edges)
    loss_x, loss_y = ((w * penalty(d)).mean() for w, d in zip(weights, derivatives))
    loss = loss_x + loss_y
    if cross_terms:
        loss = loss + 2 * penalty(image_gradients(first[0])[1]).mean()
    return loss


def _edge_weights(gradient: Array, edge_weight: float, edge: str) -> Array:
    gradient = edge_weight * gradient
    strength = jnp.abs(gradient) if edge == "exponential" else gradient * gradient
    return jnp.exp(-strength.mean(-1, keepdims=True))
