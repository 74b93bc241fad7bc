"""Monodepth: one image predicts the disparities of both views of a stereo pair.

Godard et al., Unsupervised Monocular Depth Estimation with Left-Right Consistency, CVPR 2017.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, losses, models, ops
from sslax.methods.common import Augmentation, knobs_of, merge_views, no_update, split_views
from sslax.methods.depth import common
from sslax.models.compose import Network
from sslax.ranges import Fraction, NonNegative, PositiveFraction
from sslax.types import (
    Array,
    Batch,
    Depth,
    DepthMaps,
    InverseDepth,
    LossOutput,
    Method,
    Metrics,
    Model,
    Pictures,
    Variables,
)

PAIR = common.Snippet(frames=1, stereo=True)


def monodepth(
    encoder: Model,
    decoder: Model,
    *,
    augmentation: Augmentation,
    ssim_weight: Fraction = 0.85,
    smoothness_weight: NonNegative = 0.1,
    consistency_weight: NonNegative = 1.0,
    max_disparity: PositiveFraction = 0.3,
    naive: bool = False,
) -> Method:
    """Monodepth.

    ```
    loss = Σ_s Σ_(left, right) [mean over valid (0.85 (1 - SSIM) / 2 + 0.15 |I - Î|)
           + 0.1 / 2^s smoothness(d / w, I) + 1.0 mean over valid |d - d'(x ∓ d)| / w]
    ```
    The network sees the left image only. Its maps times `max_disparity` times their width w are the
    disparities d of both views, at four scales s, to which the images are averaged down. Each view
    is reconstructed from the other; a pixel that would be sampled outside the other image is not
    valid and does not count.

    With `naive`, the network predicts one disparity and reconstructs the right image from the left.
    That disparity is aligned with the right image, which the network does not see, but is taken
    for the left image's in prediction. The paper shows the failure: copied textures, displaced
    edges.

    Args:
        encoder: images to an `Encoding`.
        decoder: {'stages', 'like'} to maps in (0, 1), finest first, of two channels, left and
            right; of one with `naive`.
        augmentation: adds 'frames' and 'input' `[B, 2, H, W, C]`, left and right.
        ssim_weight: of the structural dissimilarity; the absolute difference has the rest.
        smoothness_weight: at the finest scale, of the disparity as a fraction of the width.
        consistency_weight: of the difference between the disparities, as a fraction of the width.
        max_disparity: disparity of a map of 1, as a fraction of the width.
        naive: see above.
    """
    network = Network({"encoder": encoder, "decoder": decoder})
    knobs = Knobs(ssim_weight, smoothness_weight, consistency_weight, max_disparity, naive)

    def init(rng: Array, batch: Batch) -> Variables:
        PAIR.check(batch)
        return network.init(common.depth_maps, rng, batch["input"][:, 0])

    def loss(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        PAIR.check(batch)
        left = batch["input"][:, 0]
        maps, variables = network.apply(common.depth_maps, variables, left, train=True)
        value, metrics = stereo_loss(maps, batch["frames"], knobs)
        metrics = jax.lax.stop_gradient(metrics)
        return value, LossOutput(variables.model_state, variables.extra, metrics)

    def predict(variables: Variables, batch: Batch) -> DepthMaps:
        left = augment.to_float(batch["image"][:, 0])
        maps, _ = network.apply(common.depth_maps, variables, left)
        disparity = max_disparity * left.shape[2] * maps[0][..., 0]
        if "intrinsics" not in batch or "baseline" not in batch:
            return DepthMaps(disparity=disparity)
        focal, baseline = batch["intrinsics"][:, 0, 0], jnp.abs(batch["baseline"])
        depth = ops.disparity_to_depth(disparity, focal[:, None, None], baseline[:, None, None])
        return DepthMaps(depth=depth, disparity=disparity)

    def visualize(variables: Variables, batch: Batch, rng: Array) -> Pictures:
        pair = augment.to_float(batch["image"])
        maps, _ = network.apply(common.depth_maps, variables, pair[:, 0])
        columns: Pictures = {"image": pair[:, 0], "disparity": InverseDepth(maps[0][..., 0])}
        return columns | (reconstruction_columns(maps[0], pair, knobs) if pair.shape[1] > 1 else {})

    return Method(
        task=Depth(frames=1, metric=True),
        augment=augmentation,
        init=init,
        loss=loss,
        update=no_update,
        predict=predict,
        visualize=visualize,
        encoder=network.encoder,
        preprocess=augment.to_float,
    )


class Knobs(NamedTuple):
    """The arguments of `monodepth` of the same names."""

    ssim_weight: float
    smoothness_weight: float
    consistency_weight: float
    max_disparity: float
    naive: bool


class StereoViews(NamedTuple):
    """The left and right view of each pair, or the right one alone, at one resolution.

    Attributes:
        image: `[B, V, h, w, C]`, V 1 or 2.
        other: `[B, V, h, w, C]`, the other view of each.
        disparity: `[B, V, h, w]`, in pixels of this resolution.
    """

    image: Array
    other: Array
    disparity: Array


def stereo_views(maps: Array, pair: Array, knobs: Knobs) -> StereoViews:
    """Views and their disparities at the resolution of the maps.

    Args:
        maps: `[B, h, w, K]` in (0, 1), the network's.
        pair: `[B, 2, H, W, C]`, left and right.
        knobs: with `naive`, the first map is the disparity of the right view, the only one.
    """
    small = ops.resize(pair, maps.shape[1:3], method="area")
    disparity = knobs.max_disparity * maps.shape[2] * jnp.moveaxis(maps, -1, 1)
    if knobs.naive:
        return StereoViews(small[:, 1:], small[:, :1], disparity[:, :1])
    return StereoViews(small, small[:, ::-1], disparity)


def reconstruct(views: StereoViews) -> tuple[Array, Array]:
    """Each view reconstructed from the other one.

    Returns:
        `[B, V, h, w, C]`, and `[B, V, h, w]` bool: sampled inside the other image.
    """
    count = views.image.shape[1]
    # The left view samples the right one at x - d, the right view the left one at x + d.
    direction = jnp.array([-1.0, 1.0])[-count:, None, None]
    other, shift = merge_views(views.other), merge_views(direction * views.disparity)
    images, inside = ops.warp_disparity(other, shift, direction=1)
    return split_views(images, count), split_views(inside, count)


def scale_terms(views: StereoViews, ssim_weight: float) -> Metrics:
    """The terms of the loss at one scale, before their weights; sums over the views."""
    error = partial(losses.photometric_error, views.image, ssim_weight=ssim_weight)
    images, valid = reconstruct(views)
    count, width = views.image.shape[1], views.image.shape[3]
    smoothness = losses.edge_aware_smoothness(views.disparity / width, views.image)
    terms = {
        "photometric": jnp.sum(jax.vmap(losses.masked_mean, in_axes=1)(error(images), valid)),
        "smoothness": count * smoothness,
        "valid": jnp.mean(valid),
        "loss_at_chance": count * jnp.mean(error(views.other)),
    }
    if count == 2:
        left, right = views.disparity[:, 0], views.disparity[:, 1]
        terms["consistency"] = sum(
            losses.masked_mean(difference, inside) / width
            for difference, inside in losses.disparity_consistency(left, right)
        )
    return terms


def stereo_loss(maps: tuple[Array, ...], pair: Array, knobs: Knobs) -> tuple[Array, Metrics]:
    """Monodepth's loss and its metrics.

    Args:
        maps: `[B, h, w, K]` each, finest first, the network's.
        pair: `[B, 2, H, W, C]`, left and right.
        knobs: weights.
    """
    views = [stereo_views(level, pair, knobs) for level in maps]
    terms = common.stack_scales([scale_terms(scale, knobs.ssim_weight) for scale in views])
    metrics = {
        "photometric": jnp.sum(terms["photometric"]),
        "smoothness": common.sum_halving(terms["smoothness"]),
        "valid": jnp.mean(terms["valid"]),
        "disparity": knobs.max_disparity * jnp.mean(maps[0][..., 0]),
        "loss_at_chance": jnp.sum(terms["loss_at_chance"]),
    }
    value = metrics["photometric"] + knobs.smoothness_weight * metrics["smoothness"]
    if not knobs.naive:
        metrics["consistency"] = jnp.sum(terms["consistency"])
        value = value + knobs.consistency_weight * metrics["consistency"]
    return value, metrics


def reconstruction_columns(maps: Array, pair: Array, knobs: Knobs) -> Pictures:
    """Reconstructions of the views and their errors, black where not valid."""
    views = stereo_views(maps, pair, knobs)
    images, valid = reconstruct(views)
    errors = losses.photometric_error(views.image, images, ssim_weight=knobs.ssim_weight)
    columns: Pictures = {}
    for i, side in enumerate(("right",) if knobs.naive else ("left", "right")):
        columns[f"{side} reconstruction"] = jnp.where(valid[:, i, ..., None], images[:, i], 0.0)
        columns[f"{side} error"] = common.displayable(errors[:, i] * valid[:, i])
    return columns


def build(config: ConfigDict, steps: int) -> Method:
    """Monodepth from the sections `model`, `data`, `augment` and `monodepth` of a config."""
    knobs = knobs_of(config, monodepth, decoder=models.DepthDecoder)
    outputs = 1 if knobs["naive"] else 2
    return monodepth(
        models.build_encoder(config.model, stem_stage=True),
        models.build_depth_decoder(config.model, outputs=outputs, **knobs.pop("decoder")),
        augmentation=common.build_augmentation(config.augment, PAIR),
        **knobs,
    )
