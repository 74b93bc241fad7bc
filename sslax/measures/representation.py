"""The protocol for one encoder: features and labels in, named numbers out.

Names: `knn` (k = 200, T = 0.1), `knn20` (k = 20, T = 0.07), `linear` (logistic regression to
convergence), `linear_sgd` (the probe papers train), `linear_<stage>` for every inner stage and
`linear_best_stage` (the best of them on held-out data), `knn_10_labels` and `linear_10_labels` (ten
labels a class), `linear_1_percent` and `linear_10_percent` (of the labels), means of five draws
with `..._std` beside them; then the collapse measures `embedding_std`, `relative_embedding_std`,
`effective_rank`, `rankme`, `uniformity`. Accuracies are fractions of 1. The same encoder before
training and the bare pixels carry the suffixes `_untrained` and `_pixels`.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sslax.data.files.text import write_text
from sslax.measures import collapse, knn, linear
from sslax.types import Array

FEATURES = "features"  # the encoder's pooled output; every other entry is a stage
COLUMNS = ("trained", "untrained", "pixels")
UNLABELED = "Only collapse was measured: accuracies need labels, for training and for testing."
BEST_STAGE = "linear_best_stage"
ALIGNMENT = "alignment"  # of two views, which features alone do not have
_FEW = 10
_PERCENT = (1, 10)  # of the labels
_STAGE_L2 = 1e-2
_MEASURES = {
    "embedding_std": jax.jit(collapse.embedding_std),
    "relative_embedding_std": jax.jit(collapse.relative_embedding_std),
    "effective_rank": jax.jit(collapse.effective_rank),
    "rankme": jax.jit(collapse.rankme),
    "uniformity": jax.jit(collapse.uniformity),
}
_NO_STAGES = {
    *("linear", "linear_sgd", BEST_STAGE, f"linear_{_FEW}_labels"),
    *(f"linear_{percent}_percent" for percent in _PERCENT),
}


def evaluate_features(
    train: Mapping[str, Array],
    train_labels: Array | None,
    test: Mapping[str, Array],
    test_labels: Array | None,
    *,
    num_classes: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """All measures of one encoder.

    kNN, logistic regression, SGD and few-label accuracies on `'features'`; logistic regression of
    fixed strength (1e-2, stopped at gradient norm 1e-3) on every stage; collapse measures on the
    test set's `'features'`. k is lowered to the number of training examples where there are fewer;
    few-label accuracies are left out where a class has fewer than ten, those from a percentage of
    the labels where that is less than one of a class. Without labels only the collapse measures are
    taken.

    Args:
        train: `{'features': [N, D], stage: [N, C] or [N, ..., C], ...}`; what lies between the
            first and the last axis is averaged.
        train_labels: `[N]` integers in [0, num_classes), or None.
        test: the same for M test examples.
        test_labels: `[M]`, or None.
        num_classes: needed with labels.
        seed: of held-out splits and draws.

    Returns:
        Numbers by name (see the module); accuracies in [0, 1].

    Raises:
        ValueError: where the two sets name different stages, or labels come without num_classes.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(8, 3))
        >>> sorted(evaluate_features({"features": x}, None, {"features": x}, None))[:2]
        ['effective_rank', 'embedding_std']
    """
    if set(train) != set(test) or FEATURES not in train:
        raise ValueError(
            f"Training and test sets must name the same arrays, '{FEATURES}' among them; "
            f"got {sorted(train)} and {sorted(test)}."
        )
    x, z = _pooled(train[FEATURES]), _pooled(test[FEATURES])
    results = {name: float(measure(z)) for name, measure in _MEASURES.items()}
    if train_labels is None or test_labels is None:
        return results
    if num_classes is None:
        raise ValueError("Labels were given without num_classes; pass the number of classes.")

    sets = (x, train_labels, z, test_labels)
    for name, k, temperature in (("knn", 200, 0.1), ("knn20", 20, 0.07)):
        results[name] = knn.knn_accuracy(
            *sets, num_classes=num_classes, k=min(k, len(x)), temperature=temperature
        )
    results["linear"] = linear.logistic_regression(
        *sets, num_classes=num_classes, seed=seed
    ).accuracy
    results["linear_sgd"] = linear.sgd_probe(*sets, num_classes=num_classes, seed=seed).accuracy
    probes = {
        f"linear_{stage}": linear.logistic_regression(
            _pooled(train[stage]),
            train_labels,
            _pooled(test[stage]),
            test_labels,
            num_classes=num_classes,
            l2_grid=(_STAGE_L2,),
            tolerance=1e-3,
            seed=seed,
        )
        for stage in sorted(set(train) - {FEATURES})
    }
    results |= {name: probe.accuracy for name, probe in probes.items()}
    if probes:
        best = max(probes.values(), key=lambda probe: probe.held_out_accuracy[_STAGE_L2])
        results[BEST_STAGE] = best.accuracy
    smallest = np.bincount(np.asarray(train_labels), minlength=num_classes).min()
    if smallest >= _FEW:
        few = linear.few_label_accuracy(
            *sets, num_classes=num_classes, labels_per_class=_FEW, seed=seed
        )
        results[f"knn_{_FEW}_labels"] = few.knn
        results[f"knn_{_FEW}_labels_std"] = few.knn_std
        results[f"linear_{_FEW}_labels"] = few.linear
        results[f"linear_{_FEW}_labels_std"] = few.linear_std
    for percent in _PERCENT:
        if percent * smallest >= 100:
            part = linear.label_fraction_accuracy(
                *sets, num_classes=num_classes, fraction=percent / 100, seed=seed
            )
            results[f"linear_{percent}_percent"] = part.accuracy
            results[f"linear_{percent}_percent_std"] = part.std
    return results


def pixel_features(images: Array, *, max_side: int = 28) -> Array:
    """Bare pixels as features: the baseline every representation has to beat.

    Args:
        images: `[N, H, W, C]`, uint8 or float in [0, 1].
        max_side: larger images are shrunk to this height and width at most, antialiased, so that
            the probes stay affordable.

    Returns:
        `[N, h * w * C]` float32 in [0, 1].

    Example:
        >>> pixel_features(np.full((2, 56, 28, 1), 255, np.uint8)).shape
        (2, 392)
    """
    images = np.asarray(images)
    count, height, width, channels = images.shape
    scale = min(1.0, max_side / max(height, width))
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))

    @jax.jit
    def shrink(image: Array) -> Array:
        image = image / 255 if image.dtype == jnp.uint8 else image
        return jax.image.resize(image.astype(jnp.float32), (*shape, channels), "linear").ravel()

    return jax.lax.map(shrink, images, batch_size=min(256, count))


def suffixed(results: Mapping[str, float], suffix: str) -> dict[str, float]:
    """The same numbers under `<name>_<suffix>`, for `'untrained'` and `'pixels'`.

    Example:
        >>> suffixed({"knn": 0.5}, "pixels")
        {'knn_pixels': 0.5}
    """
    return {f"{name}_{suffix}": value for name, value in results.items()}


def results_table(results: Mapping[str, float]) -> str:
    """The numbers as aligned text, trained, untrained and pixels side by side.

    Accuracies in percent, standard deviations folded in as `±` and the best stage named; then the
    collapse measures and any other number.

    Args:
        results: numbers by name, suffixed where they are not of the trained encoder.

    Returns:
        Lines for the terminal; the last says so where there were no labels.

    Example:
        >>> print(results_table({"knn": 0.5, "knn_pixels": 0.25, "rankme": 3.14}))
        accuracy, %   trained   pixels
        knn              50.0     25.0
        <BLANKLINE>
        collapse      trained   pixels
        rankme           3.14        -
    """
    cells: dict[str, dict[str, float]] = {}
    for key, value in results.items():
        column = next((c for c in COLUMNS if key.endswith(f"_{c}")), COLUMNS[0])
        cells.setdefault(key.removesuffix(f"_{column}"), {})[column] = value
    columns = [c for c in COLUMNS if any(c in row for row in cells.values())]
    spreads = [n for n in cells if n.endswith("_std") and n.removesuffix("_std") in cells]
    accuracies = [
        n for n in cells if n.startswith(("knn", "linear", "finetune")) and n not in spreads
    ]
    stages = [n for n in accuracies if n.startswith("linear_") and n not in _NO_STAGES]
    measures = [n for n in cells if n in _MEASURES or n == ALIGNMENT]
    others = [n for n in cells if n not in {*accuracies, *spreads, *measures}]

    def percent(name: str, column: str) -> str:
        spread = cells.get(f"{name}_std", {}).get(column)
        text = f"{100 * cells[name][column]:.1f}"
        if name == BEST_STAGE:
            same = [n for n in stages if cells[n].get(column) == cells[name][column]]
            text += f" ({same[0].removeprefix('linear_')})" if same else ""
        return text if spread is None else f"{text} ± {100 * spread:.1f}"

    def number(name: str, column: str) -> str:
        value = cells[name][column]
        if value == round(value):
            return f"{value:.0f}"
        return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"

    blocks = []
    for title, names, text in (
        ("accuracy, %", accuracies, percent),
        ("collapse", measures, number),
        ("other", others, number),
    ):
        if names:
            rows = [[title, *columns]]
            rows += [[n, *(text(n, c) if c in cells[n] else "-" for c in columns)] for n in names]
            blocks.append(rows)
    widths = [max(len(row[i]) for rows in blocks for row in rows) for i in range(len(columns) + 1)]
    lines = [
        "\n".join(
            "   ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths))
            )
            for row in rows
        )
        for rows in blocks
    ]
    if not accuracies:
        lines.append(UNLABELED)
    return "\n\n".join(lines)


def write_results(path: str | os.PathLike, results: Mapping[str, float]) -> None:
    """Writes the numbers as sorted JSON; the file is there whole or not at all.

    What is not finite becomes null, which JSON knows and NaN is not.

    Args:
        path: of the file; its folder is made.
        results: numbers by name.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results.json"
        >>> write_results(path, {"knn": np.float32(0.5), "a": 1})
        >>> json.loads(path.read_text())
        {'a': 1.0, 'knn': 0.5}
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: float(value) for name, value in results.items()}
    plain = {name: value if math.isfinite(value) else None for name, value in plain.items()}
    write_text(path, json.dumps(plain, indent=2, sort_keys=True) + "\n")


def _pooled(features: Array) -> Array:
    """`[N, ..., C]` to `[N, C]` float32 by the mean of what lies between."""
    features = jnp.asarray(features, jnp.float32)
    return features.mean(axis=tuple(range(1, features.ndim - 1)))
