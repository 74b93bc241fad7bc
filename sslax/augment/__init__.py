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
from sslax.augment.views import RECIPES, ViewRecipe, get_recipes, make_view, make_views

__all__ = [
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
    "color_jitter",
    "gaussian_blur",
    "get_recipes",
    "make_view",
    "make_views",
    "random_erasing",
    "random_flip",
    "random_gaussian_blur",
    "random_grayscale",
    "random_resized_crop",
    "random_solarize",
    "resize",
    "resized_crop",
    "sample_box",
    "solarize",
    "to_float",
    "to_grayscale",
]
