"""SMURF: RAFT trained on every iteration's flow, with full-image warping and self-supervision.

Stone et al., SMURF: Self-Teaching Multi-Frame Unsupervised RAFT with Full-Image Warping, CVPR 2021.
"""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses
from sslax.errors import check_choice
from sslax.methods.common import Augmentation
from sslax.methods.flow import from_config, resolution, terms
from sslax.methods.flow.matching import (
    OCCLUSIONS,
    Match,
    crop_like_input,
    match_frames,
    pixel_weights,
)
from sslax.methods.flow.method import (
    Encoder,
    FirstPass,
    SecondPass,
    flow_loss,
    flow_method,
    whole_network,
)
from sslax.methods.flow.self_supervision import center_pass, self_supervision
from sslax.ranges import Fraction, Interval, NonNegative, PositiveFraction
from sslax.types import Array, Batch, Method, Model, Schedule


def smurf(
    network: Model,
    *,
    augmentation: Augmentation,
    encoder: Encoder = whole_network,
    data: str = "census",
    data_weight: NonNegative = 1.0,
    occlusion: str = "range_map",
    occlusion_start_step: NonNegative = 0.0,
    smoothness_weight: NonNegative = 2.5,
    smoothness_order: Literal[1, 2] = 1,
    edge_weight: NonNegative = 150.0,
    selfsup_weight: NonNegative | Schedule = 0.3,
    selfsup_crop: Annotated[float, Interval(0, 0.5, open_high=True)] = 1 / 6,
    gamma: PositiveFraction = 0.8,
) -> Method:
    """SMURF.

    ```
    loss = Σ_i γ^(n - 1 - i) [w_d D(f_i) + w_s S(f_i) + w_t T(f_i student, f_n teacher)]
    ```
    with UFlow's terms, all at full resolution, for the flow f_i of each of RAFT's n iterations.
    Where the network's input is a crop, D warps the whole frames: a pixel that leaves the crop is
    matched beyond its border.

    Args:
        network: pairs to flows, one for each iteration, the last one best.
        augmentation: adds the network's 'input' `[B, 2, h, w, C]` and 'frames', which the loss
            compares: of the same size; or, with 'offset' `[B, 2]`, whole frames.
        encoder: the part of the network to export.
        data, data_weight, occlusion, occlusion_start_step: as in `uflow`.
        smoothness_weight: w_s: Sintel 2.5, Chairs 2, both with order 1; KITTI 2 with order 2.
        smoothness_order: 1 or 2.
        edge_weight: how much edges of the frame relax the smoothness.
        selfsup_weight: w_t, or a schedule of it; where it is 0 the second pass is skipped.
        selfsup_crop: margin that the student does not see, as a fraction of the shorter side.
        gamma: γ.
    """

    def objective(output: resolution.NetworkOutput, batch: Batch, step: Array) -> FirstPass:
        frames, clean = batch["frames"], crop_like_input(batch)
        flows = resolution.iterations(output, clean.shape[2:4])
        knobs = {"order": smoothness_order, "edge_weight": edge_weight}

        def iteration_terms(flow: Array) -> tuple[Array, Array, Match]:
            match = match_frames(frames, flow, occlusion=occlusion, offset=batch.get("offset"))
            weight = pixel_weights(match, step, occlusion_start_step)
            photometric = terms.data_term(match.target, match.warped, weight, data=data)
            return photometric, terms.smoothness(clean, flow, **knobs), match

        photometric, smooth, matches = jax.vmap(iteration_terms)(flows)
        chance = terms.data_term_at_chance(clean, data=data)
        static = terms.smoothness(clean, jnp.zeros_like(flows[-1]), **knobs)
        weights = losses.sequence_weights(len(flows), gamma=gamma)
        at_chance = data_weight * chance + smoothness_weight * static
        return FirstPass(
            loss=jnp.sum(weights * (data_weight * photometric + smoothness_weight * smooth)),
            loss_at_chance=jnp.sum(weights) * at_chance,
            photometric=photometric[-1],
            photometric_at_chance=chance,
            smoothness=smooth[-1],
            match=jax.tree.map(lambda x: x[-1], matches),
            flows=flows[-1],
        )

    def compare(
        student: resolution.NetworkOutput,
        teacher: resolution.NetworkOutput,
        margin: int,
        size: tuple[int, int],
    ) -> Array:
        target = resolution.iterations(teacher, size)[-1]
        flows = resolution.iterations(student, size)
        errors = jax.lax.map(
            lambda flow: self_supervision(flow, target, margin=margin, size=size)[0], flows
        )
        return jnp.sum(losses.sequence_weights(len(flows), gamma=gamma) * errors)

    second_pass = SecondPass("self_supervision", selfsup_weight, center_pass(selfsup_crop, compare))
    return flow_method(
        network,
        augmentation=augmentation,
        loss=flow_loss(network, objective, second_pass),
        occlusion=occlusion,
        encoder=encoder,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """SMURF from the sections `model`, `augment` and `smurf` of a config."""
    knobs = from_config.knobs_of(
        config, smurf, occlusion_start=Fraction, selfsup_start=Fraction, selfsup_ramp=Fraction
    )
    check_choice("config.smurf.data", knobs["data"], terms.DATA_TERMS)
    check_choice("config.smurf.occlusion", knobs["occlusion"], OCCLUSIONS)
    knobs["occlusion_start_step"] = knobs.pop("occlusion_start") * steps
    knobs["selfsup_weight"] = from_config.pop_ramp(knobs, "selfsup", steps)
    return smurf(**from_config.shared_arguments(config), **knobs)
