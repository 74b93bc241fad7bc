"""Array operations without parameters: warps, cameras, image maths, occlusion."""

from sslax.ops.warp import (
    bilinear_sample,
    pixel_grid,
    range_map,
    splat,
    warp_disparity,
    warp_flow,
)

__all__ = [
    "bilinear_sample",
    "pixel_grid",
    "range_map",
    "splat",
    "warp_disparity",
    "warp_flow",
]
