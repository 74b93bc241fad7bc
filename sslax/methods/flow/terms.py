"""Loss terms that several flow methods share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sslax import losses
from sslax.methods.flow.matching import merge_pairs
from sslax.ops.platforms import choose
from sslax.types import Array

DATA_TERMS = ("census", "l1", "ssim")


def data_term(target: Array, warped: Array, weight: Array, *, data: str = "census") -> Array:
    """UFlow's and SMURF's comparison of frames, a weighted mean over pixels.

    Args:
        target: `[N, h, w, C]`.
        warped: `[N, h, w, C]`.
        weight: `[N, h, w]`.
        data: "census" (7 x 7, `robust_power`), "l1" (`robust_l1`) or "ssim" ((1 - SSIM) / 2).
    """
    if data == "census":
        distance, valid = losses.census_error(target, warped, mask=weight)
        return losses.masked_mean(losses.robust_power(distance), weight * valid)
    if data == "l1":
        error = jnp.mean(losses.robust_l1(target - warped), axis=-1)
    else:
        error = losses.photometric_error(target, warped, ssim_weight=1.0)
    return losses.masked_mean(error, weight)


def data_term_at_chance(frames: Array, *, data: str = "census") -> Array:
    """`data_term` for a flow of zero between frames `[B, 2, H, W, C]`."""
    weight = jnp.ones((len(frames), *frames.shape[2:4]), jnp.float32)
    return data_term(frames[:, 0], frames[:, 1], weight, data=data)


def smoothness(frames: Array, flows: Array, *, order: int, edge_weight: float) -> Array:
    """UFlow's and SMURF's: half of the robust edge-aware smoothness of flows `[B, 2, h, w, 2]`."""
    return 0.5 * losses.edge_aware_smoothness(
        merge_pairs(flows),
        merge_pairs(frames),
        order=order,
        edge_weight=edge_weight,
        penalty=losses.robust_l1,
    )


def magnitude(flow: Array) -> Array:
    """Length of a flow's vectors `[..., 2]`, no gradient."""
    return jnp.sqrt(jnp.sum(jnp.square(jax.lax.stop_gradient(flow)), axis=-1))


def when_needed(weight: Array | float, term: Callable[[], Array]) -> Array:
    """`term()`, or 0 without its cost where its weight is 0.

    On CPU a weight that changes during the run costs its term throughout: there, XLA's
    convolutions are many times slower inside a branch, so the branch is always taken, and the
    compiler removes it.
    """
    if isinstance(weight, int | float):
        return term() if weight else jnp.float32(0.0)
    counts = weight > 0
    taken = choose(counts, cpu=jnp.ones_like, default=lambda counts: counts)
    return jnp.where(counts, jax.lax.cond(taken, term, lambda: jnp.float32(0.0)), 0.0)
