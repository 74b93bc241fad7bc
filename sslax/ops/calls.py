"""How to keep XLA from computing an array again and again."""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
from jax.experimental.xla_metadata import set_xla_metadata

Result = TypeVar("Result")


def computed_once(function: Callable[..., Result]) -> Callable[..., Result]:
    """The function, whose results XLA's CPU backend stores instead of computing them repeatedly.

    That backend fuses what is cheap by its own count, reads included, into every loop that reads
    the result, so that nine readers interpolate an image nine times. It does not look into a call
    that must not be inlined; `jax.lax.optimization_barrier` is gone before it fuses. On other
    backends the function is what it was.

    Args:
        function: of arrays, without options.

    Returns:
        A function with the same values and derivatives.
    """
    compiled = jax.jit(function)

    @functools.wraps(function)
    def call(*arrays: jax.Array) -> Result:
        if jax.default_backend() != "cpu":
            return function(*arrays)
        with set_xla_metadata(inlineable="false"):
            return compiled(*arrays)

    return call
