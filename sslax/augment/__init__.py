"""Augmentation on the device: pure functions of a random key and one image, and of a batch.

Most functions take one image `[H, W, C]`; use `jax.vmap` for batches. `make_views`, `make_frames`
and `make_frame_pairs` return functions `(rng, batch) -> batch` that add to a batch: random views of
images, frames of videos and stereo pairs for depth, and frame pairs for optical flow.

Results are float32, or have the dtype of the image where the docstring does not say so. All
functions are differentiable with respect to images, in forward and reverse mode.
"""

from sslax.augment.blur import blur_kernel_size, gaussian_blur, random_gaussian_blur
from sslax.augment.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    color_jitter,
    random_grayscale,
    random_solarize,
    solarize,
    to_grayscale,
)
from sslax.augment.crop import (
    Box,
    center_crop,
    random_flip,
    random_resized_crop,
    resize,
    resized_crop,
    sample_box,
)
from sslax.augment.erase import random_erasing
from sslax.augment.flow import (
    FLOW_RECIPES,
    AffineRecipe,
    FlowRecipe,
    RelativeAffine,
    apply_affine,
    get_flow_recipe,
    invert_affine,
    make_frame_pairs,
    photometric_augmentation,
    random_box_mask,
    random_eraser,
    random_occluder,
    sample_affine,
    warp_affine,
    warp_affine_flow,
)
from sslax.augment.frames import (
    FRAME_RECIPES,
    FrameRecipe,
    get_frame_recipe,
    make_frames,
    random_exposure,
    random_flip_frames,
    random_zoom_frames,
)
from sslax.augment.image import apply_separable, to_float
from sslax.augment.keys import batch_keys, example_keys
from sslax.augment.masks import center_mask, random_block_mask, random_region_mask
from sslax.augment.patches import (
    jigsaw_tiles,
    location_class,
    patch_pair,
    random_downsample,
    random_patch,
    rotations,
    standardize,
)
from sslax.augment.shortcuts import chromatic_aberration, drop_colors, project_colors
from sslax.augment.tokens import (
    TokenBlocks,
    blockwise_masking,
    inverse_block_masking,
    random_masking,
    random_token_blocks,
    random_unit_masking,
)
from sslax.augment.views import (
    LOCAL_RECIPES,
    VIEW_RECIPES,
    ViewRecipe,
    get_local_recipes,
    get_view_recipes,
    make_view,
    make_views,
)

__all__ = [
    "FLOW_RECIPES",
    "FRAME_RECIPES",
    "LOCAL_RECIPES",
    "VIEW_RECIPES",
    "AffineRecipe",
    "Box",
    "FlowRecipe",
    "FrameRecipe",
    "RelativeAffine",
    "TokenBlocks",
    "ViewRecipe",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "apply_affine",
    "apply_separable",
    "batch_keys",
    "blockwise_masking",
    "blur_kernel_size",
    "center_crop",
    "center_mask",
    "chromatic_aberration",
    "color_jitter",
    "drop_colors",
    "example_keys",
    "gaussian_blur",
    "get_flow_recipe",
    "get_frame_recipe",
    "get_local_recipes",
    "get_view_recipes",
    "inverse_block_masking",
    "invert_affine",
    "jigsaw_tiles",
    "location_class",
    "make_frame_pairs",
    "make_frames",
    "make_view",
    "make_views",
    "patch_pair",
    "photometric_augmentation",
    "project_colors",
    "random_block_mask",
    "random_box_mask",
    "random_downsample",
    "random_eraser",
    "random_erasing",
    "random_exposure",
    "random_flip",
    "random_flip_frames",
    "random_gaussian_blur",
    "random_grayscale",
    "random_masking",
    "random_occluder",
    "random_patch",
    "random_region_mask",
    "random_resized_crop",
    "random_solarize",
    "random_token_blocks",
    "random_unit_masking",
    "random_zoom_frames",
    "resize",
    "resized_crop",
    "rotations",
    "sample_affine",
    "sample_box",
    "solarize",
    "standardize",
    "to_float",
    "to_grayscale",
    "warp_affine",
    "warp_affine_flow",
]
