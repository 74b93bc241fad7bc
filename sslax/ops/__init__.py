"""Array operations without parameters: warps, cameras, image maths, occlusion."""

from sslax.ops.image import (
    census,
    gaussian_blur,
    gaussian_taps,
    image_gradients,
    image_pyramid,
    resize,
    rgb_to_gray,
    separable_filter,
    ssim,
)
from sslax.ops.occlusion import (
    forward_backward_confidence,
    forward_backward_difference,
    forward_backward_mask,
    range_map_mask,
)
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
    "census",
    "forward_backward_confidence",
    "forward_backward_difference",
    "forward_backward_mask",
    "gaussian_blur",
    "gaussian_taps",
    "image_gradients",
    "image_pyramid",
    "pixel_grid",
    "range_map",
    "range_map_mask",
    "resize",
    "rgb_to_gray",
    "separable_filter",
    "splat",
    "ssim",
    "warp_disparity",
    "warp_flow",
]
