"""The training loop: the only one, for every method.

`init_state` and `train_step` are pure functions of a `Method` and an optimizer; `fit` adds what a
run on files needs: data, checkpoints, metrics, signals.
"""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sslax import data, models
from sslax.errors import UserError, nearest
from sslax.methods import METHODS
from sslax.methods.representation import online_probe
from sslax.training import checkpoint, configuration, metrics, optim, sharding
from sslax.types import Array, Batch, Method, Metrics, Schedule, TrainState

Build = Callable[[ConfigDict, int], Method]


def init_state(
    method: Method, tx: optax.GradientTransformation, rng: Array, batch: Batch
) -> TrainState:
    """The state before the first step, from one batch (whose values do not matter)."""
    init_rng, views_rng, state_rng = jax.random.split(rng, 3)
    variables = method.init(init_rng, method.views(views_rng, batch))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables.params,
        model_state=variables.model_state,
        extra=variables.extra,
        opt_state=tx.init(variables.params),
        rng=state_rng,
    )


def train_step(
    method: Method, tx: optax.GradientTransformation, state: TrainState, batch: Batch
) -> tuple[TrainState, Metrics]:
    """One step: views, loss and gradient, optimizer, moving averages.

    All randomness of a step comes from `fold_in(state.rng, state.step)`.
    """
    views_rng, loss_rng = jax.random.split(jax.random.fold_in(state.rng, state.step))
    views = method.views(views_rng, batch)
    (loss, output), gradient = jax.value_and_grad(method.loss, has_aux=True)(
        state.params, state.model_state, state.extra, views, loss_rng, state.step
    )
    updates, opt_state = tx.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    step = state.step + 1
    new_state = TrainState(
        step=step,
        params=params,
        model_state=output.model_state,
        extra=method.update(params, output.extra, step),
        opt_state=opt_state,
        rng=state.rng,
    )
    norms = {
        "gradient_norm": optax.tree.norm(gradient),
        "update_norm": optax.tree.norm(updates),
    }
    return new_state, {"loss": loss, **output.metrics, **norms}


class Plan(NamedTuple):
    """What a config means on a data set: pure functions and numbers, no arrays."""

    method: Method
    tx: optax.GradientTransformation
    rate: Schedule
    steps: int
    steps_per_epoch: int
    log_every: int
    checkpoint_every: int
    seed: int
    batch: dict[str, jax.ShapeDtypeStruct]

    def initial_state(self) -> TrainState:
        """The state before the first step; a function of the config's seed alone."""
        batch = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self.batch)
        return init_state(self.method, self.tx, jax.random.key(self.seed), batch)

    def predictions(self) -> dict[str, Any]:
        """Shapes and types of what the method predicts of a batch."""
        state = jax.eval_shape(self.initial_state)
        variables = (state.params, state.model_state, state.extra)
        return jax.eval_shape(self.method.predict, *variables, self.batch)

    def abstract_state(self, mesh: Mesh) -> TrainState:
        """Shapes and types of the state, replicated over `mesh`: what a checkpoint is read into."""
        return checkpoint.abstract_like(
            jax.eval_shape(self.initial_state), sharding.replicated(mesh)
        )


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
        UserError: unknown method, bad duration, batch larger than the set.
    """
    size = config.batch_size
    if config.method not in methods:
        known = nearest(config.method, [*methods])
        raise UserError(f'Unknown config.method "{config.method}": {known}')
    if size > examples:
        raise UserError(
            f"config.batch_size = {size} is larger than the training set of {examples} images."
        )
    per_epoch = examples // size

    def to_steps(duration: str) -> int:
        return configuration.steps_of(duration, batch_size=size, steps_per_epoch=per_epoch)

    steps = to_steps(config.duration)
    log_every = max(to_steps(config.log_every), 1)
    # Whole intervals of the log, so that a resumed run writes the same lines.
    checkpoint_every = max(to_steps(config.checkpoint_every) // log_every, 1) * log_every
    warmup = to_steps(config.optimizer.warmup)
    rate = optim.learning_rate(config.optimizer, batch_size=size, warmup=warmup, total=steps)
    method = methods[config.method](config, steps)
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
    return Plan(
        method=method,
        tx=optim.build(config.optimizer, rate, steps),
        rate=rate,
        steps=steps,
        steps_per_epoch=per_epoch,
        log_every=log_every,
        checkpoint_every=checkpoint_every,
        seed=config.seed,
        batch=batch,
    )


def describe(dataset: data.Dataset) -> dict[str, Any]:
    """What `make_plan` wants to know of a data set, as JSON has it."""
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


def fit(
    config: ConfigDict, workdir: str | Path, *, methods: Mapping[str, Build] = METHODS
) -> TrainState:
    """Trains as `config` says, in `workdir`, from its latest checkpoint if it has one.

    A run that was killed and started again ends with the same bits as an undisturbed one. SIGTERM
    saves a checkpoint and returns early: `state.step` is then less than the plan's steps.

    Returns:
        The last state.

    Raises:
        UserError: whatever the config or the data got wrong, in one sentence.
        NonFinite: a metric became NaN or infinite; the last good checkpoint stays.
    """
    workdir = Path(workdir)
    mesh = sharding.make_mesh()
    dataset = data.load(config.data)
    spec = describe(dataset)
    plan = make_plan(config, **spec, methods=methods)
    workdir.mkdir(parents=True, exist_ok=True)
    chief = jax.process_index() == 0
    if chief:  # where it refuses, the others end with it
        checkpoint.keep_description(config, spec, workdir)

    with checkpoint.Checkpoints(workdir / "checkpoints") as checkpoints:
        state = start(plan, mesh, checkpoints)
        first = int(state.step)
        _announce(config, plan, mesh, spec, state, first)
        if first < plan.steps:
            feed = data.make_feed(
                dataset.train,
                batch_size=config.batch_size,
                seed=config.seed,
                mesh=mesh,
                mode=config.data.device,
                resident_bytes=config.data.resident_bytes,
                workers=config.data.workers,
                start_step=first,
            )
            writer = metrics.Writer(workdir, first) if chief else None
            try:
                state = _loop(plan, mesh, state, feed, checkpoints, writer)
            finally:
                feed.close()
                if writer:
                    writer.close()
    file = workdir / "encoder.safetensors"
    # Also where an earlier start was killed between its last checkpoint and here.
    missing = first < plan.steps or not file.exists()
    if chief and int(state.step) == plan.steps and missing:
        of_run = state.params, state.model_state, state.extra
        models.save_safetensors(file, *plan.method.encoder(*of_run))
    return state


def start(plan: Plan, mesh: Mesh, checkpoints: checkpoint.Checkpoints) -> TrainState:
    """The state to go on from: the latest readable checkpoint, or a fresh one, on the mesh."""
    restored = checkpoints.restore(plan.abstract_state(mesh))
    return restored or jax.jit(plan.initial_state, out_shardings=sharding.replicated(mesh))()


def compile_step(plan: Plan, mesh: Mesh, take: Callable[[Any, Array], Batch]) -> Callable:
    """`(state, arrays) -> (state, metrics)`, compiled; `take` makes the batch inside of it."""
    everywhere = sharding.replicated(mesh)

    def step(state: TrainState, arrays: Any) -> tuple[TrainState, Metrics]:
        return train_step(plan.method, plan.tx, state, take(arrays, state.step))

    return jax.jit(step, donate_argnums=0, out_shardings=(everywhere, everywhere))


def _loop(
    plan: Plan,
    mesh: Mesh,
    state: TrainState,
    feed: data.Feed,
    checkpoints: checkpoint.Checkpoints,
    writer: metrics.Writer | None,
) -> TrainState:
    first = int(state.step)
    step_fn = compile_step(plan, mesh, feed.batch)
    meter = metrics.Meter()
    progress = metrics.Progress(plan.steps, first)
    last_report = (first, time.monotonic())

    def report(step: int) -> dict[str, float]:
        nonlocal last_report
        values = meter.summarize()
        if writer and values:
            now = time.monotonic()
            done, since = step - last_report[0], now - last_report[1]
            last_report = (step, now)
            values |= {
                "epoch": step / plan.steps_per_epoch,
                "learning_rate": float(plan.rate(step - 1)),
                "images_per_second": done * plan.batch["image"].shape[0] / since,
            }
            writer.write(step, values)
            progress.show(step, values)
        return values

    with StopRequest() as stopping:
        for step in range(first, plan.steps):
            state, step_metrics = step_fn(state, feed.arrays(step))
            meter.add(step, step_metrics)
            done = step + 1
            last = done == plan.steps or stopping(done)
            values = report(done) if last or done % plan.log_every == 0 else {}
            if last or done % plan.checkpoint_every == 0:
                score = values.get("probe_accuracy", -values["loss"])
                checkpoints.save(done, state, score)
            if last:
                break
    progress.close()
    return state


class StopRequest:
    """Whether the run was asked to stop (SIGTERM), agreed upon by all processes."""

    def __init__(self) -> None:
        self._requested = False

    def __enter__(self) -> "StopRequest":
        # With several processes JAX' own handler takes the signal and spreads the news.
        self._previous = None
        if jax.process_count() == 1:
            try:
                self._previous = signal.signal(signal.SIGTERM, self._note)
            except ValueError:  # not the main thread: the owner of that thread handles signals
                self._previous = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._requested = True

    def __call__(self, step: int) -> bool:
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._requested


def _announce(
    config: ConfigDict, plan: Plan, mesh: Mesh, spec: dict, state: TrainState, first: int
) -> None:
    if jax.process_index() != 0:
        return
    device = mesh.devices.flat[0]
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    *views, height, width, channels = spec["image_shape"]
    images = f"{spec['examples']} " + (f"samples of {views[0]} images" if views else "images")
    classes = f", {spec['classes']} classes" if spec["classes"] else ""
    print(
        f"{config.method}: {images} of {height}x{width}x{channels}{classes}; "
        f"{count / 1e6:.2f} M parameters; {mesh.size} {device.device_kind} device(s), "
        f"{jax.process_count()} process(es); {plan.steps} steps of {config.batch_size} "
        f"({plan.steps / plan.steps_per_epoch:.1f} epochs)",
        flush=True,
    )
    if first:
        print(f"Going on from step {first}.", flush=True)
