"""Linear probes of frozen features: logistic regression, SGD, and few labels.

Logistic regression on the whole set keeps it on one device. The others take a mesh: each device
holds a part of the training rows, and what a step needs of them is brought together.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike

from sslax import checks
from sslax.measures import knn, rows
from sslax.measures._checks import check_labeled
from sslax.measures.logistic import (
    LogisticFit,
    append_ones,
    fit_logistic,
    inverse_deviation,
    principal_coordinates,
)
from sslax.measures.rows import Rows
from sslax.types import Array

L2_GRID = tuple(10.0 ** (-i / 2) for i in range(13))  # 1 to 1e-6, strong to weak
LEARNING_RATE_GRID = (0.1, 0.03, 0.01, 0.003, 0.001)  # per 256 examples
_BLOCK = 1024  # rows that each device looks at at a time


class ProbeResult(NamedTuple):
    """Test accuracy of a probe whose hyperparameter was chosen on held-out data.

    Attributes:
        accuracy: top-1 accuracy on the test set, in [0, 1].
        chosen: the L2 strength or learning rate that was best on the held-out examples.
        held_out_accuracy: accuracy on them, by candidate, in the order tried.
    """

    accuracy: float
    chosen: float
    held_out_accuracy: dict[float, float]


class FewLabelResult(NamedTuple):
    """Mean and standard deviation over trials of the accuracies with a few labels per class."""

    knn: float
    knn_std: float
    linear: float
    linear_std: float


class FractionResult(NamedTuple):
    """Mean and standard deviation over trials of the accuracy with a fraction of the labels."""

    accuracy: float
    std: float


def logistic_regression(
    train_features: Rows,
    train_labels: ArrayLike,
    test_features: Rows,
    test_labels: ArrayLike,
    *,
    num_classes: int,
    l2: float | None = None,
    l2_grid: Sequence[float] = L2_GRID,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> ProbeResult:
    """Accuracy of logistic regression on standardized features, tuned on held-out data.

    Features are standardized by the training set. To choose the strength, a fifth of every class is
    held out and the grid is walked from strong to weak, each fit warm-started from the last, until
    two strengths in a row bring no better held-out accuracy. The best one (the strongest of equals)
    is fitted again on the whole training set. The test set is used once, at the end.

    Args:
        train_features: `[N, D]`.
        train_labels: `[N]` integers in [0, num_classes).
        test_features: `[M, D]`.
        test_labels: `[M]`.
        num_classes: K.
        l2: a fixed strength instead of the search.
        l2_grid: candidates, strong to weak.
        tolerance: gradient norm at which the final fit stops; fits of the search stop at ten times
            it.
        seed: of the held-out split.

    Returns:
        Accuracy, the chosen strength, and the held-out accuracies.

    Raises:
        TypeError: if the labels are not integers.
        ValueError: if a label lies outside [0, num_classes), a feature is NaN or infinite, or
            nothing can be held out.

    Example:
        >>> x, y = jnp.array([[-1.0], [-2.0], [1.0], [2.0]]), jnp.array([0, 0, 1, 1])
        >>> logistic_regression(x, y, x, y, num_classes=2, l2=0.01).accuracy
        1.0
    """
    check_labeled(train_features, train_labels, test_features, test_labels, num_classes)
    train, test = principal_coordinates(train_features, test_features)
    labels = np.asarray(train_labels)
    fit = None
    held_out_accuracy: dict[float, float] = {}
    if l2 is None:
        held_out = held_out_mask(labels, seed=seed)
        l2, fit, held_out_accuracy = _search_strength(
            train, labels, held_out, num_classes=num_classes, grid=l2_grid, tolerance=10 * tolerance
        )
    fit = fit_logistic(
        train, labels, num_classes=num_classes, l2=l2, initial=fit, tolerance=tolerance
    )
    return ProbeResult(_accuracy(fit, test, test_labels), l2, held_out_accuracy)


def _search_strength(
    train: Array,
    labels: np.ndarray,
    held_out: np.ndarray,
    *,
    num_classes: int,
    grid: Sequence[float],
    tolerance: float,
) -> tuple[float, LogisticFit, dict[float, float]]:
    """The strength that is best on the held-out rows, its fit, and the accuracies of all tried."""
    rows = np.flatnonzero(held_out)
    features, truth = jnp.take(train, rows, axis=0), labels[rows]
    weights = (~held_out).astype(np.float32)
    accuracy: dict[float, float] = {}
    fits: list[LogisticFit] = []
    best = 0
    for i, l2 in enumerate(grid):
        fit = fit_logistic(
            train,
            labels,
            num_classes=num_classes,
            l2=l2,
            example_weights=weights,
            initial=fits[-1] if fits else None,
            tolerance=tolerance,
        )
        fits.append(fit)
        accuracy[l2] = _accuracy(fit, features, truth)
        if accuracy[l2] > accuracy[grid[best]]:
            best = i
        if i - best == 2:
            break
    return grid[best], fits[best], accuracy


def sgd_probe(
    train_features: Rows,
    train_labels: ArrayLike,
    test_features: Rows,
    test_labels: ArrayLike,
    *,
    num_classes: int,
    epochs: int = 100,
    batch_size: int = 256,
    learning_rates: Sequence[float] = LEARNING_RATE_GRID,
    seed: int = 0,
    mesh: Mesh | None = None,
) -> ProbeResult:
    """Accuracy of the linear probe that papers train: SGD on frozen features.

    Momentum 0.9, cosine decay to 0 without warm-up, no weight decay, cross-entropy, zero
    initialization; `lr = rate * batch / 256`. Features are standardized once by the training set
    (no batch normalization). The rate is chosen on a held-out fifth of every class, with all
    candidates trained in parallel; training then restarts on the whole set.

    Each of d devices holds N / d training rows, `4 D N / d` bytes, and during the search a fifth
    more; a step brings the rows of its batch together. The result does not depend on d, up to the
    rounding of means.

    Args:
        train_features: `[N, D]`; in a run of several processes, this process's rows of them, and
            likewise below (see `measures.rows`).
        train_labels: `[N]` integers in [0, num_classes).
        test_features: `[M, D]`.
        test_labels: `[M]`.
        num_classes: K.
        epochs: passes over the training set.
        batch_size: examples per step, capped at the size of the set. Each epoch drops the remainder
            of its own shuffle.
        learning_rates: candidates per 256 examples; a single one skips the search.
        seed: of the split and the order of examples.
        mesh: the devices; all processes of it call together. None for one device of this process.

    Returns:
        Accuracy, the chosen rate, and the held-out accuracies.

    Raises:
        TypeError: if the labels are not integers.
        ValueError: if a label lies outside [0, num_classes), a feature is NaN or infinite, or
            nothing can be held out.

    Example:
        >>> x, y = jnp.array([[-1.0], [-2.0], [1.0], [2.0]]), jnp.array([0, 0, 1, 1])
        >>> sgd_probe(x, y, x, y, num_classes=2, epochs=5, learning_rates=[0.1]).accuracy
        1.0
    """
    check_labeled(train_features, train_labels, test_features, test_labels, num_classes)
    mesh = rows.one_device() if mesh is None else mesh
    layout = rows.Layout(len(train_features), mesh)
    x = layout.put(train_features, np.float32)
    y = layout.put(train_labels, np.int32, fill=-1)
    mean, scale = _moments(x, y, mesh=mesh)
    labels = rows.gather(train_labels, mesh)

    def accuracies(
        indices: np.ndarray, rates: Sequence[float], features: Rows, truth: ArrayLike
    ) -> list[float]:
        batch = min(batch_size, len(indices))
        peaks = np.asarray(rates, np.float32) * batch / 256
        w = _sharded_sgd(
            *(jax.random.key(seed), x, y, layout.positions[indices], peaks, mean, scale),
            num_classes=num_classes,
            epochs=epochs,
            batch_size=batch,
            mesh=mesh,
        )
        tested = rows.Layout(len(features), mesh)
        correct = _count_correct(
            *(w, mean, scale, tested.put(features, np.float32)),
            tested.put(truth, np.int32, fill=-1),
            mesh=mesh,
        )
        return (np.asarray(correct) / len(tested.positions)).tolist()

    best, held_out_accuracy = learning_rates[0], {}
    if len(learning_rates) > 1:
        held_out = held_out_mask(labels, seed=seed)
        mine = held_out[layout.first :][: len(train_features)]
        validation = np.asarray(train_features)[mine], np.asarray(train_labels)[mine]
        scores = accuracies(np.flatnonzero(~held_out), learning_rates, *validation)
        held_out_accuracy = dict(zip(learning_rates, scores))
        best = max(learning_rates, key=lambda rate: held_out_accuracy[rate])
    (accuracy,) = accuracies(np.arange(len(labels)), [best], test_features, test_labels)
    return ProbeResult(accuracy, best, held_out_accuracy)


def few_label_accuracy(
    train_features: Rows,
    train_labels: ArrayLike,
    test_features: Rows,
    test_labels: ArrayLike,
    *,
    num_classes: int,
    labels_per_class: int = 10,
    trials: int = 5,
    l2: float = 1e-2,
    temperature: float = 0.1,
    seed: int = 0,
    mesh: Mesh | None = None,
) -> FewLabelResult:
    """Accuracy with a few labels per class, of kNN and of logistic regression.

    Each trial draws `labels_per_class` training examples of each class and classifies the whole
    test set from those alone. No labels are left to tune on, so hyperparameters are fixed: kNN uses
    `k = labels_per_class`, logistic regression the strength `l2`. Features are standardized by the
    whole training set, which needs no labels.

    Args:
        train_features: `[N, D]`.
        train_labels: `[N]` integers in [0, num_classes).
        test_features: `[M, D]`.
        test_labels: `[M]`.
        num_classes: K.
        labels_per_class: examples drawn of each class.
        trials: independent draws.
        l2: strength of the logistic regression.
        temperature: of the kNN vote.
        seed: of the draws.
        mesh: the devices, over which the features are spread as in `sgd_probe`; what is drawn, and
            the test set, are brought to one.

    Returns:
        Mean and standard deviation over the trials, for both.

    Raises:
        ValueError: if a class has fewer than `labels_per_class` training examples.

    Example:
        >>> x, y = jnp.array([[-1.0], [-2.0], [1.0], [2.0]]), jnp.array([0, 0, 1, 1])
        >>> few_label_accuracy(x, y, x, y, num_classes=2, labels_per_class=1, trials=2).linear
        1.0
    """
    check_labeled(train_features, train_labels, test_features, test_labels, num_classes)
    mesh = rows.one_device() if mesh is None else mesh
    labels = rows.gather(train_labels, mesh)
    counts = np.bincount(labels, minlength=num_classes)
    if counts.min() < labels_per_class:
        raise checks.value_error(
            f"Class {counts.argmin()} has {counts.min()} training examples; {labels_per_class} of "
            "each class are needed, so lower labels_per_class."
        )
    standardized = _standardizer(train_features, mesh)
    test, truth = rows.gather(test_features, mesh), rows.gather(test_labels, mesh)
    standardized_test = standardized(test)
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == c) for c in range(num_classes)]
    by_knn, by_linear = [], []
    for _ in range(trials):
        index = np.concatenate([rng.choice(m, labels_per_class, replace=False) for m in members])
        drawn = rows.take(train_features, index, mesh)
        accuracy = knn.knn_accuracy(
            *(drawn, labels[index], test, truth),
            num_classes=num_classes,
            k=labels_per_class,
            temperature=temperature,
        )
        by_knn.append(accuracy)
        fit = _fit_padded(standardized(drawn), labels[index], num_classes, l2)
        by_linear.append(_accuracy(fit, standardized_test, truth))
    return FewLabelResult(*_mean_and_std(by_knn), *_mean_and_std(by_linear))


def label_fraction_accuracy(
    train_features: Rows,
    train_labels: ArrayLike,
    test_features: Rows,
    test_labels: ArrayLike,
    *,
    num_classes: int,
    fraction: float,
    trials: int = 5,
    l2: float = 1e-2,
    seed: int = 0,
    mesh: Mesh | None = None,
) -> FractionResult:
    """Accuracy of logistic regression with a class-balanced fraction of the labels.

    The semi-supervised protocol for frozen features. Trial t uses `draw_fraction(..., seed + t)` of
    the training set. As in `few_label_accuracy`, the strength is fixed and features are
    standardized by the whole training set.

    Args:
        train_features: `[N, D]`.
        train_labels: `[N]` integers in [0, num_classes).
        test_features: `[M, D]`.
        test_labels: `[M]`.
        num_classes: K.
        fraction: of the labels, in (0, 1].
        trials: independent draws.
        l2: strength of the logistic regression.
        seed: of the draws.
        mesh: as in `few_label_accuracy`.

    Returns:
        Mean and standard deviation over the trials.

    Raises:
        ValueError: if fraction lies outside (0, 1].

    Example:
        >>> x, y = jnp.array([[-1.0], [-2.0], [1.0], [2.0]]), jnp.array([0, 0, 1, 1])
        >>> label_fraction_accuracy(x, y, x, y, num_classes=2, fraction=0.5).accuracy
        1.0

    Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
    https://arxiv.org/abs/2002.05709
    """
    check_labeled(train_features, train_labels, test_features, test_labels, num_classes)
    mesh = rows.one_device() if mesh is None else mesh
    labels = rows.gather(train_labels, mesh)
    standardized = _standardizer(train_features, mesh)
    test, truth = standardized(rows.gather(test_features, mesh)), rows.gather(test_labels, mesh)
    accuracies = []
    for trial in range(trials):
        index = draw_fraction(labels, fraction, seed=seed + trial)
        drawn = standardized(rows.take(train_features, index, mesh))
        fit = _fit_padded(drawn, labels[index], num_classes, l2)
        accuracies.append(_accuracy(fit, test, truth))
    return FractionResult(*_mean_and_std(accuracies))


def draw_fraction(labels: ArrayLike, fraction: float, *, seed: int = 0) -> np.ndarray:
    """Draws a random fraction of a labeled set, class by class.

    Of a class of n examples, `max(1, round(fraction n))` are drawn, which preserves the class
    proportions.

    Args:
        labels: `[N]` integers.
        fraction: of each class, in (0, 1].
        seed: of the draw.

    Returns:
        Indices into the set, ascending; all of them for a fraction of 1.

    Raises:
        ValueError: if fraction lies outside (0, 1].

    Example:
        >>> draw_fraction(np.array([0] * 20 + [1] * 10), 0.1).shape
        (3,)
    """
    labels = np.asarray(labels)
    checks.assert_rank(labels, 1)
    checks.assert_integer("labels", labels)
    if not 0 < fraction <= 1:
        raise checks.value_error(f"A fraction of the labels lies in (0, 1]; got {fraction}.")
    rng = np.random.default_rng(seed)
    members = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    return np.sort(np.concatenate([m[: max(1, round(fraction * len(m)))] for m in members]))


def held_out_mask(labels: ArrayLike, *, fraction: float = 0.2, seed: int = 0) -> np.ndarray:
    """Stratified held-out split: a random `fraction` of every class.

    A class of two or more examples gives up at least one and keeps at least one; a class of one
    keeps it.

    Args:
        labels: `[N]` integers.
        fraction: of each class, in (0, 1).
        seed: of the draw.

    Returns:
        `[N]` booleans, True where held out.

    Raises:
        ValueError: if no class has two examples.

    Example:
        >>> held_out_mask(np.array([0] * 5 + [1] * 10)).sum()
        np.int64(3)
    """
    labels = np.asarray(labels)
    checks.assert_rank(labels, 1)
    checks.assert_integer("labels", labels)
    rng = np.random.default_rng(seed)
    mask = np.zeros(labels.shape, bool)
    for c in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == c))
        if len(members) > 1:
            mask[members[: min(max(1, round(fraction * len(members))), len(members) - 1)]] = True
    if not mask.any():
        raise checks.value_error(
            "No class has two training examples, so none can be held out for tuning; fix the "
            "hyperparameter or pass more examples."
        )
    return mask


@functools.partial(jax.jit, static_argnames="mesh")
def _moments(x: Array, y: Array, *, mesh: Mesh) -> tuple[Array, Array]:
    """Means and inverse deviations `[D]` of rows in a layout, where labels are -1 in padding."""
    axes = mesh.axis_names

    def fit(x: Array, y: Array) -> tuple[Array, Array]:
        def total(term: Callable[[Array], Array]) -> Array:
            def of_block(x: Array, y: Array) -> Array:
                return jnp.sum(jnp.where((y >= 0)[:, None], term(x), 0.0), axis=0)

            return jax.lax.psum(rows.block_sum(of_block, (x, y), _BLOCK), axes)

        count = total(jnp.ones_like)
        mean = total(lambda x: x) / count
        return mean, inverse_deviation(mean, jnp.sqrt(total(lambda x: (x - mean) ** 2) / count))

    spread, everywhere = PartitionSpec(axes), PartitionSpec()
    return jax.shard_map(fit, mesh=mesh, in_specs=spread, out_specs=everywhere)(x, y)


def _standardizer(features: Rows, mesh: Mesh) -> Callable[[ArrayLike], Array]:
    """`rows -> rows` in float32, standardized by a set that is spread over the mesh."""
    layout = rows.Layout(len(features), mesh)
    real = layout.put(np.zeros(len(features), np.int32), np.int32, fill=-1)
    fitted = _moments(layout.put(features, np.float32), real, mesh=mesh)
    mean, scale = (np.asarray(part) for part in fitted)
    return lambda given: _moved_and_scaled(given, mean, scale)


@jax.jit
def _moved_and_scaled(given: Array, mean: Array, scale: Array) -> Array:
    return (given.astype(jnp.float32) - mean) * scale


def _fit_padded(train: Array, labels: np.ndarray, num_classes: int, l2: float) -> LogisticFit:
    """Logistic regression on rows that are padded to a power of two with rows of weight zero.

    Draws of different sizes then share a few compiled solvers.
    """
    size = 1 << (len(labels) - 1).bit_length()
    index = np.resize(np.arange(len(labels)), size)
    weights = (np.arange(size) < len(labels)).astype(np.float32)
    drawn = jnp.take(train, index, axis=0)
    return fit_logistic(
        drawn, labels[index], num_classes=num_classes, l2=l2, example_weights=weights
    )


def _accuracy(fit: LogisticFit, features: Array, labels: ArrayLike) -> float:
    predicted = np.asarray(_predict(fit, features))
    return float((predicted == np.asarray(labels)).mean())


@jax.jit
def _predict(fit: LogisticFit, features: Array) -> Array:
    return (features @ fit.weights + fit.bias).argmax(-1)


def _mean_and_std(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values))


@functools.partial(jax.jit, static_argnames=("num_classes", "epochs", "batch_size", "mesh"))
def _sharded_sgd(
    key: Array,
    features: Array,
    labels: Array,
    positions: Array,
    peaks: Array,
    mean: Array,
    scale: Array,
    *,
    num_classes: int,
    epochs: int,
    batch_size: int,
    mesh: Mesh,
) -> Array:
    """`_sgd` of rows in a layout of `mesh`, standardized; every device takes the same steps."""
    axes = mesh.axis_names

    def train(features: Array, labels: Array, *shared: Array) -> Array:
        key, positions, peaks, mean, scale = shared

        def take(index: Array) -> tuple[Array, Array]:
            """The rows of a batch, each from the device that has it."""
            at = index - jax.lax.axis_index(axes) * len(features)
            mine = (at >= 0) & (at < len(features))
            x, y = (x.at[at].get(mode="clip") for x in (features, labels))
            x, y = jnp.where(mine[:, None], x, 0.0), jnp.where(mine, y, 0)
            x, y = jax.lax.psum((x, y), axes)
            return append_ones((x - mean) * scale), y

        shape = num_classes, features.shape[1] + 1
        return _sgd(key, take, positions, peaks, shape, epochs, batch_size)

    spread, everywhere = PartitionSpec(axes), PartitionSpec()
    specs = spread, spread, *[everywhere] * 5
    return jax.shard_map(train, mesh=mesh, in_specs=specs, out_specs=everywhere)(
        features, labels, key, positions, peaks, mean, scale
    )


def _sgd(
    key: Array,
    take: Callable[[Array], tuple[Array, Array]],
    indices: Array,
    peaks: Array,
    shape: tuple[int, int],
    epochs: int,
    batch_size: int,
) -> Array:
    """Probes `[L, K, D + 1]` trained on the examples `indices`, one for each of L peak rates.

    `take` gives the features `[B, D + 1]`, with ones for the bias, and the labels `[B]` of some
    examples; `shape` is (K, D + 1).
    """
    steps = len(indices) // batch_size  # per epoch

    def loss(w: Array, x: Array, labels: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(x @ w.T, labels).mean()

    def train(peak: Array) -> Array:
        schedule = optax.cosine_decay_schedule(peak, epochs * steps)
        # Of floats: the schedule divides the count by a number.
        optimizer = optax.sgd(lambda count: schedule(count.astype(peak.dtype)), momentum=0.9)

        def step(carry: tuple, batch: Array) -> tuple:
            w, state = carry
            updates, state = optimizer.update(jax.grad(loss)(w, *take(batch)), state)
            return (optax.apply_updates(w, updates), state), None

        def epoch(carry: tuple, key: Array) -> tuple:
            order = jax.random.permutation(key, indices)[: steps * batch_size]
            return jax.lax.scan(step, carry, order.reshape(steps, batch_size))

        w = jnp.zeros(shape, peak.dtype)
        (w, _), _ = jax.lax.scan(epoch, (w, optimizer.init(w)), jax.random.split(key, epochs))
        return w

    return jax.vmap(train)(peaks)


@functools.partial(jax.jit, static_argnames="mesh")
def _count_correct(
    w: Array, mean: Array, scale: Array, features: Array, labels: Array, *, mesh: Mesh
) -> Array:
    """How many rows, in a layout of `mesh`, each probe of `w` `[L, K, D + 1]` gets right: `[L]`."""
    axes = mesh.axis_names

    def count(w: Array, mean: Array, scale: Array, features: Array, labels: Array) -> Array:
        def of_block(x: Array, y: Array) -> Array:
            logits = w @ append_ones((x - mean) * scale).T  # [L, K, rows]
            return jnp.sum(jnp.argmax(logits, axis=1) == y, axis=1, dtype=jnp.int32)

        return jax.lax.psum(rows.block_sum(of_block, (features, labels), _BLOCK), axes)

    spread, everywhere = PartitionSpec(axes), PartitionSpec()
    specs = *[everywhere] * 3, spread, spread
    return jax.shard_map(count, mesh=mesh, in_specs=specs, out_specs=everywhere)(
        w, mean, scale, features, labels
    )
