"""Monodepth2: depth from video, from stereo pairs, or from both, by the best of several sources.

Godard et al., Digging Into Self-Supervised Monocular Depth Estimation, ICCV 2019.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, losses, models, ops
from sslax.errors import UserError
from sslax.methods import common
from sslax.methods.depth import geometry
from sslax.types import Array, Batch, LossOutput, Method, Metrics, Model, PyTree, Variables

POSES = ("separate", "shared")
TIE_NOISE = 1e-5  # standard deviation of what breaks ties between warped and unmoved sources


def monodepth2(
    depth_network: Model,
    pose_network: Model | None = None,
    *,
    views: common.Views,
    encoder: Model | None = None,
    frames: int = 3,
    stereo: bool = False,
    minimum: bool = True,
    automask: bool = True,
    full_resolution: bool = True,
    ssim_weight: float = 0.85,
    smoothness_weight: float = 1e-3,
    velocity_weight: float = 0.0,
    consistency_weight: float = 0.0,
    min_depth: float = 0.1,
    max_depth: float = 100.0,
) -> Method:
    """Monodepth2.

    ```
    loss = mean_s [mean over seen pixels of min(min_n pe(I, Î_n), min_n pe(I, I_n))
                   + 1e-3 / 2^s smoothness(σ / mean σ, I)]
    pe   = 0.85 mean_c (1 - SSIM) / 2 + 0.15 mean_c |I - Î|
    ```
    The sources I_n are the other frames of a video (M), the right-hand partner (S), or all of them
    (MS). Î_n is source n read where the target's depth and the pose put it. A source that is read
    outside its frame or behind its camera does not compete, and a pixel that no source sees does
    not count. Where no warp is better than the sources as they are, the pixel has no gradient: the
    automask. Ties, as under zero motion, are broken by noise. The partner's pose is the baseline
    in meters, and so depth is metric with stereo; with video alone its scale is arbitrary.

    The further terms, off by default:

    ```
    velocity     w_v mean_n |‖t_n‖ - distance_n|                     over the other frames
    consistency  w_c mean over valid |z - z'(p')| / (z + z'(p'))     with stereo
    ```
    with the target's depth z, which is that of the partner's too in a rectified pair, and z'(p')
    the depth that the network makes of the partner's image, read where the target's pixel is seen
    in it; both get the gradient.

    Args:
        depth_network: images to maps σ in (0, 1), finest first, of one channel; with `encoder`,
            also {'stages', 'like'} to the same (see `models.encoder_decoder`).
        pose_network: two frames on the channels, in order of time, to twists `[N, 1, 6]` from the
            first's camera to the second's; or, with `encoder`, {'stages'} of both `[N, 2, h, w, C]`
            to the same. None where there is one frame only.
        views: `(rng, batch) -> batch` with 'image' and 'input' `[B, V, H, W, C]`, 'intrinsics', and
            'baseline' with stereo.
        encoder: the depth network's, a pose network of whose last stage shares it; None for a pose
            network with an encoder of its own.
        frames: S, the target at S // 2; 1 for stereo alone.
        stereo: whether the target's partner comes last.
        minimum: the best source of each pixel; otherwise the mean over the sources.
        automask: see above.
        full_resolution: maps are enlarged to the images' size; otherwise images are averaged down
            to the maps'.
        ssim_weight: of the structural dissimilarity; the absolute difference has the rest.
        smoothness_weight: at the finest scale.
        velocity_weight: w_v; needs 'distance' `[B, S]` in meters.
        consistency_weight: w_c; needs stereo.
        min_depth, max_depth: depths at σ = 1 and 0; meters with stereo. Depth starts at σ = 1/2,
            nearly 2 min_depth: a pixel must then be seen in the partner's frame, or nothing moves.

    Raises:
        UserError: there is no source, no pose network for several frames, or no stereo for
            `consistency_weight`.
    """
    snippet = geometry.Snippet(frames, stereo)
    moving = len(snippet.others) > 0
    if not snippet.sources:
        raise UserError("One frame without stereo has no source: set data.frames or data.stereo.")
    if moving and pose_network is None:
        raise UserError(f"{frames} frames need a pose network.")
    if velocity_weight and not moving:
        raise UserError("config.monodepth2.velocity_weight needs config.data.frames of 2 or more.")
    if consistency_weight and not stereo:
        raise UserError("config.monodepth2.consistency_weight needs config.data.stereo=True.")
    cameras = ["intrinsics", *["baseline"] * stereo]
    needed = cameras + ["distance"] * (velocity_weight > 0)

    def depth_of(maps: Array) -> Array:
        return ops.sigmoid_to_depth(maps, min_depth=min_depth, max_depth=max_depth)[1]

    def pairs(images: Array) -> Array:
        """Every other frame with the target, in order of time: `[B, S - 1, 2, H, W, C]`."""
        target = snippet.target
        order = [(min(i, target), max(i, target)) for i in snippet.others]
        return images[:, jnp.array(order)]

    def of_places(images: Array, places: list[int]) -> Array:
        """Some of the images `[B, V, ...]`, merged."""
        return common.merge_views(jnp.stack([images[:, i] for i in places], axis=1))

    def of_pairs(
        params: PyTree, state: PyTree, images: Array, train: bool
    ) -> tuple[PyTree, PyTree, dict[str, Array]]:
        """What the pose network is given: pairs `[B·(S - 1), ...]`; the state; and, of an encoder
        that depth shares, its stages of all images, `[B, V, h, w, C]` each."""
        if encoder is None:
            merged = common.merge_views(pairs(images))  # [B·(S - 1), 2, H, W, C]
            return jnp.concatenate([merged[:, 0], merged[:, 1]], axis=-1), state, {}
        merged = common.merge_views(images)
        encoding, new = encoder.apply(params["encoder"], state["encoder"], merged, train)
        stages = {k: common.split_views(v, images.shape[1]) for k, v in encoding.stages.items()}
        name, stage = list(stages.items())[-1]
        last = {"stages": {name: common.merge_views(pairs(stage))}}
        return last, {**state, "encoder": new}, stages

    def motions(
        params: PyTree, state: PyTree, images: Array, train: bool
    ) -> tuple[Array, PyTree, dict[str, Array]]:
        """Poses from the target to every other frame, `[B, S - 1, 4, 4]`; and as `of_pairs`."""
        inputs, state, stages = of_pairs(params, state, images, train)
        twists, pose_state = pose_network.apply(params["pose"], state["pose"], inputs, train)
        poses = common.split_views(geometry.pose_of(twists[:, 0]), len(snippet.others))
        # Of an earlier frame and the target the network says how the former becomes the latter.
        earlier = jnp.array([i < snippet.target for i in snippet.others])[:, None, None]
        poses = jnp.where(earlier, ops.se3_inverse(poses), poses)
        return poses, {**state, "pose": pose_state}, stages

    def all_poses(
        params: PyTree, state: PyTree, images: Array, batch: Batch, train: bool
    ) -> tuple[Array, PyTree, dict[str, Array]]:
        """Poses from the target to every source, `[B, N, 4, 4]`; and as `of_pairs`."""
        poses, stages = [], {}
        if moving:
            of_frames, state, stages = motions(params, state, images, train)
            poses.append(of_frames)
        if stereo:
            poses.append(geometry.stereo_pose(batch["baseline"])[:, None])
        return jnp.concatenate(poses, axis=1), state, stages

    def levels(maps: tuple[Array, ...], batch: Batch) -> list[tuple[geometry.Level, Array]]:
        """Images with the maps `[B, M, h, w]` that are compared at their resolution."""
        image = batch["image"]
        target, sources = image[:, snippet.target], image[:, jnp.array(snippet.sources)]
        size = target.shape[1:3]
        if full_resolution:
            maps = [jnp.stack([ops.resize(level, size)[..., 0] for level in maps], axis=1)]
        else:
            maps = [level[:, None, ..., 0] for level in maps]
        return [
            (geometry.level_of(target, sources, batch["intrinsics"], level.shape[2:]), level)
            for level in maps
        ]

    def compare(
        level: geometry.Level, maps: Array, poses: Array, noise: Array | float
    ) -> geometry.Comparison:
        return geometry.compare(
            level,
            depth_of(maps),
            poses,
            ssim_weight=ssim_weight,
            minimum=minimum,
            automask=automask,
            noise=noise,
        )

    def tie_noise(rng: Array, batch: Batch, shape: tuple[int, ...]) -> Array:
        """Of each example by itself, so that its place and the devices do not matter."""
        keys = geometry.example_keys(rng, batch)
        return TIE_NOISE * jax.vmap(lambda key: jax.random.normal(key, shape))(keys)

    def best_reprojection(
        maps: tuple[Array, ...], poses: Array, batch: Batch, rng: Array
    ) -> tuple[Array, Metrics]:
        """The photometric loss, the mean over all scales, and its metrics."""
        parts = []
        for number, (level, depths) in enumerate(levels(maps, batch)):
            noise = tie_noise(jax.random.fold_in(rng, number), batch, depths.shape[1:])
            made = compare(level, depths, poses, noise)
            identity = jnp.broadcast_to(made.identity[:, None], made.error.shape)
            error = jnp.where(made.kept, made.error, identity)
            part = {
                "photometric": jax.vmap(losses.masked_mean, in_axes=1)(error, made.seen),
                "automask": jnp.mean(made.kept, axis=(0, 2, 3)),
                "valid": jnp.mean(made.seen, axis=(0, 2, 3)),
                "loss_at_chance": jnp.mean(identity, axis=(0, 2, 3)),
            }  # [M] each
            parts.append(part)
        metrics = {name: jnp.mean(jnp.stack([part[name] for part in parts])) for name in parts[0]}
        return metrics["photometric"], metrics

    def smoothness_of(maps: tuple[Array, ...], target: Array) -> Array:
        total = 0.0
        for scale, level in enumerate(maps):
            image = ops.resize(target, level.shape[1:3], method="area")
            smoothness = losses.edge_aware_smoothness(level, image, mean_normalize=True)
            total += smoothness / 2**scale
        return total / len(maps)

    def init(rng: Array, batch: Batch) -> Variables:
        snippet.check(batch, *needed)
        keys = jax.random.split(rng)
        params, state = depth_network.init(keys[0], batch["input"][:, snippet.target])
        if not moving:
            return Variables(params, state, extra={})
        inputs, _, _ = of_pairs(params, state, batch["input"][:, :frames], False)
        of_pose = pose_network.init(keys[1], inputs)
        return Variables({**params, "pose": of_pose[0]}, {**state, "pose": of_pose[1]}, extra={})

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        snippet.check(batch, *needed)
        images = batch["input"] if consistency_weight else batch["input"][:, :frames]
        poses, state, stages = all_poses(params, model_state, images, batch, True)
        places = [snippet.target, *[frames] * bool(consistency_weight)]
        seen = of_places(images, places)
        if stages:
            encoded = {name: of_places(stage, places) for name, stage in stages.items()}
            seen = {"stages": encoded, "like": seen}
        outputs, depth_state = depth_network.apply(
            geometry.of_depth(params), geometry.of_depth(state), seen, True
        )
        outputs = [common.split_views(level, len(places)) for level in outputs]
        maps = tuple(level[:, 0] for level in outputs)

        photometric, metrics = best_reprojection(maps, poses, batch, rng)
        smoothness = smoothness_of(maps, batch["image"][:, snippet.target])
        value = photometric + smoothness_weight * smoothness
        metrics |= {
            "smoothness": smoothness,
            "inverse_depth": jnp.mean(1 / depth_of(maps[0])),
        }
        if moving:
            of_frames = poses[:, : len(snippet.others)]
            metrics["translation"] = jnp.mean(jnp.linalg.norm(of_frames[..., :3, 3], axis=-1))
        if velocity_weight:
            distance = batch["distance"][:, jnp.array(snippet.others)]
            metrics["velocity"] = geometry.velocity_error(of_frames, distance)
            value = value + velocity_weight * metrics["velocity"]
        if consistency_weight:
            own, partner = (depth_of(outputs[0][:, i, ..., 0]) for i in range(2))
            metrics["consistency"] = geometry.depth_consistency(
                own, partner, poses[:, -1], batch["intrinsics"]
            )
            value = value + consistency_weight * metrics["consistency"]
        state = {**state, **depth_state}
        return value, LossOutput(state, extra, jax.lax.stop_gradient(metrics))

    def predict(params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch) -> dict:
        images = augment.to_float(batch["image"])
        target = images[:, snippet.place(images)]
        maps = geometry.predict_maps(depth_network, params, model_state, target)
        predictions = {"depth": depth_of(maps[..., 0])}
        if moving and images.shape[1] >= frames:
            poses, *_ = motions(params, model_state, images[:, :frames], False)
            predictions["pose"] = geometry.with_target(poses, snippet)
        return predictions

    def show(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array
    ) -> dict[str, Array]:
        images = augment.to_float(batch["image"])
        target = images[:, snippet.place(images)]
        maps = geometry.predict_maps(depth_network, params, model_state, target)
        columns = {"image": target, "disparity": geometry.colors(1 / depth_of(maps[..., 0]))}
        if images.shape[1] != snippet.images or any(k not in batch for k in cameras):
            return columns
        batch = {**batch, "image": images}
        poses, *_ = all_poses(params, model_state, images[:, :frames], batch, False)
        ((level, depths),) = levels((maps,), batch)
        made = compare(level, depths, poses, 0.0)
        image, error = geometry.best_source(made.rebuilt[:, 0], made.errors[:, 0], made.valid[:, 0])
        columns |= {"rebuilt": image, "error": geometry.pictured(error)}
        columns["error without a warp"] = geometry.pictured(made.identity)
        return columns | {"automask": geometry.pictured(made.kept[:, 0])}

    return Method(
        views, init, loss, common.no_update, predict, show, common.trained_encoder, augment.to_float
    )


def build(config: ConfigDict, steps: int) -> Method:
    """Monodepth2 as the sections `model`, `data`, `augment` and `monodepth2` of a config say."""
    knobs = dict(config.monodepth2)
    snippet = geometry.snippet_of(config)
    pose, decoder = dict(knobs.pop("pose")), knobs.pop("decoder")
    kind = pose.pop("kind")
    if kind not in POSES:
        raise UserError(f'config.monodepth2.pose.kind is "{kind}"; choose one of {POSES}.')
    encoder = pose_network = None
    if snippet.others and kind == "shared":
        encoder = models.build_encoder(config.model, stem_stage=True)
        decoder_width, dtype = pose["decoder_width"], jnp.dtype(config.model.dtype)
        pose_network = models.from_linen(models.PoseDecoder(1, decoder_width, dtype))
    elif snippet.others:
        pose_network = models.build_pose_network(config.model, **pose)
    return monodepth2(
        models.build_depth_network(config.model, **decoder),
        pose_network,
        views=geometry.training_views(config.augment, snippet),
        encoder=encoder,
        frames=snippet.frames,
        stereo=snippet.stereo,
        **knobs,
    )
