"""UFlow: flow from the census of warped frames, and from the network's own word on whole ones.

Jonschkowski et al., What Matters in Unsupervised Optical Flow, ECCV 2020.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax.methods import common
from sslax.methods.flow import flow_common
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Schedule


def uflow(
    network: Model,
    *,
    views: common.Views,
    data: str = "census",
    data_weight: float = 1.0,
    occlusion: str = "range_map",
    occlusion_start: float = 0.0,
    smoothness_weight: float = 4.0,
    smoothness_order: int = 1,
    edge_weight: float = 150.0,
    selfsup_weight: float | Schedule = 0.6,
    selfsup_crop: float = 1 / 6,
) -> Method:
    """UFlow.

    ```
    loss = w_d D(I, warp(I', upsample(f)); visible) + w_s S(f, I) + w_t T(f_student, f)
    ```
    The comparison D is at the frames' resolution, smoothness S and self-supervision T are at that
    of the network's finest flow f, a quarter. T asks the network, given the frames without their
    margins, for what it says of whole frames (see `flow_common.self_supervision`); the teacher is
    the network as it is, given clean frames.

    Args:
        network: of pairs to flows, finest first.
        views: `(rng, batch) -> batch` with 'image', which the loss compares, and 'input' of the
            network, `[B, 2, H, W, C]` both.
        data: D, "census", "l1" or "ssim".
        data_weight: w_d.
        occlusion: "range_map" (Sintel, Chairs), "forward_backward" (KITTI) or "none".
        occlusion_start: step from which on occluded pixels do not count; those outside never do.
        smoothness_weight: w_s: 4 with order 1, 2 with order 2.
        smoothness_order: 1 (Sintel, Chairs) or 2 (KITTI).
        edge_weight: how much an edge of the frame frees the flow.
        selfsup_weight: w_t, or a schedule of it; where it is 0 the passes it needs are left out.
        selfsup_crop: margin that the student does not see, as a part of the shorter side.
    """

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        flow_common.check(batch["input"])
        images, seen = batch["image"], batch["input"]
        size = images.shape[2:4]
        keys = jax.random.split(rng)
        inputs = flow_common.network_input(batch, keys[0])
        output, state = network.apply(params, model_state, inputs, True)
        finest = flow_common.pyramid_of(output)[0]
        full = flow_common.upsampled(finest, size)
        made = flow_common.match(images, full, occlusion=occlusion)
        weight = flow_common.weight_at(made, step, occlusion_start)
        photometric = flow_common.data_term(made.target, made.warped, weight, data=data)
        small = flow_common.at_level(images, finest)
        knobs = {"order": smoothness_order, "edge_weight": edge_weight}
        smooth = flow_common.smoothness(small, finest, **knobs)
        value = data_weight * photometric + smoothness_weight * smooth

        margin = flow_common.margin_of(size, selfsup_crop)

        def taught() -> Array:
            teacher, _ = network.apply(params, model_state, {"image": images}, False)
            center = {**batch, "input": flow_common.enlarged_center(seen, margin)}
            inputs = flow_common.network_input(center, keys[1])
            student, _ = network.apply(params, model_state, inputs, True)
            student, teacher = (flow_common.pyramid_of(x)[0] for x in (student, teacher))
            return flow_common.self_supervision(student, teacher, margin=margin, size=size)[0]

        teaching = common.at_step(selfsup_weight, step)
        lesson = flow_common.when_needed(teaching, taught)
        value = value + teaching * lesson

        still = jnp.ones(images.shape[:1] + size, jnp.float32)
        chance = flow_common.data_term(images[:, 0], images[:, 1], still, data=data)
        metrics = flow_common.flow_metrics(
            made, full, photometric=photometric, at_chance=chance, smooth=smooth
        )
        resting = flow_common.smoothness(small, jnp.zeros_like(finest), **knobs)
        metrics |= {
            "self_supervision": lesson,
            "loss_at_chance": data_weight * chance + smoothness_weight * resting,
        }
        return value, LossOutput(state, extra, jax.lax.stop_gradient(metrics))

    return flow_common.flow_method(network, views=views, loss=loss, occlusion=occlusion)


def build(config: ConfigDict, steps: int) -> Method:
    """UFlow as the sections `augment` and `uflow` of a config say."""
    knobs = common.plain(config.uflow)
    flow_common.chosen("uflow", "data", knobs["data"], flow_common.DATA_TERMS)
    flow_common.chosen("uflow", "occlusion", knobs["occlusion"], flow_common.OCCLUSIONS)
    flow_common.scheduled(knobs, "selfsup", steps)
    knobs["occlusion_start"] *= steps
    network = flow_common.build_network(config, knobs.pop("network"))
    return uflow(network, views=flow_common.training_views(config.augment), **knobs)
