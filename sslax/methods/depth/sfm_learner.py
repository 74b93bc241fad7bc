"""SfMLearner: depth and motion of the camera rebuild a frame from its neighbors in time.

Zhou et al., Unsupervised Learning of Depth and Ego-Motion from Video, CVPR 2017.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, losses, models
from sslax.methods import common
from sslax.methods.depth import geometry
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables


def sfm_learner(
    depth_network: Model,
    pose_network: Model,
    *,
    views: common.Views,
    frames: int = 3,
    smoothness_weight: float = 0.5,
    explainability_weight: float = 0.2,
) -> Method:
    """SfMLearner.

    ```
    loss = Σ_s { Σ_n [mean over valid e_n |I - Î_n| - λ_e mean log e_n] + 0.5 / 2^s smoothness(d) }
    ```
    The depth is 1 / d with d = 10 σ + 0.01. Frame n rebuilds the target at each resolution s, to
    which the images are averaged down; a pixel whose point is behind a camera or out of its frame
    is not valid and does not count. The explainability e_n in (0, 1) takes the weight from what
    does not fit; its cross-entropy with 1 keeps it from taking it from everything. Smoothness is
    the mean absolute second derivatives, edges or no edges.

    Args:
        depth_network: images to maps in (0, 1), finest first, of one channel.
        pose_network: frames stacked on the channels, the target first and then the others in order
            of time, to twists `[N, S - 1, 6]` from the target's camera to each other's; and, with
            explainability, to a pair of twists and logits `[N, h, w, S - 1]` of the maps' sizes.
        views: `(rng, batch) -> batch` with 'image' and 'input' `[B, S, H, W, C]` and 'intrinsics'.
        frames: S, the target at S // 2.
        smoothness_weight: at the finest resolution.
        explainability_weight: λ_e; 0 does without explainability.
    """
    snippet = geometry.Snippet(frames)
    explains = explainability_weight > 0

    def stacked(images: Array) -> Array:
        """Frames `[B, S, H, W, C]` on the channels, the target first."""
        order = [snippet.target, *snippet.others]
        return jnp.concatenate([images[:, i] for i in order], axis=-1)

    def inverse_depth(maps: Array) -> Array:
        return 10.0 * maps[..., 0] + 0.01

    def motions(
        params: PyTree, model_state: PyTree, images: Array, train: bool
    ) -> tuple[Array, tuple[Array, ...], PyTree]:
        """Poses `[B, S - 1, 4, 4]`, logits of explainability, finest first, and the state."""
        output, state = pose_network.apply(
            params["pose"], model_state["pose"], stacked(images), train
        )
        twists, logits = output if explains else (output, ())
        return geometry.pose_of(twists), logits, state

    def compared(maps: Array, images: Array, poses: Array, intrinsics: Array) -> tuple:
        """Level, reconstructions, errors and where valid, at the resolution of the maps."""
        target, others = images[:, snippet.target], images[:, jnp.array(snippet.others)]
        level = geometry.level_of(target, others, intrinsics, maps.shape[1:3])
        rebuilt, valid = geometry.reproject(level, 1 / inverse_depth(maps)[:, None], poses)
        rebuilt, valid = rebuilt[:, 0], valid[:, 0]
        errors = losses.photometric_error(level.target[:, None], rebuilt, ssim_weight=0.0)
        return level, rebuilt, errors, valid

    def init(rng: Array, batch: Batch) -> Variables:
        snippet.check(batch, "intrinsics")
        keys = jax.random.split(rng)
        params, state = depth_network.init(keys[0], batch["input"][:, snippet.target])
        of_pose = pose_network.init(keys[1], stacked(batch["input"]))
        return Variables({**params, "pose": of_pose[0]}, {**state, "pose": of_pose[1]}, extra={})

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        snippet.check(batch, "intrinsics")
        maps, state = depth_network.apply(
            geometry.of_depth(params),
            geometry.of_depth(model_state),
            batch["input"][:, snippet.target],
            True,
        )
        poses, logits, pose_state = motions(params, model_state, batch["input"], True)
        photometric = smoothness = regularization = chance = 0.0
        explained, seen = [], []
        for scale, level_maps in enumerate(maps):
            level, _, errors, valid = compared(
                level_maps, batch["image"], poses, batch["intrinsics"]
            )
            still = losses.photometric_error(level.target[:, None], level.sources, ssim_weight=0.0)
            chance += jnp.sum(jnp.mean(still, axis=(0, 2, 3)))
            if explains:
                weight = jax.nn.sigmoid(jnp.moveaxis(logits[scale], -1, 1))
                errors = weight * errors
                explained.append(jnp.mean(weight))
                entropy = losses.explainability_regularization(logits[scale])
                regularization += jnp.sum(jnp.mean(entropy, axis=(0, 1, 2)))
            photometric += jnp.sum(jax.vmap(losses.masked_mean, in_axes=1)(errors, valid))
            seen.append(jnp.mean(valid))
            smoothness += (
                losses.edge_aware_smoothness(
                    inverse_depth(level_maps),
                    level.target,
                    order=2,
                    edge_weight=0.0,
                    cross_terms=True,
                )
                / 2**scale
            )
        value = (
            photometric + smoothness_weight * smoothness + explainability_weight * regularization
        )
        metrics = {
            "photometric": photometric,
            "smoothness": smoothness,
            "valid": jnp.mean(jnp.stack(seen)),
            "inverse_depth": jnp.mean(inverse_depth(maps[0])),
            "translation": jnp.mean(jnp.linalg.norm(poses[..., :3, 3], axis=-1)),
            "loss_at_chance": chance,
        }
        if explains:
            metrics["explained"] = jnp.mean(jnp.stack(explained))
        state = {**state, "pose": pose_state}
        return value, LossOutput(state, extra, jax.lax.stop_gradient(metrics))

    def predict(params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch) -> dict:
        images = augment.to_float(batch["image"])
        target = images[:, snippet.place(images)]
        maps = geometry.predict_maps(depth_network, params, model_state, target)
        predictions = {"depth": 1 / inverse_depth(maps)}
        if images.shape[1] >= frames:
            poses, _, _ = motions(params, model_state, images[:, :frames], False)
            predictions["pose"] = geometry.with_target(poses, snippet)
        return predictions

    def show(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array
    ) -> dict[str, Array]:
        images = augment.to_float(batch["image"])
        target = images[:, snippet.place(images)]
        maps = geometry.predict_maps(depth_network, params, model_state, target)
        columns = {"image": target, "disparity": geometry.colors(inverse_depth(maps))}
        if images.shape[1] < frames or "intrinsics" not in batch:
            return columns
        images = images[:, :frames]
        poses, logits, _ = motions(params, model_state, images, False)
        _, rebuilt, errors, valid = compared(maps, images, poses, batch["intrinsics"])
        image, error = geometry.best_source(rebuilt, errors, valid)
        columns |= {"rebuilt": image, "error": geometry.pictured(error)}
        if explains:
            weight = jax.nn.sigmoid(logits[0])
            columns["explained"] = jnp.mean(weight, axis=-1, keepdims=True)
        return columns

    return Method(
        views, init, loss, common.no_update, predict, show, common.trained_encoder, augment.to_float
    )


def build(config: ConfigDict, steps: int) -> Method:
    """SfMLearner as the sections `model`, `data`, `augment` and `sfm_learner` of a config say."""
    knobs = dict(config.sfm_learner)
    snippet = geometry.snippet_of(config)
    return sfm_learner(
        models.build_depth_network(config.model, **knobs.pop("decoder")),
        models.build_pose_network(
            config.model,
            **knobs.pop("pose"),
            frames=snippet.frames,
            explainability=knobs["explainability_weight"] > 0,
        ),
        views=geometry.training_views(config.augment, snippet),
        frames=snippet.frames,
        **knobs,
    )
