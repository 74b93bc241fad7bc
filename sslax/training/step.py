"""One training step, the same for every method: pure functions of a method and an optimizer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from sslax.training import sharding
from sslax.types import Array, Batch, LossOutput, Method, Metrics, PyTree, TrainState, Variables


def init_state(
    method: Method, tx: optax.GradientTransformation, rng: Array, batch: Batch
) -> TrainState:
    """The state before the first step, from one batch (whose values do not matter)."""
    init_rng, augment_rng, state_rng = jax.random.split(rng, 3)
    variables = method.init(init_rng, method.augment(augment_rng, batch))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables.params,
        model_state=variables.model_state,
        extra=variables.extra,
        opt_state=tx.init(variables.params),
        rng=state_rng,
    )


def train_step(
    method: Method,
    tx: optax.GradientTransformation,
    state: TrainState,
    batch: Batch,
    shardings: TrainState | None = None,
) -> tuple[TrainState, Metrics]:
    """One step: augmentation, loss and gradient, optimizer, moving averages.

    All randomness of a step comes from `fold_in(state.rng, state.step)`. Where the state is sharded
    as `shardings` says, the loss gathers what it uses, and the rest of the step is sharded.
    """
    augment_rng, loss_rng = jax.random.split(jax.random.fold_in(state.rng, state.step))
    augmented = method.augment(augment_rng, batch)

    def loss(variables: Variables) -> tuple[Array, LossOutput]:
        return method.loss(variables, augmented, loss_rng, state.step)

    value, output, gradient = _differentiate(loss, state.variables, shardings)
    updates, opt_state = tx.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    step = state.step + 1
    variables = Variables(params, output.model_state, output.extra)
    new_state = TrainState(
        step=step,
        params=params,
        model_state=output.model_state,
        extra=method.update(variables, step),
        opt_state=opt_state,
        rng=state.rng,
    )
    norms = {
        "gradient_norm": optax.tree.norm(gradient),
        "update_norm": optax.tree.norm(updates),
    }
    return new_state, {"loss": value, **output.metrics, **norms}


Loss = Callable[[Variables], tuple[Array, LossOutput]]


def _differentiate(
    loss: Loss, variables: Variables, shardings: TrainState | None
) -> tuple[Array, LossOutput, PyTree]:
    """The loss, its output, and its gradient with respect to the parameters.

    What `shardings` says is sharded is whole inside the loss, gathered once more in the backward
    pass, and sharded outside.
    """

    def of_params(params: PyTree) -> tuple[Array, LossOutput]:
        whole = variables._replace(params=params)
        return loss(sharding.gather(whole, shardings.step.mesh) if shardings else whole)

    if shardings:
        of_params = jax.checkpoint(of_params, policy=sharding.is_stored)
    (value, output), gradient = jax.value_and_grad(of_params, has_aux=True)(variables.params)
    if shardings:
        ours = Variables(gradient, output.model_state, output.extra)
        gradient, *state = jax.lax.with_sharding_constraint(ours, shardings.variables)
        output = output._replace(model_state=state[0], extra=state[1])
    return value, output, gradient


def compile_step(
    method: Method,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    take: Callable[[Any, Array], Batch],
    shardings: TrainState | None = None,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """The compiled step.

    Args:
        method: what is trained.
        tx: the optimizer.
        mesh: the devices.
        take: turns the feed's arrays and the step's number into a batch, inside of the compiled
            step.
        shardings: of the state's leaves, `sharding.of`; None where it is replicated.

    Returns:
        `(state, arrays) -> (state, metrics)`. The state is donated.
    """
    replicated = sharding.replicated(mesh)

    def step(state: TrainState, arrays: Any) -> tuple[TrainState, Metrics]:
        with jax.sharding.use_abstract_mesh(
            mesh.abstract_mesh
        ):  # what losses ask for their devices
            return train_step(method, tx, state, take(arrays, state.step), shardings)

    return jax.jit(step, donate_argnums=0, out_shardings=(shardings or replicated, replicated))
