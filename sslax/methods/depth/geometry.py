"""View synthesis and its errors: a target, reprojected from its sources by depth and poses.

B examples, N sources of each target, M depth maps of one target, images of h x w pixels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sslax import checks, losses, ops
from sslax.ops import Camera
from sslax.types import Array


def pose_from_twist(twist: Array) -> Array:
    """Pose `[R | t]` `[..., 4, 4]` of a motion `[..., 6]`: t, then the axis times the angle."""
    return ops.rigid_transform(ops.so3_exp(twist[..., 3:]), twist[..., :3])


def pose_from_euler(motion: Array) -> Array:
    """Pose `[R | t]` `[..., 4, 4]` of a motion `[..., 6]`: t, then Euler angles about x, y, z."""
    return ops.rigid_transform(ops.euler_to_matrix(motion[..., 3:]), motion[..., :3])


def stereo_pose(baseline: Array) -> Array:
    """Pose `[B, 4, 4]` from the target's camera to its partner's, `baseline` `[B]` to its right."""
    zero = jnp.zeros_like(baseline)
    translation = jnp.stack([-baseline, zero, zero], axis=-1)
    rotation = jnp.broadcast_to(jnp.eye(3), (*baseline.shape, 3, 3))
    return ops.rigid_transform(rotation, translation)


def insert_identity(poses: Array, index: int) -> Array:
    """Poses `[B, S - 1, 4, 4]` to the source frames, with the target's own identity at `index`."""
    identity = jnp.broadcast_to(jnp.eye(4, dtype=poses.dtype), (poses.shape[0], 1, 4, 4))
    return jnp.concatenate([poses[:, :index], identity, poses[:, index:]], axis=1)


class Level(NamedTuple):
    """Images at one resolution, and the camera there.

    Attributes:
        target: `[B, h, w, C]`.
        sources: `[B, N, h, w, C]`.
        intrinsics: `[B, 3, 3]`, in pixels of this resolution; or a `UnifiedCamera`.
    """

    target: Array
    sources: Array
    intrinsics: Camera


def make_level(target: Array, sources: Array, intrinsics: Camera, size: tuple[int, int]) -> Level:
    """Images and camera at a lower resolution.

    Args:
        target: `[B, H, W, C]`.
        sources: `[B, N, H, W, C]`.
        intrinsics: `[B, 3, 3]`, in pixels; or a `UnifiedCamera`.
        size: height and width, to which images are averaged down.
    """
    if size == target.shape[1:3]:
        return Level(target, sources, intrinsics)
    height, width = target.shape[1:3]
    small = [ops.resize(images, size, method="area") for images in (target, sources)]
    scale = (size[1] / width, size[0] / height)
    return Level(*small, ops.resize_intrinsics(intrinsics, scale))


def reproject(level: Level, depth: Array, poses: Array) -> tuple[Array, Array]:
    """Reconstructs the target from each source, under each depth map.

    Args:
        level: images and camera.
        depth: `[B, M, h, w]` of the target.
        poses: `[B, N, 4, 4]` from the target's camera to each source's.

    Returns:
        Reconstructions `[B, M, N, h, w, C]`, and `[B, M, N, h, w]` bool: the point lies in front
        of the source's camera and inside its image.
    """
    checks.assert_rank([depth, poses], 4)
    camera = jax.tree.map(lambda leaf: leaf[:, None, None], level.intrinsics)
    flow, in_front = ops.rigid_flow(depth[:, :, None], poses[:, None], camera)  # [B, M, N, h, w, 2]
    # Mapped over the depth maps rather than repeated for each of them.
    warp = jax.vmap(jax.vmap(ops.warp_flow, in_axes=(None, 1), out_axes=1), (1, 2), 2)
    reconstructions, inside = warp(level.sources, flow)
    return reconstructions, in_front & inside


class Comparison(NamedTuple):
    """M reconstructions of the target from each of N sources, compared with it.

    Attributes:
        reconstructions: `[B, M, N, h, w, C]`.
        errors: `[B, M, N, h, w]`, photometric.
        valid: `[B, M, N, h, w]` bool, as `reproject` returns it.
        error: `[B, M, h, w]`, of the best valid source, or the mean over the valid ones.
        identity: `[B, h, w]`, the same error of the sources without a warp.
        seen: `[B, M, h, w]` bool: a source is valid.
        kept: `[B, M, h, w]` bool: and `error` is not above `identity` (the automask).
    """

    reconstructions: Array
    errors: Array
    valid: Array
    error: Array
    identity: Array
    seen: Array
    kept: Array


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
    """Monodepth2's comparison of the target with its reconstructions.

    Args:
        level: images and camera.
        depth: `[B, M, h, w]` of the target.
        poses: `[B, N, 4, 4]` from the target's camera to each source's.
        ssim_weight: of `losses.photometric_error`.
        minimum: each pixel counts with its best source; otherwise with the mean over the sources.
        automask: keep only pixels that a warp explains at least as well as no warp does.
        noise: `[B, M, h, w]`, added to the error without a warp to break ties.
    """

    def photometric(target: Array, images: Array) -> Array:
        return losses.photometric_error(target, images, ssim_weight=ssim_weight)

    reconstructions, valid = reproject(level, depth, poses)
    errors = photometric(level.target[:, None, None], reconstructions)
    unwarped = photometric(level.target[:, None], level.sources)
    identity = jnp.min(unwarped, axis=1) if minimum else jnp.mean(unwarped, axis=1)
    candidates, usable = jnp.moveaxis(errors, 2, 0), jnp.moveaxis(valid, 2, 0)
    if not minimum:
        total = jnp.sum(jnp.where(usable, candidates, 0.0), axis=0, keepdims=True)
        candidates = total / jnp.maximum(jnp.sum(usable, axis=0), 1)
        usable = jnp.any(usable, axis=0, keepdims=True)
    threshold = jnp.broadcast_to(identity[:, None] + noise, candidates.shape[1:])
    error, kept = losses.minimum_reprojection(
        candidates, valid=usable, identity_errors=threshold[None] if automask else None
    )
    seen = jnp.any(usable, axis=0)
    return Comparison(reconstructions, errors, valid, error, identity, seen, kept)


def best_source(images: Array, errors: Array, valid: Array) -> tuple[Array, Array]:
    """For each pixel, the reconstruction of least error; black where none is valid.

    Args:
        images: `[B, N, h, w, C]`, reconstructions.
        errors: `[B, N, h, w]`.
        valid: `[B, N, h, w]`, bool.

    Returns:
        `[B, h, w, C]` and its errors `[B, h, w]`, 0 where none is valid.
    """
    candidates = jnp.where(valid, errors, jnp.inf)
    best = jnp.argmin(candidates, axis=1)[:, None]
    image = jnp.take_along_axis(images, best[..., None], axis=1)[:, 0]
    seen = jnp.any(valid, axis=1)
    error = jnp.where(seen, jnp.min(candidates, axis=1), 0.0)
    return jnp.where(seen[..., None], image, 0.0), error


def velocity_error(poses: Array, distance: Array) -> Array:
    """Mean of `|‖t‖ - distance|` over poses `[B, N, 4, 4]` and meters `[B, N]`; a scalar.

    Guizilini et al., 3D Packing for Self-Supervised Monocular Depth Estimation, CVPR 2020.
    """
    square = jnp.sum(jnp.square(poses[..., :3, 3]), axis=-1)
    moving = square > 0  # the root has no gradient at zero
    length = jnp.where(moving, jnp.sqrt(jnp.where(moving, square, 1.0)), 0.0)
    return jnp.mean(losses.l1(length - distance))


def depth_consistency(depth: Array, other: Array, pose: Array, intrinsics: Camera) -> Array:
    """Mean over valid pixels of `|z - z'(p')| / (z + z'(p'))` in a rectified pair; a scalar.

    Args:
        depth: z `[B, H, W]` of one view; in a rectified pair it is the depth in the other, too.
        other: z' `[B, H, W]` of the other view, sampled at p', where it sees pixel p.
        pose: `[B, 4, 4]` from the first camera to the other.
        intrinsics: `[B, 3, 3]` of both, or a `UnifiedCamera`.
    """
    flow, in_front = ops.rigid_flow(depth, pose, intrinsics)
    sampled, inside = ops.warp_flow(other[..., None], flow)
    sampled = sampled[..., 0]
    return losses.masked_mean(losses.l1(depth - sampled) / (depth + sampled), in_front & inside)
