"""What the methods share that learn depth and ego-motion from images.

B examples, S frames of a video with the target at S // 2, M depth maps of one target, and V images
of an example: the frames and, with stereo, the target's right-hand partner.
"""

from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sslax import augment, losses, ops
from sslax.errors import UserError
from sslax.methods import common
from sslax.types import Array, Batch, Model, PyTree


class Snippet(NamedTuple):
    """What an example's images are for: how many frames, and is there a partner?"""

    frames: int = 1
    stereo: bool = False

    @property
    def images(self) -> int:
        """V: the frames and the partner."""
        return self.frames + self.stereo

    @property
    def target(self) -> int:
        """The target's place."""
        return self.frames // 2

    @property
    def others(self) -> list[int]:
        """Places of the frames that are not the target; the partner is none of them."""
        return [i for i in range(self.frames) if i != self.target]

    @property
    def sources(self) -> list[int]:
        """Places of all images but the target: the other frames, then the partner."""
        return [i for i in range(self.images) if i != self.target]

    def check(self, batch: Batch, *needed: str) -> None:
        """The batch has the images of a snippet, and the arrays that are needed.

        Raises:
            UserError: it has not.
        """
        chex.assert_rank(batch["image"], 5)
        given = batch["image"].shape[1]
        if given != self.images:
            partner = " and the target's partner" if self.stereo else ""
            raise UserError(
                f"The method takes {self.frames} frame(s){partner} and each example has {given} "
                "image(s); set config.data.frames and config.data.stereo to what the data are."
            )
        for name in needed:
            if name not in batch:
                raise UserError(
                    f"The examples have no '{name}', which the method needs: name a file of "
                    "intrinsics, or choose a set of images that has it."
                )

    def place(self, images: Array) -> int:
        """The target's place among images `[B, V, ...]`; a lone image is the target.

        Raises:
            UserError: there are more images than one, and fewer than frames.
        """
        given = images.shape[1]
        if 1 < given < self.frames:
            raise UserError(f"Give one image or {self.frames} frames to predict from, not {given}.")
        return self.target if given >= self.frames else 0


# Geometry.


def pose_of(twist: Array) -> Array:
    """`[..., 6]`, a translation and an axis times an angle, to `[..., 4, 4]`."""
    return ops.rigid_transform(ops.so3_exp(twist[..., 3:]), twist[..., :3])


def stereo_pose(baseline: Array) -> Array:
    """From the target's camera to its partner's, `[B, 4, 4]`, `baseline [B]` to the right of it."""
    zero = jnp.zeros_like(baseline)
    translation = jnp.stack([-baseline, zero, zero], axis=-1)
    rotation = jnp.broadcast_to(jnp.eye(3), (*baseline.shape, 3, 3))
    return ops.rigid_transform(rotation, translation)


def with_target(poses: Array, snippet: Snippet) -> Array:
    """Poses `[B, S - 1, 4, 4]` to the other frames, and the identity in the target's place."""
    identity = jnp.broadcast_to(jnp.eye(4, dtype=poses.dtype), (len(poses), 1, 4, 4))
    place = snippet.target
    return jnp.concatenate([poses[:, :place], identity, poses[:, place:]], axis=1)


class Level(NamedTuple):
    """Images at one resolution, with the camera of that resolution."""

    target: Array  # [B, h, w, C]
    sources: Array  # [B, N, h, w, C]
    intrinsics: Array  # [B, 3, 3], in pixels of this resolution


def level_of(
    target: Array, sources: Array, intrinsics: Array, size: tuple[int, int] | None = None
) -> Level:
    """Target `[B, H, W, C]` and sources `[B, N, H, W, C]`, averaged down to `size`, and camera."""
    if size is None or size == target.shape[1:3]:
        return Level(target, sources, intrinsics)
    height, width = target.shape[1:3]
    small = [ops.resize(images, size, method="area") for images in (target, sources)]
    scale = (size[1] / width, size[0] / height)
    return Level(*small, ops.resize_intrinsics(intrinsics, scale))


def reproject(level: Level, depth: Array, poses: Array) -> tuple[Array, Array]:
    """The target, rebuilt from each source under each depth map.

    Args:
        level: images and camera.
        depth: `[B, M, h, w]` of the target.
        poses: `[B, N, 4, 4]` from the target's camera to each source's.

    Returns:
        Reconstructions `[B, M, N, h, w, C]` and, bool, `[B, M, N, h, w]`: the depth puts the pixel
        in front of the source's camera and inside its image.
    """
    chex.assert_rank([depth, poses], 4)
    flow, seen = ops.rigid_flow(
        depth[:, :, None], poses[:, None], level.intrinsics[:, None, None]
    )  # [B, M, N, h, w, 2]
    # One source meets all maps, and need not be repeated for them.
    warp = jax.vmap(jax.vmap(ops.warp_flow, in_axes=(None, 1), out_axes=1), (1, 2), 2)
    images, inside = warp(level.sources, flow)
    return images, seen & inside


class Comparison(NamedTuple):
    """What M depth maps at one resolution make of the target with N sources."""

    rebuilt: Array  # [B, M, N, h, w, C]
    errors: Array  # [B, M, N, h, w], photometric
    valid: Array  # [B, M, N, h, w], bool: in front of the source's camera and inside its frame
    error: Array  # [B, M, h, w]: of the best source, or the mean over those that are valid
    identity: Array  # [B, h, w]: the same of the sources as they are
    seen: Array  # [B, M, h, w], bool: some source is valid
    kept: Array  # [B, M, h, w], bool: and its error is not above `identity`


def compare(
    level: Level,
    depth: Array,
    poses: Array,
    *,
    ssim_weight: float = 0.85,
    minimum: bool = True,
    automask: bool = True,
    noise: Array | float = 0.0,
) -> Comparison:
    """Rebuilds the target from its sources and compares, as Monodepth2 does.

    Args:
        level: images and camera.
        depth: `[B, M, h, w]` of the target.
        poses: `[B, N, 4, 4]` from the target's camera to each source's.
        ssim_weight: of `losses.photometric_error`.
        minimum: the best source of each pixel; otherwise the mean.
        automask: otherwise all that is seen is kept.
        noise: `[B, M, h, w]`, added to the error of the unmoved sources to break ties.
    """

    compared = partial(losses.photometric_error, ssim_weight=ssim_weight)
    rebuilt, valid = reproject(level, depth, poses)
    errors = compared(level.target[:, None, None], rebuilt)
    unmoved = compared(level.target[:, None], level.sources)
    identity = jnp.min(unmoved, axis=1) if minimum else jnp.mean(unmoved, axis=1)
    ranked, counted = jnp.moveaxis(errors, 2, 0), jnp.moveaxis(valid, 2, 0)
    if not minimum:
        total = jnp.sum(jnp.where(counted, ranked, 0.0), axis=0, keepdims=True)
        ranked = total / jnp.maximum(jnp.sum(counted, axis=0), 1)
        counted = jnp.any(counted, axis=0, keepdims=True)
    rival = jnp.broadcast_to(identity[:, None] + noise, ranked.shape[1:])
    error, kept = losses.minimum_reprojection(
        ranked, valid=counted, identity_errors=rival[None] if automask else None
    )
    seen = jnp.any(counted, axis=0)
    return Comparison(rebuilt, errors, valid, error, identity, seen, kept)


def velocity_error(poses: Array, distance: Array) -> Array:
    """Mean of `|‖t‖ - distance|` of poses `[B, N, 4, 4]` and meters `[B, N]`; a scalar.

    Guizilini et al., 3D Packing for Self-Supervised Monocular Depth Estimation, CVPR 2020.
    """
    square = jnp.sum(jnp.square(poses[..., :3, 3]), axis=-1)
    moves = square > 0  # the root has no gradient at zero
    length = jnp.where(moves, jnp.sqrt(jnp.where(moves, square, 1.0)), 0.0)
    return jnp.mean(losses.l1(length - distance))


def depth_consistency(depth: Array, other: Array, pose: Array, intrinsics: Array) -> Array:
    """Mean over valid pixels of `|z - z'(p')| / (z + z'(p'))` in a rectified pair; a scalar.

    Args:
        depth: z `[B, H, W]` of one view, which is that of the other camera too.
        other: z' `[B, H, W]` of the other view, read where a pixel of the first is seen.
        pose: `[B, 4, 4]` from the one to the other.
        intrinsics: `[B, 3, 3]` of both.
    """
    flow, seen = ops.rigid_flow(depth, pose, intrinsics)
    met, inside = ops.warp_flow(other[..., None], flow)
    met = met[..., 0]
    return losses.masked_mean(losses.l1(depth - met) / (depth + met), seen & inside)


def example_keys(rng: Array, batch: Batch) -> Array:
    """A key for each example, whatever its place in the batch."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, batch["index"])


# Networks.


def of_depth(tree: PyTree) -> PyTree:
    """The depth network's parameters or state: all parts but the pose and the mask network's."""
    return {name: part for name, part in tree.items() if name not in ("pose", "mask")}


def predict_maps(network: Model, params: PyTree, model_state: PyTree, images: Array) -> Array:
    """The finest maps `[N, H, W, K]` of images, as the trained network makes them."""
    maps, _ = network.apply(of_depth(params), of_depth(model_state), images, False)
    return maps[0]


# For people.


def colors(disparity: Array) -> Array:
    """Disparity or inverse depth `[B, h, w]` in colors `[B, h, w, 3]`: near is bright.

    Each map from its least value to its 95th percentile, in matplotlib's magma.
    """
    from matplotlib import colormaps

    table = jnp.asarray(np.array(colormaps["magma"].colors), jnp.float32)
    flat = disparity.reshape(len(disparity), -1)
    low = jnp.min(flat, axis=1)[:, None, None]
    high = jnp.quantile(flat, 0.95, axis=1)[:, None, None]
    share = (disparity - low) / jnp.maximum(high - low, 1e-9)
    return table[(jnp.clip(share, 0.0, 1.0) * (len(table) - 1)).astype(jnp.int32)]


def pictured(error: Array) -> Array:
    """Errors or masks `[B, h, w]` as gray pictures `[B, h, w, 1]`; errors from 0.5 on are white."""
    shown = error.astype(jnp.float32) if error.dtype == bool else 2 * error
    return jnp.clip(shown, 0.0, 1.0)[..., None]


def best_source(images: Array, errors: Array, valid: Array) -> tuple[Array, Array]:
    """Of N reconstructions, the one of least error at each pixel; black where none is valid.

    Args:
        images: `[B, N, h, w, C]`.
        errors: `[B, N, h, w]`.
        valid: `[B, N, h, w]`, bool.

    Returns:
        `[B, h, w, C]` and its errors `[B, h, w]`, 0 where none is valid.
    """
    ranked = jnp.where(valid, errors, jnp.inf)
    best = jnp.argmin(ranked, axis=1)[:, None]
    image = jnp.take_along_axis(images, best[..., None], axis=1)[:, 0]
    seen = jnp.any(valid, axis=1)
    error = jnp.where(seen, jnp.min(ranked, axis=1), 0.0)
    return jnp.where(seen[..., None], image, 0.0), error


# From configs.


def snippet_of(config: ConfigDict) -> Snippet:
    """What `config.data` says of the images of an example."""
    return Snippet(config.data.frames, config.data.stereo)


def training_views(section: ConfigDict, snippet: Snippet) -> common.Views:
    """The views of an `augment` section: a `recipe` of frames by name, with knobs replaced.

    Raises:
        UserError: unknown recipe or knob, or a knob out of its range.
    """
    knobs = common.plain(section)
    try:
        recipe = augment.get_frame_recipe(knobs.pop("recipe"), **knobs)
        return augment.make_frames(recipe, stereo=snippet.stereo)
    except ValueError as error:
        raise UserError(f"config.augment: {error}") from error
