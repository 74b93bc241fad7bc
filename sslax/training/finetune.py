"""Fine-tuning: all weights of an encoder and a linear classifier on it, trained with labels.

From a trained encoder it measures how good a starting point the representation is; from an
untrained one it is supervised training from scratch, the number to compare it with.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sslax import data, models, ranges
from sslax.data import records
from sslax.errors import UserError
from sslax.methods.common import Augmentation
from sslax.methods.representation import supervised
from sslax.ranges import NonNegative, Positive, PositiveFraction, PositiveInt, Seed
from sslax.training import configuration, loop, metrics, optim, sharding
from sslax.training.plan import Plan
from sslax.types import Array, Batch, Method, Model, PyTree, Variables

_WARMUP = 0.1  # of the steps
_LOG_EVERY = 10  # steps


class Recipe(NamedTuple):
    """How an encoder is fine-tuned.

    Attributes:
        duration: in steps, epochs or examples; '' for 30 epochs, or 500 steps where that is more.
        batch_size: examples a step, over all devices; of a smaller training set as many as divide
            over the devices. An epoch leaves its remainder out, other examples each time.
        optimizer: `sgd` (Nesterov momentum 0.9) or `adamw`, for vision transformers.
        learning_rate: at its peak, for 256 examples a step: x batch / 256.
        weight_decay: of kernels; biases and norms are spared.
        layer_decay: factor on the rate for each layer further from the classifier, of a vision
            transformer (see `optim.scale_layers`).
        seed: of the order of examples and of the views.
    """

    duration: str = ""
    batch_size: PositiveInt = 128
    optimizer: str = "sgd"
    learning_rate: Positive = 0.1
    weight_decay: NonNegative = 0.0
    layer_decay: PositiveFraction = 1.0
    seed: Seed = 0


DEFAULT = Recipe()


class FinetuneResult(NamedTuple):
    """A fine-tuned network and its accuracy.

    Attributes:
        accuracy: top-1 accuracy on the test set after the last step, in [0, 1].
        losses: mean cross-entropy of the training batches, over each ten steps.
        variables: of the parts 'encoder' and 'classifier', batch statistics moved on.
    """

    accuracy: float
    losses: np.ndarray
    variables: Variables


def finetune(
    encoder: Model,
    params: PyTree,
    model_state: PyTree,
    train: data.Source,
    test: data.Source,
    *,
    num_classes: int,
    augmentation: Augmentation,
    evaluation_view: Callable[[Array], Array],
    recipe: Recipe = DEFAULT,
    mesh: Mesh | None = None,
    workers: int = 0,
    progress: bool = False,
) -> FinetuneResult:
    """Trains an encoder with labels and evaluates it on the test set, once.

    A linear classifier, initialized at zero, takes the encoder's features; both learn by
    cross-entropy, at one rate: a linear warm-up over a tenth of the steps, then half a cosine to
    0. Batch norms are in training mode: they use the batch's statistics and keep averaging them,
    and the test set is seen with these averages. The same arguments give the same bits.

    Args:
        encoder: images to an `Encoding`.
        params: the encoder's, to start from; `model_state` likewise. They stay as they are.
        train: labeled records.
        test: labeled records.
        num_classes: K.
        augmentation: adds 'views' `[B, V, H, W, C]`; each view is an example.
        evaluation_view: from test images `[B, H, W, C]` to the encoder's input.
        recipe: optimizer and duration.
        mesh: devices; all of all processes where None.
        workers: threads that read records.
        progress: show how far it is, on the standard error stream.

    Returns:
        Accuracy, losses and the fine-tuned variables.

    Raises:
        UserError: unlabeled records, no step to take, an unknown optimizer, or a loss that is not
            finite.

    Example:
        >>> from sslax import augment
        >>> encoder = models.from_linen(models.ResNet(blocks=(1,), width=0.0625, small_stem=True))
        >>> labels = np.arange(16, dtype=np.int32) % 2
        >>> images = np.tile(255 * labels.astype("u1").reshape(16, 1, 1, 1), (1, 4, 4, 1))
        >>> records = data.ArraySource(images, labels)
        >>> finetune(
        ...     encoder,
        ...     *encoder.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1))),
        ...     records,
        ...     records,
        ...     num_classes=2,
        ...     augmentation=augment.make_views(augment.get_view_recipes("identity")),
        ...     evaluation_view=augment.to_float,
        ...     recipe=Recipe(duration="20 steps", learning_rate=1.0),
        ... ).accuracy
        1.0

    Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
    https://arxiv.org/abs/2002.05709, appendix B.8
    """
    for part, source in (("training", train), ("test", test)):
        if "label" not in source[0]:
            raise UserError(f"Fine-tuning needs labels, and the {part} images have none.")
    mesh = sharding.make_mesh() if mesh is None else mesh
    ranges.check_record(recipe)
    train, batch_size = whole_batches(train, recipe.batch_size, mesh)
    classifier = models.from_linen(models.Classifier(num_classes))
    method = supervised.supervised(
        encoder,
        classifier,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        starting_weights=(params, model_state),
    )
    steps = _steps(recipe.duration, batch_size, len(train) // batch_size)
    knobs = {"batch_size": batch_size, "mesh": mesh, "workers": workers}
    variables, losses = train_labels(
        method,
        _optimizer(recipe),
        train,
        steps=steps,
        warmup=int(_WARMUP * steps),
        seed=recipe.seed,
        progress=progress,
        **knobs,
    )

    def correct(variables: Variables, batch: Batch) -> Array:
        """How many of a batch's real rows are classified correctly."""
        images = evaluation_view(batch["image"])
        logits = supervised.classify(encoder, classifier, variables, images)
        return jnp.sum((jnp.argmax(logits, axis=-1) == batch["label"]) & batch["mask"])

    accuracy = float(mean_over(correct, variables, test, **knobs))
    return FinetuneResult(accuracy, losses, variables)


def whole_batches(train: data.Source, batch_size: int, mesh: Mesh) -> tuple[data.Source, int]:
    """A batch size of at least one example for each device, as many for all of them, and a source
    that has a batch: of fewer examples than devices, some are in it more than once."""
    size = max(1, min(batch_size, len(train)) // mesh.size) * mesh.size
    if len(train) < size:
        train = records.subset(train, np.resize(np.arange(len(train)), size))
    return train, size


def train_labels(
    method: Method,
    section: ConfigDict,
    train: data.Source,
    *,
    steps: int,
    warmup: int,
    batch_size: int,
    seed: int,
    mesh: Mesh,
    workers: int,
    progress: bool,
) -> tuple[Variables, np.ndarray]:
    """Runs a method that learns from labels by the optimizer of an `optimizer` section.

    Returns:
        The variables, and the mean loss of the batches over each ten steps.

    Raises:
        UserError: unlabeled records, or a loss that is not finite.
    """
    plan = _plan(method, section, train, batch_size, steps, warmup, seed)
    state = plan.state_on(mesh)
    feed = data.make_feed(train, batch_size=batch_size, seed=seed, mesh=mesh, workers=workers)
    curve = _Curve()
    try:
        state = loop.run(plan, mesh, state, feed, writer=curve, progress=progress)
    except metrics.NonFinite as error:
        raise UserError(
            f"Fine-tuning diverged: {error.fact}; lower the learning rate of "
            f"{section.learning_rate:g}."
        ) from error
    finally:
        feed.close()
    return state.variables, np.asarray(curve.losses)


def mean_over(
    count: Callable[[Variables, Batch], Array],
    variables: Variables,
    source: data.Source,
    *,
    batch_size: int,
    mesh: Mesh,
    workers: int,
) -> np.ndarray:
    """`count(variables, batch)`, summed over all batches of a source, for each of its records."""
    counted = jax.jit(count, out_shardings=sharding.replicated(mesh))
    batches = data.evaluation_batches(source, batch_size=batch_size, mesh=mesh, workers=workers)
    return np.sum([np.asarray(counted(variables, batch)) for batch in batches], 0) / len(source)


def _optimizer(recipe: Recipe) -> ConfigDict:
    section = optim.defaults()
    section.update(
        name=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay,
        nesterov=True,
    )
    return section


def _plan(
    method: Method,
    section: ConfigDict,
    train: data.Source,
    batch_size: int,
    steps: int,
    warmup: int,
    seed: int,
) -> Plan:
    rate = optim.learning_rate(section, batch_size=batch_size, warmup=warmup, total=steps)
    batch = {"index": jax.ShapeDtypeStruct((), jnp.int32), **data.shapes(train)}
    return Plan(
        method=method,
        tx=optim.build(section, rate, steps),
        rate=rate,
        steps=steps,
        steps_per_epoch=len(train) // batch_size,
        log_every=_LOG_EVERY,
        checkpoint_every=steps,
        seed=seed,
        criterion=None,
        batch={
            name: jax.ShapeDtypeStruct((batch_size, *leaf.shape), leaf.dtype)
            for name, leaf in batch.items()
        },
    )


class _Curve:
    """Keeps the loss of each report."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def write(self, step: int, values: dict[str, float]) -> None:
        self.losses.append(values["loss"])


def _steps(duration: str, batch_size: int, steps_per_epoch: int) -> int:
    """The duration in steps; of '', 30 epochs or 500 steps, whichever is more.

    Example:
        >>> _steps("", 100, 80), _steps("", 100, 2), _steps("2 epochs", 100, 2)
        (2400, 500, 4)
    """
    sizes = {"batch_size": batch_size, "steps_per_epoch": steps_per_epoch}
    if not duration:
        return max(configuration.steps_of("30 epochs", **sizes), 500)
    return configuration.steps_of(duration, **sizes)
