"""How to keep XLA from computing an array again and again."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from jax.experimental.xla_metadata import set_xla_metadata

Result = TypeVar("Result")


def computed_once(
    function: Callable[..., Result], *, static_argnames: Sequence[str] = ()
) -> Callable[..., Result]:
    """The function, whose results XLA's CPU backend stores instead of computing them repeatedly.

    That backend fuses what is cheap by its own count, reads included, into every loop that reads
    the result, so that nine readers interpolate an image nine times. It does not look into a call
    that must not be inlined; `jax.lax.optimization_barrier` is gone before it fuses. On other
    backends the function is what it was.

    Args:
        function: of arrays, and of options by name.
        static_argnames: the options. They are hashable; a function made anew for each call, a
            lambda that holds them, would be compiled anew for each.

    Returns:
        A function with the same values and derivatives.
    """
    compiled = jax.jit(function, static_argnames=static_argnames)

    @functools.wraps(function)
    def call(*arrays: jax.Array, **options: Any) -> Result:
        if jax.default_backend() != "cpu":
            return function(*arrays, **options)
        with set_xla_metadata(inlineable="false"):
            return compiled(*arrays, **options)

    return call
