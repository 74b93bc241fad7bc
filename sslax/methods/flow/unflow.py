"""UnFlow: flow in both directions that explains, pyramid level by level, what both frames show.

Meister, Hur and Roth, UnFlow: Unsupervised Learning of Optical Flow with a Bidirectional Census
Loss, AAAI 2018.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses
from sslax.errors import UserError
from sslax.methods import common
from sslax.methods.flow import flow_common
from sslax.types import Array, Batch, LossOutput, Method, Metrics, Model, PyTree


def unflow(
    network: Model,
    *,
    views: common.Views,
    census_weight: float = 1.0,
    brightness_weight: float = 0.0,
    gradient_weight: float = 0.0,
    smoothness_weight: float = 3.0,
    smoothness_order: int = 2,
    consistency_weight: float = 0.2,
    occlusion: str = "forward_backward",
    occlusion_weight: float = 0.0,
    border: float = 0.1,
    level_weights: Sequence[float] = (12.7, 4.35, 3.9, 3.4, 1.1),
    census_radii: Sequence[int] = (3, 2, 2, 1, 1),
) -> Method:
    """UnFlow.

    For each level, and each direction, with `ρ` the Charbonnier penalty, `v(p)` 1 where p is
    visible in the other frame, and means over the pixels where v is 1:

    ```
    mean_v [w_c ρ(census) + w_b ρ(255 (I - I')) + w_g ρ(255 ∇(I - I')) + w_f ρ(f + b)]
           + w_s mean ρ(second derivatives of f) + w_o mean (1 - v)
    ```

    The authors divide by the number of all pixels, so that flows which disagree lower the loss, and
    add `w_o`, 12.4, for each pixel that is occluded. But a threshold decides what is occluded, and
    has no gradient: in their code as here `w_o` changes the printed loss and nothing else. Divided
    by what is visible, the loss gains nothing by occlusion and stays comparable with that of no
    motion.

    Args:
        network: of pairs to flows, finest first.
        views: `(rng, batch) -> batch` with 'image', which the loss compares, and 'input' of the
            network, `[B, 2, H, W, C]` both.
        census_weight: w_c; a weight of 0 leaves its term out, here and below.
        brightness_weight: w_b.
        gradient_weight: w_g, of central differences.
        smoothness_weight: w_s.
        smoothness_order: 2, along both axes and both diagonals; or 1, along both axes.
        consistency_weight: w_f.
        occlusion: "forward_backward", "range_map" or "none" (only what leaves the frame).
        occlusion_weight: w_o, see above.
        border: pixels closer to the border, as a part of the shorter side, are not compared.
        level_weights: of each level, finest first, at least as many as the network has.
        census_radii: of each level.

    Raises:
        UserError: in the loss, if the network has more levels than there are weights.
    """
    radii, scales = tuple(census_radii), tuple(level_weights)

    def level_terms(images: Array, flows: Array, radius: int) -> tuple[Metrics, flow_common.Match]:
        """The mean of each term at one level, twice: it stands for the sum of both directions."""
        made = flow_common.match(images, flows, occlusion=occlusion)
        height, width = flows.shape[2:4]
        weight = flow_common.weight_at(made) * _border_mask(height, width, border)

        def mean(error: Array, weight: Array = weight) -> Array:
            return 2 * losses.masked_mean(error, weight)

        terms = {"occlusion": 2 * jnp.mean(1 - made.visible)}
        if census_weight:
            distance, valid = losses.census_error(
                made.target, made.warped, mask=weight, radius=radius
            )
            terms["census"] = mean(losses.charbonnier(distance), weight * valid)
        difference = 255 * (made.target - made.warped)
        if brightness_weight:
            terms["brightness"] = mean(losses.charbonnier(difference).mean(-1))
        if gradient_weight:
            terms["gradient"] = mean(losses.charbonnier(_central(difference)).mean(-1))
        if consistency_weight:
            error, _ = losses.forward_backward_error(
                flow_common.both(flows), flow_common.other(flows)
            )
            terms["consistency"] = mean(error)
        if smoothness_weight:
            smooth = _second_order if smoothness_order == 2 else _first_order
            terms["smoothness"] = 2 * smooth(flow_common.both(flows))
        return terms, made

    weights = {
        "census": census_weight,
        "brightness": brightness_weight,
        "gradient": gradient_weight,
        "consistency": consistency_weight,
        "smoothness": smoothness_weight,
        "occlusion": occlusion_weight,
    }

    def photometric(terms: Metrics) -> Array:
        compared = ("census", "brightness", "gradient")
        return sum(weights[name] * terms[name] for name in compared if name in terms)

    def total(levels: list[Metrics]) -> Array:
        """The loss, from the terms of each level."""
        return sum(
            scale * sum(weights[name] * term for name, term in terms.items())
            for scale, terms in zip(scales, levels)
        )

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        flow_common.check(batch["input"])
        inputs = flow_common.network_input(batch, rng)
        output, state = network.apply(params, model_state, inputs, True)
        flows = flow_common.pyramid_of(output)
        if len(flows) > min(len(scales), len(radii)):
            raise UserError(
                f"The network has {len(flows)} levels and the loss {len(scales)} weights and "
                f"{len(radii)} census radii: set config.unflow.level_weights and census_radii."
            )
        images = [flow_common.at_level(batch["image"], flow) for flow in flows]
        made = [level_terms(*level) for level in zip(images, flows, radii)]
        still = [
            level_terms(image, jnp.zeros_like(flow), radius)[0]
            for image, flow, radius in zip(images, flows, radii)
        ]
        terms, match = made[0]
        size = batch["image"].shape[2:4]
        metrics = flow_common.flow_metrics(
            match,
            flow_common.upsampled(flows[0], size),
            photometric=photometric(terms),
            at_chance=photometric(still[0]),
            smooth=terms.get("smoothness", jnp.float32(0.0)),
        )
        metrics["consistency"] = terms.get("consistency", jnp.float32(0.0))
        metrics["loss_at_chance"] = total(still)
        value = total([terms for terms, _ in made])
        return value, LossOutput(state, extra, jax.lax.stop_gradient(metrics))

    return flow_common.flow_method(network, views=views, loss=loss, occlusion=occlusion)


def _border_mask(height: int, width: int, border: float) -> Array:
    """`[h, w]`, 0 within the border, `ceil(border · shorter side)` pixels."""
    margin = math.ceil(border * min(height, width))
    inner = jnp.ones((height - 2 * margin, width - 2 * margin), jnp.float32)
    return jnp.pad(inner, margin)


def _central(x: Array) -> Array:
    """Half of `x(p + 1) - x(p - 1)` along x and along y, `[N, h, w, 2 C]`; the border repeated."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    along_x = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    along_y = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    return 0.5 * jnp.concatenate([along_x, along_y], axis=-1)


def _second_order(flow: Array) -> Array:
    """Mean over pixels and four directions, sum over x and y, of the penalized second derivative.

    `ρ(f(p + d) - 2 f(p) + f(p - d))`, d to the right, down, and along both diagonals; 0 at the
    border, which has no neighbors there.
    """
    total, (height, width) = 0.0, flow.shape[1:3]
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        rows, columns = slice(dy, height - dy), slice(abs(dx), width - abs(dx))
        ahead = flow[:, 2 * dy :, max(0, 2 * dx) : width + min(0, 2 * dx)]
        behind = flow[:, : height - 2 * dy, max(0, -2 * dx) : width - max(0, 2 * dx)]
        curvature = ahead - 2 * flow[:, rows, columns] + behind
        total += jnp.sum(losses.charbonnier(curvature))
    return total / (4 * flow.shape[0] * height * width)


def _first_order(flow: Array) -> Array:
    """Mean over pixels and both directions, sum over x and y, of the penalized difference."""
    ahead = flow[:, :, 1:] - flow[:, :, :-1], flow[:, 1:] - flow[:, :-1]
    count = 2 * flow.shape[0] * flow.shape[1] * flow.shape[2]
    return sum(jnp.sum(losses.charbonnier(change)) for change in ahead) / count


def build(config: ConfigDict, steps: int) -> Method:
    """UnFlow as the sections `augment` and `unflow` of a config say."""
    knobs = common.plain(config.unflow)
    flow_common.chosen("unflow", "occlusion", knobs["occlusion"], flow_common.OCCLUSIONS)
    flow_common.chosen("unflow", "smoothness_order", knobs["smoothness_order"], (1, 2))
    network = flow_common.build_network(config, knobs.pop("network"))
    return unflow(network, views=flow_common.training_views(config.augment), **knobs)
