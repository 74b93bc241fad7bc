"""The gradient of a method's loss: of a whole batch, or of micro-batches one after another.

With `accumulate = n` a batch is divided into n micro-batches, and the activations of only one of
them exist at a time. Micro-batch i has the examples i, n + i, 2 n + i, ..., some of every device.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sslax.training import sharding
from sslax.types import Array, Batch, LossOutput, Method, PyTree, TrainState, Variables

Gradient = tuple[Array, LossOutput, PyTree]
"""A loss, what it returns beside its value, and its gradient with respect to the parameters."""


class Loss(NamedTuple):
    """A method's loss in one step of a run.

    Attributes:
        method: whose loss it is.
        rng: of the loss.
        step: of the run.
        shardings: of the state, `sharding.of`; None where it is replicated. Inside the loss
            parameters are whole; gradients are sharded again.
    """

    method: Method
    rng: Array
    step: Array
    shardings: TrainState | None = None


def differentiate(
    loss: Loss, variables: Variables, batch: Batch, *, accumulate: int = 1
) -> Gradient:
    """The loss of an augmented batch, its output, and its gradient.

    - `accumulate = 1`: `method.loss` of the batch.
    - A loss that is the mean over examples (`method.mean_over_examples`): the mean of the
      micro-batches' losses, gradients and metrics.
    - A loss that couples examples (`method.couple`): first the outputs of all micro-batches without
      a gradient, then the loss and its gradient with respect to them, then each micro-batch again
      for the gradient with respect to the parameters. That is one more forward pass, for the loss,
      the metrics and the gradient of the whole batch (Gao et al., Scaling Deep Contrastive Learning
      Batch Size under Memory Limited Setup, 2021, https://arxiv.org/abs/2101.06983).

    Batch norms have the statistics of micro-batches, and their averages move with each of them.

    Args:
        loss: of the method.
        variables: of the method, sharded as `loss.shardings` says.
        batch: after `method.augment`.
        accumulate: the number of micro-batches; it divides the batch.
    """
    state = variables.model_state, variables.extra
    whole = Variables(variables.params, *_gathered(state, loss.shardings))
    if accumulate == 1:
        value, output, gradient = _of_batch(loss, whole, batch)
    elif loss.method.mean_over_examples:
        value, output, gradient = _of_mean(loss, whole, _divided(batch, accumulate))
    else:
        value, output, gradient = _of_coupled(loss, whole, batch, accumulate)
    if loss.shardings:
        wanted = loss.shardings.model_state, loss.shardings.extra
        moved = output.model_state, output.extra
        model_state, extra = jax.lax.with_sharding_constraint(moved, wanted)
        output = output._replace(model_state=model_state, extra=extra)
    return value, output, gradient


def _of_batch(loss: Loss, variables: Variables, batch: Batch) -> Gradient:
    def of(params: PyTree) -> tuple[Array, LossOutput]:
        return loss.method.loss(variables._replace(params=params), batch, loss.rng, loss.step)

    (value, output), (gradient,) = _value_and_gradients(of, loss.shardings, variables.params)
    return value, output, gradient


def _of_mean(loss: Loss, variables: Variables, parts: Batch) -> Gradient:
    """Of micro-batches `[n, B / n, ...]`, whose mean is the loss of the batch."""

    def add(carry: PyTree, part: Batch) -> tuple[PyTree, PyTree]:
        total, *state = carry
        now = Variables(variables.params, *state)
        value, output, gradient = _of_batch(loss, now, part)
        total = jax.tree.map(jnp.add, total, gradient)
        seen = value, output.metrics, output.features
        return (total, output.model_state, output.extra), seen

    start = jax.tree.map(jnp.zeros_like, variables.params)
    (total, *state), (*means, features) = jax.lax.scan(
        add, (start, variables.model_state, variables.extra), parts
    )
    value, metrics = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), means)
    gradient = jax.tree.map(lambda leaf: leaf / len(parts["index"]), total)
    return value, LossOutput(*state, metrics, _joined(features)), gradient


def _of_coupled(loss: Loss, variables: Variables, batch: Batch, accumulate: int) -> Gradient:
    method, rng, step, shardings = loss
    parts = _divided(batch, accumulate)

    def embed(state: PyTree, part: Batch) -> tuple[PyTree, PyTree]:
        now = Variables(_gathered(variables.params, shardings), *state)
        outputs, after = method.embed(now, part, rng, step)
        return (after.model_state, after.extra), outputs

    state, outputs = jax.lax.scan(embed, (variables.model_state, variables.extra), parts)

    def couple(params: PyTree, outputs: PyTree) -> tuple[Array, LossOutput]:
        return method.couple(outputs, Variables(params, *state), batch, rng, step)

    (value, output), (direct, slopes) = _value_and_gradients(
        couple, shardings, variables.params, _joined(outputs)
    )

    def add(total: PyTree, part_and_slopes: tuple[Batch, PyTree]) -> tuple[PyTree, None]:
        part, slopes = part_and_slopes

        def product(params: PyTree) -> tuple[Array, None]:  # whose gradient is the chain rule's
            outputs, _ = method.embed(variables._replace(params=params), part, rng, step)
            products = jax.tree.map(lambda output, slope: jnp.sum(output * slope), outputs, slopes)
            return jax.tree.reduce(jnp.add, products), None

        _, (gradient,) = _value_and_gradients(product, shardings, variables.params)
        return jax.tree.map(jnp.add, total, gradient), None

    gradient, _ = jax.lax.scan(add, direct, (parts, _divided(slopes, accumulate)))
    return value, output, gradient


def _value_and_gradients(
    function: Callable[..., tuple[Array, Any]],
    shardings: TrainState | None,
    params: PyTree,
    *others: PyTree,
) -> tuple[tuple[Array, Any], tuple[PyTree, ...]]:
    """`function(params, *others) -> (scalar, more)`, and its gradients with respect to all of them;
    the parameters are gathered inside."""
    every = tuple(range(1 + len(others)))
    if shardings is None:
        return jax.value_and_grad(function, every, has_aux=True)(params, *others)

    def of_whole(params: PyTree, *others: PyTree) -> tuple[Array, Any]:
        return function(_gathered(params, shardings), *others)

    found, (gradient, *rest) = jax.value_and_grad(of_whole, every, has_aux=True)(params, *others)
    gradient = jax.lax.with_sharding_constraint(gradient, shardings.params)
    return found, (gradient, *rest)


def _gathered(tree: PyTree, shardings: TrainState | None) -> PyTree:
    return tree if shardings is None else sharding.gather(tree, shardings.step.mesh)


def _divided(batch: PyTree, accumulate: int) -> PyTree:
    """`[B, ...]` to micro-batches `[n, B / n, ...]`, which moves no data between devices."""

    def divided(leaf: Array) -> Array:
        return jnp.swapaxes(leaf.reshape(-1, accumulate, *leaf.shape[1:]), 0, 1)

    return jax.tree.map(divided, batch)


def _joined(parts: PyTree) -> PyTree:
    """The inverse of `_divided`."""
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:]), parts)
