"""Linear probes of frozen features: logistic regression to convergence, SGD, few labels."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sslax.measures import knn
from sslax.measures._checks import check_labeled
from sslax.types import Array

L2_GRID = tuple(
    10.0 ** (-i / 2) for i in range(13)
)  # 1 to 1e-6, strong to weak, as the path is walked
LEARNING_RATE_GRID = (0.1, 0.03, 0.01, 0.003, 0.001)  # times batch / 256
_CONJUGATE_STEPS = 100  # bound on the inner solver of one Newton step


class LogisticFit(NamedTuple):
    """A fitted multinomial logistic regression.

    Attributes:
        weights: `[D, K]`.
        bias: `[K]`.
        loss: the minimized objective, penalty included.
        gradient_norm: Euclidean norm of its gradient where the solver stopped.
        iterations: Newton steps taken.
    """

    weights: Array
    bias: Array
    loss: Array
    gradient_norm: Array
    iterations: Array


class ProbeResult(NamedTuple):
    """Test accuracy in [0, 1], and the knob (L2 strength or learning rate) chosen on held-out data.

    Attributes:
        accuracy: top-1 accuracy on the test set.
        chosen: the value that was best on the held-out part of the training set.
        held_out_accuracy: accuracy there, by candidate, in the order tried.
    """

    accuracy: float
    chosen: float
    held_out_accuracy: dict[float, float]


class FewLabelResult(NamedTuple):
    """Mean and standard deviation over trials of the accuracies from a few labels a class."""

    knn: float
    knn_std: float
    linear: float
    linear_std: float


class FractionResult(NamedTuple):
    """Mean and standard deviation over trials of the accuracy from a fraction of the labels."""

    accuracy: float
    std: float


def fit_logistic(
    features: Array,
    labels: Array,
    *,
    num_classes: int,
    l2: float,
    example_weights: Array | None = None,
    initial: LogisticFit | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 100,
) -> LogisticFit:
    """Multinomial logistic regression by full-batch Newton steps.

    `min_{W, b} sum_i a_i CE(softmax(x_i W + b), y_i) / sum_i a_i + l2 / 2 |W|^2`

    The bias is free of the penalty. Each step solves the Newton system by conjugate gradients,
    preconditioned by the Hessian's diagonal, as exactly as the gradient is small, then backtracks;
    both cost matrix products of the features with K columns and no Hessian is formed. It stops
    where the gradient's Euclidean norm, over all of W and b, is at most `tolerance`. With
    scikit-learn's names, `C = 1 / (N l2)`.

    Args:
        features: `[N, D]`, of order one; used as they come (see `principal_coordinates`).
        labels: `[N]` integers in [0, num_classes).
        num_classes: K.
        l2: strength of the penalty, 0 or more.
        example_weights: `[N]` weights a_i >= 0; equal where None. Zeros hold examples out while
            shapes, hence the compiled solver, stay.
        initial: a fit to start from; zeros where None.
        tolerance: gradient norm to stop at.
        max_iterations: bound on Newton steps.

    Returns:
        The fit. `gradient_norm` above `tolerance` says that `max_iterations` came first.

    Example:
        >>> x = jnp.array([[-1.0], [-2.0], [1.0], [2.0]])
        >>> fit = fit_logistic(x, jnp.array([0, 0, 1, 1]), num_classes=2, l2=0.1)
        >>> (x @ fit.weights + fit.bias).argmax(-1).tolist(), bool(fit.gradient_norm < 1e-4)
        ([0, 0, 1, 1], True)
    """
    chex.assert_rank([features, labels], [2, 1])
    chex.assert_equal_shape_prefix([features, labels], 1)
    count, width = features.shape
    if example_weights is None:
        example_weights = np.ones(count, np.float32)
    chex.assert_shape(example_weights, (count,))
    if initial is None:
        w = np.zeros((num_classes, width + 1), np.float32)
    else:
        w = jnp.concatenate([initial.weights, initial.bias[None]]).T
    chex.assert_shape(w, (num_classes, width + 1))
    w, loss, gradient_norm, iterations = _newton(
        features, labels, example_weights, l2, w, tolerance, max_iterations
    )
    return LogisticFit(w[:, :-1].T, w[:, -1], loss, gradient_norm, iterations)


def logistic_regression(
    train_features: Array,
    train_labels: Array,
    test_features: Array,
    test_labels: Array,
    *,
    num_classes: int,
    l2: float | None = None,
    l2_grid: Sequence[float] = L2_GRID,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> ProbeResult:
    """Accuracy of logistic regression on standardized features, its strength chosen fairly.

    Features are standardized by the training set. A fifth of every class is held out; the grid is
    walked from strong to weak, each fit started from the last, until two strengths in a row have
    brought no better held-out accuracy; the best one (the stronger of equals) is fitted again on
    the whole training set. The test set is seen once.

    Args:
        train_features: `[N, D]`.
        train_labels: `[N]` integers in [0, num_classes).
        test_features: `[M, D]`.
        test_labels: `[M]`.
        num_classes: K.
        l2: a fixed strength instead of the search.
        l2_grid: strengths of the search, strong to weak.
        tolerance: gradient norm at which the last fit stops; the search stops at ten times it.
        seed: of the held-out split.

    Returns:
        Accuracy, the chosen strength, and the held-out accuracies.

    Raises:
        ValueError: if a label lies outside [0, num_classes), or nothing can be held out.

    Example:
        >>> x, y = jnp.array([[-1.0], [-2.0], [1.0], [2.0]]), jnp.array([0, 0, 1, 1])
        >>> logistic_regression(x, y, x, y, num_classes=2, l2=0.01).accuracy
        1.0
    """
    check_labeled(train_features, train_labels, test_features, test_labels, num_classes)
    train, test = principal_coordinates(train_features, test_features)
    labels, truth = np.asarray(train_labels), np.asarray(test_labels)
    fit, best, held_out_accuracy = None, l2, {}
    if best is None:
        held_out = held_out_mask(labels, seed=seed)
        rows, answers = train[np.flatnonzero(held_out)], labels[held_out]
        current, since_best = None, 0
        for strength in l2_grid:
            current = fit_logistic(
                train,
                labels,
                num_classes=num_classes,
                l2=strength,
                example_weights=(~held_out).astype(np.float32),
                initial=current,
                tolerance=10 * tolerance,
            )
            accuracy = _accuracy(current, rows, answers)
            since_best += 1
            if accuracy > max(held_out_accuracy.values(), default=-1.0):
                fit, best, since_best = current, strength, 0
            held_out_accuracy[strength] = accuracy
            if since_best == 2:
                break
    fit = fit_logistic(
        train, labels, num_classes=num_classes, l2=best, initial=fit, tolerance=tolerance
    )
    return ProbeResult(_accuracy(fit, test, truth), best, held_out_accuracy)


def sgd_probe(
    train_features: Array,
    train_labels: Array,
    test_features: Array,
    test_labels: Array,
    *,
    num_classes: int,
    epochs: int = 100,
    batch_size: int = 256,
    learning_rates: Sequence[float] = LEARNING_RATE_GRID,
    seed: int = 0,
) -> ProbeResult:
    """Accuracy of the linear probe that papers train: SGD over frozen features.

    Momentum 0.9, cosine decay to 0 without warm-up, no weight decay, cross-entropy, from zero
    weights; `lr = rate * batch / 256`. Features are standardized by the training set, once and for
    all (no batch normalization). The rate is chosen on a held-out fifth of every class, all rates
    running side by side, then training starts again on the whole set. Each run is one scan.

    Args:
        train_features: `[N, D]`.
        train_labels: `[N]` integers in [0, num_classes).
        test_features: `[M, D]`.
        test_labels: `[M]`.
        num_classes: K.
        epochs: passes over the training set.
        batch_size: examples a step; the whole set where that is smaller. The remainder of an
            epoch is left out, other examples each time.
        learning_rates: candidates per 256 examples; a single one skips the search.
        seed: of the split and the order of examples.

    Returns:
        Accuracy, the chosen rate, and the held-out accuracies.

    Raises:
        ValueError: if a label lies outside [0, num_classes), or nothing can be held out.

    Example:
        >>> x, y = jnp.array([[-1.0], [-2.0], [1.0], [2.0]]), jnp.array([0, 0, 1, 1])
        >>> sgd_probe(x, y, x, y, num_classes=2, epochs=5, learning_rates=[0.1]).accuracy
        1.0
    """
    check_labeled(train_features, train_labels, test_features, test_labels, num_classes)
    train, test = _standardize(train_features, test_features)
    labels, truth = np.asarray(train_labels), np.asarray(test_labels)

    def accuracies(
        indices: np.ndarray, rates: Sequence[float], features: Array, answers: np.ndarray
    ) -> list[float]:
        batch = min(batch_size, len(indices))
        peak = np.asarray(rates, np.float32) * batch / 256
        key = jax.random.key(seed)
        w = _sgd(key, train, labels, indices, peak, num_classes, epochs, batch)
        predicted = np.asarray((w @ _with_ones(features).T).argmax(1))
        return (predicted == answers).mean(-1).tolist()

    best, held_out_accuracy = learning_rates[0], {}
    if len(learning_rates) > 1:
        held_out = held_out_mask(labels, seed=seed)
        kept, rows = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        scores = accuracies(kept, learning_rates, train[rows], labels[rows])
        held_out_accuracy = dict(zip(learning_rates, scores))
        best = max(held_out_accuracy, key=held_out_accuracy.get)
    (accuracy,) = accuracies(np.arange(len(labels)), [best], test, truth)
    return ProbeResult(accuracy, best, held_out_accuracy)


def few_label_accuracy(
    train_features: Array,
    train_labels: Array,
    test_features: Array,
    test_labels: Array,
    *,
    num_classes: int,
    labels_per_class: int = 10,
    trials: int = 5,
    l2: float = 1e-2,
    temperature: float = 0.1,
    seed: int = 0,
) -> FewLabelResult:
    """Accuracy from a few labels a class, by kNN and by logistic regression.

    Every trial draws `labels_per_class` training examples of each class and classifies the whole
    test set with those alone. There is nothing to choose knobs on, so they are fixed: kNN takes
    `k = labels_per_class`; logistic regression the strength `l2`, on features standardized by the
    whole training set, whose labels stay unread.

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
    labels, truth = np.asarray(train_labels), np.asarray(test_labels)
    counts = np.bincount(labels, minlength=num_classes)
    if counts.min() < labels_per_class:
        raise ValueError(
            f"Class {counts.argmin()} has {counts.min()} training examples; {labels_per_class} of "
            "each class are needed, so lower labels_per_class."
        )
    train, test = _standardize(train_features, test_features)
    rng = np.random.default_rng(seed)
    by_knn, by_linear = [], []
    for _ in range(trials):
        index = np.concatenate(
            [
                rng.choice(np.flatnonzero(labels == c), labels_per_class, replace=False)
                for c in range(num_classes)
            ]
        )
        by_knn.append(
            knn.knn_accuracy(
                jnp.asarray(train_features)[index],
                labels[index],
                test_features,
                truth,
                num_classes=num_classes,
                k=labels_per_class,
                temperature=temperature,
            )
        )
        fit = _fit_rows(train, labels, index, num_classes, l2)
        by_linear.append(_accuracy(fit, test, truth))
    return FewLabelResult(
        float(np.mean(by_knn)),
        float(np.std(by_knn)),
        float(np.mean(by_linear)),
        float(np.std(by_linear)),
    )


def label_fraction_accuracy(
    train_features: Array,
    train_labels: Array,
    test_features: Array,
    test_labels: Array,
    *,
    num_classes: int,
    fraction: float,
    trials: int = 5,
    l2: float = 1e-2,
    seed: int = 0,
) -> FractionResult:
    """Accuracy of logistic regression from a fraction of the labels, the same of every class.

    The semi-supervised protocol for frozen features. Trial t takes `draw_fraction(..., seed + t)`
    of the training set. As in `few_label_accuracy` the strength is fixed, and features are
    standardized by the whole training set, whose other labels stay unread.

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
    labels, truth = np.asarray(train_labels), np.asarray(test_labels)
    train, test = _standardize(train_features, test_features)
    accuracies = []
    for trial in range(trials):
        index = draw_fraction(labels, fraction, seed=seed + trial)
        fit = _fit_rows(train, labels, index, num_classes, l2)
        accuracies.append(_accuracy(fit, test, truth))
    return FractionResult(float(np.mean(accuracies)), float(np.std(accuracies)))


def draw_fraction(labels: Array, fraction: float, *, seed: int = 0) -> np.ndarray:
    """Places of a random, class-balanced part of a labeled set.

    `max(1, round(fraction n))` of a class of n examples: where classes are of equal size, as many
    of each; where they are not, the set's proportions stay.

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
    chex.assert_rank(labels, 1)
    if not 0 < fraction <= 1:
        raise ValueError(f"A fraction of the labels lies in (0, 1]; got {fraction}.")
    rng = np.random.default_rng(seed)
    members = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    return np.sort(np.concatenate([m[: max(1, round(fraction * len(m)))] for m in members]))


def held_out_mask(labels: Array, *, fraction: float = 0.2, seed: int = 0) -> np.ndarray:
    """Marks a stratified part of a labeled set: `fraction` of every class, at random.

    A class of two or more examples gives at least one and keeps at least one; a single example is
    kept.

    Args:
        labels: `[N]` integers.
        fraction: of each class, in (0, 1).
        seed: of the choice.

    Returns:
        `[N]` booleans, True where held out.

    Raises:
        ValueError: if no class has two examples.

    Example:
        >>> held_out_mask(np.array([0] * 5 + [1] * 10)).sum()
        np.int64(3)
    """
    labels = np.asarray(labels)
    chex.assert_rank(labels, 1)
    rng = np.random.default_rng(seed)
    mask = np.zeros(labels.shape, bool)
    for c in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == c))
        if len(members) > 1:
            mask[members[: min(max(1, round(fraction * len(members))), len(members) - 1)]] = True
    if not mask.any():
        raise ValueError(
            "No class has two training examples, so none can be held out to choose a knob; "
            "give the knob a fixed value or pass more examples."
        )
    return mask


def principal_coordinates(train_features: Array, test_features: Array) -> tuple[Array, Array]:
    """Features standardized by the training set and turned onto its principal axes.

    The rotation leaves penalized logistic regression as it is, since `|W|` does not change under
    it, and makes the Hessian more nearly diagonal, which is what the solver's preconditioner
    assumes: on 8,000 x 512 features a fit took 0.29 s instead of 0.38 s at l2 = 1e-2, and 0.9 s
    instead of 1.4 s at 1e-3.

    Args:
        train_features: `[N, D]`.
        test_features: `[M, D]`.

    Returns:
        `[N, D]` and `[M, D]` float32; a constant feature becomes 0.

    Example:
        >>> train, test = principal_coordinates(jnp.array([[1.0], [3.0]]), jnp.array([[2.0]]))
        >>> jnp.abs(train).tolist(), test.tolist()
        ([[1.0], [1.0]], [[0.0]])
    """
    chex.assert_rank([train_features, test_features], 2)
    chex.assert_equal_shape_suffix([train_features, test_features], 1)
    return _rotate(*_standardize(train_features, test_features))


def _fit_rows(
    train: Array, labels: np.ndarray, index: np.ndarray, num_classes: int, l2: float
) -> LogisticFit:
    """Logistic regression on some rows, filled up to a power of two by rows of weight zero.

    Draws of all sizes then share a few compiled solvers.
    """
    size = 1 << (len(index) - 1).bit_length()
    rows = np.resize(index, size)
    weights = (np.arange(size) < len(index)).astype(np.float32)
    return fit_logistic(
        train[rows], labels[rows], num_classes=num_classes, l2=l2, example_weights=weights
    )


def _accuracy(fit: LogisticFit, features: Array, labels: np.ndarray) -> float:
    predicted = np.asarray((features @ fit.weights + fit.bias).argmax(-1))
    return float((predicted == labels).mean())


@jax.jit
def _standardize(train: Array, test: Array) -> tuple[Array, Array]:
    train, test = train.astype(jnp.float32), test.astype(jnp.float32)
    mean, std = train.mean(0), train.std(0)
    # A constant feature has a deviation of rounding size, which must not be blown up.
    scale = jnp.where(std > 1e-6 * (jnp.abs(mean) + std.max()), 1 / jnp.maximum(std, 1e-30), 0.0)
    return (train - mean) * scale, (test - mean) * scale


@jax.jit
def _rotate(train: Array, test: Array) -> tuple[Array, Array]:
    _, axes = jnp.linalg.eigh(train.T @ train / len(train))
    return train @ axes, test @ axes


# Both solvers hold parameters as rows `[K, D + 1]`, the bias last: products with features `[N, D]`
# then run about twice as fast on a CPU as with columns.


@jax.jit
def _newton(
    features: Array,
    labels: Array,
    example_weights: Array,
    l2: Array,
    w: Array,
    tolerance: Array,
    max_iterations: Array,
) -> tuple[Array, Array, Array, Array]:
    """Truncated Newton on `w` `[K, D + 1]`; returns it with loss, gradient norm and steps."""
    x = _with_ones(features)
    targets = jax.nn.one_hot(labels, len(w), axis=0)
    share = example_weights / example_weights.sum()
    penalty = l2 * jnp.ones(x.shape[1]).at[-1].set(0.0)

    def objective(logits: Array, w: Array) -> Array:
        cross_entropy = -jnp.sum(share * targets * jax.nn.log_softmax(logits, axis=0))
        return cross_entropy + 0.5 * jnp.sum(penalty * w**2)

    def gradient(logits: Array, w: Array) -> Array:
        return (share * (jax.nn.softmax(logits, axis=0) - targets)) @ x + penalty * w

    def newton_step(carry: tuple) -> tuple:
        w, logits, g, steps = carry
        p = jax.nn.softmax(logits, axis=0)

        def hessian_times(v: Array) -> Array:
            change = v @ x.T
            change = p * (change - jnp.sum(p * change, 0))
            return (share * change) @ x + penalty * v

        diagonal = (share * p * (1 - p)) @ (x * x) + penalty + 1e-6
        direction, _ = jax.scipy.sparse.linalg.cg(
            hessian_times,
            -g,
            tol=jnp.minimum(0.5, jnp.sqrt(jnp.linalg.norm(g))),
            maxiter=_CONJUGATE_STEPS,
            M=lambda v: v / diagonal,
        )
        change = direction @ x.T  # logits are linear, so trying a step length costs no product
        value, slope = objective(logits, w), jnp.sum(g * direction)

        def too_long(length: Array) -> Array:
            tried = objective(logits + length * change, w + length * direction)
            enough = value + 1e-4 * length * slope + 1e-7 * jnp.abs(value)
            return (tried > enough) & (length > 1e-4)

        length = jax.lax.while_loop(too_long, lambda length: length / 2, 1.0)
        w, logits = w + length * direction, logits + length * change
        return w, logits, gradient(logits, w), steps + 1

    def unfinished(carry: tuple) -> Array:
        _, _, g, steps = carry
        return (steps < max_iterations) & (jnp.linalg.norm(g) > tolerance)

    logits = w @ x.T
    w, logits, g, steps = jax.lax.while_loop(
        unfinished, newton_step, (w, logits, gradient(logits, w), 0)
    )
    return w, objective(logits, w), jnp.linalg.norm(g), steps


@functools.partial(jax.jit, static_argnames=("num_classes", "epochs", "batch_size"))
def _sgd(
    key: Array,
    features: Array,
    labels: Array,
    indices: Array,
    peak: Array,
    num_classes: int,
    epochs: int,
    batch_size: int,
) -> Array:
    """Probes `[L, K, D + 1]` trained on `features[indices]`, one for each of L peak rates."""
    features = _with_ones(features)
    per_epoch = len(indices) // batch_size
    total = epochs * per_epoch

    def step(carry: tuple, batch: Array) -> tuple:
        w, velocity, count = carry
        x, targets = features[batch], jax.nn.one_hot(labels[batch], num_classes, axis=0)
        logits = (w.reshape(-1, w.shape[-1]) @ x.T).reshape(*w.shape[:2], batch_size)
        error = (jax.nn.softmax(logits, axis=1) - targets) / batch_size
        gradient = (error.reshape(-1, batch_size) @ x).reshape(w.shape)
        velocity = 0.9 * velocity + gradient
        rates = peak * 0.5 * (1 + jnp.cos(jnp.pi * count / total))
        return (w - rates[:, None, None] * velocity, velocity, count + 1), None

    def epoch(carry: tuple, key: Array) -> tuple:
        order = jax.random.permutation(key, indices)[: per_epoch * batch_size]
        return jax.lax.scan(step, carry, order.reshape(per_epoch, batch_size))

    zeros = jnp.zeros((len(peak), num_classes, features.shape[1]))
    (w, _, _), _ = jax.lax.scan(epoch, (zeros, zeros, 0), jax.random.split(key, epochs))
    return w


def _with_ones(features: Array) -> Array:
    return jnp.pad(features.astype(jnp.float32), ((0, 0), (0, 1)), constant_values=1.0)
