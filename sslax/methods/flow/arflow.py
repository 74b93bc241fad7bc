"""ARFlow: what a network says of two frames teaches it about harder versions of them.

Liu et al., Learning by Analogy: Reliable Supervision from Transformations for Unsupervised Optical
Flow Estimation, CVPR 2020.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses
from sslax.augment import flow as flow_augment
from sslax.errors import UserError
from sslax.methods import common
from sslax.methods.flow import flow_common
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Schedule

DATA_TERMS = ("ssim_l1", "census")
OCCLUSIONS = ("forward_backward", "range_map", "none")
ARRIVALS = 0.2  # least of a range map where a pixel is visible
SPATIAL = flow_augment.AffineRecipe(
    flip=0.5,
    flip_vertical=0.5,
    zoom=(1.0, 1.5),
    squeeze=(0.86, 1.16),
    rotate=0.2,
    translate=0.05,
    relative=0.075,
)
APPEARANCE = flow_augment.FlowRecipe(
    jitter=1.0,
    brightness=0.5,
    contrast=0.5,
    saturation=0.5,
    exposure=1.0,
    tint=(1.0, 1.0),
    blur=0.5,
    noise=0.04,
)


def arflow(
    network: Model,
    *,
    views: common.Views,
    data: str = "ssim_l1",
    ssim_weight: float = 0.85,
    occlusion: str = "forward_backward",
    smoothness_weight: float = 50.0,
    smoothness_order: int = 1,
    edge_weight: float = 10.0,
    level_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0, 0.0),
    analogy_weight: float | Schedule = 0.01,
    spatial: flow_augment.AffineRecipe | None = SPATIAL,
    appearance: flow_augment.FlowRecipe | None = APPEARANCE,
    occluder: bool = True,
) -> Method:
    """ARFlow.

    ```
    loss = Σ_l w_l D(I_l, warp(I'_l, f_l); visible) + w_s S(f_0, I_0) + w_a R
    R    = mean_{T visible} ρ(f(T I, T I') - T f_0)
    ```
    All but the last term are those of the network as it is. For R the frames are transformed: moved
    in the plane, the flow with them (`warp_affine_flow`, exact), their colors changed, and parts of
    the second frame painted over, so that the first pass knows what the second one cannot see. The
    pixels that count are those that the first pass sees, read through the transformation.

    The network's flows, of a quarter of the frames' resolution and less, are enlarged by four
    before they are compared, as the authors do.

    Args:
        network: of pairs to flows, finest first.
        views: `(rng, batch) -> batch` with 'image', which the loss compares, and 'input' of the
            network, `[B, 2, H, W, C]` both.
        data: D, "ssim_l1" or "census" (the mean over 7 x 7 pixels).
        ssim_weight: of "ssim_l1".
        occlusion: "forward_backward", "range_map" (hard, arrivals of 0.2) or "none".
        smoothness_weight: w_s, of the flow as a part of the shorter side: 50 (Sintel), 75 (KITTI).
        smoothness_order: 1 (Sintel) or 2 (KITTI).
        edge_weight: how much an edge of the frame frees the flow.
        level_weights: w_l, finest first, at least as many as the network has.
        analogy_weight: w_a, or a schedule of it; where it is 0 the second pass is left out.
        spatial: how frames are moved in the second pass; None for not at all.
        appearance: how their colors change (`photometric_augmentation`); None for not at all.
        occluder: whether parts of the second frame are painted over.

    Raises:
        UserError: in the loss, if the network has more levels than there are weights.
    """
    scales = tuple(level_weights)
    threshold = ARRIVALS if occlusion == "range_map" else None

    def data_term(target: Array, warped: Array, weight: Array) -> Array:
        if data == "census":
            distance, valid = losses.census_error(target, warped, mask=weight)
            return losses.masked_mean(losses.robust_power(distance / 49), weight * valid)
        error = losses.photometric_error(target, warped, ssim_weight=ssim_weight)
        return losses.masked_mean(error, weight)

    def smoothness(images: Array, flows: Array) -> Array:
        return 0.5 * losses.edge_aware_smoothness(
            flow_common.both(flows) / min(flows.shape[2:4]),
            flow_common.both(images),
            order=smoothness_order,
            edge_weight=edge_weight,
        )

    def transformed(key: Array, frames: Array, flows: Array, seen: Array) -> tuple[Array, ...]:
        """Of one example: frames `[2, H, W, C]`, flows `[2, H, W, 2]` and where they count."""
        space, colors, paint = jax.random.split(key, 3)
        if spatial is not None:
            maps = jnp.stack(flow_augment.sample_affine(space, frames.shape[1:3], spatial))
            frames, _ = jax.vmap(flow_augment.warp_affine)(frames, maps)
            flows, inside = jax.vmap(flow_augment.warp_affine_flow)(flows, maps, maps[::-1])
            # After the transformation: a pixel counts where all that is read for it counts.
            moved, _ = jax.vmap(flow_augment.warp_affine)(seen[..., None], maps)
            seen = (moved[..., 0] > 0.999) & inside
        if appearance is not None:
            frames = flow_augment.photometric_augmentation(colors, frames, appearance)
        if occluder:
            frames = jnp.stack([frames[0], flow_augment.random_occluder(paint, frames[1])])
        return frames, flows, seen.astype(jnp.float32)

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        flow_common.check(batch["input"])
        images = batch["image"]
        size = images.shape[2:4]
        keys = jax.random.split(rng, 3)
        inputs = flow_common.network_input(batch, keys[0])
        output, state = network.apply(params, model_state, inputs, True)
        flows = flow_common.pyramid_of(output)
        if len(flows) > len(scales):
            raise UserError(
                f"The network has {len(flows)} levels and the loss {len(scales)} weights: set "
                "config.arflow.level_weights."
            )
        factor = flow_common.level_factor(flows[0], size)
        sizes = [tuple(-(-side // 2**level) for side in size) for level in range(len(flows))]
        full = [flow_common.upsampled(f, s, factor) for f, s in zip(flows, sizes)]
        frames = [flow_common.at_level(images, flow) for flow in full]
        matches = [
            flow_common.match(
                x, flow, occlusion="none" if level else occlusion, threshold=threshold
            )
            for level, (x, flow) in enumerate(zip(frames, full))
        ]
        made, counted = matches[0], flow_common.weight_at(matches[0])
        photometric = []
        for level, (match, weight) in enumerate(zip(matches, scales)):
            if weight:
                # What is occluded is decided once, by the finest flow.
                seen = counted[:, :: 2**level, :: 2**level] * match.inside
                term = data_term(match.target, match.warped, seen)
                photometric.append(weight * term)
        smooth = smoothness(frames[0], full[0])
        value = sum(photometric) + smoothness_weight * smooth

        def analogy() -> Array:
            teacher = jax.lax.stop_gradient(full[0])
            seen = common.split_views(made.visible, 2)
            examples = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(keys[1], batch["index"])
            harder, target, mask = jax.vmap(transformed)(examples, batch["input"], teacher, seen)
            inputs = flow_common.network_input({**batch, "input": harder}, keys[2])
            output, _ = network.apply(params, model_state, inputs, True)
            student = flow_common.upsampled(flow_common.pyramid_of(output)[0], size, factor)
            error = jnp.mean(losses.robust_l1(student - target), axis=-1)
            return losses.masked_mean(error, mask)

        weight = common.at_step(analogy_weight, step)
        lesson = flow_common.when_needed(weight, analogy)
        value = value + weight * lesson

        still = [jnp.ones((len(x), *x.shape[2:4]), jnp.float32) for x in frames]
        chance = [
            data_term(x[:, 0], x[:, 1], ones) if w else jnp.float32(0.0)
            for x, ones, w in zip(frames, still, scales)
        ]
        metrics = flow_common.flow_metrics(
            made,
            full[0],
            photometric=photometric[0] if scales[0] else jnp.float32(0.0),
            at_chance=scales[0] * chance[0],
            smooth=smooth,
        )
        at_rest = sum(weight * term for weight, term in zip(scales, chance))
        metrics |= {"analogy": lesson, "loss_at_chance": at_rest}
        return value, LossOutput(state, extra, jax.lax.stop_gradient(metrics))

    return flow_common.flow_method(network, views=views, loss=loss, occlusion=occlusion)


def build(config: ConfigDict, steps: int) -> Method:
    """ARFlow as the sections `augment` and `arflow` of a config say."""
    knobs = common.plain(config.arflow)
    flow_common.chosen("arflow", "data", knobs["data"], DATA_TERMS)
    flow_common.chosen("arflow", "occlusion", knobs["occlusion"], OCCLUSIONS)
    flow_common.scheduled(knobs, "analogy", steps)
    spatial, appearance = knobs.pop("spatial"), knobs.pop("appearance")
    try:
        recipe = flow_augment.get_flow_recipe("identity", affine=spatial, **appearance)
    except ValueError as error:
        raise UserError(f"config.arflow: {error}") from error
    knobs["spatial"] = recipe.affine if spatial else None
    knobs["appearance"] = recipe if appearance else None
    network = flow_common.build_network(config, knobs.pop("network"))
    return arflow(network, views=flow_common.training_views(config.augment), **knobs)
