"""`fit(config, workdir)`: a run with its files, from the data to the exported encoder."""

import contextlib
import json
from collections.abc import Callable, Generator, Mapping
from functools import partial
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sslax import data, paths
from sslax.errors import UserError
from sslax.methods import METHODS
from sslax.training import (
    checkpoint,
    configuration,
    description,
    loop,
    profile,
    scoring,
    sharding,
    weights,
    writers,
)
from sslax.training.plan import Build, Plan, describe, make_plan, without_starting_weights
from sslax.types import TrainState, Variables


def fit(
    config: ConfigDict,
    workdir: str | Path,
    *,
    methods: Mapping[str, Build] = METHODS,
    traced_steps: int = 0,
) -> TrainState:
    """Trains as `config` says, in `workdir`, from its latest checkpoint if it has one.

    A run that was killed and started again gives the same bits as an uninterrupted one. SIGTERM
    and Ctrl-C save a checkpoint and return early: `state.step` is then less than the plan's steps.

    Args:
        config: a whole config.
        workdir: the run's folder.
        methods: the table of methods, name to `build(config, steps)`.
        traced_steps: how many steps to trace, in the folder `profile.FOLDER`.

    Returns:
        The last state.

    Raises:
        MissingExtra: `config.writers` names what is not installed.
        UserError: a mistake in the config or the data, another trainer in `workdir`, or a run
            there that was started differently.
        NonFinite: a metric became NaN or infinite; the last good checkpoint stays.
    """
    workdir, config = paths.expand(workdir, "--workdir"), paths.expand_config(config)
    paths.check_output(workdir, "--workdir", folder=True)
    writers.check_installed(config.get("writers", ()))
    mesh = sharding.make_mesh()
    dataset = data.load(config.data)
    spec = describe(dataset)
    plan = make_plan(config, **spec, methods=methods)
    _check_micro_batches(plan, mesh)
    chief = jax.process_index() == 0
    # Where the first process refuses, the others end with it.
    lock = checkpoint.locked(workdir) if chief else contextlib.nullcontext()
    with lock, loop.StopRequest() as stopping:
        about = description.describe(config, spec | {"fingerprint": _fingerprints(dataset)})
        if chief:
            description.check(workdir, about)
        # A checkpoint holds whatever weights the run started from.
        later = without_starting_weights(config)
        if later == config.copy_and_resolve_references():
            resumed = plan
        else:
            resumed = make_plan(later, **spec, methods=methods)
        folder, abstract = workdir / checkpoint.FOLDER, resumed.abstract_state(mesh)
        state = checkpoint.restore(folder, abstract)
        if state is None:
            _ = plan.shapes  # weights that do not fit are refused before anything is compiled
        first = 0 if state is None else int(state.step)
        starting: contextlib.AbstractContextManager = contextlib.nullcontext()
        if first < plan.steps:
            trace = partial(
                *(profile.traced, workdir / profile.FOLDER),
                steps=traced_steps if chief else 0,
                first=first,
                last=plan.steps,
            )
            starting = _started(config, plan, mesh, abstract, dataset, first, trace)
        with starting as run:
            if state is None:
                state = plan.state_on(mesh)
            if chief:
                description.write(workdir, about)
                parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
                description.write_machine(workdir, mesh, parameters)
                print(_announcement(config, plan, mesh, spec, state, parameters), flush=True)
            if run:
                run = partial(run, stopping=stopping)
                with checkpoint.Checkpoints(folder, about, start=first) as checkpoints:
                    state = _train(config, plan, mesh, state, dataset, run, checkpoints, workdir)
        # Also where an earlier start was killed before this, or the files were damaged since.
        if int(state.step) == plan.steps:
            variables = sharding.to_host(state.variables)  # by all processes
            if chief:
                _write_weights(config, plan, variables, workdir)
    return state


def _fingerprints(dataset: data.Dataset) -> dict[str, str]:
    parts = {"train": dataset.train, "test": dataset.test}
    return {name: data.fingerprint(part) for name, part in parts.items() if part is not None}


@contextlib.contextmanager
def _started(
    config: ConfigDict,
    plan: Plan,
    mesh: Mesh,
    abstract: TrainState,
    dataset: data.Dataset,
    first: int,
    trace: Callable[..., contextlib.AbstractContextManager[loop.Step]],
) -> Generator[Callable[..., TrainState]]:
    """`loop.run` of this run. From now on the data are read and the step is compiled."""
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
    with contextlib.closing(feed), trace(loop.compile_ahead(plan, mesh, abstract, feed)) as step:
        yield partial(loop.run, plan, mesh, feed=feed, step_fn=step)


def _train(
    config: ConfigDict,
    plan: Plan,
    mesh: Mesh,
    state: TrainState,
    dataset: data.Dataset,
    run: Callable[..., TrainState],
    checkpoints: checkpoint.Checkpoints,
    workdir: Path,
) -> TrainState:
    workers = config.data.workers
    score = scoring.make_score(plan, mesh, dataset, workers=workers)
    knn = scoring.make_knn(plan, mesh, dataset, workers=workers) if config.online_knn else None
    chief = jax.process_index() == 0
    writer = None
    if chief:
        values = configuration.flat(json.loads(config.to_json_best_effort()))
        writer = writers.Writers(config.writers, writers.Place(workdir, int(state.step), values))

    def save(step: int, state: TrainState) -> None:
        if knn:
            accuracy = knn(state)
            if writer:
                writer.write(step, {"online_knn": accuracy})
        checkpoints.save(step, state, score(state))

    try:
        return run(
            state,
            save=save,
            writer=writer,
            progress=chief,
        )
    finally:
        if writer:
            writer.close()


def _check_micro_batches(plan: Plan, mesh: Mesh) -> None:
    size = plan.batch["image"].shape[0] // plan.accumulate
    if plan.accumulate > 1 and size % mesh.size:
        raise UserError(
            f"config.accumulate = {plan.accumulate} makes micro-batches of {size} examples, which "
            f"do not divide over {mesh.size} devices: make them a multiple of {mesh.size}."
        )


def _write_weights(config: ConfigDict, plan: Plan, variables: Variables, workdir: Path) -> None:
    """`encoder.safetensors`, the exported encoder, and `network.safetensors`, all parts."""
    step, shape = plan.steps, plan.batch["image"].shape
    weights.save_network(workdir / weights.NETWORK, config, variables, step=step)
    weights.save_encoder(
        workdir / weights.ENCODER, config, plan.method, variables, image_shape=shape, step=step
    )


def _announcement(
    config: ConfigDict, plan: Plan, mesh: Mesh, spec: dict, state: TrainState, parameters: int
) -> str:
    device = mesh.devices.flat[0]
    *views, height, width, channels = spec["image_shape"]
    images = f"{spec['examples']} " + (f"samples of {views[0]} images" if views else "images")
    classes = f", {spec['classes']} classes" if spec["classes"] else ""
    resumed = f"\nResuming from step {int(state.step)}." if int(state.step) else ""
    return (
        f"{config.method}: {images} of {height}x{width}x{channels}{classes}; "
        f"{parameters / 1e6:.2f} M parameters; {mesh.size} {device.device_kind} device(s), "
        f"{jax.process_count()} process(es); {plan.steps} steps of {config.batch_size} "
        f"({plan.steps / plan.steps_per_epoch:.1f} epochs){resumed}"
    )
