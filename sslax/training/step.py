"""One training step, the same for every method: pure functions of a method and an optimizer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from sslax.training import sharding
from sslax.training.gradient import Loss, differentiate
from sslax.types import Array, Batch, Method, Metrics, TrainState, Variables


def init_state(
    method: Method, tx: optax.GradientTransformation, rng: Array, batch: Batch
) -> TrainState:
    """The state before the first step, from the shapes of a batch."""
    init_rng, augment_rng, state_rng = jax.random.split(rng, 3)
    augmented = jax.eval_shape(method.augment, augment_rng, batch)
    variables = method.init(init_rng, jax.tree.map(jnp.zeros_like, augmented))
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
    *,
    accumulate: int = 1,
    shardings: TrainState | None = None,
) -> tuple[TrainState, Metrics]:
    """One step: augmentation, loss and gradient, optimizer, moving averages.

    All randomness of a step comes from `fold_in(state.rng, state.step)`. The loss goes over
    `accumulate` micro-batches one after another. Where the state is sharded as `shardings` says,
    the loss gathers what it uses, and the rest of the step is sharded.
    """
    augment_rng, loss_rng = jax.random.split(jax.random.fold_in(state.rng, state.step))
    augmented = method.augment(augment_rng, batch)

    loss = Loss(method, loss_rng, state.step, shardings)
    value, output, gradient = differentiate(loss, state.variables, augmented, accumulate=accumulate)
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


def compile_step(
    method: Method,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    take: Callable[[Any, Array], Batch],
    *,
    accumulate: int = 1,
    shardings: TrainState | None = None,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """The compiled step.

    Args:
        method: what is trained.
        tx: the optimizer.
        mesh: the devices.
        take: turns the feed's arrays and the step's number into a batch, inside of the compiled
            step.
        accumulate: the number of micro-batches, see `gradient.differentiate`.
        shardings: of the state's leaves, `sharding.of`; None where it is replicated.

    Returns:
        `(state, arrays) -> (state, metrics)`. The state is donated.
    """
    replicated = sharding.replicated(mesh)

    def step(state: TrainState, arrays: Any) -> tuple[TrainState, Metrics]:
        # Losses ask it over how many devices they are sharded.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            batch = take(arrays, state.step)
            return train_step(method, tx, state, batch, accumulate=accumulate, shardings=shardings)

    return jax.jit(step, donate_argnums=0, out_shardings=(shardings or replicated, replicated))
