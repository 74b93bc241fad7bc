"""Calls that XLA does not inline, so that their results are computed once."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from jax.experimental.xla_metadata import set_xla_metadata

from sslax.ops.platforms import choose
from sslax.types import Array

Result = TypeVar("Result")


def no_inline(
    function: Callable[..., Result], *, static_argnames: Sequence[str] = ()
) -> Callable[..., Result]:
    """Keeps XLA's CPU backend from recomputing a function in every loop that reads its result.

    That backend fuses producers it considers cheap, gathers included, into each of their
    consumers: nine consumers interpolate an image nine times. It does not look into a call marked
    as not inlineable, whereas `jax.lax.optimization_barrier` is removed before fusion. On other
    backends the call is not marked.

    Args:
        function: takes arrays by position and options by keyword.
        static_argnames: the options. They must be hashable and compare equal from call to call; a
            lambda created for each call would be compiled each time.

    Returns:
        A function with the same values and derivatives.
    """
    compiled = jax.jit(function, static_argnames=static_argnames)

    @functools.wraps(function)
    def _call(*arrays: Array, **options: Any) -> Result:
        def marked(*arrays: Array) -> Result:
            with set_xla_metadata(inlineable="false"):
                return compiled(*arrays, **options)

        return choose(*arrays, cpu=marked, default=functools.partial(compiled, **options))

    return _call
