"""The plan of a config on a data set: the method, its optimizer, and durations in steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sslax import data
from sslax.errors import UserError
from sslax.methods import METHODS
from sslax.methods.representation import online_probe
from sslax.training import checkpoint, configuration, optim, sharding
from sslax.training.step import init_state
from sslax.types import Method, Representation, Schedule, TrainState

Build = Callable[[ConfigDict, int], Method]


@dataclass(frozen=True)
class Plan:
    """A run before it starts: pure functions and numbers, no arrays.

    Attributes:
        method: what is trained.
        tx: the optimizer.
        rate: its learning rate at each step.
        steps: of the whole run; `steps_per_epoch`, `log_every` and `checkpoint_every` likewise.
        seed: of the initial state and of all randomness after it.
        criterion: the metric that says which checkpoint is best, `probe_accuracy` or `loss`; None
            where no metric is comparable over the run.
        batch: shapes and types of a batch, as the data set gives it.
        layout: of the state over the devices, `replicated` or `fsdp`.
        accumulate: the number of micro-batches that a batch is divided into.
    """

    method: Method
    tx: optax.GradientTransformation
    rate: Schedule
    steps: int
    steps_per_epoch: int
    log_every: int
    checkpoint_every: int
    seed: int
    criterion: str | None
    batch: dict[str, jax.ShapeDtypeStruct]
    layout: sharding.Layout = "replicated"
    accumulate: int = 1

    @cached_property
    def shapes(self) -> TrainState:
        """Shapes and types of the state."""
        return jax.eval_shape(self._initial_state)

    @cached_property
    def _initial_state(self) -> Callable[[], TrainState]:
        """`initial_state`, traced once for its shapes and for any devices."""
        return jax.jit(self.initial_state)

    def initial_state(self) -> TrainState:
        """The state before the first step; a function of the config's seed alone."""
        return init_state(self.method, self.tx, jax.random.key(self.seed), self.batch)

    def state_on(self, mesh: Mesh) -> TrainState:
        """The initial state, laid out over `mesh`."""
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state(mesh))
        return jax.jit(self._initial_state, out_shardings=shardings)()

    def abstract_state(self, mesh: Mesh) -> TrainState:
        """Shapes, types and shardings of the state on `mesh`: what a checkpoint is read into."""
        shardings = sharding.shardings_of(self.shapes, mesh, self.layout)
        return checkpoint.abstract_like(self.shapes, shardings)

    def prediction(self) -> Any:
        """Shapes and types of the method's prediction for a batch."""
        return jax.eval_shape(self.method.predict, self.shapes.variables, self.batch)


def make_plan(
    config: ConfigDict,
    *,
    examples: int,
    image_shape: Sequence[int],
    classes: int | None,
    others: Mapping[str, tuple[str, Sequence[int]]] = MappingProxyType({}),
    methods: Mapping[str, Build] = METHODS,
) -> Plan:
    """Builds the method and its optimizer and turns durations into steps.

    Args:
        config: a whole config.
        examples: size of the training set.
        image_shape: [H, W, C] of the images in a batch, or [V, H, W, C] where V belong together.
        classes: number of classes; None where the set is unlabeled.
        others: dtype and shape of what else a record holds, by name.
        methods: the table of methods, name to `build(config, steps)`.

    Raises:
        UserError: an unknown key, or a value out of its range; a batch larger than the set.
    """
    configuration.check(config, methods)
    size = config.batch_size
    if size > examples:
        raise UserError(
            f"config.batch_size = {size} is larger than the training set of {examples} images: "
            f"--config.batch_size={1 << examples.bit_length() - 1} fits."
        )
    per_epoch = examples // size

    def to_steps(key: str, total: int | None = None) -> int:
        sizes = {"batch_size": size, "steps_per_epoch": per_epoch}
        duration = attrgetter(key)(config)
        return configuration.steps_of(duration, **sizes, total=total, name=f"config.{key}")

    steps = to_steps("duration")
    log_every = max(to_steps("log_every", steps), 1)
    # Whole intervals of the log, so that a resumed run writes the same lines.
    checkpoint_every = max(to_steps("checkpoint_every", steps) // log_every, 1) * log_every
    warmup = to_steps("optimizer.warmup", steps)
    rate = optim.learning_rate(config.optimizer, batch_size=size, warmup=warmup, total=steps)
    known = _with_facts(config, classes=classes, examples=examples)
    method = methods[config.method](known, steps)
    _check_accumulation(config, method)
    criterion = None if isinstance(method.task, Representation) else "loss"
    section = config.get(config.method, {})
    # Parts that a knob may leave out, such as a discriminator, have their section all the same.
    optional = [name for name, knobs in section.items() if isinstance(knobs, ConfigDict)]
    batch = {
        "image": jax.ShapeDtypeStruct((size, *image_shape), jnp.uint8),
        "index": jax.ShapeDtypeStruct((size,), jnp.int32),
    }
    for name, (dtype, shape) in others.items():
        batch[name] = jax.ShapeDtypeStruct((size, *shape), jnp.dtype(dtype))
    if classes is not None:
        batch["label"] = jax.ShapeDtypeStruct((size,), jnp.int32)
        if config.online_probe:
            method = online_probe.attach(method, classes=classes)
            criterion = "probe_accuracy"
    return Plan(
        method=method,
        tx=optim.build(config.optimizer, rate, steps, optional=optional),
        rate=rate,
        steps=steps,
        steps_per_epoch=per_epoch,
        log_every=log_every,
        checkpoint_every=checkpoint_every,
        seed=config.seed,
        criterion=criterion,
        batch=batch,
        layout=config.sharding,
        accumulate=config.accumulate,
    )


def _with_facts(config: ConfigDict, **facts: int | None) -> ConfigDict:
    """A config whose method, if it has to know them, has facts of the training set: where its
    section has 0, a copy."""
    section = config.get(config.method, {})
    facts = {name: fact for name, fact in facts.items() if fact is not None and name in section}
    for name, fact in facts.items():
        if section[name] not in (0, fact):
            raise UserError(
                f"config.{config.method}.{name} is {section[name]}, but the training set has "
                f"{fact}: set it to 0."
            )
    if all(section[name] == fact for name, fact in facts.items()):
        return config
    config = config.copy_and_resolve_references()
    config[config.method].update(facts)
    return config


def _check_accumulation(config: ConfigDict, method: Method) -> None:
    """Checks that the batch can be divided into `config.accumulate` micro-batches."""
    parts = config.accumulate
    if config.batch_size % parts:
        raise UserError(
            f"config.accumulate = {parts} does not divide config.batch_size = "
            f"{config.batch_size}: micro-batches have equally many examples."
        )
    if parts > 1 and not method.accumulates:
        raise UserError(
            f"config.accumulate is {parts}, but the loss of {config.method} is not made of "
            "micro-batches: set it to 1."
        )


def describe(dataset: data.Dataset) -> dict[str, Any]:
    """What `make_plan` has to know of a data set, as JSON has it."""
    record = data.shapes(dataset.train)
    others = record.keys() - {"image", "label"}
    spec = {
        "examples": len(dataset.train),
        "image_shape": list(record["image"].shape),
        "classes": dataset.num_classes if "label" in record else None,
    }
    if others:
        spec["others"] = {n: [record[n].dtype.name, list(record[n].shape)] for n in sorted(others)}
    return spec


def without_starting_weights(config: ConfigDict) -> ConfigDict:
    """A copy that reads no weights to start from: for runs whose checkpoints hold them."""
    config = config.copy_and_resolve_references()
    config.model.encoder_from = ""
    section = config.get(config.method, {})
    if "teacher_from" in section:
        section.teacher_from = None
    return config
