"""Monodepth2: depth from video, from stereo pairs, or from both, by the best of several sources.

Godard et al., Digging Into Self-Supervised Monocular Depth Estimation, ICCV 2019.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, losses, models, ops, ranges
from sslax.errors import UserError, check_choice
from sslax.methods.common import (
    Augmentation,
    knobs_of,
    merge_views,
    select_views,
    split_views,
)
from sslax.methods.depth import camera as cameras
from sslax.methods.depth import common, geometry
from sslax.methods.depth.camera import Kind
from sslax.methods.depth.common import Motion, Snippet
from sslax.models.compose import Network, Parts
from sslax.ranges import Fraction, NonNegative, Positive
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

POSES = ("separate", "shared")
TIE_NOISE = 1e-5  # standard deviation of what breaks ties between warped and unwarped sources


def monodepth2(
    encoder: Model,
    decoder: Model,
    pose: Model | None = None,
    *,
    augmentation: Augmentation,
    share_encoder: bool = False,
    frames: int = 3,
    stereo: bool = False,
    minimum: bool = True,
    automask: bool = True,
    full_resolution: bool = True,
    ssim_weight: Fraction = 0.85,
    smoothness_weight: NonNegative = 1e-3,
    velocity_weight: NonNegative = 0.0,
    consistency_weight: NonNegative = 0.0,
    min_depth: Positive = 0.1,
    max_depth: Positive = 100.0,
    camera: Kind = "given",
) -> Method:
    """Monodepth2.

    ```
    loss = mean_s [mean over seen pixels of min(min_n pe(I, Î_n), min_n pe(I, I_n))
                   + 1e-3 / 2^s smoothness(σ / mean σ, I)]
    pe   = 0.85 mean_c (1 - SSIM) / 2 + 0.15 mean_c |I - Î|
    ```
    The sources I_n are the other frames of a video (M), the right-hand partner (S), or all of them
    (MS); Î_n is source n sampled where the target's depth and the pose put each pixel. A source
    does not compete where its point is outside its image or behind its camera, and a pixel that no
    source sees does not count. A pixel that no warp explains better than the unwarped sources do
    has no gradient: the automask. Noise breaks ties, as under zero motion. The partner's pose is
    the baseline in meters, so depth is metric with stereo; video alone leaves its scale arbitrary.

    The further terms, off by default:

    ```
    velocity     w_v mean_n |‖t_n‖ - distance_n|                     over the source frames
    consistency  w_c mean over valid |z - z'(p')| / (z + z'(p'))     with stereo
    ```
    with z the target's depth, which in a rectified pair is the depth in the partner's camera, too,
    and z'(p') the depth predicted from the partner's image, sampled where it sees the target's
    pixel p. Both get the gradient.

    Args:
        encoder: images to an `Encoding`.
        decoder: {'stages', 'like'} to maps σ in (0, 1), finest first, of one channel.
        pose: two frames stacked on the channels, in order of time, to twists `[N, 1, 6]` from the
            first's camera to the second's; with `share_encoder`, {'stages'} with the encoder's last
            stage of both, `[N, 2, h, w, C]`, to the same; with a camera "per_image", to a pair of
            that and of intrinsics (see `sslax.models.pose`). None for a single frame.
        augmentation: adds 'frames' and 'input' `[B, V, H, W, C]`; the batch has 'intrinsics', if
            the camera is given, and 'baseline' with stereo.
        share_encoder: depth and pose read the same encoder, which sees each image once.
        frames: S, the target at S // 2; 1 for stereo alone.
        stereo: the target's partner comes last.
        minimum: each pixel counts with its best source; otherwise with the mean over the sources.
        automask: see above.
        full_resolution: maps are enlarged to the images' size; otherwise images are averaged down
            to the maps'.
        ssim_weight: of the structural dissimilarity; the absolute difference has the rest.
        smoothness_weight: at the finest scale.
        velocity_weight: w_v; needs 'distance' `[B, S]` in meters.
        consistency_weight: w_c; needs stereo.
        min_depth, max_depth: depths at σ = 1 and 0; meters with stereo. Depth starts at σ = 1/2,
            nearly 2 min_depth: the partner must see points that near, or there is no gradient.
        camera: "given" with the data, as in the paper, or learned from several frames: see
            `sslax.methods.depth.camera`.

    Raises:
        UserError: there is no source, no pose network for several frames, no stereo for
            `consistency_weight`, or a single frame to learn the camera from.
    """
    snippet = Snippet(frames, stereo)
    knobs = Knobs(
        snippet=snippet,
        share_encoder=share_encoder and frames > 1,
        minimum=minimum,
        automask=automask,
        full_resolution=full_resolution,
        ssim_weight=ssim_weight,
        smoothness_weight=smoothness_weight,
        velocity_weight=velocity_weight,
        consistency_weight=consistency_weight,
        min_depth=min_depth,
        max_depth=max_depth,
        camera=camera,
    )
    _check_sources(knobs, pose)
    needed = [
        *["intrinsics"] * (camera == "given"),
        *["baseline"] * stereo,
        *["distance"] * (velocity_weight > 0),
    ]
    parts = {"encoder": encoder, "decoder": decoder, **cameras.parts(camera)}
    network = Network({**parts, "pose": pose} if pose and frames > 1 else parts)
    forward = partial(estimate, knobs=knobs)

    def network_input(batch: Batch) -> Array:
        """The images whose depth or motion the loss needs."""
        snippet.check(batch, *needed)
        return batch["input"] if consistency_weight else batch["input"][:, :frames]

    def init(rng: Array, batch: Batch) -> Variables:
        return network.init(forward, rng, network_input(batch))

    def loss(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        outputs, variables = network.apply(forward, variables, network_input(batch), train=True)
        _, motion = outputs
        learned = motion.intrinsics if motion else None
        batch = {**batch, "intrinsics": cameras.of_frames(learned, batch, camera)}
        value, metrics = snippet_loss(*outputs, batch, rng, knobs)
        metrics |= cameras.metrics(learned, batch["frames"])
        metrics = jax.lax.stop_gradient(metrics)
        return value, LossOutput(variables.model_state, variables.extra, metrics)

    return common.video_method(
        network,
        snippet,
        Depth(frames=frames, metric=stereo or velocity_weight > 0),
        augmentation=cameras.with_probes(augmentation, camera),
        init=init,
        loss=loss,
        to_depth=lambda maps: to_depth(maps[..., 0], knobs),
        motion=partial(estimate_motion, knobs=knobs) if frames > 1 else None,
        to_poses=partial(frame_poses, snippet=snippet),
        reconstructions=partial(reconstructions, knobs=knobs),
    )


class Knobs(NamedTuple):
    """The images of an example, and the arguments of `monodepth2` of the same names."""

    snippet: Snippet
    share_encoder: bool
    minimum: bool
    automask: bool
    full_resolution: bool
    ssim_weight: float
    smoothness_weight: float
    velocity_weight: float
    consistency_weight: float
    min_depth: float
    max_depth: float
    camera: Kind

    @property
    def depth_indices(self) -> list[int]:
        """Indices of the images whose depth the loss needs: the target, perhaps its partner."""
        partner = [self.snippet.partner_index] * (self.consistency_weight > 0)
        return [self.snippet.target_index, *partner]


def _check_sources(knobs: Knobs, pose: Model | None) -> None:
    snippet = knobs.snippet
    if not snippet.sources:
        raise UserError("One frame without stereo has no source: set data.frames or data.stereo.")
    if snippet.source_frames and pose is None:
        raise UserError(f"{snippet.frames} frames need a pose network.")
    if knobs.velocity_weight and not snippet.source_frames:
        raise UserError("config.monodepth2.velocity_weight needs config.data.frames of 2 or more.")
    if knobs.consistency_weight and not snippet.stereo:
        raise UserError("config.monodepth2.consistency_weight needs config.data.stereo=True.")
    if knobs.camera != "given" and not snippet.source_frames:
        raise UserError(
            f'config.monodepth2.camera="{knobs.camera}" is learned from video: set '
            'config.data.frames to 2 or more, or the camera to "given".'
        )
    if knobs.min_depth >= knobs.max_depth:
        raise UserError(
            f"config.monodepth2.min_depth = {knobs.min_depth} must be less than max_depth = "
            f"{knobs.max_depth}."
        )


# Forward passes.


def estimate(net: Parts, images: Array, knobs: Knobs) -> tuple[tuple[Array, ...], Motion | None]:
    """Forward pass of training.

    Args:
        net: parts `encoder`, `decoder` and, with several frames, `pose`.
        images: `[B, V, H, W, C]`, the frames, and the partner if its depth is needed.
        knobs: of the method.

    Returns:
        Maps `[B·T, h, w, 1]`, finest first, of the T images of `depth_indices`; and the motion as
        `estimate_motion` returns it, None for a single frame.
    """
    snippet, like = knobs.snippet, merge_views(select_views(images, knobs.depth_indices))
    if not knobs.share_encoder:
        maps = common.depth_maps(net, like)
        frames = images[:, : snippet.frames]
        return maps, estimate_motion(net, frames, knobs) if snippet.source_frames else None
    stages = encode_each(net, images)
    chosen = {
        name: merge_views(select_views(stage, knobs.depth_indices))
        for name, stage in stages.items()
    }
    maps = net.decoder({"stages": chosen, "like": like})
    return maps, motion_from_stages(net, stages, images, knobs)


def estimate_motion(net: Parts, frames: Array, knobs: Knobs) -> Motion:
    """Forward pass from frames `[B, S, H, W, C]` to the twists of all pairs `[B·(S - 1), 1, 6]`."""
    if knobs.share_encoder:
        return motion_from_stages(net, encode_each(net, frames), frames, knobs)
    pairs = merge_views(frame_pairs(frames, knobs.snippet))
    output = net.pose(jnp.concatenate([pairs[:, 0], pairs[:, 1]], axis=-1))
    return Motion(*cameras.separate(output, net, frames, knobs.camera))


def encode_each(net: Parts, images: Array) -> dict[str, Array]:
    """Stages `[B, V, h, w, C]` of images `[B, V, H, W, C]`."""
    stages = net.encoder(merge_views(images)).stages
    return {name: split_views(stage, images.shape[1]) for name, stage in stages.items()}


def motion_from_stages(net: Parts, stages: dict[str, Array], images: Array, knobs: Knobs) -> Motion:
    """Twists of all pairs `[B·(S - 1), 1, 6]` from the encoder's last stage of the images."""
    name, stage = list(stages.items())[-1]
    output = net.pose({"stages": {name: merge_views(frame_pairs(stage, knobs.snippet))}})
    return Motion(*cameras.separate(output, net, images, knobs.camera))


def frame_pairs(images: Array, snippet: Snippet) -> Array:
    """Each source frame with the target, in order of time.

    Args:
        images: `[B, V, ...]`, images or stages.
        snippet: which frames there are.

    Returns:
        `[B, S - 1, 2, ...]`.
    """
    target = snippet.target_index
    pairs = [sorted((i, target)) for i in snippet.source_frames]
    return jnp.stack([select_views(images, pair) for pair in pairs], axis=1)


# Depth and poses.


def to_depth(maps: Array, knobs: Knobs) -> Array:
    """Depth of maps σ, of any shape."""
    return ops.sigmoid_to_depth(maps, min_depth=knobs.min_depth, max_depth=knobs.max_depth)[1]


def frame_poses(twists: Array, snippet: Snippet) -> Array:
    """Poses `[B, S - 1, 4, 4]` from the target's camera to every source frame's.

    Args:
        twists: `[B·(S - 1), 1, 6]` of all pairs, from the earlier frame of each to the later one.
        snippet: which frames there are.
    """
    poses = split_views(geometry.pose_from_twist(twists[:, 0]), len(snippet.source_frames))
    # An earlier frame's pair leads from it to the target.
    earlier = jnp.array([i < snippet.target_index for i in snippet.source_frames])
    return jnp.where(earlier[:, None, None], ops.se3_inverse(poses), poses)


def source_poses(motion: Motion | None, batch: Batch, snippet: Snippet) -> Array:
    """Poses `[B, N, 4, 4]` from the target's camera to every source's."""
    poses = [] if motion is None else [frame_poses(motion.twists, snippet)]
    if snippet.stereo:
        poses.append(geometry.stereo_pose(batch["baseline"])[:, None])
    return jnp.concatenate(poses, axis=1)


# The loss.


def snippet_loss(
    maps: tuple[Array, ...], motion: Motion | None, batch: Batch, rng: Array, knobs: Knobs
) -> tuple[Array, Metrics]:
    """Monodepth2's loss and its metrics.

    Args:
        maps: `[B·T, h, w, 1]` each, as `estimate` returns them.
        motion: likewise; its camera is not read.
        batch: 'frames' `[B, V, H, W, C]`, 'intrinsics' `[B, 3, 3]`, 'index' `[B]`, and what the
            knobs need.
        rng: of the noise that breaks ties.
        knobs: of the method.
    """
    snippet, frames = knobs.snippet, batch["frames"]
    maps = tuple(split_views(level, len(knobs.depth_indices))[..., 0] for level in maps)
    own = tuple(level[:, 0] for level in maps)
    poses = source_poses(motion, batch, snippet)
    metrics = reprojection_metrics(own, poses, batch, rng, knobs)
    metrics["smoothness"] = smoothness(own, frames[:, snippet.target_index])
    metrics["inverse_depth"] = jnp.mean(1 / to_depth(own[0], knobs))
    value = metrics["photometric"] + knobs.smoothness_weight * metrics["smoothness"]
    to_frames = poses[:, : len(snippet.source_frames)]
    if snippet.source_frames:
        metrics["translation"] = jnp.mean(jnp.linalg.norm(to_frames[..., :3, 3], axis=-1))
    if knobs.velocity_weight:
        distance = select_views(batch["distance"], snippet.source_frames)
        metrics["velocity"] = geometry.velocity_error(to_frames, distance)
        value = value + knobs.velocity_weight * metrics["velocity"]
    if knobs.consistency_weight:
        target, partner = (to_depth(maps[0][:, i], knobs) for i in range(2))
        metrics["consistency"] = geometry.depth_consistency(
            target, partner, poses[:, -1], batch["intrinsics"]
        )
        value = value + knobs.consistency_weight * metrics["consistency"]
    return value, metrics


def reprojection_metrics(
    maps: tuple[Array, ...], poses: Array, batch: Batch, rng: Array, knobs: Knobs
) -> Metrics:
    """The photometric loss, the mean over all scales, and what goes with it.

    Args:
        maps: σ of the target, `[B, h, w]` each, finest first.
        poses: `[B, N, 4, 4]` from the target's camera to each source's.
        batch: 'frames', 'intrinsics' and 'index'.
        rng: of the noise that breaks ties.
        knobs: of the method.
    """
    terms = []
    levels = comparison_levels(maps, batch["frames"], batch["intrinsics"], knobs)
    for number, (level, level_maps) in enumerate(levels):
        keys = augment.batch_keys(jax.random.fold_in(rng, number), batch)
        noise = tie_noise(keys, level_maps.shape[1:])
        match = compare(level, level_maps, poses, noise, knobs)
        identity = jnp.broadcast_to(match.identity[:, None], match.error.shape)
        error = jnp.where(match.kept, match.error, identity)
        terms.append(
            {
                "photometric": jax.vmap(losses.masked_mean, in_axes=1)(error, match.seen),
                "automask": jnp.mean(match.kept, axis=(0, 2, 3)),
                "valid": jnp.mean(match.seen, axis=(0, 2, 3)),
                "loss_at_chance": jnp.mean(identity, axis=(0, 2, 3)),
            }  # [M] each
        )
    return jax.tree.map(jnp.mean, common.stack_scales(terms))


def comparison_levels(
    maps: tuple[Array, ...], frames: Array, intrinsics: Array, knobs: Knobs
) -> list[tuple[geometry.Level, Array]]:
    """Images with the maps `[B, M, h, w]` that are compared at their resolution.

    With `full_resolution`, one level of all maps, enlarged; otherwise a level for each map.

    Args:
        maps: σ of the target, `[B, h, w]` each, finest first.
        frames: `[B, V, H, W, C]`, the target and its sources.
        intrinsics: `[B, 3, 3]`, in pixels of the frames.
        knobs: of the method.
    """
    snippet = knobs.snippet
    target, sources = frames[:, snippet.target_index], select_views(frames, snippet.sources)
    if knobs.full_resolution:
        size = target.shape[1:3]
        large = [ops.resize(level[..., None], size)[..., 0] for level in maps]
        return [(geometry.Level(target, sources, intrinsics), jnp.stack(large, axis=1))]
    return [
        (geometry.make_level(target, sources, intrinsics, level.shape[1:]), level[:, None])
        for level in maps
    ]


def compare(
    level: geometry.Level, maps: Array, poses: Array, noise: Array | float, knobs: Knobs
) -> geometry.Comparison:
    """`geometry.compare` for maps σ `[B, M, h, w]`, as the knobs have it."""
    return geometry.compare(
        level,
        to_depth(maps, knobs),
        poses,
        ssim_weight=knobs.ssim_weight,
        minimum=knobs.minimum,
        automask=knobs.automask,
        noise=noise,
    )


def tie_noise(keys: Array, shape: tuple[int, ...]) -> Array:
    """Noise `[B, *shape]`, each example's from its own key: `augment.batch_keys`."""
    return TIE_NOISE * jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def smoothness(maps: tuple[Array, ...], target: Array) -> Array:
    """Edge-aware smoothness of mean-normalized maps, halved at each scale; the mean over scales.

    Args:
        maps: σ `[B, h, w]` each, finest first.
        target: their image `[B, H, W, C]`.
    """
    terms = []
    for level in maps:
        image = ops.resize(target, level.shape[1:3], method="area")
        terms.append(losses.edge_aware_smoothness(level, image, mean_normalize=True))
    return common.sum_halving(jnp.stack(terms)) / len(maps)


# Pictures.


def reconstructions(
    maps: Array, motion: Motion | None, images: Array, batch: Batch, knobs: Knobs
) -> Pictures:
    """The target from its best source, its errors and the automask.

    Args:
        maps: σ of the target, `[B, H, W, 1]`.
        motion: as `estimate_motion` returns it; None for a single frame.
        images: `[B, V, H, W, C]`, float.
        batch: 'intrinsics', and 'baseline' with stereo.
        knobs: of the method.
    """
    poses = source_poses(motion, batch, knobs.snippet)
    levels = comparison_levels((maps[..., 0],), images, batch["intrinsics"], knobs)
    match = compare(*levels[0], poses, 0.0, knobs)
    image, error = geometry.best_source(
        match.reconstructions[:, 0], match.errors[:, 0], match.valid[:, 0]
    )
    return {
        "reconstruction": image,
        "error": common.displayable(error),
        "error without a warp": common.displayable(match.identity),
        "automask": common.displayable(match.kept[:, 0]),
    }


def build(config: ConfigDict, steps: int) -> Method:
    """Monodepth2 from the sections `model`, `data`, `augment` and `monodepth2` of a config."""
    pose_kinds = {**ranges.kinds_of(models.build_pose_network), "kind": str}
    knobs = knobs_of(config, monodepth2, pose=pose_kinds, decoder=models.DepthDecoder)
    snippet = common.snippet_of(config)
    pose_knobs, decoder_knobs = knobs.pop("pose"), knobs.pop("decoder")
    kind = pose_knobs.pop("kind")
    check_choice("config.monodepth2.pose.kind", kind, POSES)
    share_encoder, pose = kind == "shared", None
    pose_knobs["camera"] = knobs.get("camera") == "per_image"
    if snippet.source_frames and share_encoder:
        width, dtype = pose_knobs["decoder_width"], jnp.dtype(config.model.dtype)
        pose = models.from_linen(models.PoseDecoder(1, width, dtype, pose_knobs["camera"]))
    elif snippet.source_frames:
        pose = models.build_pose_network(config.model, **pose_knobs)
    return monodepth2(
        models.build_encoder(config.model, stem_stage=True),
        models.build_depth_decoder(config.model, **decoder_knobs),
        pose,
        augmentation=common.build_augmentation(config.augment, snippet),
        share_encoder=share_encoder,
        frames=snippet.frames,
        stereo=snippet.stereo,
        **knobs,
    )
