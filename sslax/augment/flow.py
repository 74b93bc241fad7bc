"""Augmentation of frame pairs for optical flow, and the exact change of the flow.

An affine map is a matrix `[3, 3]` that takes a pixel `(x, y, 1)` of the new image to the position
in the old image where it is read. The two frames may have different maps; `warp_affine_flow` gives
the flow between the new frames.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sslax import checks, ranges
from sslax.augment.blur import random_gaussian_blur
from sslax.augment.color import color_jitter
from sslax.augment.frames import random_exposure
from sslax.augment.image import to_float
from sslax.augment.keys import batch_keys
from sslax.errors import check_choice
from sslax.ops.dtypes import accumulated, at_least_float32
from sslax.ops.warp import bilinear_sample, pixel_grid
from sslax.ranges import (
    Fraction,
    FractionRange,
    Hue,
    NonNegative,
    PositiveInt,
    PositiveRange,
    Size,
    replace_fields,
)
from sslax.types import Array, Batch

_TRIES = 10
# Ground truth of pixels and cameras, which the frame pairs here do not update.
_GROUND_TRUTH = ("flow", "known", "visible", "depth", "pose", "moving")


class RelativeAffine(NamedTuple):
    """A random affine map of the second frame alone; fields as in `AffineRecipe`."""

    zoom: PositiveRange = (1.0, 1.0)
    squeeze: PositiveRange = (1.0, 1.0)
    rotate: NonNegative = 0.0
    translate: Fraction = 0.0


class AffineRecipe(NamedTuple):
    """Random affine maps of a frame pair. The defaults change nothing.

    Attributes:
        flip: probability of a horizontal flip.
        flip_vertical: probability of a vertical flip.
        zoom: range of the enlargement.
        squeeze: range of the extra enlargement of the width.
        rotate: largest angle, in radians, in either direction.
        translate: largest displacement, as a fraction of the frame's sides, in either direction.
        relative: an additional map of the second frame.
    """

    flip: Fraction = 0.0
    flip_vertical: Fraction = 0.0
    zoom: PositiveRange = (1.0, 1.0)
    squeeze: PositiveRange = (1.0, 1.0)
    rotate: NonNegative = 0.0
    translate: Fraction = 0.0
    relative: RelativeAffine = RelativeAffine()


class FlowRecipe(NamedTuple):
    """How a frame pair is augmented. The defaults change nothing.

    Geometric operations apply to 'frames' and 'input' alike. Color operations apply only to
    'input', which the network sees: the loss compares the frames with their original colors.

    Attributes:
        size: height and width of a random crop; None for no crop.
        full_frames: 'frames' are not cropped, only 'input' is, and 'offset' is the position of the
            crop, for full-image warping.
        affine: affine maps of the frames, before the crop.
        jitter: probability of color jitter.
        brightness, contrast, saturation, hue: strengths of the jitter.
        exposure: probability of a random exposure.
        gamma, gain, tint: its ranges, see `random_exposure`.
        asymmetric: probability of drawing jitter and exposure independently for the second frame.
        swap_channels: probability of permuting the channels, the same in both frames.
        blur: probability of Gaussian blur, the same in both frames.
        blur_sigma: range of its standard deviation, in pixels.
        noise: largest standard deviation of Gaussian noise, independent for each frame and pixel.
        erase: probability of filling boxes of the second frame with its mean color.
        erase_side: range of the boxes' sides, as a fraction of the frame's shorter side.
        erase_boxes: largest number of boxes.
    """

    size: Size | None = None
    full_frames: bool = False
    affine: AffineRecipe = AffineRecipe()
    jitter: Fraction = 0.0
    brightness: NonNegative = 0.0
    contrast: NonNegative = 0.0
    saturation: NonNegative = 0.0
    hue: Hue = 0.0
    exposure: Fraction = 0.0
    gamma: PositiveRange = (0.7, 1.5)
    gain: PositiveRange = (1.0, 1.0)
    tint: PositiveRange = (0.9, 1.1)
    asymmetric: Fraction = 0.0
    swap_channels: Fraction = 0.0
    blur: Fraction = 0.0
    blur_sigma: PositiveRange = (0.1, 3.0)
    noise: NonNegative = 0.0
    erase: Fraction = 0.0
    erase_side: FractionRange = (0.13, 0.27)
    erase_boxes: PositiveInt = 3


FLOW_RECIPES: dict[str, FlowRecipe] = {
    "identity": FlowRecipe(),
    "unflow": FlowRecipe(
        affine=AffineRecipe(
            flip=0.5,
            zoom=(0.9, 1.1),
            rotate=0.1,
            translate=0.1,
            relative=RelativeAffine(zoom=(0.99, 1.01), rotate=0.01, translate=0.01),
        ),
        jitter=1.0,
        brightness=0.02,
        contrast=0.3,
        exposure=1.0,
        noise=0.04,
    ),
    "uflow": FlowRecipe(affine=AffineRecipe(flip=0.5), jitter=1.0, hue=0.5, swap_channels=0.5),
    "arflow": FlowRecipe(affine=AffineRecipe(flip=0.5)),
    "smurf": FlowRecipe(
        full_frames=True,
        affine=AffineRecipe(flip=0.5),
        jitter=1.0,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.5 / math.pi,
        asymmetric=0.2,
        erase=0.5,
    ),
}
"""Published recipes by name; docs/flow.md says how the authors' codes differ."""


def get_flow_recipe(name: str, **fields: Any) -> FlowRecipe:
    """A published recipe, with some fields replaced.

    Args:
        name: key of `FLOW_RECIPES`.
        **fields: fields of `FlowRecipe`. `affine` may be a dictionary of fields of `AffineRecipe`,
            and its `relative` one of `RelativeAffine`, which replace only those.

    Raises:
        UserError: the recipe or a field is unknown; the message suggests the closest one.
        UserError: a field is out of its range.

    Example:
        >>> recipe = get_flow_recipe("smurf", size=(48, 64), affine={"rotate": 0.1})
        >>> recipe.full_frames, recipe.affine.flip, recipe.affine.rotate
        (True, 0.5, 0.1)
    """
    check_choice("recipe", name, FLOW_RECIPES)
    recipe, affine = FLOW_RECIPES[name], fields.get("affine")
    if isinstance(affine, dict):
        relative = affine.get("relative")
        if isinstance(relative, dict):
            affine = {**affine, "relative": replace_fields(recipe.affine.relative, relative)}
        fields = {**fields, "affine": replace_fields(recipe.affine, affine)}
    recipe = replace_fields(recipe, fields)
    ranges.check_record(recipe)
    return recipe


def sample_affine(key: Array, size: Size, recipe: AffineRecipe) -> tuple[Array, Array]:
    """Samples affine maps of two frames that read inside the frames.

    With the center c, `x_old = c + t + R(θ) diag(1 / s, 1) / z (x_new - c)` after the flips, all
    drawn uniformly. The second frame has an additional map of the same form, `recipe.relative`. The
    result is the first of ten draws that keep the corners of both frames inside, or the flips alone
    if none does.

    Args:
        key: random key.
        size: height and width of the frames.
        recipe: see `AffineRecipe`.

    Returns:
        The maps of the first and the second frame, `[3, 3]` each.

    Raises:
        ValueError: a range is not a positive, increasing pair.

    Example:
        >>> import jax
        >>> first, _ = sample_affine(jax.random.key(0), (4, 6), AffineRecipe(flip=1.0))
        >>> first.tolist()
        [[-1.0, 0.0, 5.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    for change in (recipe, recipe.relative):
        for name in ("zoom", "squeeze"):
            ranges.check(name, getattr(change, name), PositiveRange)
    flip_key, map_key = jax.random.split(key)
    chance = jax.random.uniform(flip_key, (2,), jnp.float32)
    probabilities = jnp.array([recipe.flip, recipe.flip_vertical], jnp.float32)
    signs = jnp.where(chance < probabilities, jnp.float32(-1), jnp.float32(1))
    flips = _about_center(jnp.diag(signs), jnp.zeros(2, jnp.float32), size)
    if not _has_affine(recipe):
        return flips, flips
    u = jax.random.uniform(map_key, (_TRIES, 2, 5), jnp.float32)
    first = _compose(jax.vmap(lambda u: _affine(u[0], recipe, size))(u), flips)
    second = _compose(jax.vmap(lambda u: _affine(u[1], recipe.relative, size))(u), first)
    fits = _reads_inside(jnp.stack([first, second]), size)
    any_fits, chosen = jnp.any(fits), jnp.argmax(fits)
    first, second = (jnp.where(any_fits, maps[chosen], flips) for maps in (first, second))
    return first, second


def _reads_inside(maps: Array, size: Size) -> Array:
    """`[N]` bool: the maps `[2, N, 3, 3]` keep the corners of both frames inside."""
    height, width = size
    corners = jnp.array([[x, y] for x in (0, width - 1) for y in (0, height - 1)], jnp.float32)
    last = jnp.array([width - 1, height - 1], jnp.float32)
    moved = jax.vmap(jax.vmap(lambda matrix: apply_affine(matrix, corners)))(maps)
    # A tolerance for the rounding of the identity's corners.
    return jnp.all((moved >= -5e-3) & (moved <= last + 5e-3), axis=(0, 2, 3))


def _has_affine(recipe: AffineRecipe) -> bool:
    """Whether there is anything besides flips."""
    return any(
        tuple(change.zoom) != (1, 1)
        or tuple(change.squeeze) != (1, 1)
        or change.rotate > 0
        or change.translate > 0
        for change in (recipe, recipe.relative)
    )


def _affine(u: Array, change: AffineRecipe | RelativeAffine, size: Size) -> Array:
    """The map of five uniform numbers."""

    def within(u: Array, bounds: PositiveRange) -> Array:
        return bounds[0] + (bounds[1] - bounds[0]) * u

    angle = change.rotate * (2 * u[0] - 1)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    zoom, squeeze = within(u[1], change.zoom), within(u[2], change.squeeze)
    rotation = jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
    linear = rotation * jnp.stack([1 / (zoom * squeeze), 1 / zoom])
    shift = change.translate * (2 * u[3:] - 1) * jnp.array(size[::-1], jnp.float32)
    return _about_center(linear, shift, size)


def _about_center(linear: Array, shift: Array, size: Size) -> Array:
    center = (jnp.array(size[::-1], jnp.float32) - 1) / 2
    offset = center + shift - _matvec(linear, center)
    top = jnp.concatenate([linear, offset[:, None]], axis=1)
    return jnp.concatenate([top, jnp.array([[0.0, 0.0, 1.0]], jnp.float32)])


# Small products are written out, for full precision on every device.


def _compose(outer: Array, inner: Array) -> Array:
    """`outer @ inner`."""
    return jnp.sum(outer[..., :, :, None] * inner[..., None, :, :], axis=-2)


def _matvec(matrix: Array, vector: Array) -> Array:
    """`matrix @ vector`."""
    return jnp.sum(matrix * vector[..., None, :], axis=-1)


def invert_affine(matrix: Array) -> Array:
    """Inverse of an affine map `[3, 3]`.

    Example:
        >>> import jax.numpy as jnp
        >>> half = invert_affine(jnp.array([[2.0, 0.0, 4.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
        >>> (half[0] + 0.0).tolist()
        [0.5, 0.0, -2.0]
    """
    checks.assert_shape(matrix, (3, 3))
    matrix = at_least_float32(matrix)
    (a, b), (c, d) = matrix[:2, :2]
    linear = jnp.stack([jnp.stack([d, -b]), jnp.stack([-c, a])]) / (a * d - b * c)
    offset = -_matvec(linear, matrix[:2, 2])
    top = jnp.concatenate([linear, offset[:, None]], axis=1)
    return jnp.concatenate([top, jnp.array([[0.0, 0.0, 1.0]], matrix.dtype)])


def apply_affine(matrix: Array, points: Array) -> Array:
    """Applies an affine map `[3, 3]` to points `[..., 2]`, `(x, y)`.

    Example:
        >>> import jax.numpy as jnp
        >>> shift = jnp.array([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> apply_affine(shift, jnp.array([1.0, 1.0])).tolist()
        [3.0, 1.0]
    """
    checks.assert_shape(matrix, (3, 3))
    checks.assert_axis_dimension(points, -1, 2)
    matrix, points = accumulated(matrix, points)
    return _matvec(matrix[:2, :2], points) + matrix[:2, 2]


def warp_affine(image: Array, matrix: Array) -> tuple[Array, Array]:
    """Warps an image by an affine map: `out(q) = image(A q)`.

    Args:
        image: `[H, W, C]` float.
        matrix: A, `[3, 3]`.

    Returns:
        `[H, W, C]`, with border pixels repeated outside, and `inside` `[H, W]` (bool).

    Example:
        >>> import jax.numpy as jnp
        >>> flip = jnp.array([[-1.0, 0.0, 2.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> warp_affine(jnp.arange(3.0).reshape(1, 3, 1), flip)[0][0, :, 0].tolist()
        [2.0, 1.0, 0.0]
    """
    checks.assert_rank(image, 3)
    return bilinear_sample(image, apply_affine(matrix, pixel_grid(*image.shape[:2])))


def warp_affine_flow(flow: Array, first: Array, second: Array) -> tuple[Array, Array]:
    """The flow between two frames after `warp_affine` of both.

    Pixel q of the new first frame shows what was at `A1 q`, which moves to `A1 q + flow(A1 q)` in
    the second frame, now at `A2⁻¹` of that: `flow'(q) = A2⁻¹ (A1 q + flow(A1 q)) - q`.

    Args:
        flow: `[H, W, 2]`, `(x, y)` in pixels, from the first frame to the second.
        first: A1, `[3, 3]`, the map of the first frame.
        second: A2, `[3, 3]`, the map of the second frame.

    Returns:
        The new flow `[H, W, 2]`, and `inside` `[H, W]` (bool): `A1 q` is inside the frame.

    Example:
        >>> import jax.numpy as jnp
        >>> flow = jnp.full((4, 6, 2), jnp.array([1.5, 0.0]))
        >>> flip = jnp.array([[-1.0, 0.0, 5.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> warp_affine_flow(flow, flip, flip)[0][0, 0].tolist()
        [-1.5, 0.0]
    """
    checks.assert_rank(flow, 3)
    checks.assert_axis_dimension(flow, -1, 2)
    flow, first, second = accumulated(flow, first, second)
    grid = pixel_grid(*flow.shape[:2]).astype(flow.dtype)
    read, inside = bilinear_sample(flow, apply_affine(first, grid))
    # The difference of the maps rather than of positions, which are hundreds of pixels: static
    # pixels get a flow of exactly zero.
    change = _compose(invert_affine(second), first) - jnp.eye(3, dtype=first.dtype)
    shift = _matvec(change[:2, :2], grid) + change[:2, 2]
    return shift + _matvec(invert_affine(second)[:2, :2], read), inside


def random_box_mask(
    key: Array, size: Size, *, side: FractionRange = (0.13, 0.27), boxes: int = 3
) -> Array:
    """A mask of 1 to `boxes` random boxes, which may overlap.

    Args:
        key: random key.
        size: height and width.
        side: range of the boxes' sides, as a fraction of the shorter side.
        boxes: largest number of boxes.

    Returns:
        `[H, W]` bool, True inside the boxes.

    Raises:
        ValueError: `side` is not an increasing pair in (0, 1].

    Example:
        >>> import jax
        >>> mask = random_box_mask(jax.random.key(0), (20, 30), side=(0.25, 0.25), boxes=1)
        >>> int(mask.sum())
        25
    """
    ranges.check("side", side, FractionRange)
    ranges.check("boxes", boxes, PositiveInt)
    height, width = size
    count_key, box_key = jax.random.split(key)
    u = jax.random.uniform(box_key, (boxes, 4), jnp.float32)
    sides = jnp.round((side[0] + (side[1] - side[0]) * u[:, :2]) * min(size))
    corner = jnp.floor(u[:, 2:] * (jnp.array([height, width], jnp.float32) - sides + 1))
    used = jnp.arange(boxes) <= jax.random.randint(count_key, (), 0, boxes, jnp.int32)

    def inside(axis: int) -> Array:
        pixel = jnp.arange(size[axis], dtype=jnp.float32)
        start = corner[:, axis, None]
        return (pixel >= start) & (pixel < start + sides[:, axis, None])

    boxes_mask = inside(0)[:, :, None] & inside(1)[:, None, :] & used[:, None, None]
    return jnp.any(boxes_mask, axis=0)


def random_eraser(
    key: Array,
    image: Array,
    *,
    probability: float = 0.5,
    side: FractionRange = (0.13, 0.27),
    boxes: int = 3,
) -> Array:
    """Fills random boxes with the image's mean color, with a given probability.

    Simulates occlusions: a network that sees the result learns to fill in the flow that a teacher
    estimates from the original image.

    Args:
        key: random key.
        image: `[H, W, C]` float.
        probability: probability of erasing.
        side, boxes: as in `random_box_mask`.

    Returns:
        `[H, W, C]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> image = jnp.linspace(0, 1, 64).reshape(8, 8, 1)
        >>> erased = random_eraser(jax.random.key(0), image, probability=1.0, side=(1.0, 1.0))
        >>> round(float(erased.max()), 3)
        0.5

    Teed and Deng, "RAFT", ECCV 2020; Stone et al., "SMURF", CVPR 2021.
    """
    checks.assert_rank(image, 3)
    height, width, _ = image.shape
    chance_key, box_key = jax.random.split(key)
    mask = random_box_mask(box_key, (height, width), side=side, boxes=boxes)
    mask &= jax.random.bernoulli(chance_key, probability)
    return jnp.where(mask[..., None], jnp.mean(image, axis=(0, 1), keepdims=True), image)


def random_occluder(
    key: Array, image: Array, *, side: FractionRange = (0.1, 0.3), boxes: int = 3
) -> Array:
    """Fills random boxes with noise or with another part of the image, each half of the time.

    Args:
        key: random key.
        image: `[H, W, C]` float in [0, 1].
        side, boxes: as in `random_box_mask`.

    Returns:
        `[H, W, C]`.

    Example:
        >>> import jax
        >>> image = jax.numpy.zeros((8, 8, 3))
        >>> random_occluder(jax.random.key(1), image).shape
        (8, 8, 3)

    Liu et al., "Learning by Analogy: Reliable Supervision from Transformations for Unsupervised
    Optical Flow Estimation", CVPR 2020.
    """
    checks.assert_rank(image, 3)
    box_key, kind_key, noise_key, shift_key = jax.random.split(key, 4)
    height, width, _ = image.shape
    mask = random_box_mask(box_key, (height, width), side=side, boxes=boxes)
    noise = jax.random.uniform(noise_key, image.shape, image.dtype)
    u = jax.random.uniform(shift_key, (2,), jnp.float32, minval=0.25, maxval=0.75)
    shifted = jnp.roll(
        image, (u * jnp.array([height, width], jnp.float32)).astype(jnp.int32), axis=(0, 1)
    )
    filling = jnp.where(jax.random.bernoulli(kind_key), noise, shifted)
    return jnp.where(mask[..., None], filling, image)


def photometric_augmentation(key: Array, frames: Array, recipe: FlowRecipe) -> Array:
    """Color operations of a recipe: jitter, exposure, channel swap, blur, noise, eraser.

    Args:
        key: random key.
        frames: `[2, H, W, C]` float in [0, 1].
        recipe: see `FlowRecipe`; its geometric fields are ignored.

    Returns:
        `[2, H, W, C]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> recipe = FlowRecipe(jitter=1.0, brightness=0.4)
        >>> frames = jnp.full((2, 2, 2, 3), 0.5)
        >>> first, second = photometric_augmentation(jax.random.key(0), frames, recipe)
        >>> bool((first == second).all())
        True
    """
    checks.assert_rank(frames, 4)
    jitter, exposure, asymmetric, order, noise, erase = jax.random.split(key, 6)
    # Operations with probability 0 are not compiled.
    if recipe.jitter:
        frames = _jitter_frames(_frame_keys(jitter, asymmetric, recipe), frames, recipe)
    if recipe.exposure:
        frames = _expose_frames(_frame_keys(exposure, asymmetric, recipe), frames, recipe)
    if recipe.swap_channels and frames.shape[-1] > 1:
        frames = _swap_channels(order, frames, recipe.swap_channels)
    if recipe.blur:
        # A key folded from that of the noise: recipes without blur keep their draws.
        frames = _blur_frames(jax.random.fold_in(noise, 1), frames, recipe)
    if recipe.noise:
        frames = _add_noise(noise, frames, recipe.noise)
    if recipe.erase:
        second = random_eraser(
            erase,
            frames[1],
            probability=recipe.erase,
            side=recipe.erase_side,
            boxes=recipe.erase_boxes,
        )
        frames = jnp.stack([frames[0], second])
    return frames


def _frame_keys(key: Array, asymmetric_key: Array, recipe: FlowRecipe) -> Array:
    """`[2]` keys, the same for both frames or, with probability `asymmetric`, different."""
    keys = jax.random.split(key)
    different = jax.random.bernoulli(asymmetric_key, recipe.asymmetric)
    return keys[jnp.array([0, different.astype(jnp.int32)])]


def _jitter_frames(keys: Array, frames: Array, recipe: FlowRecipe) -> Array:
    strengths = {
        name: getattr(recipe, name) for name in ("brightness", "contrast", "saturation", "hue")
    }
    jitter = jax.vmap(lambda k, x: color_jitter(k, x, probability=recipe.jitter, **strengths))
    return jitter(keys, frames)


def _expose_frames(keys: Array, frames: Array, recipe: FlowRecipe) -> Array:
    ranges = {name: getattr(recipe, name) for name in ("gamma", "gain", "tint")}
    expose = jax.vmap(lambda k, x: random_exposure(k, x, probability=recipe.exposure, **ranges))
    return expose(keys, frames)


def _swap_channels(key: Array, frames: Array, probability: float) -> Array:
    channels = frames.shape[-1]
    chance_key, permutation_key = jax.random.split(key)
    permutation = jax.random.permutation(permutation_key, channels)
    swaps = jax.random.bernoulli(chance_key, probability)
    return jnp.take(frames, jnp.where(swaps, permutation, jnp.arange(channels)), axis=-1)


def _blur_frames(key: Array, frames: Array, recipe: FlowRecipe) -> Array:
    low, high = recipe.blur_sigma
    kernel_size = 2 * math.ceil(2 * high) + 1

    def blur(frame: Array) -> Array:
        return random_gaussian_blur(
            key, frame, kernel_size=kernel_size, sigma=(low, high), probability=recipe.blur
        )

    return jax.vmap(blur)(frames).astype(frames.dtype)


def _add_noise(key: Array, frames: Array, largest: float) -> Array:
    sigma_key, noise_key = jax.random.split(key)
    sigma = largest * jax.random.uniform(sigma_key, (2, 1, 1, 1), jnp.float32)
    noise = sigma * jax.random.normal(noise_key, frames.shape, jnp.float32)
    return jnp.clip(frames + noise.astype(frames.dtype), 0.0, 1.0)


def make_frame_pairs(recipe: FlowRecipe) -> Callable[[Array, Batch], Batch]:
    """Returns the function that adds the augmented frame pairs of optical flow to a batch.

    The key of an example is `fold_in(rng, index)`, so its augmentation depends only on `rng` and
    its index in the data set (see `example_keys`).

    Args:
        recipe: see `FlowRecipe`.

    Returns:
        `(rng, batch) -> batch`. Reads 'image' `[B, 2, H, W, C]`, uint8 or float in [0, 1], and
        'index' `[B]`. Adds 'frames' `[B, 2, h, w, C]`, float32, warped and cropped but with their
        original colors, for the loss, and 'input', the same frames with augmented colors, for the
        network. With `recipe.full_frames`, 'frames' keep H and W, and 'offset' `[B, 2]` float32 is
        the position `(x, y)` of the 'input' in them, in pixels. Everything else, 'image' included,
        is unchanged.

    Raises:
        ValueError: a field of the recipe is out of range. In the returned function: the crop is
            larger than the frames, or the batch has ground truth (flow, depth, ...), which the
            augmentation here does not update.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> augment = make_frame_pairs(get_flow_recipe("smurf", size=(8, 16)))
        >>> batch = {"image": jnp.zeros((2, 2, 12, 20, 3), jnp.uint8), "index": jnp.arange(2)}
        >>> batch = jax.eval_shape(augment, jax.random.key(0), batch)
        >>> batch["frames"].shape, batch["input"].shape, batch["offset"].shape
        ((2, 2, 12, 20, 3), (2, 2, 8, 16, 3), (2, 2))
    """
    ranges.check_record(recipe)

    def augment(rng: Array, batch: Batch) -> Batch:
        checks.assert_rank(batch["image"], 5)
        checks.assert_axis_dimension(batch["image"], 1, 2)
        _check_batch(batch, recipe)
        keys = batch_keys(rng, batch)
        augment_pair = jax.vmap(lambda key, frames: _augment_pair(key, frames, recipe))
        return {**batch, **augment_pair(keys, batch["image"])}

    return augment


def _augment_pair(key: Array, frames: Array, recipe: FlowRecipe) -> Batch:
    # One key per operation, so that changing one operation does not change the others' draws.
    affine_key, crop_key, color_key = jax.random.split(key, 3)
    frames = _warp_frames(affine_key, to_float(frames), recipe.affine)
    cropped, corner = _crop_frames(crop_key, frames, recipe.size)
    pair = {"frames": cropped, "input": photometric_augmentation(color_key, cropped, recipe)}
    if recipe.full_frames:
        pair |= {"frames": frames, "offset": corner[::-1].astype(jnp.float32)}
    return pair


def _warp_frames(key: Array, frames: Array, recipe: AffineRecipe) -> Array:
    height, width = frames.shape[1:3]
    if _has_affine(recipe):
        maps = jnp.stack(sample_affine(key, (height, width), recipe))
        return jax.vmap(warp_affine)(frames, maps)[0]
    if recipe.flip > 0 or recipe.flip_vertical > 0:  # exact, without interpolation
        first, _ = sample_affine(key, (height, width), recipe)
        frames = jnp.where(first[0, 0] < 0, frames[:, :, ::-1], frames)
        frames = jnp.where(first[1, 1] < 0, frames[:, ::-1], frames)
    return frames


def _crop_frames(key: Array, frames: Array, size: Size | None) -> tuple[Array, Array]:
    """A random crop of both frames, and its first row and column."""
    if size is None or tuple(size) == frames.shape[1:3]:
        return frames, jnp.zeros(2, jnp.int32)
    slack = np.array([have - want for have, want in zip(frames.shape[1:3], size)], np.int32)
    corner = jax.random.randint(key, (2,), 0, slack + 1, jnp.int32)
    start = (np.int32(0), *corner, np.int32(0))
    return jax.lax.dynamic_slice(frames, start, (2, *size, frames.shape[-1])), corner


def _check_batch(batch: Batch, recipe: FlowRecipe) -> None:
    have = batch["image"].shape[2:4]
    if recipe.size and any(want > side for want, side in zip(recipe.size, have)):
        raise checks.value_error(
            f"the frames, {have}, are smaller than the crop, size={tuple(recipe.size)}; choose a "
            "smaller crop or larger frames."
        )
    affine = recipe.affine
    moves = _has_affine(affine) or affine.flip > 0 or affine.flip_vertical > 0
    truth = [name for name in _GROUND_TRUTH if name in batch]
    if truth and (moves or recipe.size):
        raise checks.value_error(
            f"the batch has {', '.join(truth)}, which this augmentation does not update; leave it "
            "out, or neither crop nor move the frames."
        )
