"""The training loop: the only one, for every method, and for fine-tuning."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from sslax import data
from sslax.training import metrics, sharding
from sslax.training.plan import Plan
from sslax.training.step import compile_step
from sslax.types import Batch, Metrics, TrainState

Step = Callable[[TrainState, Any], tuple[TrainState, Metrics]]


class Writer(Protocol):
    """Where a loop writes its metrics."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Means over the steps since the last call."""


def run(
    plan: Plan,
    mesh: Mesh,
    state: TrainState,
    feed: data.Feed,
    *,
    step_fn: Step | None = None,
    save: Callable[[int, TrainState], None] | None = None,
    writer: Writer | None = None,
    progress: bool = True,
    stopping: Callable[[int], bool] = lambda step: False,
) -> TrainState:
    """Trains from `state` to the plan's last step, or until it is asked to stop.

    The host fetches metrics once in `plan.log_every` steps and never waits for a single step.

    Args:
        plan: of the run.
        mesh: the devices.
        state: on the mesh, where it keeps its layout; it is donated.
        feed: of batches, starting at the state's step.
        step_fn: the compiled step, where that was begun before (`compile_ahead`).
        save: is given the step and the state every `plan.checkpoint_every` steps and at the end.
        writer: is given the metrics' means.
        progress: show how far the run is, on the standard error stream.
        stopping: whether to stop after that many steps; the same in all processes.

    Returns:
        The last state.

    Raises:
        NonFinite: a metric became NaN or infinite.
    """
    first = int(state.step)
    step_fn = step_fn or step_of(plan, mesh, state, feed.batch)
    report = _Report(plan, first, writer, progress)
    for step in range(first, plan.steps):
        state, step_metrics = step_fn(state, feed.arrays(step))
        report.add(step, step_metrics)
        done = step + 1
        last = done == plan.steps or stopping(done)
        if last or done % plan.log_every == 0:
            report.write(done)
        if save and (last or done % plan.checkpoint_every == 0):
            save(done, state)
        if last:
            break
    report.close()
    return state


def step_of(
    plan: Plan, mesh: Mesh, state: TrainState, take: Callable[[Any, jax.Array], Batch]
) -> Any:
    """The jitted step that `run` takes, and that `sslax.planning` measures.

    Args:
        plan: of the run.
        mesh: the devices.
        state: on the mesh, or its shapes with their shardings.
        take: `Feed.batch`.
    """
    return compile_step(
        *(plan.method, plan.tx, mesh, take),
        accumulate=plan.accumulate,
        shardings=sharding.of(state),
    )


def compile_ahead(plan: Plan, mesh: Mesh, state: TrainState, feed: data.Feed) -> Step:
    """The step of `run`, compiled in a thread from now on, while the feed reads its data.

    Args:
        plan: of the run.
        mesh: the devices.
        state: shapes, dtypes and shardings of the state.
        feed: of batches.

    Returns:
        The step. It waits until it is compiled.
    """
    step_fn = step_of(plan, mesh, state, feed.batch)
    thread = ThreadPoolExecutor(1)
    compiled = thread.submit(lambda: step_fn.lower(state, feed.shapes).compile())
    thread.shutdown(wait=False)
    return lambda state, arrays: compiled.result()(state, arrays)


class _Report:
    """Metrics of the steps since the last report, and where their means go."""

    def __init__(self, plan: Plan, first: int, writer: Writer | None, progress: bool) -> None:
        self._plan = plan
        self._rate = jax.jit(plan.rate)
        self._writer = writer
        self._meter = metrics.Meter()
        self._progress = metrics.Progress(plan.steps, first) if progress else None
        self._last = (first, time.monotonic())

    def add(self, step: int, step_metrics: metrics.Metrics) -> None:
        self._meter.add(step, step_metrics)

    def write(self, step: int) -> None:
        """Fetches and writes the means."""
        values = self._meter.summarize()
        now = time.monotonic()
        steps, seconds = step - self._last[0], now - self._last[1]
        self._last = (step, now)
        values |= {
            "epoch": step / self._plan.steps_per_epoch,
            "learning_rate": float(self._rate(step - 1)),
            "images_per_second": steps * self._plan.batch["image"].shape[0] / seconds,
        }
        if self._writer:
            self._writer.write(step, values)
        if self._progress:
            self._progress.show(step, values)

    def close(self) -> None:
        if self._progress:
            self._progress.close()


class StopRequest:
    """Whether the run was asked to stop, by SIGTERM or Ctrl-C, agreed upon by all processes.

    A second Ctrl-C ends the process at once. A thread watches for it, because a handler in Python
    has to wait until the main thread comes back from what it does, perhaps from compiling.
    """

    def __init__(self) -> None:
        self._requested = False
        self._previous: dict[int, Any] = {}
        self._signals, self._wakeup = socket.socketpair()

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is not threading.main_thread():
            return self  # the owner of that thread handles signals
        # With several processes JAX's own handler takes SIGTERM and spreads the news.
        numbers = [signal.SIGINT] + [signal.SIGTERM] * (jax.process_count() == 1)
        for number in numbers:
            if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                self._previous[number] = signal.signal(number, lambda *_: None)
        self._wakeup.setblocking(False)
        self._previous_wakeup = signal.set_wakeup_fd(self._wakeup.fileno())
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous:
            signal.set_wakeup_fd(self._previous_wakeup)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._wakeup.close()
        if self._previous:
            self._thread.join()
        self._signals.close()

    def _watch(self) -> None:
        while received := self._signals.recv(1):
            if received[0] not in self._previous:
                continue
            if received[0] == signal.SIGINT:
                if self._requested:
                    os._exit(128 + signal.SIGINT)
                print("\nStopping with a checkpoint; Ctrl-C again ends at once.", file=sys.stderr)
                if jax.process_count() > 1:
                    os.kill(os.getpid(), signal.SIGTERM)
            self._requested = True

    def __call__(self, step: int) -> bool:
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._requested
