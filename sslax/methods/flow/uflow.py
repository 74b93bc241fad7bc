"""UFlow: census loss on warped frames, and self-supervision by the network's flow of whole frames.

Jonschkowski et al., What Matters in Unsupervised Optical Flow, ECCV 2020.
"""

from typing import Annotated, Literal

import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax.errors import check_choice
from sslax.methods.common import Augmentation
from sslax.methods.flow import from_config, resolution, terms
from sslax.methods.flow.matching import OCCLUSIONS, match_frames, pixel_weights
from sslax.methods.flow.method import (
    Encoder,
    FirstPass,
    SecondPass,
    flow_loss,
    flow_method,
    whole_network,
)
from sslax.methods.flow.self_supervision import center_pass, self_supervision
from sslax.ranges import Fraction, Interval, NonNegative
from sslax.types import Array, Batch, Method, Model, Schedule


def uflow(
    network: Model,
    *,
    augmentation: Augmentation,
    encoder: Encoder = whole_network,
    data: str = "census",
    data_weight: NonNegative = 1.0,
    occlusion: str = "range_map",
    occlusion_start_step: NonNegative = 0.0,
    smoothness_weight: NonNegative = 4.0,
    smoothness_order: Literal[1, 2] = 1,
    edge_weight: NonNegative = 150.0,
    selfsup_weight: NonNegative | Schedule = 0.6,
    selfsup_crop: Annotated[float, Interval(0, 0.5, open_high=True)] = 1 / 6,
) -> Method:
    """UFlow.

    ```
    loss = w_d D(I, warp(I', upsample(f)); visible) + w_s S(f, I) + w_t T(f_student, f)
    ```
    The data term D is at the frames' resolution; smoothness S and self-supervision T are at that
    of the network's finest flow f, a quarter. T compares the flow of frames without their margins
    with the flow of whole, clean frames, both from the current network (see `self_supervision`).

    Args:
        network: pairs to flows, finest first.
        augmentation: adds 'frames', which the loss compares, and the network's 'input',
            `[B, 2, H, W, C]` both.
        encoder: the part of the network to export.
        data: D, "census", "l1" or "ssim".
        data_weight: w_d.
        occlusion: "range_map" (Sintel, Chairs), "forward_backward" (KITTI) or "none".
        occlusion_start_step: before it, occluded pixels count; those that leave the frame never do.
        smoothness_weight: w_s: 4 with order 1, 2 with order 2.
        smoothness_order: 1 (Sintel, Chairs) or 2 (KITTI).
        edge_weight: how much edges of the frame relax the smoothness.
        selfsup_weight: w_t, or a schedule of it; where it is 0 the second pass is skipped.
        selfsup_crop: margin that the student does not see, as a fraction of the shorter side.
    """

    def objective(output: resolution.NetworkOutput, batch: Batch, step: Array) -> FirstPass:
        frames = batch["frames"]
        coarse = resolution.pyramid(output)[0]
        flows = resolution.upsample(coarse, frames.shape[2:4])
        match = match_frames(frames, flows, occlusion=occlusion)
        weight = pixel_weights(match, step, occlusion_start_step)
        photometric = terms.data_term(match.target, match.warped, weight, data=data)
        chance = terms.data_term_at_chance(frames, data=data)
        small = resolution.downsample(frames, coarse)
        knobs = {"order": smoothness_order, "edge_weight": edge_weight}
        smooth = terms.smoothness(small, coarse, **knobs)
        static = terms.smoothness(small, jnp.zeros_like(coarse), **knobs)
        return FirstPass(
            loss=data_weight * photometric + smoothness_weight * smooth,
            loss_at_chance=data_weight * chance + smoothness_weight * static,
            photometric=photometric,
            photometric_at_chance=chance,
            smoothness=smooth,
            match=match,
            flows=flows,
        )

    second_pass = SecondPass(
        "self_supervision", selfsup_weight, center_pass(selfsup_crop, _compare)
    )
    return flow_method(
        network,
        augmentation=augmentation,
        loss=flow_loss(network, objective, second_pass),
        occlusion=occlusion,
        encoder=encoder,
    )


def _compare(
    student: resolution.NetworkOutput,
    teacher: resolution.NetworkOutput,
    margin: int,
    size: tuple[int, int],
) -> Array:
    flows = (resolution.pyramid(output)[0] for output in (student, teacher))
    return self_supervision(*flows, margin=margin, size=size)[0]


def build(config: ConfigDict, steps: int) -> Method:
    """UFlow from the sections `model`, `augment` and `uflow` of a config."""
    knobs = from_config.knobs_of(
        config, uflow, occlusion_start=Fraction, selfsup_start=Fraction, selfsup_ramp=Fraction
    )
    check_choice("config.uflow.data", knobs["data"], terms.DATA_TERMS)
    check_choice("config.uflow.occlusion", knobs["occlusion"], OCCLUSIONS)
    knobs["occlusion_start_step"] = knobs.pop("occlusion_start") * steps
    knobs["selfsup_weight"] = from_config.pop_ramp(knobs, "selfsup", steps)
    return uflow(**from_config.shared_arguments(config), **knobs)
