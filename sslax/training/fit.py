"""`fit(config, workdir)`: a run with its files, from the data to the exported encoder."""

from collections.abc import Mapping
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sslax import data
from sslax.methods import METHODS
from sslax.training import checkpoint, loop, metrics, sharding, weights
from sslax.training.plan import Build, Plan, describe, make_plan, without_starting_weights
from sslax.types import TrainState


def fit(
    config: ConfigDict, workdir: str | Path, *, methods: Mapping[str, Build] = METHODS
) -> TrainState:
    """Trains as `config` says, in `workdir`, from its latest checkpoint if it has one.

    A run that was killed and started again gives the same bits as an uninterrupted one. SIGTERM
    saves a checkpoint and returns early: `state.step` is then less than the plan's steps.

    Returns:
        The last state.

    Raises:
        UserError: a mistake in the config or the data, in one sentence.
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
        # A checkpoint holds whatever weights the run started from.
        resumed = make_plan(without_starting_weights(config), **spec, methods=methods)
        state = checkpoints.restore(resumed.abstract_state(mesh))
        if state is None:
            everywhere = sharding.replicated(mesh)
            state = jax.jit(plan.initial_state, out_shardings=everywhere)()
        first = int(state.step)
        if chief:
            print(_announcement(config, plan, mesh, spec, state), flush=True)
        if first < plan.steps:
            state = _train(config, plan, mesh, state, dataset, checkpoints, workdir)
    # Also where an earlier start was killed between its last checkpoint and here.
    missing = first < plan.steps or not (workdir / weights.ENCODER).exists()
    if chief and int(state.step) == plan.steps and missing:
        _write_weights(config, plan, state, workdir)
    return state


def _train(
    config: ConfigDict,
    plan: Plan,
    mesh: Mesh,
    state: TrainState,
    dataset: data.Dataset,
    checkpoints: checkpoint.Checkpoints,
    workdir: Path,
) -> TrainState:
    first = int(state.step)
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
    chief = jax.process_index() == 0
    writer = metrics.Writer(workdir, first) if chief else None
    try:
        return loop.run(
            plan, mesh, state, feed, checkpoints=checkpoints, writer=writer, progress=chief
        )
    finally:
        feed.close()
        if writer:
            writer.close()


def _write_weights(config: ConfigDict, plan: Plan, state: TrainState, workdir: Path) -> None:
    """`encoder.safetensors`, the exported encoder, and `network.safetensors`, all parts."""
    step, variables = int(state.step), state.variables
    shape = plan.batch["image"].shape
    weights.save_network(workdir / weights.NETWORK, config, variables, step=step)
    weights.save_encoder(
        workdir / weights.ENCODER, config, plan.method, variables, image_shape=shape, step=step
    )


def _announcement(config: ConfigDict, plan: Plan, mesh: Mesh, spec: dict, state: TrainState) -> str:
    device = mesh.devices.flat[0]
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    *views, height, width, channels = spec["image_shape"]
    images = f"{spec['examples']} " + (f"samples of {views[0]} images" if views else "images")
    classes = f", {spec['classes']} classes" if spec["classes"] else ""
    resumed = f"\nResuming from step {int(state.step)}." if int(state.step) else ""
    return (
        f"{config.method}: {images} of {height}x{width}x{channels}{classes}; "
        f"{count / 1e6:.2f} M parameters; {mesh.size} {device.device_kind} device(s), "
        f"{jax.process_count()} process(es); {plan.steps} steps of {config.batch_size} "
        f"({plan.steps / plan.steps_per_epoch:.1f} epochs){resumed}"
    )
