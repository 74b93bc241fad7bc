"""Augmentation on the device: pure functions of a key and one image, and recipes of views."""

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
from sslax.augment.image import apply_separable, to_float
from sslax.augment.masks import centre_mask, random_blocks_mask, random_keep, random_region_mask
from sslax.augment.patches import (
    down_up,
    grid_tiles,
    location_class,
    patch_at,
    patch_pair,
    rotations,
    standardize,
)
from sslax.augment.shortcuts import drop_colors, project_colors, render_aberration
from sslax.augment.views import (
    LOCAL_RECIPES,
    RECIPES,
    ViewRecipe,
    get_local_recipes,
    get_recipes,
    make_view,
    make_views,
)

__all__ = [
    "LOCAL_RECIPES",
    "RECIPES",
    "Box",
    "ViewRecipe",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "apply_separable",
    "blur_kernel_size",
    "center_crop",
    "centre_mask",
    "color_jitter",
    "down_up",
    "drop_colors",
    "gaussian_blur",
    "get_local_recipes",
    "get_recipes",
    "grid_tiles",
    "location_class",
    "make_view",
    "make_views",
    "patch_at",
    "patch_pair",
    "project_colors",
    "random_blocks_mask",
    "random_erasing",
    "random_flip",
    "random_gaussian_blur",
    "random_grayscale",
    "random_keep",
    "random_region_mask",
    "random_resized_crop",
    "random_solarize",
    "render_aberration",
    "resize",
    "resized_crop",
    "rotations",
    "sample_box",
    "solarize",
    "standardize",
    "to_float",
    "to_grayscale",
]
