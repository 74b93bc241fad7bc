"""The linear protocol of papers: a classifier on a frozen encoder, trained on augmented images.

Unlike the probes of `sslax.measures`, which see one feature vector for each image, it encodes new
random crops and flips in every epoch.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sslax import augment, data, models, ranges
from sslax.data import records
from sslax.measures import linear
from sslax.methods.common import Augmentation
from sslax.methods.representation import linear_probe
from sslax.ranges import NonNegative, OneOrMore, Positive, PositiveInt, ProperFraction, Seed
from sslax.training import configuration, finetune, optim, sharding
from sslax.types import Array, Batch, Model, PyTree, Variables


class Protocol(NamedTuple):
    """How a linear classifier is trained; the rate decays to 0 along half a cosine.

    Attributes:
        duration: in steps, epochs or examples.
        batch_size: examples a step, over all devices; of a smaller training set as many as divide
            over the devices.
        optimizer: `sgd` or `lars`.
        learning_rates: candidates for the peak rate for 256 examples a step, x batch / 256. Of
            several, all are trained at once, and the best on held-out images is taken.
        held_out: the part of each class that is kept from training where there are several rates.
        warmup: how long the rate rises to its peak.
        momentum: of the optimizer.
        nesterov: Nesterov's momentum, of SGD.
        weight_decay: of the classifier's kernel.
        normalize: batch normalization without scale and bias before the classifier.
        seed: of the order of examples and of the views.
    """

    duration: str = "90 epochs"
    batch_size: PositiveInt = 4096
    optimizer: Literal["sgd", "lars"] = "sgd"
    learning_rates: OneOrMore[Positive] = (0.1,)
    held_out: ProperFraction = 0.1
    warmup: str = "0 epochs"
    momentum: ProperFraction = 0.9
    nesterov: bool = False
    weight_decay: NonNegative = 0.0
    normalize: bool = False
    seed: Seed = 0


PROTOCOLS: dict[str, Protocol] = {
    "simclr": Protocol(nesterov=True),
    "byol": Protocol(
        duration="80 epochs",
        batch_size=1024,
        nesterov=True,
        learning_rates=(0.4, 0.3, 0.2, 0.1, 0.05),
    ),
    "simsiam": Protocol(optimizer="lars"),
    "mae": Protocol(batch_size=16384, optimizer="lars", warmup="10 epochs", normalize=True),
}
"""Protocols by the paper that states them; see docs/evaluation.md."""


class LinearProbeResult(NamedTuple):
    """Accuracies of a linear classifier on a frozen encoder.

    Attributes:
        accuracy: top-1 accuracy on the test set after the last step, in [0, 1].
        chosen: its learning rate, for 256 examples a step.
        held_out_accuracy: by rate; {} for a single rate.
        losses: mean cross-entropy of the training batches over each ten steps, of all rates.
        variables: of the classifiers, and in `extra` those of the encoder.
    """

    accuracy: float
    chosen: float
    held_out_accuracy: dict[float, float]
    losses: np.ndarray
    variables: Variables


def train_linear_probe(
    encoder: Model,
    params: PyTree,
    model_state: PyTree,
    train: data.Source,
    test: data.Source,
    *,
    labels: np.ndarray,
    num_classes: int,
    augmentation: Augmentation,
    evaluation_view: Callable[[Array], Array],
    protocol: Protocol = PROTOCOLS["simclr"],
    mesh: Mesh | None = None,
    workers: int = 0,
    progress: bool = False,
) -> LinearProbeResult:
    """Trains a linear classifier on a frozen encoder and evaluates it on the test set, once.

    The encoder is in evaluation mode throughout; neither its parameters nor its batch statistics
    move. The classifier is initialized at zero and learns by cross-entropy.

    Args:
        encoder: images to an `Encoding`.
        params: the encoder's; `model_state` likewise.
        train: labeled records.
        test: labeled records.
        labels: of the training records, `[N]`.
        num_classes: K.
        augmentation: adds 'views' `[B, V, H, W, C]`; each view is an example.
        evaluation_view: from test images `[B, H, W, C]` to the encoder's input.
        protocol: optimizer and duration.
        mesh: devices; all of all processes where None.
        workers: threads that read records.
        progress: show how far it is, on the standard error stream.

    Raises:
        UserError: no step to take, a value out of its range, or a loss that is not finite.

    Example:
        >>> import jax
        >>> encoder = models.from_linen(models.ResNet(blocks=(1,), width=0.0625, small_stem=True))
        >>> labels = np.arange(16, dtype=np.int32) % 2
        >>> images = np.tile(255 * labels.astype("u1").reshape(16, 1, 1, 1), (1, 4, 4, 1))
        >>> records = data.ArraySource(images, labels)
        >>> train_linear_probe(
        ...     encoder,
        ...     *encoder.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1))),
        ...     records,
        ...     records,
        ...     labels=labels,
        ...     num_classes=2,
        ...     augmentation=augment.make_views(augment.get_view_recipes("identity")),
        ...     evaluation_view=augment.to_float,
        ...     protocol=Protocol(duration="20 steps", learning_rates=(30.0,)),
        ... ).accuracy
        1.0
    """
    ranges.check_record(protocol)
    mesh = sharding.make_mesh() if mesh is None else mesh
    rates, held_out = protocol.learning_rates, None
    if len(rates) > 1:
        mask = linear.held_out_mask(labels, fraction=protocol.held_out, seed=protocol.seed)
        held_out = records.subset(train, np.flatnonzero(mask))
        train = records.subset(train, np.flatnonzero(~mask))
    train, batch_size = finetune.whole_batches(train, protocol.batch_size, mesh)
    names = [f"rate{i}" for i in range(len(rates))]
    classifier = models.from_linen(models.Classifier(num_classes, normalize=protocol.normalize))
    method = linear_probe.linear_probe(
        encoder,
        dict.fromkeys(names, classifier),
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        weights=(params, model_state),
    )
    variables, losses = finetune.train_labels(
        method,
        _optimizer(protocol, names),
        train,
        steps=_steps(protocol, "duration", batch_size, len(train)),
        warmup=_steps(protocol, "warmup", batch_size, len(train)),
        batch_size=batch_size,
        seed=protocol.seed,
        mesh=mesh,
        workers=workers,
        progress=progress,
    )

    def correct(variables: Variables, batch: Batch) -> Array:
        """How many of a batch's real rows each classifier gets right, `[rates]`."""
        images = augment.to_float(evaluation_view(batch["image"]))
        features = linear_probe.encode(encoder, variables, images)
        logits = jnp.stack(
            [linear_probe.classify(classifier, variables, name, features) for name in names]
        )
        right = (jnp.argmax(logits, axis=-1) == batch["label"]) & batch["mask"]
        return jnp.sum(right, axis=1)

    def accuracies(source: data.Source) -> np.ndarray:
        knobs = {"batch_size": batch_size, "mesh": mesh, "workers": workers}
        return finetune.mean_over(correct, variables, source, **knobs)

    best, by_rate = 0, {}
    if held_out is not None:
        scores = accuracies(held_out)
        best, by_rate = int(np.argmax(scores)), dict(zip(rates, scores.tolist()))
    accuracy = float(accuracies(test)[best])
    return LinearProbeResult(accuracy, rates[best], by_rate, losses / len(rates), variables)


def _optimizer(protocol: Protocol, names: list[str]) -> ConfigDict:
    """The `optimizer` section; each classifier is a part of the network with a rate of its own."""
    section, first = optim.defaults(), protocol.learning_rates[0]
    section.update(
        name=protocol.optimizer,
        learning_rate=first,
        momentum=protocol.momentum,
        nesterov=protocol.nesterov,
        weight_decay=protocol.weight_decay,
        rates={name: rate / first for name, rate in zip(names, protocol.learning_rates)},
    )
    return section


def _steps(protocol: Protocol, name: str, batch_size: int, examples: int) -> int:
    duration = getattr(protocol, name)
    sizes = {"batch_size": batch_size, "steps_per_epoch": examples // batch_size}
    if name == "duration":
        return configuration.steps_of(duration, **sizes, name="--duration")
    total = _steps(protocol, "duration", batch_size, examples)
    return configuration.steps_of(duration, **sizes, total=total, name=name)
