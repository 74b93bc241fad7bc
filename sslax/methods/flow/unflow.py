"""UnFlow: bidirectional flow whose terms, on every pyramid level, count what both frames show.

Meister, Hur and Roth, UnFlow: Unsupervised Learning of Optical Flow with a Bidirectional Census
Loss, AAAI 2018.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses
from sslax.errors import UserError, check_choice
from sslax.methods.common import Augmentation
from sslax.methods.flow import from_config, resolution
from sslax.methods.flow.matching import (
    OCCLUSIONS,
    Match,
    match_frames,
    merge_pairs,
    merge_swapped,
    pixel_weights,
)
from sslax.methods.flow.method import Encoder, FirstPass, flow_loss, flow_method, whole_network
from sslax.ranges import Interval, NonNegative, OneOrMore, PositiveInt
from sslax.types import Array, Batch, Method, Model


class Terms(NamedTuple):
    """One value for each term of the loss: its weight, or the term itself."""

    census: float | Array = 0.0
    brightness: float | Array = 0.0
    gradient: float | Array = 0.0
    consistency: float | Array = 0.0
    smoothness: float | Array = 0.0
    occlusion: float | Array = 0.0


class Settings(NamedTuple):
    """Knobs of `level_terms`, as in `unflow`; of a term of weight 0 nothing is computed."""

    weights: Terms
    smoothness_order: int
    occlusion: str
    border: float


def unflow(
    network: Model,
    *,
    augmentation: Augmentation,
    encoder: Encoder = whole_network,
    census_weight: NonNegative = 1.0,
    brightness_weight: NonNegative = 0.0,
    gradient_weight: NonNegative = 0.0,
    smoothness_weight: NonNegative = 3.0,
    smoothness_order: Literal[1, 2] = 2,
    consistency_weight: NonNegative = 0.2,
    occlusion: str = "forward_backward",
    occlusion_weight: NonNegative = 0.0,
    border: Annotated[float, Interval(0, 0.5, open_high=True)] = 0.1,
    level_weights: OneOrMore[NonNegative] = (12.7, 4.35, 3.9, 3.4, 1.1),
    census_radii: OneOrMore[PositiveInt] = (3, 2, 2, 1, 1),
) -> Method:
    """UnFlow.

    For each level and both directions, with `ρ` the Charbonnier penalty, `v(p)` 1 where p is
    visible in the other frame, and means over the pixels where v is 1:

    ```
    mean_v [w_c ρ(census) + w_b ρ(255 (I - I')) + w_g ρ(255 ∇(I - I')) + w_f ρ(f + b)]
           + w_s mean ρ(second derivatives of f) + w_o mean (1 - v)
    ```

    The authors divide by the number of all pixels, so that inconsistent flows lower the loss, and
    add `w_o`, 12.4, for each occluded pixel. But occlusion is decided by a threshold, which has no
    gradient: in their code as here `w_o` changes the printed loss and nothing else. Divided by the
    number of visible pixels, the loss gains nothing by occlusion and stays comparable with that of
    zero flow.

    Args:
        network: pairs to flows, finest first.
        augmentation: adds 'frames', which the loss compares, and the network's 'input',
            `[B, 2, H, W, C]` both.
        encoder: the part of the network to export.
        census_weight: w_c; a weight of 0 leaves its term out, here and below.
        brightness_weight: w_b.
        gradient_weight: w_g, of central differences.
        smoothness_weight: w_s.
        smoothness_order: 2, along both axes and both diagonals; or 1, along both axes.
        consistency_weight: w_f.
        occlusion: "forward_backward", "range_map" or "none" (only what leaves the frame).
        occlusion_weight: w_o, see above.
        border: width of the border that is not compared, as a fraction of the shorter side.
        level_weights: of each level, finest first, at least as many as the network has.
        census_radii: of each level, in its pixels.

    Raises:
        UserError: in the loss, if the network has more levels than there are weights.
    """
    weights = Terms(
        census=census_weight,
        brightness=brightness_weight,
        gradient=gradient_weight,
        consistency=consistency_weight,
        smoothness=smoothness_weight,
        occlusion=occlusion_weight,
    )
    settings = Settings(weights, smoothness_order, occlusion, border)

    def total(levels: Sequence[Terms]) -> Array:
        return sum(s * weighted_sum(weights, terms) for s, terms in zip(level_weights, levels))

    def objective(output: resolution.NetworkOutput, batch: Batch, step: Array) -> FirstPass:
        flows = resolution.pyramid(output)
        if len(flows) > min(len(level_weights), len(census_radii)):
            raise UserError(
                f"The network has {len(flows)} levels and the loss {len(level_weights)} weights "
                f"and {len(census_radii)} census radii: set config.unflow.level_weights and "
                "census_radii."
            )
        frames = [resolution.downsample(batch["frames"], flow) for flow in flows]
        levels = list(zip(frames, flows, census_radii))
        terms, matches = zip(*(level_terms(settings, *level) for level in levels))
        static = [level_terms(settings, x, jnp.zeros_like(f), radius)[0] for x, f, radius in levels]
        finest = terms[0]
        return FirstPass(
            loss=total(terms),
            loss_at_chance=total(static),
            photometric=photometric(weights, finest),
            photometric_at_chance=photometric(weights, static[0]),
            smoothness=jnp.asarray(finest.smoothness),
            match=matches[0],
            flows=resolution.upsample(flows[0], batch["frames"].shape[2:4]),
            metrics={"consistency": jnp.asarray(finest.consistency)},
        )

    return flow_method(
        network,
        augmentation=augmentation,
        loss=flow_loss(network, objective),
        occlusion=occlusion,
        encoder=encoder,
    )


def level_terms(
    settings: Settings, frames: Array, flows: Array, census_radius: int
) -> tuple[Terms, Match]:
    """Each term at one level, summed over both directions.

    Args:
        settings: knobs.
        frames: `[B, 2, h, w, C]`.
        flows: `[B, 2, h, w, 2]`.
        census_radius: in pixels of the level.
    """
    match = match_frames(frames, flows, occlusion=settings.occlusion)
    weight = pixel_weights(match) * border_mask(*flows.shape[2:4], settings.border)

    def mean(error: Array, weight: Array = weight) -> Array:
        return 2 * losses.masked_mean(error, weight)  # a mean over both directions, and their sum

    weights, terms = settings.weights, Terms(occlusion=2 * jnp.mean(1 - match.visible))
    if weights.census:
        distance, valid = losses.census_error(
            match.target, match.warped, mask=weight, radius=census_radius
        )
        terms = terms._replace(census=mean(losses.charbonnier(distance), weight * valid))
    difference = 255 * (match.target - match.warped)
    if weights.brightness:
        terms = terms._replace(brightness=mean(losses.charbonnier(difference).mean(-1)))
    if weights.gradient:
        gradient = central_difference(difference)
        terms = terms._replace(gradient=mean(losses.charbonnier(gradient).mean(-1)))
    if weights.consistency:
        error, _ = losses.forward_backward_error(merge_pairs(flows), merge_swapped(flows))
        terms = terms._replace(consistency=mean(error))
    if weights.smoothness:
        smoothness = second_order if settings.smoothness_order == 2 else first_order
        terms = terms._replace(smoothness=2 * smoothness(merge_pairs(flows)))
    return terms, match


def weighted_sum(weights: Terms, terms: Terms) -> Array:
    """The loss of one level."""
    return sum(weight * term for weight, term in zip(weights, terms))


def photometric(weights: Terms, terms: Terms) -> Array:
    """The terms that compare frames, weighted."""
    return jnp.asarray(
        weights.census * terms.census
        + weights.brightness * terms.brightness
        + weights.gradient * terms.gradient
    )


def border_mask(height: int, width: int, border: float) -> Array:
    """`[h, w]`, 0 within `ceil(border · shorter side)` pixels of the border."""
    margin = math.ceil(border * min(height, width))
    inner = jnp.ones((height - 2 * margin, width - 2 * margin), jnp.float32)
    return jnp.pad(inner, margin)


def central_difference(x: Array) -> Array:
    """`(x(p + 1) - x(p - 1)) / 2` along x and along y, `[N, h, w, 2 C]`, with repeated borders."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    along_x = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    along_y = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    return 0.5 * jnp.concatenate([along_x, along_y], axis=-1)


def second_order(flow: Array) -> Array:
    """Penalized second derivatives, averaged over pixels and four directions, summed over x and y.

    `ρ(f(p + d) - 2 f(p) + f(p - d))` for d to the right, down, and along both diagonals; 0 where a
    neighbor is missing.
    """
    total, (height, width) = 0.0, flow.shape[1:3]
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        rows, columns = slice(dy, height - dy), slice(abs(dx), width - abs(dx))
        ahead = flow[:, 2 * dy :, max(0, 2 * dx) : width + min(0, 2 * dx)]
        behind = flow[:, : height - 2 * dy, max(0, -2 * dx) : width - max(0, 2 * dx)]
        curvature = ahead - 2 * flow[:, rows, columns] + behind
        total += jnp.sum(losses.charbonnier(curvature))
    return total / (4 * flow.shape[0] * height * width)


def first_order(flow: Array) -> Array:
    """Penalized differences, averaged over pixels and both axes, summed over x and y."""
    ahead = flow[:, :, 1:] - flow[:, :, :-1], flow[:, 1:] - flow[:, :-1]
    count = 2 * flow.shape[0] * flow.shape[1] * flow.shape[2]
    return sum(jnp.sum(losses.charbonnier(change)) for change in ahead) / count


def build(config: ConfigDict, steps: int) -> Method:
    """UnFlow from the sections `model`, `augment` and `unflow` of a config."""
    knobs = from_config.knobs_of(config, unflow)
    check_choice("config.unflow.occlusion", knobs["occlusion"], OCCLUSIONS)
    return unflow(**from_config.shared_arguments(config), **knobs)
