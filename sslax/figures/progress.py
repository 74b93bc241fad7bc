"""Training curves from `metrics.jsonl`."""

import json
import os
from pathlib import Path

import numpy as np

from sslax.figures import style

# One panel each, in this order; panels without numbers are left out.
PANELS = {
    "loss": "Loss",
    "accuracy": "Pretext-task accuracy",
    "probe_accuracy": "Online-probe accuracy",
    "online_knn": "kNN accuracy on test images",
    "photometric": "Photometric error",
    "smoothness": "Smoothness (unweighted)",
    "automask": "Automask: share of pixels kept",
    "valid": "Share of pixels inside a source frame",
    "visible": "Share of pixels estimated visible",
    "embedding_std": "Embedding standard deviation",
    "effective_rank": "Effective rank of the embedding",
    "learning_rate": "Learning rate",
    "images_per_second": "Images per second",
}
BOUNDED = {"accuracy", "probe_accuracy", "online_knn", "automask", "valid", "visible"}


def curves(metrics_path: str | os.PathLike, path: str | os.PathLike) -> None:
    """Loss, accuracies, collapse measures and learning rate against the step.

    Args:
        metrics_path: one JSON object per line with `step` and numbers by name. Incomplete lines, of
            a run that is still writing or was killed, are skipped; if a step occurs twice (in a
            resumed run), the later line wins.
        path: of the PNG.

    Raises:
        ValueError: if no line has a step and one of the numbers that are drawn.
    """
    series = read_series(metrics_path)
    panels = [(name, title) for name, title in PANELS.items() if name in series]
    if not panels:
        raise ValueError(
            f"{metrics_path} has no line with a step and any of "
            f"{', '.join(PANELS)}; nothing to draw."
        )
    columns = min(3 if len(panels) <= 6 else 4, len(panels))
    rows = -(-len(panels) // columns)
    with style.page(path, 3.6 * columns + 0.3, 2.3 * rows + 0.75) as figure:
        style.heading(figure, "Training curves", "the last value at the top right")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, (name, title) in zip(grid.flat, panels):
            steps, values = series[name]
            axes.plot(steps, values, color=style.LINE, marker="o" if len(steps) < 3 else None)
            top = values.max()
            if f"{name}_at_chance" in series:
                at, chance = series[f"{name}_at_chance"]
                axes.plot(at, chance, color=style.FAINT, linestyle="--", label="chance")
                axes.legend(loc="best")
                top = max(top, chance.max())
            axes.set_title(title)
            axes.set_xlabel("step")
            axes.margins(x=0.02)
            if name in BOUNDED:
                axes.set_ylim(0, 1)
            elif values.min() >= 0:
                axes.set_ylim(0, 1.08 * max(top, 1e-12))
            axes.set_title(f"{values[-1]:.4g}", loc="right", color=style.FAINT)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.6 / figure.get_figheight()))


def read_series(metrics_path: str | os.PathLike) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Series of a `metrics.jsonl` by name: steps `[n]`, ascending, and finite values `[n]`."""
    series: dict[str, dict[int, float]] = {}
    for line in Path(metrics_path).read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # of JSON or of UTF-8
            continue
        if not isinstance(record, dict) or type(record.get("step")) is not int:
            continue
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float) and np.isfinite(value):
                series.setdefault(name, {})[int(record["step"])] = float(value)
    return {
        name: (np.array(sorted(by_step)), np.array([by_step[step] for step in sorted(by_step)]))
        for name, by_step in series.items()
    }
