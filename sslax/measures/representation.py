"""The evaluation protocol of an encoder: features and labels in, named numbers out.

| name | what |
|---|---|
| `knn`, `knn20` | weighted kNN: k = 200, T = 0.1 and k = 20, T = 0.07 |
| `linear` | logistic regression to convergence |
| `linear_sgd` | the linear probe that papers train by SGD |
| `linear_<stage>`, `linear_best_stage` | logistic regression on each inner stage; the stage that is best on held-out data |
| `knn_10_labels`, `linear_10_labels` | ten labels per class; mean of five draws, and `..._std` |
| `linear_1_percent`, `linear_10_percent` | that share of the labels; mean of five draws, and `..._std` |
| `embedding_std`, `relative_embedding_std`, `effective_rank`, `rankme`, `uniformity` | collapse measures |

Accuracies are in [0, 1]. kNN and SGD work on sets of any size, spread over devices and processes;
what logistic regression cannot hold on one device is left out.
"""  # noqa: E501

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from sslax import checks
from sslax.measures import collapse, knn, linear, logistic, rows
from sslax.types import Array

FEATURES = "features"  # the encoder's pooled output; every other entry is a stage
BEST_STAGE = "linear_best_stage"
ALIGNMENT, LIDAR = "alignment", "lidar"  # need views of each image, so the caller adds them
_FEW = 10  # labels per class
_PERCENT = (1, 10)  # of the labels
_STAGE_L2 = 1e-2
_COLLAPSE_ROWS = 50_000
LINEAR_BYTES = 8 * 2**30
_COLLAPSE = (
    *(collapse.embedding_std, collapse.relative_embedding_std, collapse.effective_rank),
    *(collapse.rankme, collapse.uniformity),
)
COLLAPSE = (*(measure.__name__ for measure in _COLLAPSE), ALIGNMENT, LIDAR)
_NOT_STAGES = {
    *("linear", "linear_sgd", "linear_probe", BEST_STAGE, f"linear_{_FEW}_labels"),
    *(f"linear_{percent}_percent" for percent in _PERCENT),
}


def evaluate_features(
    train: Mapping[str, ArrayLike],
    train_labels: ArrayLike | None,
    test: Mapping[str, ArrayLike],
    test_labels: ArrayLike | None,
    *,
    num_classes: int | None = None,
    seed: int = 0,
    mesh: Mesh | None = None,
    linear_bytes: int = LINEAR_BYTES,
) -> dict[str, float]:
    """All measures of one encoder.

    kNN, logistic regression, SGD and few-label accuracies use `'features'`; logistic regression of
    fixed strength (1e-2, stopped at gradient norm 1e-3) uses every stage; collapse measures use the
    test set's `'features'`, or 50,000 of them drawn at random. k is capped at the number of
    training examples. Accuracies with ten labels per class are left out if a class has fewer than
    ten, those with a percentage of the labels if that is less than one label per class. Logistic
    regressions are left out where they would take more than `linear_bytes`
    (`logistic.solver_bytes`). Without labels there are only collapse measures.

    Args:
        train: `{'features': [N, D], stage: [N, C] or [N, ..., C], ...}`; positions between the
            first and the last axis are averaged. In a run of several processes, this process's rows
            of them, and likewise below (see `measures.rows`).
        train_labels: `[N]` integers in [0, num_classes), or None.
        test: the same for M test examples.
        test_labels: `[M]`, or None.
        num_classes: required with labels.
        seed: of held-out splits and draws.
        mesh: the devices that the features are spread over; all processes of it call together, and
            get the same numbers. None for one device of this process.
        linear_bytes: memory of one device that a logistic regression may take.

    Returns:
        Numbers by name (see the module); accuracies in [0, 1].

    Raises:
        ValueError: if the sets have different stages, or labels come without num_classes.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(8, 3))
        >>> sorted(evaluate_features({"features": x}, None, {"features": x}, None))[:2]
        ['effective_rank', 'embedding_std']
    """
    if set(train) != set(test) or FEATURES not in train:
        raise checks.value_error(
            f"Training and test sets must name the same arrays, '{FEATURES}' among them; "
            f"got {sorted(train)} and {sorted(test)}."
        )
    mesh = rows.one_device() if mesh is None else mesh
    x, z = _pooled(train[FEATURES]), _pooled(test[FEATURES])
    results = _collapse(z, mesh, seed)
    if train_labels is None or test_labels is None:
        return results
    if num_classes is None:
        raise checks.value_error(
            "Labels were given without num_classes; pass the number of classes."
        )

    train_labels, test_labels = np.asarray(train_labels), np.asarray(test_labels)
    sets = (x, train_labels, z, test_labels)
    examples = len(rows.gather(train_labels, mesh))
    knobs: dict[str, Any] = {"num_classes": num_classes, "mesh": mesh}
    for name, k, temperature in (("knn", 200, 0.1), ("knn20", 20, 0.07)):
        results[name] = knn.knn_accuracy(
            *sets, k=min(k, examples), temperature=temperature, **knobs
        )

    def fits(examples: int, width: int) -> bool:
        return logistic.solver_bytes(examples, width, num_classes) <= linear_bytes

    if fits(examples, x.shape[1]):
        whole = [rows.gather(part, mesh) for part in sets]
        probe = linear.logistic_regression(*whole, num_classes=num_classes, seed=seed)
        results["linear"] = probe.accuracy
    results["linear_sgd"] = linear.sgd_probe(*sets, seed=seed, **knobs).accuracy
    stages = sorted(set(train) - {FEATURES})
    widths = [np.shape(train[name])[-1] for name in stages]
    if stages_fit(examples, widths, num_classes, linear_bytes):
        results |= _stage_accuracies(stages, train, train_labels, test, test_labels, seed, **knobs)
    return results | _few_label_accuracies(sets, seed, fits, **knobs)


def _collapse(z: np.ndarray, mesh: Mesh, seed: int) -> dict[str, float]:
    count = int(rows.gather(np.array([len(z)]), mesh).sum())
    if count > _COLLAPSE_ROWS:
        drawn = np.random.default_rng(seed).choice(count, _COLLAPSE_ROWS, replace=False)
        z = rows.take(z, drawn, mesh)
    else:
        z = rows.gather(z, mesh)
    return {name: float(value) for name, value in _measure_collapse(z).items()}


@jax.jit
def _measure_collapse(z: Array) -> dict[str, Array]:
    return {measure.__name__: measure(z) for measure in _COLLAPSE}


def _stage_accuracies(
    stages: Sequence[str],
    train: Mapping[str, ArrayLike],
    train_labels: np.ndarray,
    test: Mapping[str, ArrayLike],
    test_labels: np.ndarray,
    seed: int,
    *,
    num_classes: int,
    mesh: Mesh,
) -> dict[str, float]:
    probes = {}
    for stage in stages:
        sets = _pooled(train[stage]), train_labels, _pooled(test[stage]), test_labels
        probes[f"linear_{stage}"] = linear.logistic_regression(
            *(rows.gather(part, mesh) for part in sets),
            num_classes=num_classes,
            l2_grid=(_STAGE_L2,),
            tolerance=1e-3,
            seed=seed,
        )
    results = {name: probe.accuracy for name, probe in probes.items()}
    if probes:
        best = max(probes.values(), key=lambda probe: probe.held_out_accuracy[_STAGE_L2])
        results[BEST_STAGE] = best.accuracy
    return results


def _few_label_accuracies(
    sets: Sequence[np.ndarray],
    seed: int,
    fits: Callable[[int, int], bool],
    *,
    num_classes: int,
    mesh: Mesh,
) -> dict[str, float]:
    width, labels = sets[0].shape[1], rows.gather(sets[1], mesh)
    smallest = np.bincount(labels, minlength=num_classes).min()
    knobs: dict[str, Any] = {"num_classes": num_classes, "mesh": mesh}
    results = {}
    if smallest >= _FEW and fits(_FEW * num_classes, width):
        few = linear.few_label_accuracy(*sets, labels_per_class=_FEW, seed=seed, **knobs)
        results[f"knn_{_FEW}_labels"] = few.knn
        results[f"knn_{_FEW}_labels_std"] = few.knn_std
        results[f"linear_{_FEW}_labels"] = few.linear
        results[f"linear_{_FEW}_labels_std"] = few.linear_std
    for percent in _PERCENT:
        if percent * smallest >= 100 and fits(percent * len(labels) // 100, width):
            fraction = linear.label_fraction_accuracy(
                *sets, fraction=percent / 100, seed=seed, **knobs
            )
            results[f"linear_{percent}_percent"] = fraction.accuracy
            results[f"linear_{percent}_percent_std"] = fraction.std
    return results


def stages_fit(
    examples: int, widths: Sequence[int], num_classes: int | None, linear_bytes: int
) -> bool:
    """Whether logistic regression on every stage fits into the memory that it may take.

    Args:
        examples: N, of the training set.
        widths: C of each stage.
        num_classes: K; None without labels, where stages are not probed.
        linear_bytes: as in `evaluate_features`.

    Example:
        >>> stages_fit(8000, [256, 512], 10, 2**30), stages_fit(1_281_167, [2048], 1000, 2**30)
        (True, False)
    """
    width = max(widths, default=0)
    return logistic.solver_bytes(examples, width, num_classes or 0) <= linear_bytes


def stage_of(name: str) -> str | None:
    """The stage that a number of `evaluate_features` probes; None if it is not a stage's.

    Example:
        >>> stage_of("linear_stage3"), stage_of("linear_sgd"), stage_of("knn")
        ('stage3', None, None)
    """
    if not name.startswith("linear_") or name.removesuffix("_std") in _NOT_STAGES:
        return None
    return name.removeprefix("linear_")


def pixel_features(images: ArrayLike, *, max_side: int = 28) -> Array:
    """Raw pixels as features: the baseline that every representation has to beat.

    Args:
        images: `[N, H, W, C]`, uint8 or float in [0, 1].
        max_side: larger images are downsampled to at most this height and width, with
            antialiasing, to keep the probes affordable.

    Returns:
        `[N, h * w * C]` float32 in [0, 1].

    Example:
        >>> pixel_features(np.full((2, 56, 28, 1), 255, np.uint8)).shape
        (2, 392)
    """
    images = np.asarray(images)
    _, height, width, channels = images.shape
    scale = min(1.0, max_side / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return _shrink(images, (*size, channels))


@functools.partial(jax.jit, static_argnames="shape")
def _shrink(images: Array, shape: tuple[int, ...]) -> Array:
    def shrink(image: Array) -> Array:
        image = image / 255 if image.dtype == jnp.uint8 else image
        return jax.image.resize(image.astype(jnp.float32), shape, "linear").ravel()

    return jax.lax.map(shrink, images, batch_size=max(1, min(256, len(images))))


def _pooled(features: ArrayLike) -> np.ndarray:
    """`[N, ..., C]` to `[N, C]` float32, averaged over the positions in between."""
    features = np.asarray(features).astype(np.float32, copy=False)
    positions = tuple(range(1, features.ndim - 1))
    return features.mean(axis=positions) if positions else features
