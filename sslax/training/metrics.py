"""Metrics of a run: means over steps, the lines of `metrics.jsonl`, a progress line.

The loop keeps the scalars of each step on the device and fetches them together, once in
`log_every` steps; nothing here makes the host wait for a single step.
"""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np

from sslax.errors import UserError
from sslax.types import Metrics


class NonFinite(UserError):
    """A metric became NaN or infinite; the run stops before it overwrites a good checkpoint.

    Attributes:
        fact: which metrics, and at which step, without the advice on what to do.
    """

    def __init__(self, names: list[str], step: int) -> None:
        self.fact = f"{', '.join(names)} became NaN or infinite at step {step}"
        super().__init__(
            f"{self.fact}. The last good checkpoint is kept; lower "
            "config.optimizer.learning_rate, lengthen its warm-up, set its clip_norm, or compute "
            "in float32."
        )


class Meter:
    """The metrics of the steps since the last summary, still on the device."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, Metrics]] = []

    def add(self, step: int, metrics: Metrics) -> None:
        """Keeps the scalars of the step that led from `step` to `step + 1`."""
        self._steps.append((step, metrics))

    def summarize(self) -> dict[str, float]:
        """Fetches the kept scalars, returns their means and forgets them; {} if there were none.

        Raises:
            NonFinite: names the first step and the metrics that were NaN or infinite there.
        """
        if not self._steps:
            return {}
        fetched = jax.device_get([metrics for _, metrics in self._steps])
        steps = [step for step, _ in self._steps]
        self._steps = []
        for step, metrics in zip(steps, fetched):
            broken = sorted(name for name, value in metrics.items() if not np.isfinite(value))
            if broken:
                raise NonFinite(broken, step)
        return {
            name: float(np.mean([metrics[name] for metrics in fetched], dtype=np.float64))
            for name in sorted(fetched[0])
        }


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, without those that are damaged or cut short."""
    if not path.exists():
        return []
    lines = map(_parsed, path.read_bytes().splitlines())
    return [line for line in lines if line is not None]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line's numbers; None where it is not what `writers.Lines` writes."""
    try:
        values = json.loads(line)
    except ValueError:  # of JSON or of UTF-8
        return None
    if not isinstance(values, dict) or type(values.get("step")) is not int:
        return None
    return values if all(type(value) in (int, float) for value in values.values()) else None


class Progress:
    """One live line on a terminal; elsewhere a line at most every `quiet_seconds`."""

    def __init__(
        self,
        total_steps: int,
        start_step: int,
        *,
        stream: TextIO = sys.stderr,
        quiet_seconds: float = 10.0,
    ) -> None:
        self._total = total_steps
        self._first = start_step
        self._stream = stream
        self._live = stream.isatty()
        self._quiet_seconds = quiet_seconds
        self._began = time.monotonic()
        self._printed = -math.inf

    def show(self, step: int, values: dict[str, float]) -> None:
        """Shows the state of the run after `step` steps."""
        now = time.monotonic()
        last = step >= self._total
        if not (self._live or last or now - self._printed >= self._quiet_seconds):
            return
        self._printed = now
        text = progress_text(step, self._total, values, now - self._began, self._first)
        ending = "\n" if last or not self._live else ""
        clear = "\r\x1b[K" if self._live else ""
        print(clear + text, end=ending, file=self._stream, flush=True)

    def close(self) -> None:
        """Ends the live line, so that further output starts on a new one."""
        if self._live:
            print(file=self._stream, flush=True)


def progress_text(
    step: int, total: int, values: dict[str, float], elapsed: float, first: int = 0
) -> str:
    """The progress line.

    Example:
        >>> progress_text(50, 200, {"epoch": 1.6, "loss": 4.21, "loss_at_chance": 6.2}, 60.0)
        'step 50/200 (25%)  epoch 1.6  loss 4.210 (chance 6.200)  1:00 elapsed, 3:00 left'
    """
    parts = [f"step {step}/{total} ({100 * step // total}%)"]
    if "epoch" in values:
        parts.append(f"epoch {values['epoch']:.1f}")
    for name, label, form in _SHOWN:
        if name in values:
            chance = values.get(f"{name}_at_chance")
            beside = f" (chance {chance:{form}})" if chance is not None else ""
            parts.append(f"{label} {values[name]:{form}}{beside}")
    left = elapsed * (total - step) / max(step - first, 1)
    parts.append(f"{_clock(elapsed)} elapsed, {_clock(left)} left")
    return "  ".join(parts)


_SHOWN = (
    ("loss", "loss", ".3f"),
    ("accuracy", "accuracy", ".3f"),
    ("probe_accuracy", "probe", ".3f"),
    ("photometric", "photometric", ".3f"),
    ("effective_rank", "rank", ".1f"),
    ("images_per_second", "images/s", ".0f"),
)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
