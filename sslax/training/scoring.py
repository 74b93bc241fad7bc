"""What is measured at checkpoints: the score, which says what `--checkpoint=best` is, and kNN."""

from collections.abc import Callable
from contextlib import closing
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sslax import data
from sslax.data import records
from sslax.errors import UserError
from sslax.measures import knn, rows
from sslax.training import sharding
from sslax.training.plan import Plan
from sslax.types import Array, Batch, Representation, TrainState, Variables

EXAMPLES = 1024  # at most, in whole batches, and at least one batch
BANK = 8192  # training examples among which neighbors are sought
KNN = {"k": 20, "temperature": 0.07}

Score = Callable[[TrainState], float]


def make_score(plan: Plan, mesh: Mesh, dataset: data.Dataset, *, workers: int = 0) -> Score:
    """`state -> score`, the higher the better, comparable over the whole run.

    It is the mean of `plan.criterion` over the same examples with the same augmentation each time:

    - `probe_accuracy`: the accuracy of the online probe.
    - `loss`: the loss with its sign changed, with the terms and weights of the run's last step.
    - None: the state's step, so that the latest is the best. Without labels the losses of
      representations compare an encoder with its own moving targets, and say little of it.

    The examples are of the test set, or of the training set where the test set has other shapes or
    holds less than a batch (a micro-batch, where they are accumulated). They are 1,024, but no more
    than are trained on between two checkpoints, so that measuring takes less time than training.

    Args:
        plan: of the run.
        mesh: the devices.
        dataset: what it trains on.
        workers: reading threads; 0: one per core, at most 32.
    """
    criterion = plan.criterion
    if criterion is None:
        return lambda state: float(state.step)
    size = plan.batch["image"].shape[0] // plan.accumulate  # as many as are known to fit
    trained = plan.batch["image"].shape[0] * min(plan.checkpoint_every, plan.steps)
    count = max(1, min(EXAMPLES, trained) // size)
    source = _examples(plan, dataset, size, count * size)
    sign = -1.0 if criterion == "loss" else 1.0

    def measure(variables: Variables, batch: Batch) -> Array:
        augment_rng, loss_rng = jax.random.split(jax.random.key(plan.seed))
        augmented = plan.method.augment(augment_rng, batch)
        variables = sharding.gather(variables, mesh)
        value, output = plan.method.loss(
            variables, augmented, loss_rng, jnp.asarray(plan.steps - 1, jnp.int32)
        )
        return {"loss": value, **output.metrics}[criterion]

    measure = jax.jit(measure, out_shardings=sharding.replicated(mesh))

    def score(state: TrainState) -> float:
        batches = data.evaluation_batches(source, batch_size=size, mesh=mesh, workers=workers)
        with closing(batches):
            values = [
                float(measure(state.variables, {name: batch[name] for name in plan.batch}))
                for batch in islice(batches, min(count, len(source) // size))
            ]
        return sign * float(np.mean(values))

    return score


def make_knn(plan: Plan, mesh: Mesh, dataset: data.Dataset, *, workers: int = 0) -> Score:
    """`state -> kNN accuracy` of the exported encoder's features, in [0, 1].

    The examples are the same at each checkpoint: 1,024 of the test set, classified by their 20
    nearest among 8,192 of the training set, drawn at random. Encoding these 9,216 takes as long as
    training on about 1,500 images with two views each.

    Args:
        plan: of the run.
        mesh: the devices.
        dataset: with labels and a test set.
        workers: reading threads; 0: one per core, at most 32.

    Raises:
        UserError: the method learns no representation, or there are no labels or no test set.
    """
    classes, test = dataset.num_classes, dataset.test
    if not isinstance(plan.method.task, Representation) or classes is None or test is None:
        raise UserError(
            "config.online_knn is for representations of sets with labels and a test part: set it "
            "to False, or see config.data.labels, config.data.test_path and "
            "config.data.test_fraction."
        )
    size = min(plan.batch["image"].shape[0], EXAMPLES)
    bank, queries = (
        records.subset(source, data.epoch_order(0, 0, len(source))[:count])
        for source, count in ((dataset.train, BANK), (test, EXAMPLES))
    )

    def encode(variables: Variables, batch: Batch) -> Array:
        whole = sharding.gather(variables, mesh)
        return plan.method.predict(whole, batch).features.astype(jnp.float32)

    encode = jax.jit(encode, out_shardings=sharding.batch_sharding(mesh))

    def encoded(state: TrainState, source: data.Source) -> tuple[np.ndarray, np.ndarray]:
        """This process's features and labels."""
        features, labels = [], []
        batches = data.evaluation_batches(
            source, batch_size=size, mesh=mesh, workers=workers, by_process=True
        )
        for batch in batches:
            mask = rows.own(batch["mask"])
            features.append(rows.own(encode(state.variables, {"image": batch["image"]}))[mask])
            labels.append(rows.own(batch["label"])[mask])
        return np.concatenate(features), np.concatenate(labels)

    def accuracy(state: TrainState) -> float:
        knobs = {**KNN, "k": min(KNN["k"], len(bank))}
        sets = *encoded(state, bank), *encoded(state, queries)
        return knn.knn_accuracy(*sets, num_classes=classes, mesh=mesh, **knobs)

    return accuracy


def _examples(plan: Plan, dataset: data.Dataset, size: int, count: int) -> data.Source:
    """At most `count` examples, at random, but alike in every run; at least a batch of `size`."""
    test = dataset.test
    held_out = test is not None and len(test) >= size and _has_such_records(test, plan)
    source = test if held_out else dataset.train
    return records.subset(source, data.epoch_order(0, 0, len(source))[:count])


def _has_such_records(source: data.Source, plan: Plan) -> bool:
    """Whether a source's records are like those that the run trains on."""
    found = data.shapes(source)
    names = plan.batch.keys() - {"index"}
    return all(
        name in found and (found[name].shape, found[name].dtype) == (leaf.shape[1:], leaf.dtype)
        for name, leaf in ((name, plan.batch[name]) for name in names)
    )
