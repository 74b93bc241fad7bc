"""Loss terms that several flow methods share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sslax import losses
from sslax.methods.flow.matching import merge_pairs
from sslax.ops.platforms import choose
from sslax.types import Array, PyTree

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


def when_needed(weight: Array | float, term: Callable[[PyTree], Array], params: PyTree) -> Array:
    """`term(params)`, or 0 without its cost where its weight is 0.

    A weight that changes during the run makes it a branch, which computes the gradient together
    with the value: what the gradient needs of the forward pass is then gone before the rest of the
    loss is computed, rather than kept beside what the rest needs.

    On CPU such a weight costs its term throughout: there, XLA's convolutions are many times slower
    inside a branch, so the branch is always taken, and the compiler removes it.

    Args:
        weight: of the term.
        term: of the parameters alone; nothing else that it reads gets a gradient.
        params: parameters.
    """
    if isinstance(weight, int | float):
        return term(params) if weight else jnp.float32(0.0)

    def skipped(params: PyTree) -> tuple[Array, PyTree]:
        return jnp.float32(0.0), jax.tree.map(jnp.zeros_like, params)

    counts, fixed = weight > 0, jax.lax.stop_gradient(params)
    taken = choose(counts, cpu=jnp.ones_like, default=lambda counts: counts)
    value, gradient = jax.lax.cond(taken, jax.value_and_grad(term), skipped, fixed)
    return jnp.where(counts, with_gradient(value, gradient, params), 0.0)


@jax.custom_vjp
def with_gradient(value: Array, gradient: PyTree, params: PyTree) -> Array:
    """The value, a function of `params` with that gradient.

    For branches, which compute both together. Differentiated from outside, a branch would hand on
    all that its gradient needs, and zeros for what those of the other branches need; of such arrays
    some compilers keep whole copies on every device.

    Args:
        value: scalar.
        gradient: of the value, like `params`.
        params: what the value was computed from, without a gradient.
    """
    return value


def _with_gradient_forward(value: Array, gradient: PyTree, params: PyTree) -> tuple[Array, PyTree]:
    return value, gradient


def _with_gradient_backward(gradient: PyTree, g: Array) -> tuple[None, None, PyTree]:
    return None, None, jax.tree.map(lambda x: g.astype(x.dtype) * x, gradient)


with_gradient.defvjp(_with_gradient_forward, _with_gradient_backward)
