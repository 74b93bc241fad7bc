"""ARFlow: the network's flow of two frames supervises its flow of harder versions of them.

Liu et al., Learning by Analogy: Reliable Supervision from Transformations for Unsupervised Optical
Flow Estimation, CVPR 2020.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, losses, ops
from sslax.augment import AffineRecipe, FlowRecipe, RelativeAffine
from sslax.errors import UserError, check_choice
from sslax.methods.common import Augmentation
from sslax.methods.flow import from_config, resolution
from sslax.methods.flow.matching import (
    OCCLUSIONS,
    Match,
    match_frames,
    merge_pairs,
    pixel_weights,
    split_pairs,
)
from sslax.methods.flow.method import (
    Encoder,
    FirstPass,
    Forward,
    SecondPass,
    flow_loss,
    flow_method,
    network_input,
    whole_network,
)
from sslax.methods.flow.terms import with_gradient
from sslax.ranges import Fraction, NonNegative, OneOrMore, PositiveInt
from sslax.types import Array, Batch, Method, Model, Schedule

MASKING = ("frames", "errors")
RANGE_MAP_THRESHOLD = 0.2  # least value of a range map where a pixel is visible
SPATIAL = AffineRecipe(
    flip=0.5,
    flip_vertical=0.5,
    zoom=(1.0, 1.5),
    squeeze=(0.86, 1.16),
    rotate=0.2,
    translate=0.05,
    relative=RelativeAffine(zoom=(0.985, 1.015), rotate=0.015, translate=0.00375),
)
APPEARANCE = FlowRecipe(
    jitter=1.0,
    brightness=0.5,
    contrast=0.5,
    saturation=0.5,
    exposure=1.0,
    tint=(1.0, 1.0),
    blur=0.5,
    noise=0.04,
)


Comparison = Callable[[Array, Array, Array], Array]  # target, warped, visible


class Transformation(NamedTuple):
    """How the second pass makes frames harder, as in `arflow`."""

    spatial: AffineRecipe | None
    appearance: FlowRecipe | None
    occluder: bool


def arflow(
    network: Model,
    *,
    augmentation: Augmentation,
    encoder: Encoder = whole_network,
    data: str = "census",
    occlusion: str = "forward_backward",
    early_data: str = "ssim_l1",
    early_occlusion: str = "range_map",
    early_steps: NonNegative = 0.0,
    ssim_weight: Fraction = 0.85,
    census_radius: PositiveInt = 1,
    census_robust: bool = False,
    masking: Literal["frames", "errors"] = "frames",
    smoothness_weight: NonNegative = 50.0,
    smoothness_order: Literal[1, 2] = 1,
    edge_weight: NonNegative = 10.0,
    edge_stride: Literal[1, 2] = 1,
    level_weights: OneOrMore[NonNegative] = (1.0, 1.0, 1.0, 1.0, 0.0),
    analogy_weight: NonNegative | Schedule = 0.01,
    spatial: AffineRecipe | None = SPATIAL,
    appearance: FlowRecipe | None = APPEARANCE,
    occluder: bool = True,
) -> Method:
    """ARFlow.

    ```
    loss = Σ_l w_l D(I_l, warp(I'_l, f_l); visible) + w_s S(f_0, I_0) + w_a R
    R    = mean_{T visible} |f(T I, T I') - T f_0|
    ```
    R is a second pass of the network, on frames that are transformed: moved in the plane, which
    the flow follows exactly (`warp_affine_flow`), with other colors, and with parts of the second
    frame painted over, so that the first pass knows flow that the second one cannot see. The pixels
    that count are those that are visible in the first pass, moved alike.

    The authors train in stages: first with SSIM, L1 and range maps, from epoch 50 of 1000 on with
    the census and forward-backward checks, and R in a second training that starts from the first.
    Here these are `early_steps`, and a schedule of `analogy_weight`.

    The network's flows, at a quarter of the frames' resolution and below, are enlarged by four
    before they are compared, as the authors do.

    Args:
        network: pairs to flows, finest first.
        augmentation: adds 'frames', which the loss compares, and the network's 'input',
            `[B, 2, H, W, C]` both.
        encoder: the part of the network to export.
        data: D, "census" or "ssim_l1".
        occlusion: "forward_backward", "range_map" (hard, with threshold 0.2) or "none".
        early_data: D in the first steps; likewise `early_occlusion`.
        early_steps: how many these are.
        ssim_weight: of "ssim_l1".
        census_radius: of "census": the authors' 3 x 3 pixels have a radius of 1.
        census_robust: "census" goes through `robust_power`, as in UFlow.
        masking: "frames" multiplies both frames by what is visible before they are compared;
            "errors" compares whole frames and takes the mean over visible pixels.
        smoothness_weight: w_s, for flow in units of the shorter side: 50 (Sintel), 75 (KITTI).
        smoothness_order: 1 (Sintel) or 2 (KITTI).
        edge_weight: how much edges of the frame relax the smoothness.
        edge_stride: see `losses.edge_aware_smoothness`.
        level_weights: w_l, finest first, at least as many as the network has.
        analogy_weight: w_a, or a schedule of it; where it is 0 the second pass is skipped.
        spatial: how frames are moved in the second pass; None for not at all.
        appearance: how their colors change, by `photometric_augmentation`; None for not at all.
        occluder: paint over parts of the second frame.

    Raises:
        UserError: in the loss, if the network has more levels than there are weights.
    """
    smooth = partial(
        smoothness, order=smoothness_order, edge_weight=edge_weight, edge_stride=edge_stride
    )

    def compare(term: str) -> Comparison:
        census = {"radius": census_radius, "robust": census_robust}
        knobs = census if term == "census" else {"ssim_weight": ssim_weight}
        return partial(DATA_TERMS[term], masking=masking, **knobs)

    def stage(compare: Comparison, occlusion: str, flows: list[Array], batch: Batch) -> FirstPass:
        frames = [resolution.downsample(batch["frames"], flow) for flow in flows]
        matches = match_levels(frames, flows, occlusion=occlusion)
        photometric = photometric_levels(compare, matches, level_weights)
        chance = photometric_levels_at_chance(compare, frames, level_weights)
        roughness = smooth(frames[0], flows[0])
        return FirstPass(
            loss=sum(photometric) + smoothness_weight * roughness,
            loss_at_chance=sum(chance),
            photometric=photometric[0],
            photometric_at_chance=chance[0],
            smoothness=roughness,
            match=matches[0],
            flows=flows[0],
        )

    late = partial(stage, compare(data), occlusion)
    early = partial(stage, compare(early_data), early_occlusion)

    def either(is_early: Array, flows: list[Array], batch: Batch) -> FirstPass:
        """The stage's first pass, whose loss alone has a gradient."""

        def with_loss(stage: Callable, flows: list[Array]) -> tuple[Array, FirstPass]:
            first = stage(flows, batch)
            return first.loss, first

        early_pass, late_pass = (
            jax.value_and_grad(partial(with_loss, each), has_aux=True) for each in (early, late)
        )
        fixed = jax.lax.stop_gradient(flows)
        (value, first), gradient = jax.lax.cond(is_early, early_pass, late_pass, fixed)
        return first._replace(loss=with_gradient(value, gradient, flows))

    def objective(output: resolution.NetworkOutput, batch: Batch, step: Array) -> FirstPass:
        flows = enlarge_levels(resolution.pyramid(output), batch["frames"].shape[2:4])
        if len(flows) > len(level_weights):
            raise UserError(
                f"The network has {len(flows)} levels and the loss {len(level_weights)} weights: "
                "set config.arflow.level_weights."
            )
        if early_steps <= 0:
            return late(flows, batch)
        return either(step < early_steps, flows, batch)

    transformation = Transformation(spatial, appearance, occluder)
    second_pass = SecondPass("analogy", analogy_weight, partial(analogy, transformation))
    return flow_method(
        network,
        augmentation=augmentation,
        loss=flow_loss(network, objective, second_pass),
        occlusion=occlusion,
        encoder=encoder,
    )


# The first pass.


def enlarge_levels(flows: Sequence[Array], size: tuple[int, int]) -> list[Array]:
    """Each level's flow enlarged as much as the finest one is, to reach the frames' resolution.

    Args:
        flows: of each level, finest first.
        size: `(H, W)` of the frames.

    Returns:
        `[B, 2, h, w, 2]` of the frames' resolution, a half of it, a quarter, ...
    """
    factor = resolution.level_factor(flows[0], size)
    sizes = [tuple(-(-side // 2**level) for side in size) for level in range(len(flows))]
    return [resolution.upsample(flow, size, factor) for flow, size in zip(flows, sizes)]


def match_levels(frames: Sequence[Array], flows: Sequence[Array], *, occlusion: str) -> list[Match]:
    """Matches at each level; occlusion is estimated at the finest alone."""
    threshold = RANGE_MAP_THRESHOLD if occlusion == "range_map" else None
    finest = match_frames(frames[0], flows[0], occlusion=occlusion, threshold=threshold)
    others = zip(frames[1:], flows[1:])
    return [finest, *(match_frames(*level, occlusion="none") for level in others)]


def photometric_levels(
    compare: Comparison, matches: Sequence[Match], level_weights: Sequence[float]
) -> list[Array]:
    """The weighted data term of each level; what counts is decided by the finest flow."""
    visible, terms = split_pairs(pixel_weights(matches[0])), []
    for level, (match, level_weight) in enumerate(zip(matches, level_weights)):
        target, warped = split_pairs(match.target), split_pairs(match.warped)
        mask = visible[:, :, :: 2**level, :: 2**level]
        term = compare(target, warped, mask) if level_weight else jnp.float32(0.0)
        terms.append(level_weight * term)
    return terms


def photometric_levels_at_chance(
    compare: Comparison, frames: Sequence[Array], level_weights: Sequence[float]
) -> list[Array]:
    """`photometric_levels` for a flow of zero."""
    terms = []
    for x, level_weight in zip(frames, level_weights):
        ones = jnp.ones((len(x), 1, *x.shape[2:4]), jnp.float32)
        term = compare(x[:, :1], x[:, 1:], ones) if level_weight else jnp.float32(0.0)
        terms.append(level_weight * term)
    return terms


def census(
    target: Array, warped: Array, visible: Array, *, masking: str, radius: int, robust: bool
) -> Array:
    """The census of two frames compared: its mean over the patch, and over visible pixels.

    Args:
        target: `[B, D, h, w, C]`, of D directions.
        warped: `[B, D, h, w, C]`.
        visible: `[B, D, h, w]`, 0 where a pixel does not count.
        masking: as in `arflow`; likewise the others.
    """
    if masking == "frames":
        target, warped = hide(target, visible), hide(warped, visible)
        distance, counted = losses.census_error(target, warped, radius=radius)
        share = visible
    else:
        distance, valid = losses.census_error(target, warped, mask=visible, radius=radius)
        counted = share = visible * valid
    error = distance / (2 * radius + 1) ** 2
    return mean_over_visible(counted * (losses.robust_power(error) if robust else error), share)


def ssim_l1(
    target: Array, warped: Array, visible: Array, *, masking: str, ssim_weight: float
) -> Array:
    """Structural dissimilarity and absolute difference mixed, their mean over visible pixels.

    Arguments are those of `census`.
    """
    if masking == "errors":
        error = losses.photometric_error(target, warped, ssim_weight=ssim_weight)
        return mean_over_visible(visible * error, visible)
    target, warped = hide(target, visible), hide(warped, visible)
    difference = jnp.mean(losses.l1(target - warped), axis=-1)
    structure = jnp.clip((1 - ops.ssim(target, warped, padding="valid")) / 2, 0, 1)
    structure = jnp.mean(structure, axis=-1)
    return ssim_weight * mean_over_visible(structure, visible) + (
        1 - ssim_weight
    ) * mean_over_visible(difference, visible)


DATA_TERMS = {"census": census, "ssim_l1": ssim_l1}


def hide(frames: Array, visible: Array) -> Array:
    """Frames `[B, D, h, w, C]`, black where `visible` `[B, D, h, w]` is 0."""
    return frames * visible[..., None]


def mean_over_visible(errors: Array, visible: Array) -> Array:
    """`mean(errors) / mean(visible)` of each direction, averaged over the directions.

    0, with zero gradient, in a direction in which nothing is visible.

    Args:
        errors: `[B, D, h', w']`, 0 where a pixel does not count.
        visible: `[B, D, h, w]`.
    """
    total, share = (jnp.mean(x, axis=(0, 2, 3)) for x in (errors, visible))
    return jnp.mean(jnp.where(share > 0, total / jnp.where(share > 0, share, 1), 0))


def smoothness(
    frames: Array, flows: Array, *, order: int, edge_weight: float, edge_stride: int
) -> Array:
    """ARFlow's smoothness of flows `[B, 2, h, w, 2]` in units of the shorter side.

    The mean over both axes; of the first derivatives the authors take a half.
    """
    return (0.25 if order == 1 else 0.5) * losses.edge_aware_smoothness(
        merge_pairs(flows) / min(flows.shape[2:4]),
        merge_pairs(frames),
        order=order,
        edge_weight=edge_weight,
        edge_stride=min(edge_stride, order),
    )


# The second pass.


def analogy(
    transformation: Transformation, forward: Forward, batch: Batch, first: FirstPass, keys: Array
) -> Array:
    """R: the error of the flow of transformed frames against the transformed flow."""
    teacher = jax.lax.stop_gradient(first.flows)
    visible = split_pairs(first.match.visible)
    example_keys = augment.batch_keys(keys[0], batch)
    harder, target, mask = jax.vmap(partial(transform, transformation))(
        example_keys, batch["input"], teacher, visible
    )
    output = forward(network_input({**batch, "input": harder}, keys[1]), True)
    student = resolution.upsample(resolution.pyramid(output)[0], batch["frames"].shape[2:4])
    error = jnp.mean(losses.l1(student - target), axis=-1)
    return losses.masked_mean(error, mask)


def transform(
    transformation: Transformation, key: Array, frames: Array, flows: Array, visible: Array
) -> tuple[Array, Array, Array]:
    """Makes one example harder.

    Args:
        transformation: how.
        key: random key.
        frames: `[2, H, W, C]`.
        flows: `[2, H, W, 2]` between them, in both directions.
        visible: `[2, H, W]`, 1 where these flows are to be trusted.

    Returns:
        The transformed frames, the flows between them, and where these are known, float32.
    """
    affine_key, color_key, paint_key = jax.random.split(key, 3)
    if transformation.spatial is not None:
        size = frames.shape[1:3]
        maps = jnp.stack(augment.sample_affine(affine_key, size, transformation.spatial))
        frames, _ = jax.vmap(augment.warp_affine)(frames, maps)
        flows, inside = jax.vmap(augment.warp_affine_flow)(flows, maps, maps[::-1])
        # A pixel counts where all the pixels that it is interpolated from count.
        moved, _ = jax.vmap(augment.warp_affine)(visible[..., None], maps)
        visible = (moved[..., 0] > 0.999) & inside
    if transformation.appearance is not None:
        frames = augment.photometric_augmentation(color_key, frames, transformation.appearance)
    if transformation.occluder:
        frames = jnp.stack([frames[0], augment.random_occluder(paint_key, frames[1])])
    return frames, flows, visible.astype(jnp.float32)


_CHOICES = {
    "data": DATA_TERMS,
    "early_data": DATA_TERMS,
    "occlusion": OCCLUSIONS,
    "early_occlusion": OCCLUSIONS,
    "masking": MASKING,
}


def build(config: ConfigDict, steps: int) -> Method:
    """ARFlow from the sections `model`, `augment` and `arflow` of a config."""
    knobs = from_config.knobs_of(
        config,
        arflow,
        analogy_start=Fraction,
        early=Fraction,
        analogy_ramp=Fraction,
        spatial=AffineRecipe,
        appearance=FlowRecipe,
    )
    for name, choices in _CHOICES.items():
        check_choice(f"config.arflow.{name}", knobs[name], choices)
    knobs["early_steps"] = knobs.pop("early") * steps
    knobs["analogy_weight"] = from_config.pop_ramp(knobs, "analogy", steps)
    spatial, appearance = knobs.pop("spatial"), knobs.pop("appearance")
    recipe = augment.get_flow_recipe("identity", affine=spatial, **appearance)
    return arflow(
        **from_config.shared_arguments(config),
        spatial=recipe.affine if spatial else None,
        appearance=recipe if appearance else None,
        **knobs,
    )
