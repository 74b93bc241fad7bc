"""From a recipe to one function that makes the views of a batch on the device."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.augment.blur import blur_kernel_size, random_gaussian_blur
from sslax.augment.color import color_jitter, random_grayscale, random_solarize
from sslax.augment.crop import center_crop, random_flip, random_resized_crop, resize
from sslax.augment.erase import random_erasing
from sslax.augment.image import to_float
from sslax.augment.keys import batch_keys

Array = jax.Array
Batch = dict[str, Array]
Recipe = TypeVar("Recipe", bound=tuple)

# Folded into an example's key for its local views. A small number would not do: fold_in(key, v)
# and split(key, V)[v] are the same key.
_LOCAL = 0x10CA1


class ViewRecipe(NamedTuple):
    """How one view of an image is made: crop, flip, jitter, gray, blur, solarize, erase.

    The defaults change nothing: the view is the image, or its central square at `size`.

    Attributes:
        size: side of the view in pixels; None is the size of the image.
        crop_scale: range of the crop's area as a fraction of the image's; None is the largest
            central box of the view's shape.
        crop_ratio: range of the crop's aspect, width over height.
        flip: probability of a flip left to right.
        jitter: probability of the color jitter.
        brightness, contrast, saturation, hue: its strengths, before `strength`.
        strength: factor on these four.
        grayscale: probability of a gray view.
        grayscale_first: gray before the jitter rather than after it.
        blur: probability of a Gaussian blur.
        blur_sigma: range of its standard deviation, in pixels.
        blur_kernel_size: its odd number of taps; None is a tenth of the view (`blur_kernel_size`).
        solarize: probability of solarization.
        solarize_threshold: its threshold, in [0, 1].
        erase: probability of an erased box.
        erase_scale: range of the box's area as a fraction of the view's.
    """

    size: int | None = None
    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    strength: float = 1.0
    grayscale: float = 0.0
    grayscale_first: bool = False
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_kernel_size: int | None = None
    solarize: float = 0.0
    solarize_threshold: float = 0.5
    erase: float = 0.0
    erase_scale: tuple[float, float] = (0.02, 0.33)


_SIMCLR = ViewRecipe(
    crop_scale=(0.08, 1.0),
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
_SWAV = _SIMCLR._replace(crop_scale=(0.14, 1.0))
_DINO_VIEWS = tuple(recipe._replace(crop_scale=(0.4, 1.0)) for recipe in _BYOL_VIEWS)

RECIPES: dict[str, tuple[ViewRecipe, ...]] = {
    "identity": (ViewRecipe(),),
    "simclr": (_SIMCLR, _SIMCLR),
    "moco_v1": (_MOCO_V1, _MOCO_V1),
    "moco_v2": (_MOCO_V2, _MOCO_V2),
    "moco_v3": _BYOL_VIEWS,
    "byol": _BYOL_VIEWS,
    "barlow_twins": _BYOL_VIEWS,
    "swav": (_SWAV, _SWAV),
    "dino": _DINO_VIEWS,
    "mae": (ViewRecipe(crop_scale=(0.2, 1.0), flip=0.5),),
    "supervised": (ViewRecipe(crop_scale=(0.08, 1.0), flip=0.5),),
}
"""Recipes of the papers by name, one `ViewRecipe` for each view."""

LOCAL_RECIPES: dict[str, ViewRecipe] = {
    "swav": _SWAV._replace(crop_scale=(0.05, 0.14)),
    "dino": _BYOL._replace(crop_scale=(0.05, 0.4), blur=0.5),
}
"""Recipes of the small crops of multi-crop by name, one `ViewRecipe` for all of them."""


def get_recipes(name: str, **knobs: object) -> tuple[ViewRecipe, ...]:
    """A paper's recipe with some knobs replaced, the same in each of its views.

    Args:
        name: key of `RECIPES`.
        **knobs: fields of `ViewRecipe`, for instance `strength=0.5, blur=0.0, size=32`.

    Returns:
        One `ViewRecipe` for each view.

    Raises:
        ValueError: for an unknown name or knob; it names the nearest known one.

    Example:
        >>> first, second = get_recipes("simclr", strength=0.5, blur=0.0)
        >>> first.brightness * first.strength, first.blur, first == second
        (0.4, 0.0, True)
    """
    assert_known(name, RECIPES)
    return tuple(replace_known(recipe, knobs) for recipe in RECIPES[name])


def get_local_recipes(name: str, count: int, **knobs: object) -> tuple[ViewRecipe, ...]:
    """A paper's recipe of small crops, `count` times, with some knobs replaced.

    Args:
        name: key of `LOCAL_RECIPES`.
        count: how many small crops; 0 for none.
        **knobs: fields of `ViewRecipe`; `size` above all, 96 for views of 224 pixels.

    Returns:
        `count` equal `ViewRecipe`.

    Raises:
        ValueError: for an unknown name or knob (it names the nearest known one), or a negative
            count.

    Example:
        >>> recipes = get_local_recipes("dino", 8, size=96)
        >>> len(recipes), recipes[0].crop_scale
        (8, (0.05, 0.4))
    """
    assert_known(name, LOCAL_RECIPES)
    if count < 0:
        raise ValueError(f"count is a number of views, at least 0; got {count}.")
    return (replace_known(LOCAL_RECIPES[name], knobs),) * count


def assert_known(word: str, known: Iterable[str]) -> None:
    """The word is one of the known ones, or the error names the nearest of them."""
    if word not in known:
        nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.0)[0]
        raise ValueError(f"Unknown {word!r}; did you mean {nearest!r}? Known: {', '.join(known)}.")


def replace_known(recipe: Recipe, knobs: dict[str, object]) -> Recipe:
    """A recipe, a named tuple, with some fields replaced."""
    for knob in knobs:
        assert_known(knob, recipe._fields)
    return recipe._replace(**knobs)


def _check(recipe: ViewRecipe) -> None:
    for name in ("flip", "jitter", "grayscale", "blur", "solarize", "erase"):
        if not 0 <= getattr(recipe, name) <= 1:
            raise ValueError(f"{name} is a probability, in [0, 1]; got {getattr(recipe, name)}.")
    for name in ("crop_scale", "crop_ratio", "blur_sigma", "erase_scale"):
        value = getattr(recipe, name)
        if value is not None and len(value) != 2:
            raise ValueError(f"{name} is a range, two numbers; got {value}.")


def make_view(key: Array, image: Array, recipe: ViewRecipe) -> Array:
    """One view of one image.

    Args:
        key: random key.
        image: `[H, W, C]`, uint8 or float in [0, 1].
        recipe: what to do.

    Returns:
        `[h, w, C]` float32 in [0, 1].

    Raises:
        ValueError: if a knob is out of its range.

    Example:
        >>> import jax
        >>> image = jax.numpy.zeros((32, 32, 3), jax.numpy.uint8)
        >>> recipe = RECIPES["simclr"][0]._replace(size=24)
        >>> jax.eval_shape(lambda key: make_view(key, image, recipe), jax.random.key(0)).shape
        (24, 24, 3)
    """
    checks.assert_rank(image, 3)
    _check(recipe)
    height, width = image.shape[:2] if recipe.size is None else (recipe.size, recipe.size)
    # One key for each operation, so that a knob of one changes no other.
    crop, flip, jitter, grayscale, blur, solarize, erase = jax.random.split(key, 7)

    x = to_float(image)
    if recipe.crop_scale is None:
        x = resize(_largest_box(x, height, width), size=(height, width))
    else:
        x = random_resized_crop(
            crop, x, size=(height, width), scale=recipe.crop_scale, ratio=recipe.crop_ratio
        )
    # An operation that never happens is left out of the program.
    if recipe.flip:
        x = random_flip(flip, x, probability=recipe.flip)
    if recipe.grayscale and recipe.grayscale_first:
        x = random_grayscale(grayscale, x, probability=recipe.grayscale)
    if recipe.jitter:
        x = color_jitter(
            jitter,
            x,
            brightness=recipe.strength * recipe.brightness,
            contrast=recipe.strength * recipe.contrast,
            saturation=recipe.strength * recipe.saturation,
            hue=recipe.strength * recipe.hue,
            probability=recipe.jitter,
        )
    if recipe.grayscale and not recipe.grayscale_first:
        x = random_grayscale(grayscale, x, probability=recipe.grayscale)
    if recipe.blur:
        x = random_gaussian_blur(
            blur,
            x,
            kernel_size=recipe.blur_kernel_size or blur_kernel_size(min(height, width)),
            sigma=recipe.blur_sigma,
            probability=recipe.blur,
        )
    if recipe.solarize:
        x = random_solarize(
            solarize, x, threshold=recipe.solarize_threshold, probability=recipe.solarize
        )
    if recipe.erase:
        x = random_erasing(erase, x, scale=recipe.erase_scale, probability=recipe.erase)
    return x


def _largest_box(image: Array, height: int, width: int) -> Array:
    """Largest central box with the aspect of `height` x `width`."""
    scale = min(image.shape[0] / height, image.shape[1] / width)
    return center_crop(image, size=(round(scale * height), round(scale * width)))


def make_views(
    recipes: Sequence[ViewRecipe], local_recipes: Sequence[ViewRecipe] = ()
) -> Callable[[Array, Batch], Batch]:
    """Function that makes the views of a batch: one for each recipe.

    The key of view v of an example is ``split(fold_in(rng, index), V)[v]``: an example's views
    depend on `rng` and on its index in the set, not on its place in the batch, on the batch's size
    or on the number of devices. Examples never meet, so a batch sharded over devices stays where
    it is. The local views, small crops of another size (multi-crop), have keys of their own: with
    and without them, the others are the same.

    Args:
        recipes: one for each view; all of the same `size`.
        local_recipes: one for each local view; all of the same `size`, usually a smaller one.

    Returns:
        `(rng, batch) -> batch`: reads 'image' `[B, H, W, C]`, uint8 or float in [0, 1], and 'index'
        `[B]` int32; adds 'views' `[B, V, h, w, C]` float32 in [0, 1] and, where there are local
        recipes, 'local_views' `[B, L, h', w', C]`; everything else passes through.

    Raises:
        ValueError: if there is no recipe, sizes differ or a knob is out of its range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> local = get_local_recipes("swav", 4, size=8)
        >>> views = make_views(get_recipes("swav", size=16), local)
        >>> batch = {"image": jnp.zeros((2, 20, 20, 3), jnp.uint8), "index": jnp.arange(2)}
        >>> batch = jax.eval_shape(views, jax.random.key(0), batch)
        >>> batch["views"].shape, batch["local_views"].shape
        ((2, 2, 16, 16, 3), (2, 4, 8, 8, 3))

    Reference for multi-crop: Caron et al., Unsupervised Learning of Visual Features by Contrasting
    Cluster Assignments, 2020 (arXiv:2006.09882).
    """
    recipes, local_recipes = tuple(recipes), tuple(local_recipes)
    if not recipes:
        raise ValueError("make_views needs one recipe for each view; got none.")
    for recipe in recipes + local_recipes:
        _check(recipe)
    for group in (recipes, local_recipes):
        if len({recipe.size for recipe in group}) > 1:
            raise ValueError(
                f"Views are stacked, so their sizes must be equal; got {[r.size for r in group]}. "
                "Give every recipe the same size; small crops are `local_recipes`."
            )

    def views(rng: Array, batch: Batch) -> Batch:
        checks.assert_rank(batch["image"], 4)
        keys = batch_keys(rng, batch)
        checks.assert_equal_shape_prefix([batch["image"], batch["index"]], 1)
        made = {"views": _stack_views(keys, batch["image"], recipes)}
        if local_recipes:
            keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, _LOCAL)
            made["local_views"] = _stack_views(keys, batch["image"], local_recipes)
        return {**batch, **made}

    return views


def _stack_views(keys: Array, images: Array, recipes: tuple[ViewRecipe, ...]) -> Array:
    """`[B, V, h, w, C]` views of `[B, H, W, C]` images, one key each."""

    def example_views(key: Array, image: Array) -> Array:
        keys = jax.random.split(key, len(recipes))
        if len(set(recipes)) == 1:  # compiled once, whatever the number of views
            return jax.vmap(lambda key: make_view(key, image, recipes[0]))(keys)
        return jnp.stack([make_view(k, image, recipe) for k, recipe in zip(keys, recipes)])

    return jax.vmap(example_views)(keys, images)
