"""Occlusion masks from flow: which pixels of one frame are visible in the other.

Masks are 1 (or True) where a pixel is visible. They carry no gradient: a flow network must not
lower its loss by declaring pixels occluded.
"""

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.ops.dtypes import accumulated, at_least_float32
from sslax.ops.warp import range_map, warp_flow
from sslax.types import Array


def forward_backward_difference(forward: Array, backward: Array) -> tuple[Array, Array]:
    """Forward-backward difference of two flows: how far a round trip misses the starting pixel.

    `difference(p) = forward(p) + backward(p + forward(p))`, zero where the flows are consistent.

    Args:
        forward: `[B, H, W, 2]`, `(x, y)` in pixels, from the first frame to the second.
        backward: `[B, H, W, 2]`, from the second frame to the first.

    Returns:
        The difference `[B, H, W, 2]`, in pixels, float32 or wider, and `valid` `[B, H, W]` (bool):
        `p + forward(p)` is inside the frame.

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
    # bfloat16 has a precision of 8 bits: a flow of 200 pixels would be off by one.
    forward, backward = accumulated(forward, backward)
    returned, valid = warp_flow(backward, forward)
    return forward + returned, valid


def forward_backward_mask(
    forward: Array, backward: Array, *, alpha: float = 0.01, beta: float = 0.5
) -> Array:
    """Visibility by forward-backward consistency: visible where the two flows cancel.

    ```
    visible(p) = |f + b'|² < α (|f|² + |b'|²) + β,   b' = b(p + f(p)),
    ```
    and `p + f(p)` is inside the frame.

    Args:
        forward: `[B, H, W, 2]`, `(x, y)` in pixels.
        backward: `[B, H, W, 2]`, the flow of the swapped frames.
        alpha: α, tolerance relative to the squared motion.
        beta: β, absolute tolerance in pixels squared; with `alpha=0` a plain threshold.

    Returns:
        `[B, H, W]`, bool, no gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> flow = jnp.full((1, 4, 8, 2), jnp.array([3.0, 0.0]))
        >>> ops.forward_backward_mask(flow, -flow)[0, 0].astype(int).tolist()
        [1, 1, 1, 1, 1, 0, 0, 0]

    Sundaram et al., "Dense Point Trajectories by GPU-Accelerated Large Displacement Optical Flow",
    ECCV 2010.
    """
    difference, valid = jax.lax.stop_gradient(forward_backward_difference(forward, backward))
    forward = jax.lax.stop_gradient(forward.astype(difference.dtype))
    motion = (forward**2).sum(-1) + ((difference - forward) ** 2).sum(-1)
    return ((difference**2).sum(-1) < alpha * motion + beta) & valid


def forward_backward_confidence(forward: Array, backward: Array, *, sigma: float) -> Array:
    """Soft visibility by forward-backward consistency, for self-supervision by a teacher's flow.

    ```
    confidence(p) = exp(-|f + b'|² / (σ² (H² + W²))),   b' = b(p + f(p)),
    ```
    and 0 where `p + f(p)` is outside the frame.

    Args:
        forward: `[B, H, W, 2]`, `(x, y)` in pixels.
        backward: `[B, H, W, 2]`, the flow of the swapped frames.
        sigma: σ, in image diagonals; UFlow uses 0.003 for the teacher and 0.03 for the student.

    Returns:
        `[B, H, W]` in [0, 1], float32 or wider, no gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> flow = jnp.zeros((1, 3, 4, 2))
        >>> float(ops.forward_backward_confidence(flow, flow, sigma=0.03).min())
        1.0

    Jonschkowski et al., "What Matters in Unsupervised Optical Flow", ECCV 2020.
    """
    difference, valid = jax.lax.stop_gradient(forward_backward_difference(forward, backward))
    height, width = forward.shape[1:3]
    scale = sigma**2 * (height**2 + width**2)
    return jnp.where(valid, jnp.exp(-(difference**2).sum(-1) / scale), 0)


def range_map_mask(backward: Array, *, threshold: float | None = None) -> Array:
    """Visibility by range map: visible where the backward flow of some pixel lands.

    ```
    visible = min(range_map(b), 1),   or [range_map(b) >= threshold]
    ```
    A pixel that no backward flow vector reaches is occluded in the second frame. Unlike
    `forward_backward_mask` this needs no forward flow.

    Args:
        backward: `[B, H, W, 2]`, `(x, y)` in pixels, from the second frame to the first.
        threshold: None for a soft mask; UFlow's hard variant uses 0.75, ARFlow 0.2.

    Returns:
        `[B, H, W]`, no gradient: float32 or wider in [0, 1], or bool with a threshold.

    Example:
        >>> import jax.numpy as jnp
        >>> from sslax import ops
        >>> backward = jnp.full((1, 4, 8, 2), jnp.array([-3.0, 0.0]))
        >>> ops.range_map_mask(backward)[0, 0].astype(int).tolist()
        [1, 1, 1, 1, 1, 0, 0, 0]

    Wang et al., "Occlusion Aware Unsupervised Learning of Optical Flow", CVPR 2018.
    """
    checks.assert_rank(backward, 4)
    checks.assert_axis_dimension(backward, -1, 2)
    # Sums of weights and pixel positions need more than the 8 bits of bfloat16.
    coverage = range_map(at_least_float32(jax.lax.stop_gradient(backward)))
    if threshold is None:
        return jnp.minimum(coverage, 1)
    return coverage >= threshold
