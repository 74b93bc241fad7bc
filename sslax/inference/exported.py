"""Runs without checkpoints, as they are published: exported weights serve to predict."""

from typing import Any

import jax
import numpy as np
from jax.interpreters import partial_eval
from jax.sharding import Mesh

from sslax import models
from sslax.models.weights import fit_weights
from sslax.training import sharding, weights
from sslax.training.plan import Plan
from sslax.types import PyTree, Representation, TrainState, Variables


def file_of(plan: Plan) -> str:
    """The name of the file that has all weights that predictions need.

    It is the encoder's, or, where features are made of more than the encoder, and for depth and
    flow, that of the whole network.
    """
    if not isinstance(plan.method.task, Representation):
        return weights.NETWORK
    names = _names(plan)
    encoder = {*jax.tree.leaves(plan.method.encoder(names))}
    program = jax.make_jaxpr(plan.method.predict)(plan.shapes.variables, plan.batch).jaxpr
    _, used = partial_eval.dce_jaxpr(program, [True] * len(program.outvars))
    needed = {name for name, is_used in zip(jax.tree.leaves(names), used) if is_used}
    return weights.ENCODER if needed <= encoder else weights.NETWORK


def read_exported(source: Any, plan: Plan, mesh: Mesh) -> TrainState:
    """A state that predicts what the exported weights do.

    What they do not hold (projectors, queues, the optimizer's state) is 0 or missing: enough to
    predict, not to train.

    Args:
        source: the folder.
        plan: of the run.
        mesh: the devices.

    Raises:
        UserError: the file is missing or damaged, or its weights are not the plan's.
    """
    shapes, file = plan.shapes.variables, file_of(plan)
    params, model_state, metadata = models.read_variables(source, file=file)
    if file == weights.ENCODER:
        variables = _placed((params, model_state), plan, source)
        step = metadata["encoder"]["step"]
    else:
        fitted = fit_weights((params, model_state), (shapes.params, shapes.model_state), source)
        variables = Variables(*fitted, _zeros(shapes.extra))
        step = metadata["step"]
    shardings = sharding.shardings_of(shapes, mesh, plan.layout)
    variables = jax.tree.map(jax.device_put, variables, shardings)
    return TrainState(
        step=jax.numpy.int32(step),
        params=variables.params,
        model_state=variables.model_state,
        extra=variables.extra,
        opt_state=(),
        rng=jax.random.key(0),
    )


def _placed(pair: tuple[PyTree, PyTree], plan: Plan, source: Any) -> Variables:
    """All variables of a method, of which the encoder's are given: `method.encoder`, backwards."""
    shapes = plan.shapes.variables
    names = _names(plan)
    shape_of = dict(zip(jax.tree.leaves(names), jax.tree.leaves(shapes)))
    picked = plan.method.encoder(names)  # which selects, and computes nothing
    fitted = fit_weights(pair, jax.tree.map(shape_of.get, picked), source)
    values = dict(zip(jax.tree.leaves(picked), jax.tree.leaves(fitted)))
    return jax.tree.map(
        lambda name, shape: values[name] if name in values else _zeros(shape), names, shapes
    )


def _names(plan: Plan) -> Variables:
    """Variables whose leaves are their names."""
    return jax.tree.map_with_path(lambda path, _: jax.tree_util.keystr(path), plan.shapes.variables)


def _zeros(shapes: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
