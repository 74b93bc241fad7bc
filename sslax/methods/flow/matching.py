"""Both frames of a pair matched along the flow: warping, occlusion, and the weight of each pixel.

Losses are symmetric in time: each frame of a pair is the target once, with the other one as its
source, so B pairs are N = 2 B targets.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sslax import checks, ops
from sslax.methods.common import merge_views, split_views
from sslax.types import Array, Batch

OCCLUSIONS = ("forward_backward", "range_map", "none")
MIN_VISIBLE = 0.5  # an occlusion estimate that leaves less of a frame than this is ignored


def merge_pairs(x: Array) -> Array:
    """`[B, 2, ...]` to `[2 B, ...]`: each target frame, or the flow from it to its source."""
    return merge_views(x)


def merge_swapped(x: Array) -> Array:
    """`[B, 2, ...]` to `[2 B, ...]`: each target's source frame, or the flow from there back."""
    return merge_views(x[:, ::-1])


def split_pairs(x: Array) -> Array:
    """`[2 B, ...]` back to `[B, 2, ...]`."""
    return split_views(x, 2)


class Match(NamedTuple):
    """Targets and what the flow finds for them in their sources.

    Attributes:
        target: `[N, h, w, C]`.
        warped: `[N, h, w, C]`, the source, sampled at p + flow(p).
        inside: `[N, h, w]` bool, p + flow(p) lies in the source.
        visible: `[N, h, w]` float32, inside and not occluded; no gradient.
    """

    target: Array
    warped: Array
    inside: Array
    visible: Array


def match_frames(
    frames: Array,
    flows: Array,
    *,
    occlusion: str = "forward_backward",
    threshold: float | None = None,
    offset: Array | None = None,
) -> Match:
    """Warps each frame to the other one along the flow, and estimates occlusion.

    The gradient reaches the flow through the sampling positions; frames and masks have none.

    Args:
        frames: `[B, 2, H, W, C]`.
        flows: `[B, 2, h, w, 2]`, in pixels of the frames, whose size it has unless there is an
            `offset`.
        occlusion: "forward_backward" (0.01, 0.5), "range_map" or "none".
        threshold: of the range map; None for a soft one.
        offset: `[B, 2]`, `(x, y)` in pixels: the flow is that of a crop with this corner. Pixels
            that leave the crop are still matched, in the whole frame; the flow back is unknown
            there, so they count as visible.

    Wang et al., CVPR 2018 ("range_map"); Sundaram et al., ECCV 2010 ("forward_backward"); Stone et
    al., SMURF, 2021 (crops).
    """
    checks.assert_rank([frames, flows], 5)
    frames = jax.lax.stop_gradient(frames)
    forward, backward = merge_pairs(flows), merge_swapped(flows)
    target, source = merge_pairs(frames), merge_swapped(frames)
    if offset is None:
        checks.assert_equal_shape_prefix([frames, flows], 4)
        warped, inside = ops.warp_flow(source, forward)
    else:
        corner = jnp.repeat(offset, 2, axis=0)
        grid = ops.pixel_grid(*flows.shape[2:4])
        positions = grid + corner[:, None, None] + forward
        warped, inside = jax.vmap(ops.bilinear_sample)(source, positions)
        target = crop(target, corner, flows.shape[2:4])
    unoccluded = visibility(forward, backward, occlusion=occlusion, threshold=threshold)
    visible = inside.astype(jnp.float32) * unoccluded
    return Match(target, warped, inside, jax.lax.stop_gradient(visible))


def visibility(
    forward: Array, backward: Array, *, occlusion: str, threshold: float | None = None
) -> Array:
    """1 where a pixel is visible in the other frame, `[N, h, w]` float32, no gradient.

    Pixels that leave the flow's own frame count as visible: whether the other frame continues
    there is for the caller to know.

    Args:
        forward: `[N, h, w, 2]`, from the target to its source, in pixels.
        backward: `[N, h, w, 2]`, from the source to the target.
        occlusion: "forward_backward", "range_map" or "none".
        threshold: of the range map; None for a soft one.
    """
    if occlusion == "none":
        return jnp.ones(forward.shape[:3], jnp.float32)
    if occlusion == "forward_backward":
        visible = ops.forward_backward_mask(forward, backward).astype(jnp.float32)
    else:
        visible = ops.range_map_mask(backward, threshold=threshold).astype(jnp.float32)
    return jnp.where(stays_inside(forward), visible, 1.0)


def stays_inside(flow: Array) -> Array:
    """Whether p + flow(p) lies within the frame, `[N, h, w]` bool, of a flow `[N, h, w, 2]`."""
    position = jax.lax.stop_gradient(ops.pixel_grid(*flow.shape[1:3]) + flow)
    last = jnp.array([flow.shape[2] - 1, flow.shape[1] - 1], position.dtype)
    return jnp.all((position >= 0) & (position <= last), axis=-1)


def pixel_weights(match: Match, step: Array | int = 0, start_step: float = 0.0) -> Array:
    """How much each pixel counts in the loss, `[N, h, w]` float32.

    `match.visible`; but `match.inside` before `start_step`, and in frames less than half of which
    would be left: an untrained network's flows agree nowhere, and a loss over no pixels is 0, with
    no gradient to improve them.
    """
    inside = match.inside.astype(jnp.float32)
    visible_count = jnp.sum(match.visible, axis=(1, 2), keepdims=True)
    inside_count = jnp.sum(inside, axis=(1, 2), keepdims=True)
    trusted = visible_count >= MIN_VISIBLE * inside_count
    if start_step > 0:
        trusted &= step >= start_step
    return jnp.where(trusted, match.visible, inside)


def crop(images: Array, corner: Array, size: tuple[int, int]) -> Array:
    """The `size` pixels of each image `[N, H, W, C]` at its corner `[N, 2]`, `(x, y)`."""

    def cut(image: Array, corner: Array) -> Array:
        x, y = corner.astype(jnp.int32)
        return jax.lax.dynamic_slice(image, (y, x, 0), (*size, image.shape[-1]))

    return jax.vmap(cut)(images, corner)


def crop_like_input(batch: Batch) -> Array:
    """The part of 'frames' that the network's 'input' was cut from, `[B, 2, h, w, C]`."""
    frames = batch["frames"]
    if "offset" not in batch:
        return frames
    corner = jnp.repeat(batch["offset"], 2, axis=0)
    return split_pairs(crop(merge_pairs(frames), corner, batch["input"].shape[2:4]))
