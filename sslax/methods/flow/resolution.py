"""A flow network's output at the resolutions that losses want.

PWC-Net returns a pyramid of flows, finest first, each `[B, 2, h, w, 2]` in pixels of its level;
RAFT returns the flow after each of I iterations, `[B, 2, I, H, W, 2]`. On the axis of length 2 are
the flow from the first frame to the second, and the flow back.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from sslax import models, ops
from sslax.types import Array

NetworkOutput = Array | Sequence[Array]


def pyramid(output: NetworkOutput) -> tuple[Array, ...]:
    """The flow at each level, finest first; RAFT's last iteration is its only level."""
    return tuple(output) if isinstance(output, tuple | list) else (output[:, :, -1],)


def iterations(output: NetworkOutput, size: tuple[int, int]) -> Array:
    """The flow after each iteration at full resolution, `[I, B, 2, H, W, 2]`.

    PWC-Net's finest level, upsampled, is its only iteration.
    """
    if isinstance(output, tuple | list):
        return upsample(output[0], size)[None]
    return jnp.moveaxis(output, 2, 0)


def level_factor(flow: Array, size: tuple[int, int]) -> int:
    """Side of a level's pixel in pixels of the frames: 1, 2, 4, ...

    Args:
        flow: `[..., h, w, 2]`.
        size: `(H, W)` of the frames.
    """
    factor = 1
    while flow.shape[-3] < -(-size[0] // factor) or flow.shape[-2] < -(-size[1] // factor):
        factor *= 2
    return factor


def upsample(flow: Array, size: tuple[int, int], factor: int | None = None) -> Array:
    """Upsamples flow bilinearly, to pixels of the new resolution.

    Args:
        flow: `[..., h, w, 2]`, in pixels of its level.
        size: `(H, W)` of the result.
        factor: new pixels along the side of an old one; None for the frames' resolution, where
            `size` is that of the frames.

    Returns:
        `[..., H, W, 2]`.
    """
    factor = factor or level_factor(flow, size)
    if factor == 1:
        return flow
    return models.upsample_flow(flow, factor, size=size)


def downsample(frames: Array, flow: Array) -> Array:
    """Averages frames down to the resolution of a flow.

    Sides that are no multiple of the level's pixel are padded with their last pixels, as the
    networks do.

    Args:
        frames: `[B, 2, H, W, C]`.
        flow: `[B, 2, h, w, 2]`, whose size is wanted.

    Returns:
        `[B, 2, h, w, C]`.
    """
    size = frames.shape[2:4]
    factor = level_factor(flow, size)
    if factor == 1:
        return frames
    pads = [(0, 0), (0, 0), *((0, factor * n - m) for n, m in zip(flow.shape[2:4], size)), (0, 0)]
    padded = jnp.pad(frames, [(low, max(0, high)) for low, high in pads], mode="edge")
    return ops.resize(padded, flow.shape[2:4], method="area")
