"""Consistency of two predictions of the same geometry.

Both losses return an error and the mask of the pixels that can be compared, for
`losses.masked_mean`.
"""

from sslax import checks
from sslax.losses.photometric import charbonnier, l1
from sslax.ops.dtypes import accumulated
from sslax.ops.occlusion import forward_backward_difference
from sslax.ops.warp import warp_disparity
from sslax.types import Array

ErrorAndMask = tuple[Array, Array]


def disparity_consistency(left: Array, right: Array) -> tuple[ErrorAndMask, ErrorAndMask]:
    """Left-right consistency of two disparity maps, in both views.

    ```
    e_left(x, y)  = |left(x, y) - right(x - left(x, y), y)|
    e_right(x, y) = |right(x, y) - left(x + right(x, y), y)|
    ```

    Args:
        left: `[B, H, W]`, disparity of the left view, positive, in pixels.
        right: `[B, H, W]`, disparity of the right view.

    Returns:
        `(e_left, valid_left), (e_right, valid_right)`: errors `[B, H, W]` in pixels, float32 or
        wider, and masks `[B, H, W]` (bool), True where the match is inside the other view.
        Gradients flow to both maps.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> disparity = jnp.full((1, 2, 6), 2.0)
        >>> (error, valid), _ = losses.disparity_consistency(disparity, disparity)
        >>> float(error.max()), valid[0, 0].astype(int).tolist()
        (0.0, [0, 0, 1, 1, 1, 1])

    Godard et al., "Unsupervised Monocular Depth Estimation with Left-Right Consistency", CVPR 2017.
    """
    checks.assert_rank([left, right], 3)
    checks.assert_equal_shape([left, right])
    left, right = accumulated(left, right)
    right_at_match, valid_left = warp_disparity(right[..., None], left, direction=-1)
    left_at_match, valid_right = warp_disparity(left[..., None], right, direction=1)
    return (
        (l1(left - right_at_match[..., 0]), valid_left),
        (l1(right - left_at_match[..., 0]), valid_right),
    )


def forward_backward_error(
    forward: Array, backward: Array, *, epsilon: float = 1e-3, exponent: float = 0.45
) -> ErrorAndMask:
    """Forward-backward consistency of two flows, with the Charbonnier penalty.

    ```
    error(p) = mean_k ((f_k(p) + b_k(p + f(p)))² + ε²)^α
    ```
    over the two components `k`. Mask out occluded pixels with `ops.forward_backward_mask` or
    `ops.range_map_mask`.

    Args:
        forward: `[B, H, W, 2]`, `(x, y)` in pixels.
        backward: `[B, H, W, 2]`, the flow of the swapped frames.
        epsilon: see `charbonnier`.
        exponent: see `charbonnier`.

    Returns:
        The error `[B, H, W]`, float32 or wider, and `valid` `[B, H, W]` (bool): `p + f(p)` is
        inside the frame. Gradients flow to both flows and are zero where the flows are consistent.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> flow = jnp.ones((1, 4, 4, 2))
        >>> error, valid = losses.forward_backward_error(flow, -flow, epsilon=0.5, exponent=0.5)
        >>> float(error.max()), int(valid.sum())
        (0.5, 9)

    Meister et al., "UnFlow: Unsupervised Learning of Optical Flow with a Bidirectional Census
    Loss", AAAI 2018.
    """
    difference, valid = forward_backward_difference(forward, backward)
    return charbonnier(difference, epsilon=epsilon, exponent=exponent).mean(-1), valid
