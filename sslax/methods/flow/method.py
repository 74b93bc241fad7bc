"""Shared by optical flow methods: the loss of one or two passes, metrics, predictions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sslax import augment, checks
from sslax.errors import UserError
from sslax.methods.common import Augmentation, at_step, no_update
from sslax.methods.flow.matching import Match, match_frames, split_pairs
from sslax.methods.flow.resolution import NetworkOutput, pyramid, upsample
from sslax.methods.flow.terms import magnitude, when_needed
from sslax.types import (
    Array,
    Batch,
    Flow,
    FlowField,
    FlowMaps,
    LossOutput,
    Method,
    Metrics,
    Model,
    Pictures,
    PyTree,
    Schedule,
    Variables,
)

Encoder = Callable[[Variables], tuple[PyTree, PyTree]]
Forward = Callable[[Any, bool], NetworkOutput]
Loss = Callable[[Variables, Batch, Array, Array], tuple[Array, LossOutput]]


class FirstPass(NamedTuple):
    """The loss of the network's output, before any second pass.

    Attributes:
        loss: scalar.
        loss_at_chance: the loss of a flow of zero.
        photometric: the comparison of frames in it, at the finest level or the last iteration.
        photometric_at_chance: the same for a flow of zero.
        smoothness: the smoothness in it, likewise.
        match: of the finest flow.
        flows: the finest flow `[B, 2, H, W, 2]`, in pixels of the frames.
        metrics: further ones; None for none.
    """

    loss: Array
    loss_at_chance: Array
    photometric: Array
    photometric_at_chance: Array
    smoothness: Array
    match: Match
    flows: Array
    metrics: Metrics | None = None


class SecondPass(NamedTuple):
    """A term for which the network runs again.

    Attributes:
        name: of its metric.
        weight: of the term, or a schedule of it; where it is 0 the pass is skipped.
        term: `(forward, batch, first, keys) -> scalar`, with `forward(x, train)` the network's
            output, `first` the `FirstPass`, which gets no gradient, and two random keys.
    """

    name: str
    weight: float | Schedule
    term: Callable[[Forward, Batch, FirstPass, Array], Array]


Objective = Callable[[NetworkOutput, Batch, Array], FirstPass]


def flow_loss(network: Model, objective: Objective, second_pass: SecondPass | None = None) -> Loss:
    """`Method.loss` of an objective, and perhaps of a second pass.

    Args:
        network: pairs of frames to flows.
        objective: `(output, batch, step) -> FirstPass`, of the network's output.
        second_pass: None for none.
    """

    def loss(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        check_pairs(batch["input"])
        params, model_state, extra = variables
        keys = jax.random.split(rng, 3)
        x = network_input(batch, keys[0])
        output, new_state = network.apply(params, model_state, x, True)
        first = objective(output, batch, step)
        value, metrics = first.loss, flow_metrics(first)
        if second_pass is not None:
            known = jax.lax.stop_gradient(first)

            def second(params: PyTree) -> Array:
                def forward(x: Any, train: bool) -> NetworkOutput:
                    return network.apply(params, model_state, x, train)[0]

                return second_pass.term(forward, batch, known, keys[1:])

            weight = at_step(second_pass.weight, step)
            term = when_needed(weight, second, params)
            value = value + weight * term
            metrics[second_pass.name] = term
        return value, LossOutput(new_state, extra, jax.lax.stop_gradient(metrics))

    return loss


def flow_metrics(first: FirstPass) -> Metrics:
    """The metrics of all methods that compare frames."""
    return {
        "loss_at_chance": first.loss_at_chance,
        "photometric": first.photometric,
        "photometric_at_chance": first.photometric_at_chance,
        "smoothness": first.smoothness,
        "visible": jnp.mean(first.match.visible),
        "inside": jnp.mean(first.match.inside.astype(jnp.float32)),
        "flow_length": jnp.mean(magnitude(first.flows)),
        **(first.metrics or {}),
    }


def network_input(batch: Batch, rng: Array | None = None) -> Batch:
    """What a network is given: 'image' `[B, 2, h, w, C]` and, in training, 'key' `[B]`."""
    x = {"image": batch["input"]}
    return x if rng is None else {**x, "key": augment.batch_keys(rng, batch)}


def whole_network(variables: Variables) -> tuple[PyTree, PyTree]:
    """`Method.encoder` of a network in which no part is known to encode single frames."""
    return variables.params, variables.model_state


def flow_method(
    network: Model,
    *,
    augmentation: Augmentation,
    loss: Loss,
    occlusion: str,
    encoder: Encoder = whole_network,
) -> Method:
    """A method that learns flow; what follows from its network is filled in.

    Args:
        network: pairs of frames `[B, 2, H, W, C]`, in a dictionary as `network_input` returns it,
            to flows in both directions.
        augmentation: adds 'frames' and 'input'.
        loss: as in `Method`.
        occlusion: how predictions tell what is visible; "forward_backward" in place of "none".
        encoder: as in `Method`.
    """
    occlusion = "forward_backward" if occlusion == "none" else occlusion

    def init(rng: Array, batch: Batch) -> Variables:
        check_pairs(batch["input"])
        return Variables(*network.init(rng, network_input(batch)), extra={})

    def infer(variables: Variables, batch: Batch) -> tuple[Array, Array, Array, Array]:
        """Frames and flows `[B, 2, ...]`; the first frame's warped source and visibility."""
        frames = augment.to_float(batch["image"])
        check_pairs(frames)
        x = {"image": frames}
        output, _ = network.apply(variables.params, variables.model_state, x, False)
        flows = upsample(pyramid(output)[0], frames.shape[2:4])
        match = match_frames(frames, flows, occlusion=occlusion)
        return frames, flows, *(split_pairs(x)[:, 0] for x in (match.warped, match.visible))

    def predict(variables: Variables, batch: Batch) -> FlowMaps:
        _, flows, _, visible = infer(variables, batch)
        return FlowMaps(flow=flows[:, 0], backward=flows[:, 1], visible=visible)

    def visualize(variables: Variables, batch: Batch, rng: Array) -> Pictures:
        frames, flows, warped, visible = infer(variables, batch)
        error = jnp.mean(jnp.abs(frames[:, 0] - warped), axis=-1)
        return {
            "first": frames[:, 0],
            "second": frames[:, 1],
            "flow": FlowField(flows[:, 0]),
            "warped second": warped,
            "error": jnp.clip(2 * error, 0.0, 1.0)[..., None],
            "visible": visible[..., None],
        }

    return Method(
        task=Flow(),
        augment=augmentation,
        init=init,
        loss=loss,
        update=no_update,
        predict=predict,
        visualize=visualize,
        encoder=encoder,
        preprocess=augment.to_float,
    )


def check_pairs(frames: Array) -> None:
    """Each example has two frames.

    Raises:
        UserError: it has not.
    """
    checks.assert_rank(frames, 5)
    if frames.shape[1] != 2:
        raise UserError(
            f"Flow is between two frames, and each example has {frames.shape[1]}: set "
            'config.data.frames=2 and config.data.target_frame="first".'
        )
