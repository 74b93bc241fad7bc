"""Models that start from weights which are read late."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import mlir

from sslax.types import Array, Model, PyTree

Weights = tuple[PyTree, PyTree]


def start_from(model: Model, read: Callable[[Weights], Weights]) -> Model:
    """The model, initialized with weights that are read when `init` runs.

    While `init` is traced, `read` is not called: `jax.eval_shape(init, ...)`, and with it reading a
    checkpoint that replaces the weights, works where the file is gone. A compiled `init` calls it
    once, during compilation.

    Args:
        model: gives shapes and types.
        read: `((params, model_state)) -> (params, model_state)`, from what is expected, as
            `jax.ShapeDtypeStruct`s, to arrays of the same shapes. What it raises reaches the
            caller of `init`.

    Example:
        >>> from sslax import models
        >>> layer = models.from_linen(models.Classifier(2))
        >>> def read(like):
        ...     print("reading")
        ...     return jax.tree.map(lambda leaf: jnp.ones(leaf.shape), like)
        >>> ones = start_from(layer, read)
        >>> shapes = jax.eval_shape(ones.init, jax.random.key(0), jnp.zeros((1, 3)))
        >>> params, _ = jax.jit(ones.init)(jax.random.key(0), jnp.zeros((1, 3)))
        reading
    """

    def init(rng: Array, x: Any) -> Weights:
        like = jax.eval_shape(model.init, rng, x)
        leaves, tree = jax.tree.flatten(like)

        def read_leaves() -> list[Array]:
            weights = read(like)
            return [jnp.asarray(w, leaf.dtype) for w, leaf in zip(jax.tree.leaves(weights), leaves)]

        avals = tuple(jax.core.ShapedArray(leaf.shape, leaf.dtype) for leaf in leaves)
        return jax.tree.unflatten(tree, _read.bind(read=read_leaves, avals=avals))

    return model._replace(init=init)


_read = Primitive("read_weights")
_read.multiple_results = True
_read.def_abstract_eval(lambda *, read, avals: avals)
_read.def_impl(lambda *, read, avals: read())
mlir.register_lowering(_read, mlir.lower_fun(lambda *, read, avals: read(), multiple_results=True))
