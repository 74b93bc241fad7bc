"""Array operations without trained parameters: warps, cameras, image processing, occlusion masks.

Notation, shared with `sslax.losses`, which adds the symbols of embeddings:

- `[B, H, W, C]`: a batch of B images of height H and width W with C channels, float in [0, 1].
  `[..., H, W, C]` allows any leading axes.
- `p = (x, y)`: a pixel, x to the right and y down, in pixels. Pixel centers are at integer
  coordinates.
- Flow `[B, H, W, 2]`, `(x, y)` in pixels, belongs to the target image: the target pixel `p`
  corresponds to the source pixel `p + flow(p)`.
- Disparity `[B, H, W]` is positive, in pixels of its own resolution.
- Depth `[B, H, W]` is measured along the optical axis, in the unit of the translation.
- `K` in camera equations: the intrinsic matrix `[B, 3, 3]`, in pixels of its image.
- A pose `[B, 4, 4]` takes points from the target camera to the source camera.
- Masks are 1 (or True) where a pixel is valid.
- "float32 or wider": computed and returned in float32, or in float64 if the inputs are float64.
- Values (the range of images, a temperature) are checked where they are known, that is, not under
  jit.
- Derivatives: forward mode, reverse mode and their compositions, such as Hessian-vector products,
  unless the docstring says "reverse mode only": then `grad` and `grad` of `grad`, but not `jvp`.
"""

from sslax.ops.camera import (
    Camera,
    UnifiedCamera,
    backproject,
    crop_intrinsics,
    depth_to_disparity,
    disparity_to_depth,
    euler_to_matrix,
    flip_intrinsics,
    intrinsics_matrix,
    project,
    resize_intrinsics,
    rigid_flow,
    rigid_transform,
    se3_exp,
    se3_inverse,
    sigmoid_to_depth,
    so3_exp,
    transform_points,
    viewing_rays,
)
from sslax.ops.color import (
    ab_histogram,
    annealed_mean,
    in_gamut_ab_bins,
    lab_to_rgb,
    rgb_to_lab,
    soft_encode_ab,
)
from sslax.ops.image import (
    census_transform,
    gaussian_blur,
    gaussian_kernel,
    image_gradients,
    image_pyramid,
    resize,
    rgb_to_gray,
    separable_filter,
    ssim,
)
from sslax.ops.kmeans import spherical_kmeans
from sslax.ops.occlusion import (
    forward_backward_confidence,
    forward_backward_difference,
    forward_backward_mask,
    range_map_mask,
)
from sslax.ops.permutations import jigsaw_permutations
from sslax.ops.sinkhorn import sinkhorn
from sslax.ops.warp import bilinear_sample, pixel_grid, range_map, splat, warp_disparity, warp_flow

__all__ = [
    "Camera",
    "UnifiedCamera",
    "ab_histogram",
    "annealed_mean",
    "backproject",
    "bilinear_sample",
    "census_transform",
    "crop_intrinsics",
    "depth_to_disparity",
    "disparity_to_depth",
    "euler_to_matrix",
    "flip_intrinsics",
    "forward_backward_confidence",
    "forward_backward_difference",
    "forward_backward_mask",
    "gaussian_blur",
    "gaussian_kernel",
    "image_gradients",
    "image_pyramid",
    "in_gamut_ab_bins",
    "intrinsics_matrix",
    "jigsaw_permutations",
    "lab_to_rgb",
    "pixel_grid",
    "project",
    "range_map",
    "range_map_mask",
    "resize",
    "resize_intrinsics",
    "rgb_to_gray",
    "rgb_to_lab",
    "rigid_flow",
    "rigid_transform",
    "se3_exp",
    "se3_inverse",
    "separable_filter",
    "sigmoid_to_depth",
    "sinkhorn",
    "so3_exp",
    "soft_encode_ab",
    "spherical_kmeans",
    "splat",
    "ssim",
    "transform_points",
    "viewing_rays",
    "warp_disparity",
    "warp_flow",
]
