"""Two predictions of the same geometry should agree.

Both losses return errors with the mask of the pixels that could be compared, ready for
`losses.masked_mean`.
"""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.losses.photometric import charbonnier, l1
from sslax.ops.occlusion import forward_backward_difference
from sslax.ops.warp import warp_disparity

ErrorAndMask = tuple[jax.Array, jax.Array]


def disparity_consistency(left: jax.Array, right: jax.Array) -> tuple[ErrorAndMask, ErrorAndMask]:
    """Left-right consistency of two disparity maps, in both frames.

    ```
    e_left(x, y)  = |left(x, y) - right(x - left(x, y), y)|
    e_right(x, y) = |right(x, y) - left(x + right(x, y), y)|
    ```

    Args:
        left: `[B, H, W]`, the left view's disparity, in pixels, positive.
        right: `[B, H, W]`, the right view's.

    Returns:
        `(e_left, valid_left), (e_right, valid_right)`: pixels `[B, H, W]` and, bool, whether the
        match lies inside the other view. The gradient reaches both maps.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> disparity = jnp.full((1, 2, 6), 2.0)
        >>> (error, valid), _ = losses.disparity_consistency(disparity, disparity)
        >>> float(error.max()), valid[0, 0].astype(int).tolist()
        (0.0, [0, 0, 1, 1, 1, 1])

    Godard et al., Unsupervised monocular depth estimation with left-right consistency, CVPR 2017.
    """
    checks.assert_rank([left, right], 3)
    checks.assert_equal_shape([left, right])
    dtype = jnp.promote_types(jnp.result_type(left, right), jnp.float32)
    left, right = left.astype(dtype), right.astype(dtype)
    seen_right, valid_left = warp_disparity(right[..., None], left, direction=-1)
    seen_left, valid_right = warp_disparity(left[..., None], right, direction=1)
    return (
        (l1(left - seen_right[..., 0]), valid_left),
        (l1(right - seen_left[..., 0]), valid_right),
    )


def forward_backward_error(
    forward: jax.Array, backward: jax.Array, *, epsilon: float = 1e-3, exponent: float = 0.45
) -> ErrorAndMask:
    """Forward-backward consistency of two flows, with the Charbonnier penalty.

    ```
    error(p) = mean_k ((f_k(p) + b_k(p + f(p)))² + ε²)^α
    ```
    over the two components `k`. Mask occluded pixels: `forward_backward_mask` or `range_map_mask`.

    Args:
        forward: `[B, H, W, 2]`, `(x, y)` in pixels.
        backward: `[B, H, W, 2]`, the flow of the swapped frames.
        epsilon: see `charbonnier`.
        exponent: see `charbonnier`.

    Returns:
        The error `[B, H, W]` and `valid` `[B, H, W]` (bool): `p + f(p)` lies inside the frame. The
        gradient reaches both flows and is zero where they agree.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import losses
        >>> flow = jnp.ones((1, 4, 4, 2))
        >>> error, valid = losses.forward_backward_error(flow, -flow, epsilon=0.5, exponent=0.5)
        >>> float(error.max()), int(valid.sum())
        (0.5, 9)

    Meister et al., UnFlow, AAAI 2018.
    """
    difference, valid = forward_backward_difference(forward, backward)
    return charbonnier(difference, epsilon=epsilon, exponent=exponent).mean(-1), valid
