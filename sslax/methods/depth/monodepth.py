"""Monodepth: one image predicts the disparities of both views of a stereo pair.

Godard et al., Unsupervised Monocular Depth Estimation with Left-Right Consistency, CVPR 2017.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, losses, models, ops
from sslax.methods import common
from sslax.methods.depth import geometry
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables

PAIR = geometry.Snippet(frames=1, stereo=True)


class Sides(NamedTuple):
    """Left and right view of each pair, or the right one alone, at one resolution."""

    image: Array  # [B, V, h, w, C]
    other: Array  # [B, V, h, w, C], the other view
    disparity: Array  # [B, V, h, w], in pixels of this resolution

    def rebuilt(self) -> tuple[Array, Array]:
        """The views as the others and the disparities have them, and where that is inside."""
        count = self.image.shape[1]
        towards = jnp.array([-1.0, 1.0])[-count:, None, None]  # right lies to the left in left
        merged = [common.merge_views(x) for x in (self.other, towards * self.disparity)]
        images, inside = ops.warp_disparity(*merged, direction=1)
        return common.split_views(images, count), common.split_views(inside, count)


def monodepth(
    depth_network: Model,
    *,
    views: common.Views,
    ssim_weight: float = 0.85,
    smoothness_weight: float = 0.1,
    consistency_weight: float = 1.0,
    largest: float = 0.3,
    naive: bool = False,
) -> Method:
    """Monodepth.

    ```
    loss = Σ_s Σ_(left, right) [mean over valid (0.85 (1 - SSIM) / 2 + 0.15 |I - Î|)
           + 0.1 / 2^s smoothness(d / w, I) + 1.0 mean over valid |d - d'(x ∓ d)| / w]
    ```
    The network sees the left image alone. Its maps times `largest` times their width w are the
    disparities d of both views, at four resolutions s to which the images are averaged down. Left
    is rebuilt from right and right from left; a pixel that would be read outside the other image
    is not valid and does not count.

    With `naive` the right image is rebuilt from the left one, with the only disparity that there
    is: that is aligned with the right image, which the network does not see, and is taken for the
    left image's in prediction. The paper shows what goes wrong: textures copied, edges displaced.

    Args:
        depth_network: images to maps in (0, 1), finest first, of two channels, left and right; one
            channel serves `naive`.
        views: `(rng, batch) -> batch` with 'image' and 'input' `[B, 2, H, W, C]`, left and right.
        ssim_weight: of the structural dissimilarity; the absolute difference has the rest.
        smoothness_weight: at the finest resolution, of the disparity as a fraction of the width.
        consistency_weight: of the difference between the disparities, as a fraction of the width.
        largest: disparity of a map of 1, as a fraction of the width.
        naive: see above.
    """

    def sides(maps: Array, pair: Array) -> Sides:
        """What is compared at the resolution of the maps `[B, h, w, K]`."""
        small = ops.resize(pair, maps.shape[1:3], method="area")
        disparity = largest * maps.shape[2] * jnp.moveaxis(maps, -1, 1)
        if naive:
            return Sides(small[:, 1:], small[:, :1], disparity[:, :1])
        return Sides(small, small[:, ::-1], disparity)

    def compared(target: Array, other: Array) -> Array:
        return losses.photometric_error(target, other, ssim_weight=ssim_weight)

    def init(rng: Array, batch: Batch) -> Variables:
        return Variables(*depth_network.init(rng, batch["input"][:, 0]), extra={})

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        PAIR.check(batch)
        maps, state = depth_network.apply(params, model_state, batch["input"][:, 0], True)
        terms = dict.fromkeys(("photometric", "smoothness", "consistency", "chance"), 0.0)
        valid = []
        for scale, level in enumerate(maps):
            width = level.shape[2]
            at = sides(level, batch["image"])
            image, inside = at.rebuilt()
            count = inside.shape[1]
            of_sides = jax.vmap(losses.masked_mean, in_axes=1)
            smoothness = losses.edge_aware_smoothness(at.disparity / width, at.image)
            terms["photometric"] += jnp.sum(of_sides(compared(at.image, image), inside))
            terms["smoothness"] += count * smoothness / 2**scale
            terms["chance"] += count * jnp.mean(compared(at.image, at.other))
            valid.append(jnp.mean(inside))
            if not naive:
                left, right = at.disparity[:, 0], at.disparity[:, 1]
                terms["consistency"] += sum(
                    losses.masked_mean(error, inside) / width
                    for error, inside in losses.disparity_consistency(left, right)
                )
        value = terms["photometric"] + smoothness_weight * terms["smoothness"]
        if not naive:
            value = value + consistency_weight * terms["consistency"]
        metrics = {
            "photometric": terms["photometric"],
            "smoothness": terms["smoothness"],
            "valid": jnp.mean(jnp.stack(valid)),
            "disparity": jnp.mean(maps[0][..., 0]) * largest,
            "loss_at_chance": terms["chance"],
        }
        if not naive:
            metrics["consistency"] = terms["consistency"]
        return value, LossOutput(state, extra, jax.lax.stop_gradient(metrics))

    def predict(params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch) -> dict:
        images = augment.to_float(batch["image"][:, 0])
        maps = geometry.predict_maps(depth_network, params, model_state, images)
        disparity = largest * images.shape[2] * maps[..., 0]
        if "intrinsics" not in batch or "baseline" not in batch:
            return {"disparity": disparity}
        focal, baseline = batch["intrinsics"][:, 0, 0], jnp.abs(batch["baseline"])
        depth = ops.disparity_to_depth(disparity, focal[:, None, None], baseline[:, None, None])
        return {"disparity": disparity, "depth": depth}

    def show(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array
    ) -> dict[str, Array]:
        pair = augment.to_float(batch["image"])
        maps = geometry.predict_maps(depth_network, params, model_state, pair[:, 0])
        columns = {"image": pair[:, 0], "disparity": geometry.colors(maps[..., 0])}
        if pair.shape[1] < 2:
            return columns
        at = sides(maps, pair)
        images, inside = at.rebuilt()
        errors = compared(at.image, images) * inside
        images = jnp.where(inside[..., None], images, 0.0)
        for i, name in enumerate(("right",) if naive else ("left", "right")):
            columns[f"{name}, rebuilt"] = images[:, i]
            columns[f"{name}, error"] = geometry.pictured(errors[:, i])
        return columns

    return Method(
        views, init, loss, common.no_update, predict, show, common.trained_encoder, augment.to_float
    )


def build(config: ConfigDict, steps: int) -> Method:
    """Monodepth as the sections `model`, `data`, `augment` and `monodepth` of a config say."""
    knobs = dict(config.monodepth)
    outputs = 1 if knobs["naive"] else 2
    return monodepth(
        models.build_depth_network(config.model, outputs=outputs, **knobs.pop("decoder")),
        views=geometry.training_views(config.augment, PAIR),
        **knobs,
    )
