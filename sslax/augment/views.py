"""Random views of images: recipes, and the function that adds a batch's views on the device."""

import functools
import logging
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from sslax import checks, ranges
from sslax.augment.blur import blur_kernel_size, random_gaussian_blur
from sslax.augment.color import color_jitter, random_grayscale, random_solarize
from sslax.augment.crop import center_crop, random_flip, random_resized_crop, resize
from sslax.augment.erase import random_erasing
from sslax.augment.image import to_float
from sslax.augment.keys import batch_keys
from sslax.errors import UserError, check_choice
from sslax.ranges import (
    Fraction,
    FractionRange,
    Hue,
    NonNegative,
    NonNegativeInt,
    Odd,
    PositiveInt,
    PositiveRange,
    replace_fields,
)
from sslax.types import Array, Batch

# Folded into an example's key for its local views. Small numbers are not safe: fold_in(key, v) and
# split(key, V)[v] are the same key.
_LOCAL = 0x10CA1


class ViewRecipe(NamedTuple):
    """How one view of an image is made: crop, flip, jitter, gray, blur, solarize, erase.

    With the defaults a view is the image, or its central square resized to `size`.

    Attributes:
        size: side of the view in pixels; None for the size of the image.
        crop_scale: range of the crop's area as a fraction of the image's; None for the largest
            central box with the aspect ratio of the view.
        crop_ratio: range of the crop's aspect ratio, width over height.
        interpolation: of the random crop, "bilinear" or "bicubic".
        flip: probability of a horizontal flip.
        jitter: probability of color jitter.
        brightness, contrast, saturation, hue: strengths of the jitter.
        strength: multiplies these four.
        grayscale: probability of a gray view.
        grayscale_first: converts to gray before the jitter rather than after it.
        blur: probability of Gaussian blur.
        blur_sigma: range of its standard deviation, in pixels.
        blur_kernel_size: its odd number of taps; None for `blur_kernel_size` of the view's size.
        solarize: probability of solarization.
        solarize_threshold: its threshold, in [0, 1].
        erase: probability of erasing a random box.
        erase_scale: range of the box's area as a fraction of the view's.
    """

    size: PositiveInt | None = None
    crop_scale: FractionRange | None = None
    crop_ratio: PositiveRange = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    flip: Fraction = 0.0
    jitter: Fraction = 0.0
    brightness: NonNegative = 0.0
    contrast: NonNegative = 0.0
    saturation: NonNegative = 0.0
    hue: Hue = 0.0
    strength: NonNegative = 1.0
    grayscale: Fraction = 0.0
    grayscale_first: bool = False
    blur: Fraction = 0.0
    blur_sigma: PositiveRange = (0.1, 2.0)
    blur_kernel_size: Odd | None = None
    solarize: Fraction = 0.0
    solarize_threshold: Fraction = 0.5
    erase: Fraction = 0.0
    erase_scale: FractionRange = (0.02, 0.33)


_SIMCLR = ViewRecipe(
    crop_scale=(0.08, 1.0),
    interpolation="bicubic",
    flip=0.5,
    jitter=0.8,
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.2,
    grayscale=0.2,
    blur=0.5,
)
_MOCO_V1 = ViewRecipe(
    crop_scale=(0.2, 1.0),
    flip=0.5,
    jitter=1.0,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.4,
    grayscale=0.2,
    grayscale_first=True,
)
_MOCO_V2 = _MOCO_V1._replace(jitter=0.8, hue=0.1, grayscale_first=False, blur=0.5)
_BYOL = _SIMCLR._replace(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
_BYOL_VIEWS = (_BYOL._replace(blur=1.0), _BYOL._replace(blur=0.1, solarize=0.2))
_MOCO_V3_VIEWS = tuple(recipe._replace(interpolation="bilinear") for recipe in _BYOL_VIEWS)
_SWAV = _SIMCLR._replace(crop_scale=(0.14, 1.0), interpolation="bilinear")
_LEJEPA = _BYOL._replace(crop_scale=(0.3, 1.0), interpolation="bilinear", solarize=0.2)
_MSN = _MOCO_V2._replace(crop_scale=(0.3, 1.0))
_EMP_SSL = ViewRecipe(
    crop_scale=(0.25, 0.25),
    crop_ratio=(1.0, 1.0),
    flip=0.5,
    jitter=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.2,
    grayscale=0.2,
    blur=0.1,
    blur_kernel_size=13,  # PIL's is as wide as sigma asks for
    solarize=0.1,
)
_IBOT_VIEWS = tuple(recipe._replace(crop_scale=(0.25, 1.0)) for recipe in _BYOL_VIEWS)
_DINOV2_VIEWS = tuple(recipe._replace(crop_scale=(0.32, 1.0)) for recipe in _BYOL_VIEWS)
_DINO_VIEWS = tuple(recipe._replace(crop_scale=(0.4, 1.0)) for recipe in _BYOL_VIEWS)

VIEW_RECIPES: dict[str, tuple[ViewRecipe, ...]] = {
    "identity": (ViewRecipe(),),
    "simclr": (_SIMCLR, _SIMCLR),
    "moco_v1": (_MOCO_V1, _MOCO_V1),
    "moco_v2": (_MOCO_V2, _MOCO_V2),
    "moco_v3": _MOCO_V3_VIEWS,
    "byol": _BYOL_VIEWS,
    "barlow_twins": _BYOL_VIEWS,
    "swav": (_SWAV, _SWAV),
    "dino": _DINO_VIEWS,
    "ibot": _IBOT_VIEWS,
    "dinov2": _DINOV2_VIEWS,
    "lejepa": (_LEJEPA, _LEJEPA),
    "msn": (_MSN, _MSN),
    "emp_ssl": (_EMP_SSL,) * 20,
    "mae": (ViewRecipe(crop_scale=(0.2, 1.0), interpolation="bicubic", flip=0.5),),
    "simmim": (ViewRecipe(crop_scale=(0.67, 1.0), flip=0.5),),
    "ijepa": (ViewRecipe(crop_scale=(0.3, 1.0)),),
    "supervised": (ViewRecipe(crop_scale=(0.08, 1.0), flip=0.5),),
}
"""Published recipes by name, with one `ViewRecipe` per view."""

LOCAL_RECIPES: dict[str, ViewRecipe] = {
    "swav": _SWAV._replace(crop_scale=(0.05, 0.14)),
    "dino": _BYOL._replace(crop_scale=(0.05, 0.4), blur=0.5),
    "ibot": _BYOL._replace(crop_scale=(0.05, 0.25), blur=0.5),
    "dinov2": _BYOL._replace(crop_scale=(0.05, 0.32), blur=0.5),
    "lejepa": _LEJEPA._replace(crop_scale=(0.05, 0.3)),
    "msn": _MSN._replace(crop_scale=(0.05, 0.3)),
}
"""Published recipes of the small crops of multi-crop by name."""


def get_view_recipes(
    name: str, *, count: PositiveInt | None = None, **fields: Any
) -> tuple[ViewRecipe, ...]:
    """A published recipe, with some fields replaced in all of its views.

    Args:
        name: key of `VIEW_RECIPES`.
        count: number of views, in which those of the recipe take turns; None for its own number.
        **fields: fields of `ViewRecipe`, for example `strength=0.5, blur=0.0, size=32`.

    Returns:
        One `ViewRecipe` per view.

    Raises:
        UserError: the recipe or a field is unknown; the message suggests the closest one.
        ValueError: `count` is not positive.

    Example:
        >>> first, second = get_view_recipes("simclr", strength=0.5, blur=0.0)
        >>> first.brightness * first.strength, first.blur, first == second
        (0.4, 0.0, True)
    """
    check_choice("recipe", name, VIEW_RECIPES)
    recipes = VIEW_RECIPES[name]
    if count is not None:
        ranges.check("count", count, PositiveInt)
        recipes = tuple(islice(cycle(recipes), count))
    return tuple(replace_fields(recipe, fields) for recipe in recipes)


def get_local_recipes(name: str, count: int, **fields: Any) -> tuple[ViewRecipe, ...]:
    """A published recipe of small crops, repeated `count` times, with some fields replaced.

    Args:
        name: key of `LOCAL_RECIPES`.
        count: number of small crops; 0 for none.
        **fields: fields of `ViewRecipe`, usually `size`: 96 with views of 224 pixels.

    Returns:
        `count` equal recipes.

    Raises:
        UserError: the recipe or a field is unknown; the message suggests the closest one.
        ValueError: `count` is negative.

    Example:
        >>> recipes = get_local_recipes("dino", 8, size=96)
        >>> len(recipes), recipes[0].crop_scale
        (8, (0.05, 0.4))
    """
    check_choice("recipe", name, LOCAL_RECIPES)
    ranges.check("count", count, NonNegativeInt)
    return (replace_fields(LOCAL_RECIPES[name], fields),) * count


def _check_recipe(recipe: ViewRecipe) -> None:
    ranges.check_record(recipe)
    if recipe.strength * recipe.hue > 0.5:
        raise UserError(
            f"strength = {recipe.strength} times hue = {recipe.hue} is more than 0.5, half a turn: "
            "lower one of them."
        )


def make_view(key: Array, image: Array, recipe: ViewRecipe) -> Array:
    """One random view of one image.

    Gray images have no saturation and no hue to change, and images of other numbers of channels
    are not turned gray either, which is logged.

    Args:
        key: random key.
        image: `[H, W, C]`, uint8 or float in [0, 1].
        recipe: see `ViewRecipe`.

    Returns:
        `[h, w, C]` float32 in [0, 1].

    Raises:
        ValueError: a field of the recipe is out of range.

    Example:
        >>> import jax
        >>> image = jax.numpy.zeros((32, 32, 3), jax.numpy.uint8)
        >>> recipe = VIEW_RECIPES["simclr"][0]._replace(size=24)
        >>> jax.eval_shape(lambda key: make_view(key, image, recipe), jax.random.key(0)).shape
        (24, 24, 3)
    """
    checks.assert_rank(image, 3)
    _check_recipe(recipe)
    # One key per operation, so that changing one operation does not change the others' draws.
    crop, flip, jitter, grayscale, blur, solarize, erase = jax.random.split(key, 7)
    x = _crop_view(crop, to_float(image), recipe)
    # Operations with probability 0 are not compiled.
    if recipe.flip:
        x = random_flip(flip, x, probability=recipe.flip)
    x = _change_colors(jitter, grayscale, x, recipe)
    if recipe.blur:
        kernel_size = recipe.blur_kernel_size or blur_kernel_size(min(x.shape[:2]))
        x = random_gaussian_blur(
            blur, x, kernel_size=kernel_size, sigma=recipe.blur_sigma, probability=recipe.blur
        )
    if recipe.solarize:
        x = random_solarize(
            solarize, x, threshold=recipe.solarize_threshold, probability=recipe.solarize
        )
    if recipe.erase:
        x = random_erasing(erase, x, scale=recipe.erase_scale, probability=recipe.erase)
    return x


def _crop_view(key: Array, image: Array, recipe: ViewRecipe) -> Array:
    size = image.shape[:2] if recipe.size is None else (recipe.size, recipe.size)
    height, width = size
    if recipe.crop_scale is not None:
        return random_resized_crop(
            key,
            image,
            size=(height, width),
            scale=recipe.crop_scale,
            ratio=recipe.crop_ratio,
            interpolation=recipe.interpolation,
        )
    scale = min(image.shape[0] / height, image.shape[1] / width)
    largest = center_crop(image, size=(round(scale * height), round(scale * width)))
    return resize(largest, size=(height, width))


def _change_colors(
    jitter_key: Array, grayscale_key: Array, image: Array, recipe: ViewRecipe
) -> Array:
    """Color jitter and conversion to gray, in the order of the recipe."""
    if image.shape[-1] not in (1, 3):
        recipe = _for_bands(recipe, image.shape[-1])
    if recipe.grayscale and recipe.grayscale_first:
        image = random_grayscale(grayscale_key, image, probability=recipe.grayscale)
    if recipe.jitter:
        image = color_jitter(
            jitter_key,
            image,
            brightness=recipe.strength * recipe.brightness,
            contrast=recipe.strength * recipe.contrast,
            saturation=recipe.strength * recipe.saturation,
            hue=recipe.strength * recipe.hue,
            probability=recipe.jitter,
        )
    if recipe.grayscale and not recipe.grayscale_first:
        image = random_grayscale(grayscale_key, image, probability=recipe.grayscale)
    return image


def _for_bands(recipe: ViewRecipe, channels: int) -> ViewRecipe:
    """The recipe without what only colors have, which is said once."""
    of_rgb = {
        "saturation": recipe.jitter * recipe.strength * recipe.saturation,
        "hue": recipe.jitter * recipe.strength * recipe.hue,
        "grayscale": recipe.grayscale,
    }
    asked = tuple(name for name, value in of_rgb.items() if value)
    if asked:
        _warn_of_bands(asked, channels)
    return recipe._replace(saturation=0.0, hue=0.0, grayscale=0.0)


@functools.cache
def _warn_of_bands(names: tuple[str, ...], channels: int) -> None:
    logging.getLogger(__name__).warning(
        "the views leave out %s, which only RGB has: the images have %d channels",
        *(", ".join(names), channels),
    )


def make_views(
    recipes: Sequence[ViewRecipe], local_recipes: Sequence[ViewRecipe] = ()
) -> Callable[[Array, Batch], Batch]:
    """Returns the function that adds random views to a batch, one per recipe.

    The key of view v of an example is `split(fold_in(rng, index), V)[v]`, so its views depend only
    on `rng` and its index in the data set (see `example_keys`). Examples are independent: a batch
    that is sharded over devices needs no communication. Local views, the small crops of multi-crop,
    have keys of their own: adding them does not change the other views.

    Args:
        recipes: one per view, all of the same `size`.
        local_recipes: one per local view, all of the same, usually smaller `size`.

    Returns:
        `(rng, batch) -> batch`. Reads 'image' `[B, H, W, C]`, uint8 or float in [0, 1], and 'index'
        `[B]` int32. Adds 'views' `[B, V, h, w, C]`, float32 in [0, 1], and with local recipes
        'local_views' `[B, L, h', w', C]`. Everything else, 'image' included, is unchanged.

    Raises:
        ValueError: there are no recipes, their sizes differ, or a field is out of range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> local = get_local_recipes("swav", 4, size=8)
        >>> augment = make_views(get_view_recipes("swav", size=16), local)
        >>> batch = {"image": jnp.zeros((2, 20, 20, 3), jnp.uint8), "index": jnp.arange(2)}
        >>> batch = jax.eval_shape(augment, jax.random.key(0), batch)
        >>> batch["views"].shape, batch["local_views"].shape
        ((2, 2, 16, 16, 3), (2, 4, 8, 8, 3))

    Multi-crop: Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster
    Assignments", NeurIPS 2020, arXiv:2006.09882.
    """
    recipes, local_recipes = tuple(recipes), tuple(local_recipes)
    if not recipes:
        raise checks.value_error("make_views needs one recipe per view; got none.")
    for recipe in recipes + local_recipes:
        _check_recipe(recipe)
    for group in (recipes, local_recipes):
        if len({recipe.size for recipe in group}) > 1:
            raise checks.value_error(
                f"views are stacked, so their sizes must be equal; got {[r.size for r in group]}. "
                "Pass small crops as local_recipes."
            )

    def augment(rng: Array, batch: Batch) -> Batch:
        checks.assert_rank(batch["image"], 4)
        keys = batch_keys(rng, batch)
        checks.assert_equal_shape_prefix([batch["image"], batch["index"]], 1)
        views = {"views": _stack_views(keys, batch["image"], recipes)}
        if local_recipes:
            keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, _LOCAL)
            views["local_views"] = _stack_views(keys, batch["image"], local_recipes)
        return {**batch, **views}

    return augment


def _stack_views(keys: Array, images: Array, recipes: tuple[ViewRecipe, ...]) -> Array:
    """`[B, V, h, w, C]` views of images `[B, H, W, C]`, with one key per image."""

    def views_of_example(key: Array, image: Array) -> Array:
        keys = jax.random.split(key, len(recipes))
        if len(set(recipes)) == 1:  # compiled once, whatever the number of views
            return jax.vmap(lambda key: make_view(key, image, recipes[0]))(keys)
        return jnp.stack([make_view(k, image, recipe) for k, recipe in zip(keys, recipes)])

    return jax.vmap(views_of_example)(keys, images)
