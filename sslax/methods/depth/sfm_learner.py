"""SfMLearner: depth and ego-motion reconstruct a frame from its neighbors in time.

Zhou et al., Unsupervised Learning of Depth and Ego-Motion from Video, CVPR 2017.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods.common import Augmentation, knobs_of, select_views
from sslax.methods.depth import camera as cameras
from sslax.methods.depth import common, geometry
from sslax.methods.depth.camera import Kind
from sslax.methods.depth.common import Motion, Snippet
from sslax.models.compose import Network, Parts
from sslax.ranges import NonNegative
from sslax.types import (
    Array,
    Batch,
    Depth,
    LossOutput,
    Method,
    Metrics,
    Model,
    Pictures,
    Variables,
)


def sfm_learner(
    encoder: Model,
    decoder: Model,
    pose: Model,
    *,
    augmentation: Augmentation,
    frames: int = 3,
    smoothness_weight: NonNegative = 0.25,
    explainability_weight: NonNegative = 0.1,
    camera: Kind = "given",
) -> Method:
    """SfMLearner.

    ```
    loss = Σ_s { Σ_n [mean over valid e_n |I - Î_n| - λ_e mean log e_n] + λ_s / 2^s smoothness(d) }
    ```
    Depth is 1 / d with d = 10 σ + 0.01. The target is reconstructed from each source frame n at
    each scale s, to which the images are averaged down; a pixel whose point is behind the source's
    camera or outside its image is not valid and does not count. The explainability e_n in (0, 1)
    lowers the weight of what the reconstruction cannot explain; its cross-entropy with 1 keeps it
    from going to zero everywhere. Smoothness is the mean of the absolute second derivatives,
    whatever the image's edges.

    Args:
        encoder: images to an `Encoding`.
        decoder: {'stages', 'like'} to maps σ in (0, 1), finest first, of one channel.
        pose: frames stacked on the channels, the target first and then the source frames in order
            of time, to twists `[N, S - 1, 6]` from the target's camera to each source's; with
            explainability, to a pair of twists and logits `[N, h, w, S - 1]` at the maps' sizes;
            with a camera "per_image", to a pair of that and of intrinsics (see
            `sslax.models.pose`).
        augmentation: adds 'frames' and 'input' `[B, S, H, W, C]`; the batch has 'intrinsics', if
            the camera is given.
        frames: S, the target at S // 2.
        smoothness_weight: at the finest scale; the authors' 0.5, halved like the errors, because
            their images are in [-1, 1].
        explainability_weight: λ_e, the paper's 0.2, halved; 0 for no explainability masks.
        camera: "given" with the data, as in the paper, or learned: see
            `sslax.methods.depth.camera`.
    """
    snippet = Snippet(frames)
    needed = ["intrinsics"] * (camera == "given")
    parts = {"encoder": encoder, "decoder": decoder, "pose": pose}
    network = Network({**parts, **cameras.parts(camera)})

    def estimate_motion(net: Parts, images: Array) -> Motion:
        output = net.pose(stack_frames(images, snippet))
        output, intrinsics = cameras.separate(output, net, images, camera)
        twists, logits = output if explainability_weight > 0 else (output, ())
        return Motion(twists, intrinsics, logits)

    def forward(net: Parts, images: Array) -> tuple[tuple[Array, ...], Motion]:
        return common.depth_maps(net, images[:, snippet.target_index]), estimate_motion(net, images)

    def init(rng: Array, batch: Batch) -> Variables:
        snippet.check(batch, *needed)
        return network.init(forward, rng, batch["input"])

    def loss(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        snippet.check(batch, *needed)
        outputs, variables = network.apply(forward, variables, batch["input"], train=True)
        _, motion = outputs
        value, metrics = snippet_loss(
            *outputs,
            batch["frames"],
            cameras.of_frames(motion.intrinsics, batch, camera),
            snippet,
            smoothness_weight=smoothness_weight,
            explainability_weight=explainability_weight,
        )
        metrics |= cameras.metrics(motion.intrinsics, batch["frames"])
        metrics = jax.lax.stop_gradient(metrics)
        return value, LossOutput(variables.model_state, variables.extra, metrics)

    def reconstructions(maps: Array, motion: Motion, images: Array, batch: Batch) -> Pictures:
        poses = geometry.pose_from_euler(motion.twists)
        match = reproject_frames(maps, images, batch["intrinsics"], poses, snippet)
        image, error = geometry.best_source(match.reconstructions, match.errors, match.valid)
        columns: Pictures = {"reconstruction": image, "error": common.displayable(error)}
        if motion.logits:
            explained = jax.nn.sigmoid(motion.logits[0])
            columns["explained"] = jnp.mean(explained, axis=-1, keepdims=True)
        return columns

    return common.video_method(
        network,
        snippet,
        Depth(frames=frames, metric=False),
        augmentation=cameras.with_probes(augmentation, camera),
        init=init,
        loss=loss,
        to_depth=lambda maps: 1 / inverse_depth(maps),
        motion=estimate_motion,
        to_poses=geometry.pose_from_euler,
        reconstructions=reconstructions,
    )


def stack_frames(frames: Array, snippet: Snippet) -> Array:
    """Frames `[B, S, H, W, C]` on the channels, the target first: `[B, H, W, S·C]`."""
    order = [snippet.target_index, *snippet.source_frames]
    return jnp.concatenate([frames[:, i] for i in order], axis=-1)


def inverse_depth(maps: Array) -> Array:
    """The network's maps `[B, h, w, 1]` as inverse depth `[B, h, w]`."""
    return 10.0 * maps[..., 0] + 0.01


class Reprojection(NamedTuple):
    """The target reconstructed from each source frame, at one resolution.

    Attributes:
        level: images and camera.
        reconstructions: `[B, S - 1, h, w, C]`.
        errors: `[B, S - 1, h, w]`, absolute differences.
        valid: `[B, S - 1, h, w]` bool, as `geometry.reproject` returns it.
    """

    level: geometry.Level
    reconstructions: Array
    errors: Array
    valid: Array


def reproject_frames(
    maps: Array, frames: Array, intrinsics: Array, poses: Array, snippet: Snippet
) -> Reprojection:
    """Reconstructs the target at the resolution of the maps.

    Args:
        maps: `[B, h, w, 1]` in (0, 1), the network's.
        frames: `[B, S, H, W, C]`.
        intrinsics: `[B, 3, 3]`, in pixels of the frames.
        poses: `[B, S - 1, 4, 4]` from the target's camera to each source frame's.
        snippet: which frame is the target.
    """
    target, sources = frames[:, snippet.target_index], select_views(frames, snippet.source_frames)
    level = geometry.make_level(target, sources, intrinsics, maps.shape[1:3])
    images, valid = geometry.reproject(level, 1 / inverse_depth(maps)[:, None], poses)
    images, valid = images[:, 0], valid[:, 0]
    errors = losses.photometric_error(level.target[:, None], images, ssim_weight=0.0)
    return Reprojection(level, images, errors, valid)


def scale_terms(maps: Array, match: Reprojection, logits: Array | None) -> Metrics:
    """The terms of the loss at one scale, before their weights; sums over the source frames.

    Args:
        maps: `[B, h, w, 1]`, the network's.
        match: reconstructions at their resolution.
        logits: `[B, h, w, S - 1]` of explainability; None for no masks.
    """
    target, sources = match.level.target[:, None], match.level.sources
    unwarped = losses.photometric_error(target, sources, ssim_weight=0.0)
    terms = {
        "smoothness": losses.edge_aware_smoothness(
            inverse_depth(maps), match.level.target, order=2, edge_weight=0.0, cross_terms=True
        ),
        "valid": jnp.mean(match.valid),
        "loss_at_chance": jnp.sum(jnp.mean(unwarped, axis=(0, 2, 3))),
    }
    errors = match.errors
    if logits is not None:
        explained = jax.nn.sigmoid(jnp.moveaxis(logits, -1, 1))
        errors = explained * errors
        entropy = losses.explainability_regularization(logits)
        terms["explained"] = jnp.mean(explained)
        terms["regularization"] = jnp.sum(jnp.mean(entropy, axis=(0, 1, 2)))
    per_source = jax.vmap(losses.masked_mean, in_axes=1)(errors, match.valid)
    return {**terms, "photometric": jnp.sum(per_source)}


def snippet_loss(
    maps: tuple[Array, ...],
    motion: Motion,
    frames: Array,
    intrinsics: Array,
    snippet: Snippet,
    *,
    smoothness_weight: float,
    explainability_weight: float,
) -> tuple[Array, Metrics]:
    """SfMLearner's loss and its metrics.

    Args:
        maps: `[B, h, w, 1]` each, finest first, the network's.
        motion: twists and, with explainability, logits at the maps' sizes; its camera is not read.
        frames: `[B, S, H, W, C]`.
        intrinsics: `[B, 3, 3]`, in pixels of the frames.
        snippet: which frame is the target.
        smoothness_weight: as in `sfm_learner`; likewise `explainability_weight`.
    """
    twists, logits = motion.twists, motion.logits
    poses = geometry.pose_from_euler(twists)
    scales = []
    for scale, level in enumerate(maps):
        match = reproject_frames(level, frames, intrinsics, poses, snippet)
        scales.append(scale_terms(level, match, logits[scale] if logits else None))
    terms = common.stack_scales(scales)
    metrics = {
        "photometric": jnp.sum(terms["photometric"]),
        "smoothness": common.sum_halving(terms["smoothness"]),
        "valid": jnp.mean(terms["valid"]),
        "inverse_depth": jnp.mean(inverse_depth(maps[0])),
        "translation": jnp.mean(jnp.linalg.norm(twists[..., :3], axis=-1)),
        "loss_at_chance": jnp.sum(terms["loss_at_chance"]),
    }
    value = metrics["photometric"] + smoothness_weight * metrics["smoothness"]
    if logits:
        metrics["explained"] = jnp.mean(terms["explained"])
        value = value + explainability_weight * jnp.sum(terms["regularization"])
    return value, metrics


def build(config: ConfigDict, steps: int) -> Method:
    """SfMLearner from the sections `model`, `data`, `augment` and `sfm_learner` of a config."""
    knobs = knobs_of(
        config, sfm_learner, pose=models.build_pose_network, decoder=models.DepthDecoder
    )
    snippet = common.snippet_of(config)
    pose = models.build_pose_network(
        config.model,
        **knobs.pop("pose"),
        frames=snippet.frames,
        explainability=knobs["decoder"]["scales"] if knobs["explainability_weight"] else 0,
        camera=knobs.get("camera") == "per_image",
    )
    return sfm_learner(
        models.build_encoder(config.model, stem_stage=True),
        models.build_depth_decoder(config.model, **knobs.pop("decoder")),
        pose,
        augmentation=common.build_augmentation(config.augment, snippet),
        frames=snippet.frames,
        **knobs,
    )
