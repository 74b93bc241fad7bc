"""Traces of a few steps: what the host and the devices do, and how long each operation takes."""

import contextlib
import itertools
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import jax

from sslax.errors import UserError

FOLDER = "profile"
_FIRST = 3  # steps that are not traced: the first ones fill buffers and queues


@contextlib.contextmanager
def traced(
    folder: Path, step_fn: Callable[..., Any], *, steps: int, first: int, last: int
) -> Generator[Callable[..., Any]]:
    """The step, with a trace of some of its calls.

    Args:
        folder: where the trace is written when its last step is done; its name is printed.
        step_fn: arrays in, arrays out.
        steps: how many calls to trace, after the first three; 0 for none.
        first: number of the first call, as the trace shows it.
        last: number of the last call, plus 1.

    Raises:
        UserError: there are too few calls.
    """
    if not steps:
        yield step_fn
        return
    begin, end = first + _FIRST, first + _FIRST + steps
    if end > last:
        raise UserError(
            f"--profile={steps}: the run has {last - first} more steps, and a trace begins after "
            f"{_FIRST} of them; trace fewer, or train longer."
        )
    calls = itertools.count(first)
    with contextlib.ExitStack() as trace:

        def run(*arguments: Any) -> Any:
            call = next(calls)
            if call == begin:
                folder.mkdir(parents=True, exist_ok=True)
                trace.enter_context(_trace(folder))
            with jax.profiler.StepTraceAnnotation("train", step_num=call):
                result = step_fn(*arguments)
            if call == end - 1:
                jax.block_until_ready(result)
                trace.close()
                print(_written(folder, steps), flush=True)
            return result

        yield run


def _trace(folder: Path) -> contextlib.AbstractContextManager:
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # calls of Python functions are many, and take long to write
    return jax.profiler.trace(folder, create_perfetto_trace=True, profiler_options=options)


def _written(folder: Path, steps: int) -> str:
    newest = max(folder.rglob("perfetto_trace.json.gz"), key=lambda path: path.stat().st_mtime)
    return f"Trace of {steps} steps: {newest} (open it at https://ui.perfetto.dev)"
