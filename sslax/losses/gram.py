"""Products of all pairs of dimensions, or of examples, whose sums of squares are the same."""

from functools import partial

import jax
import jax.numpy as jnp

from sslax.losses.batch import gather, sum_over_axis
from sslax.types import Array


@jax.custom_jvp
def gram(x: Array) -> Array:
    """`x^T x`. Its derivative is symmetric too and needs one product, where JAX would take two."""
    return x.T @ x


@gram.defjvp
def _gram_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    half = x.T @ dx
    return gram(x), half + half.T


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def gram_product(axis_name: str | None, *views: Array) -> Array:
    """`|X^T Y|^2 = <X X^T, Y Y^T>` of the whole batch, from a device's rows of X and Y, or X alone.

    Its derivative, `2 <dX, (Y Y^T) X> + 2 <dY, (X X^T) Y>`, is written out: it needs the gathered
    rows and products that the value needs, where JAX's own would gather and reduce once more for
    each view.
    """
    products = [_gram_of_rows(x, gather(x, axis_name)) for x in views]
    return sum_over_axis((products[0] * products[-1]).sum(), axis_name)


@gram_product.defjvp
def _gram_product_jvp(
    axis_name: str | None, views: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[Array, Array]:
    everything = [gather(x, axis_name) for x in views]
    products = [_gram_of_rows(x, all_x) for x, all_x in zip(views, everything)]
    value = (products[0] * products[-1]).sum()
    slope = jnp.zeros_like(value)
    for dx, product, all_x in zip(tangents, reversed(products), everything):
        slope += (dx * (product @ all_x)).sum()
    slope *= 4 // len(views)  # of one view, both factors vary
    return sum_over_axis(value, axis_name), sum_over_axis(slope, axis_name)


def _gram_of_rows(x: Array, all_x: Array) -> Array:
    """`x X^T`, `[n, N]`: the products of some rows with all."""
    return jnp.einsum("id,jd->ij", x, all_x)
