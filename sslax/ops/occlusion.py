"""Which pixels of one frame are visible in the other, estimated from flow.

Masks are 1 (or True) where a pixel is visible, and carry no gradient: a flow must not lower its
loss by hiding pixels.
"""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.ops.warp import range_map, warp_flow


def forward_backward_difference(
    forward: jax.Array, backward: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Where a pixel ends after a step along the forward and back along the backward flow.

    `difference(p) = forward(p) + backward(p + forward(p))`: zero where both flows agree.

    Args:
        forward: `[B, H, W, 2]`, `(x, y)` in pixels, from the first frame to the second.
        backward: `[B, H, W, 2]`, from the second frame to the first.

    Returns:
        The difference `[B, H, W, 2]`, float32 (float64 for float64 flows), and `valid` `[B, H, W]`
        (bool): the pixel stays inside the frame on its way.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> flow = jnp.ones((1, 4, 4, 2))
        >>> difference, valid = ops.forward_backward_difference(flow, -flow)
        >>> float(abs(difference).max()), int(valid.sum())
        (0.0, 9)
    """
    checks.assert_rank([forward, backward], 4)
    checks.assert_equal_shape([forward, backward])
    checks.assert_axis_dimension(forward, -1, 2)
    # bfloat16 has eight bits: a flow of 200 pixels would be off by one.
    dtype = jnp.promote_types(jnp.result_type(forward, backward), jnp.float32)
    forward, backward = forward.astype(dtype), backward.astype(dtype)
    returned, valid = warp_flow(backward, forward)
    return forward + returned, valid


def forward_backward_mask(
    forward: jax.Array, backward: jax.Array, *, alpha: float = 0.01, beta: float = 0.5
) -> jax.Array:
    """Visible where the flow there and the flow back agree.

    ```
    visible(p) = |f + b'|² < α (|f|² + |b'|²) + β,   b' = b(p + f(p)),
    ```
    and `p + f(p)` lies inside the frame.

    Args:
        forward: `[B, H, W, 2]`, `(x, y)` in pixels.
        backward: `[B, H, W, 2]`, the flow of the swapped frames.
        alpha: tolerance in proportion to the squared motion.
        beta: tolerance in pixels squared; `alpha=0` leaves a plain threshold.

    Returns:
        `[B, H, W]`, bool, no gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> flow = jnp.full((1, 4, 8, 2), jnp.array([3.0, 0.0]))
        >>> ops.forward_backward_mask(flow, -flow)[0, 0].astype(int).tolist()
        [1, 1, 1, 1, 1, 0, 0, 0]

    Sundaram, Brox and Keutzer, Dense point trajectories by GPU-accelerated large displacement
    optical flow, ECCV 2010.
    """
    difference, valid = jax.lax.stop_gradient(forward_backward_difference(forward, backward))
    forward = jax.lax.stop_gradient(forward.astype(difference.dtype))
    motion = (forward**2).sum(-1) + ((difference - forward) ** 2).sum(-1)
    return ((difference**2).sum(-1) < alpha * motion + beta) & valid


def forward_backward_confidence(
    forward: jax.Array, backward: jax.Array, *, sigma: float
) -> jax.Array:
    """Soft visibility, for teaching a student where its teacher is consistent.

    ```
    confidence(p) = exp(-|f + b'|² / (σ² (H² + W²))),   0 where p + f(p) leaves the frame
    ```

    Args:
        forward: `[B, H, W, 2]`, `(x, y)` in pixels.
        backward: `[B, H, W, 2]`, the flow of the swapped frames.
        sigma: in image diagonals; UFlow uses 0.003 for the teacher and 0.03 for the student.

    Returns:
        `[B, H, W]` in [0, 1], float32, no gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> still = jnp.zeros((1, 3, 4, 2))
        >>> float(ops.forward_backward_confidence(still, still, sigma=0.03).min())
        1.0

    Jonschkowski et al., What matters in unsupervised optical flow, ECCV 2020.
    """
    difference, valid = jax.lax.stop_gradient(forward_backward_difference(forward, backward))
    height, width = forward.shape[1:3]
    scale = sigma**2 * (height**2 + width**2)
    return jnp.where(valid, jnp.exp(-(difference**2).sum(-1) / scale), 0)


def range_map_mask(backward: jax.Array, *, threshold: float | None = None) -> jax.Array:
    """Visible where the second frame's pixels land, moved along the backward flow.

    ```
    visible = min(range_map(b), 1),   or [range_map(b) >= threshold]
    ```
    What nothing moves to has disappeared. Unlike `forward_backward_mask` this needs no forward
    flow, and reads each pixel of the backward flow once.

    Args:
        backward: `[B, H, W, 2]`, `(x, y)` in pixels, from the second frame to the first.
        threshold: None for a soft mask; UFlow's hard variant uses 0.75, ARFlow 0.2.

    Returns:
        `[B, H, W]`, no gradient: float32 in [0, 1], or bool with a threshold.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> backward = jnp.full((1, 4, 8, 2), jnp.array([-3.0, 0.0]))
        >>> ops.range_map_mask(backward)[0, 0].astype(int).tolist()
        [1, 1, 1, 1, 1, 0, 0, 0]

    Wang et al., Occlusion aware unsupervised learning of optical flow, CVPR 2018.
    """
    checks.assert_rank(backward, 4)
    checks.assert_axis_dimension(backward, -1, 2)
    backward = jax.lax.stop_gradient(backward)
    # Weights are summed, and positions are pixels: both need more than bfloat16's eight bits.
    arrivals = range_map(backward.astype(jnp.promote_types(backward.dtype, jnp.float32)))
    if threshold is None:
        return jnp.minimum(arrivals, 1)
    return arrivals >= threshold
