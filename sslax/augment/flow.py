"""Augmentation of pairs of frames for optical flow, and how it changes the flow, exactly.

A map of the plane is a matrix `[3, 3]` that takes a pixel `(x, y, 1)` of the new image to the place
of the old one that is read there. Two frames may have different ones: then the flow between them
changes as `affine_flow` says.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.augment.blur import random_gaussian_blur
from sslax.augment.color import color_jitter
from sslax.augment.frames import random_exposure
from sslax.augment.image import to_float
from sslax.augment.keys import batch_keys
from sslax.augment.views import assert_known, replace_known
from sslax.ops.warp import bilinear_sample, pixel_grid

Array = jax.Array
Batch = dict[str, Array]
Range = tuple[float, float]

_TRIES = 10
_TRUTH = ("flow", "known", "visible", "depth", "pose", "moving")


class AffineRecipe(NamedTuple):
    """How a pair of frames is moved in the plane. The defaults change nothing.

    Attributes:
        flip: probability of mirroring left and right.
        flip_vertical: probability of mirroring top and bottom.
        zoom: range of the enlargement.
        squeeze: range of what width is enlarged beyond height.
        rotate: greatest angle, in radians, either way.
        translate: greatest displacement, as a fraction of the frame's sides, either way.
        relative: the second frame is moved once more, by this part of such a zoom, squeeze,
            rotation and translation; 0 moves both frames alike.
    """

    flip: float = 0.0
    flip_vertical: float = 0.0
    zoom: Range = (1.0, 1.0)
    squeeze: Range = (1.0, 1.0)
    rotate: float = 0.0
    translate: float = 0.0
    relative: float = 0.0


class FlowRecipe(NamedTuple):
    """How a pair of frames is augmented. The defaults change nothing.

    What moves pixels moves them in both frames, in 'image' and in 'input'; what changes colors
    changes 'input' alone, which the network is given: the loss compares frames as they were taken.

    Attributes:
        size: height and width that are cut out at a random place; None keeps the frame's.
        whole: 'image' keeps the whole frames, 'input' is the part of them that was cut out, and
            'offset' is its place, for full-image warping.
        affine: how frames are moved, before they are cut.
        jitter: probability of the color jitter.
        brightness, contrast, saturation, hue: its strengths.
        exposure: probability of a random exposure.
        gamma, gain, tint: its ranges, see `random_exposure`.
        asymmetric: probability that the second frame's colors are drawn apart from the first's.
        swap_channels: probability of a random order of the channels, the same in both frames.
        blur: probability of a Gaussian blur, the same in both frames.
        blur_sigma: range of its standard deviation, in pixels.
        noise: greatest standard deviation of Gaussian noise, drawn apart for each frame and pixel.
        erase: probability that boxes of the second frame are painted in its mean color.
        erase_side: range of the boxes' sides, as a fraction of the shorter side of the frame.
        erase_boxes: at most so many boxes.
    """

    size: tuple[int, int] | None = None
    whole: bool = False
    affine: AffineRecipe = AffineRecipe()
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    exposure: float = 0.0
    gamma: Range = (0.7, 1.5)
    gain: Range = (1.0, 1.0)
    tint: Range = (0.9, 1.1)
    asymmetric: float = 0.0
    swap_channels: float = 0.0
    blur: float = 0.0
    blur_sigma: Range = (0.1, 3.0)
    noise: float = 0.0
    erase: float = 0.0
    erase_side: Range = (0.13, 0.27)
    erase_boxes: int = 3


FLOW_RECIPES: dict[str, FlowRecipe] = {
    "identity": FlowRecipe(),
    "unflow": FlowRecipe(
        affine=AffineRecipe(flip=0.5, zoom=(0.9, 1.1), rotate=0.1, translate=0.1, relative=0.1),
        jitter=1.0,
        brightness=0.02,
        contrast=0.3,
        exposure=1.0,
        noise=0.04,
    ),
    "uflow": FlowRecipe(affine=AffineRecipe(flip=0.5), jitter=1.0, hue=0.5, swap_channels=0.5),
    "arflow": FlowRecipe(affine=AffineRecipe(flip=0.5)),
    "smurf": FlowRecipe(
        whole=True,
        affine=AffineRecipe(flip=0.5),
        jitter=1.0,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.5,
        asymmetric=0.2,
        erase=0.5,
    ),
}
"""Recipes of the papers by name; see docs/flow.md for what the authors' codes do."""


def get_flow_recipe(name: str, **knobs: object) -> FlowRecipe:
    """A paper's recipe with some knobs replaced.

    Args:
        name: key of `FLOW_RECIPES`.
        **knobs: fields of `FlowRecipe`; `affine` may be a dictionary of fields of `AffineRecipe`,
            which replaces these alone.

    Raises:
        ValueError: for an unknown name or knob; it names the nearest known one. For a range of the
            blur that is not positive and increasing.

    Example:
        >>> recipe = get_flow_recipe("smurf", size=(48, 64), affine={"rotate": 0.1})
        >>> recipe.whole, recipe.affine.flip, recipe.affine.rotate
        (True, 0.5, 0.1)
    """
    assert_known(name, FLOW_RECIPES)
    recipe = FLOW_RECIPES[name]
    if isinstance(knobs.get("affine"), dict):
        knobs = {**knobs, "affine": replace_known(recipe.affine, knobs["affine"])}
    made = replace_known(recipe, knobs)
    low, high = made.blur_sigma
    if not 0 < low <= high:
        raise ValueError(f"blur_sigma must be a positive, increasing pair; got {(low, high)}.")
    return made


def sample_affine(key: Array, size: tuple[int, int], recipe: AffineRecipe) -> tuple[Array, Array]:
    """Random maps of the plane for two frames, that read within the frames.

    About the center c, `x_old = c + t + R(θ) diag(s, 1) / z (x_new - c)` after the flips, and for
    the second frame once more, with `relative` times the displacement, the angle and the logarithms
    of the enlargements. The first of ten draws that leaves all four corners of both frames inside;
    the flips alone where there is none.

    Args:
        key: random key.
        size: height and width of the frames.
        recipe: ranges.

    Returns:
        `first`, `second`, `[3, 3]`.

    Raises:
        ValueError: if a range is not positive and increasing.

    Example:
        >>> import jax
        >>> first, _ = sample_affine(jax.random.key(0), (4, 6), AffineRecipe(flip=1.0))
        >>> first.tolist()
        [[-1.0, 0.0, 5.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    for name in ("zoom", "squeeze"):
        low, high = getattr(recipe, name)
        if not 0 < low <= high:
            raise ValueError(f"{name} must be a positive, increasing pair; got {(low, high)}.")
    flip_key, move_key = jax.random.split(key)
    height, width = size
    chance = jax.random.uniform(flip_key, (2,))
    odds = jnp.array([recipe.flip, recipe.flip_vertical])
    flips = _about_center(jnp.diag(jnp.where(chance < odds, -1.0, 1.0)), jnp.zeros(2), size)
    if not _moves(recipe):
        return flips, flips
    draws = jax.random.uniform(move_key, (_TRIES, 2, 5))
    moves = jax.vmap(lambda u: _move(u[0], recipe, size, 1.0))(draws)
    further = jax.vmap(lambda u: _move(u[1], recipe, size, recipe.relative))(draws)
    first = _compose(moves, flips)
    second = _compose(further, first)
    corners = jnp.array([[x, y] for x in (0, width - 1) for y in (0, height - 1)], jnp.float32)
    last = jnp.array([width - 1, height - 1], jnp.float32)
    places = jnp.stack([jax.vmap(lambda m: move_points(m, corners))(m) for m in (first, second)])
    # Half a hundredth of a pixel beyond the border, where rounding takes the identity's corners.
    fits = jnp.all((places >= -5e-3) & (places <= last + 5e-3), axis=(0, 2, 3))
    found, chosen = jnp.any(fits), jnp.argmax(fits)
    return tuple(jnp.where(found, maps[chosen], flips) for maps in (first, second))


def _moves(recipe: AffineRecipe) -> bool:
    return (
        tuple(recipe.zoom) != (1, 1)
        or tuple(recipe.squeeze) != (1, 1)
        or recipe.rotate > 0
        or recipe.translate > 0
    )


def _move(u: Array, recipe: AffineRecipe, size: tuple[int, int], part: float) -> Array:
    """The map of five uniform numbers; `part` of it, 0 for the identity."""

    def enlargement(u: Array, bounds: Range) -> Array:
        low, high = jnp.log(jnp.array(bounds))
        return jnp.exp(part * (low + (high - low) * u))

    angle = part * recipe.rotate * (2 * u[0] - 1)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    zoom, squeeze = enlargement(u[1], recipe.zoom), enlargement(u[2], recipe.squeeze)
    rotation = jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
    linear = rotation * jnp.stack([1 / (zoom * squeeze), 1 / zoom])
    shift = part * recipe.translate * (2 * u[3:] - 1) * jnp.array(size[::-1], jnp.float32)
    return _about_center(linear, shift, size)


def _about_center(linear: Array, shift: Array, size: tuple[int, int]) -> Array:
    center = (jnp.array(size[::-1], jnp.float32) - 1) / 2
    offset = center + shift - _times(linear, center)
    top = jnp.concatenate([linear, offset[:, None]], axis=1)
    return jnp.concatenate([top, jnp.array([[0.0, 0.0, 1.0]])])


def _compose(outer: Array, inner: Array) -> Array:
    """`outer @ inner`; small products in full precision on every device."""
    return jnp.sum(outer[..., :, :, None] * inner[..., None, :, :], axis=-2)


def _times(matrix: Array, vector: Array) -> Array:
    return jnp.sum(matrix * vector[..., None, :], axis=-1)


def invert_affine(matrix: Array) -> Array:
    """Inverse of a map of the plane `[3, 3]`.

    Example:
        >>> import jax.numpy as jnp
        >>> half = invert_affine(jnp.array([[2.0, 0.0, 4.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
        >>> (half[0] + 0.0).tolist()
        [0.5, 0.0, -2.0]
    """
    checks.assert_shape(matrix, (3, 3))
    (a, b), (c, d) = matrix[:2, :2]
    linear = jnp.stack([jnp.stack([d, -b]), jnp.stack([-c, a])]) / (a * d - b * c)
    offset = -_times(linear, matrix[:2, 2])
    top = jnp.concatenate([linear, offset[:, None]], axis=1)
    return jnp.concatenate([top, jnp.array([[0.0, 0.0, 1.0]], matrix.dtype)])


def move_points(matrix: Array, points: Array) -> Array:
    """Where a map `[3, 3]` takes points `[..., 2]`, `(x, y)`."""
    return _times(matrix[:2, :2], points) + matrix[:2, 2]


def affine_image(image: Array, matrix: Array) -> tuple[Array, Array]:
    """Image moved in the plane: `out(q) = image(A q)`.

    Args:
        image: `[H, W, C]` float.
        matrix: the map A, `[3, 3]`.

    Returns:
        `[H, W, C]`, the border's pixels repeated outside, and `inside` `[H, W]` bool.

    Example:
        >>> import jax.numpy as jnp
        >>> flip = jnp.array([[-1.0, 0.0, 2.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> affine_image(jnp.arange(3.0).reshape(1, 3, 1), flip)[0][0, :, 0].tolist()
        [2.0, 1.0, 0.0]
    """
    checks.assert_rank(image, 3)
    return bilinear_sample(image, move_points(matrix, pixel_grid(*image.shape[:2])))


def affine_flow(flow: Array, first: Array, second: Array) -> tuple[Array, Array]:
    """The flow between two frames after both have been moved in the plane.

    A pixel q of the new first frame shows what `A1 q` showed, which moves to `A1 q + flow(A1 q)` of
    the second frame, and that is now at `A2⁻¹` of there:
    ``flow'(q) = A2⁻¹ (A1 q + flow(A1 q)) - q``.

    Args:
        flow: `[H, W, 2]`, `(x, y)` in pixels, from the first frame to the second.
        first: the map A1 of the first frame, `[3, 3]`, as `affine_image` takes it.
        second: the map A2 of the second.

    Returns:
        `[H, W, 2]`, and `inside` `[H, W]` bool, where the flow was known: `A1 q` is in the frame.

    Example:
        >>> import jax.numpy as jnp
        >>> flow = jnp.full((4, 6, 2), jnp.array([1.5, 0.0]))
        >>> flip = jnp.array([[-1.0, 0.0, 5.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> affine_flow(flow, flip, flip)[0][0, 0].tolist()
        [-1.5, 0.0]
    """
    checks.assert_rank(flow, 3)
    checks.assert_axis_dimension(flow, -1, 2)
    grid = pixel_grid(*flow.shape[:2])
    places = move_points(first, grid)
    moved, inside = bilinear_sample(flow, places)
    # A pixel that nothing moves has a flow of exactly zero: the difference of two maps, not of the
    # places, which are hundreds of pixels.
    change = _compose(invert_affine(second), first) - jnp.eye(3, dtype=first.dtype)
    shift = _times(change[:2, :2], grid) + change[:2, 2]
    return shift + _times(invert_affine(second)[:2, :2], moved), inside


def random_boxes(
    key: Array, size: tuple[int, int], *, side: Range = (0.13, 0.27), boxes: int = 3
) -> Array:
    """A mask of random boxes, from one to `boxes` of them.

    Args:
        key: random key.
        size: height and width.
        side: range of the boxes' sides, as a fraction of the shorter side.
        boxes: at most so many.

    Returns:
        `[H, W]` bool.

    Raises:
        ValueError: if `side` is not an increasing pair in (0, 1].

    Example:
        >>> import jax
        >>> mask = random_boxes(jax.random.key(0), (20, 30), side=(0.25, 0.25), boxes=1)
        >>> int(mask.sum())
        25
    """
    if len(side) != 2 or not 0 < side[0] <= side[1] <= 1:
        raise ValueError(f"side must be an increasing pair of fractions; got {side}.")
    height, width = size
    count_key, box_key = jax.random.split(key)
    u = jax.random.uniform(box_key, (boxes, 4))
    sides = jnp.round((side[0] + (side[1] - side[0]) * u[:, :2]) * min(size))
    corner = jnp.floor(u[:, 2:] * (jnp.array([height, width]) - sides + 1))
    wanted = jnp.arange(boxes) <= jax.random.randint(count_key, (), 0, boxes)

    def along(axis: int) -> Array:
        pixel = jnp.arange(size[axis])
        start = corner[:, axis, None]
        return (pixel >= start) & (pixel < start + sides[:, axis, None])

    covered = along(0)[:, :, None] & along(1)[:, None, :] & wanted[:, None, None]
    return jnp.any(covered, axis=0)


def random_eraser(
    key: Array,
    image: Array,
    *,
    probability: float = 0.5,
    side: Range = (0.13, 0.27),
    boxes: int = 3,
) -> Array:
    """Random boxes painted in the image's mean color, with a probability.

    What lay there is occluded for a network that is given the result, and its flow known from the
    image as it was.

    Args:
        key: random key.
        image: `[H, W, C]` float.
        probability: of painting.
        side, boxes: as in `random_boxes`.

    Returns:
        `[H, W, C]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> image = jnp.linspace(0, 1, 64).reshape(8, 8, 1)
        >>> erased = random_eraser(jax.random.key(0), image, probability=1.0, side=(1.0, 1.0))
        >>> round(float(erased.max()), 3)
        0.5

    Teed and Deng, RAFT, 2020; Stone et al., SMURF, 2021.
    """
    checks.assert_rank(image, 3)
    chance, place = jax.random.split(key)
    hidden = random_boxes(place, image.shape[:2], side=side, boxes=boxes)
    hidden &= jax.random.bernoulli(chance, probability)
    return jnp.where(hidden[..., None], jnp.mean(image, axis=(0, 1), keepdims=True), image)


def random_occluder(key: Array, image: Array, *, side: Range = (0.1, 0.3), boxes: int = 3) -> Array:
    """Random boxes filled with noise, or with another part of the image; each half of the time.

    Args:
        key: random key.
        image: `[H, W, C]` float in [0, 1].
        side, boxes: as in `random_boxes`.

    Returns:
        `[H, W, C]`.

    Example:
        >>> import jax
        >>> image = jax.numpy.zeros((8, 8, 3))
        >>> random_occluder(jax.random.key(1), image).shape
        (8, 8, 3)

    Liu et al., Learning by Analogy, CVPR 2020.
    """
    checks.assert_rank(image, 3)
    place, kind, noise_key, shift_key = jax.random.split(key, 4)
    height, width = image.shape[:2]
    hidden = random_boxes(place, (height, width), side=side, boxes=boxes)
    noise = jax.random.uniform(noise_key, image.shape, image.dtype)
    u = jax.random.uniform(shift_key, (2,), minval=0.25, maxval=0.75)
    elsewhere = jnp.roll(image, (u * jnp.array([height, width])).astype(jnp.int32), axis=(0, 1))
    filling = jnp.where(jax.random.bernoulli(kind), noise, elsewhere)
    return jnp.where(hidden[..., None], filling, image)


def jitter_pair(key: Array, frames: Array, recipe: FlowRecipe) -> Array:
    """Colors of two frames as a recipe says: jitter, exposure, channels, blur, noise, boxes.

    Args:
        key: random key.
        frames: `[2, H, W, C]` float in [0, 1].
        recipe: what to do.

    Returns:
        `[2, H, W, C]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> recipe = FlowRecipe(jitter=1.0, brightness=0.4)
        >>> light, dark = jitter_pair(jax.random.key(0), jnp.full((2, 2, 2, 3), 0.5), recipe)
        >>> bool((light == dark).all())
        True
    """
    checks.assert_rank(frames, 4)
    jitter, exposure, apart, order, noise, erase = jax.random.split(key, 6)

    def keys_of(key: Array) -> Array:
        """One key for both frames, or one for each."""
        two = jax.random.split(key)
        different = jax.random.bernoulli(apart, recipe.asymmetric)
        return two[jnp.array([0, different.astype(jnp.int32)])]

    # An operation that never happens is left out of the program.
    if recipe.jitter:
        names = ("brightness", "contrast", "saturation", "hue")
        knobs = {name: getattr(recipe, name) for name in names}
        frames = jax.vmap(lambda k, x: color_jitter(k, x, probability=recipe.jitter, **knobs))(
            keys_of(jitter), frames
        )
    if recipe.exposure:
        ranges = {name: getattr(recipe, name) for name in ("gamma", "gain", "tint")}
        frames = jax.vmap(
            lambda k, x: random_exposure(k, x, probability=recipe.exposure, **ranges)
        )(keys_of(exposure), frames)
    channels = frames.shape[-1]
    if recipe.swap_channels and channels > 1:
        chance, permutation = jax.random.split(order)
        swapped = jax.random.permutation(permutation, channels)
        swaps = jax.random.bernoulli(chance, recipe.swap_channels)
        frames = jnp.take(frames, jnp.where(swaps, swapped, jnp.arange(channels)), axis=-1)
    if recipe.blur:
        # Drawn by itself, so that recipes without it draw what they did.
        key = jax.random.fold_in(noise, 1)
        size = 2 * math.ceil(2 * recipe.blur_sigma[1]) + 1
        knobs = {"sigma": tuple(recipe.blur_sigma), "probability": recipe.blur}
        frames = jax.vmap(lambda x: random_gaussian_blur(key, x, kernel_size=size, **knobs))(frames)
    if recipe.noise:
        strength, draw = jax.random.split(noise)
        sigma = recipe.noise * jax.random.uniform(strength, (2, 1, 1, 1))
        frames = jnp.clip(frames + sigma * jax.random.normal(draw, frames.shape), 0.0, 1.0)
    if recipe.erase:
        knobs = {"side": recipe.erase_side, "boxes": recipe.erase_boxes}
        second = random_eraser(erase, frames[1], probability=recipe.erase, **knobs)
        frames = jnp.stack([frames[0], second])
    return frames


def flow_views(recipe: FlowRecipe) -> Callable[[Array, Batch], Batch]:
    """Function that augments a batch of pairs of frames.

    The key of an example is ``fold_in(rng, index)``: its augmentation depends on `rng` and on its
    index in the set, neither on its place in the batch nor on the number of devices.

    Args:
        recipe: what to do.

    Returns:
        `(rng, batch) -> batch`: reads 'image' `[B, 2, H, W, C]`, uint8 or float in [0, 1], and
        'index' `[B]`; makes 'image' `[B, 2, h, w, C]` float32, moved and cut but with its colors
        as they were; 'input', the same with the colors that the network is given; with
        `recipe.whole` 'image' keeps H and W, and 'offset' `[B, 2]` says where 'input' was cut out,
        `(x, y)` in pixels; everything else is passed through.

    Raises:
        ValueError: if a knob is out of its range; in the function, if the part to cut out is larger
            than the frames, or the batch holds true flow, which does not follow here.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> views = flow_views(get_flow_recipe("smurf", size=(8, 16)))
        >>> batch = {"image": jnp.zeros((2, 2, 12, 20, 3), jnp.uint8), "index": jnp.arange(2)}
        >>> batch = jax.eval_shape(views, jax.random.key(0), batch)
        >>> batch["frames"].shape, batch["input"].shape, batch["offset"].shape
        ((2, 2, 12, 20, 3), (2, 2, 8, 16, 3), (2, 2))
    """
    _check(recipe)
    flips = recipe.affine.flip > 0 or recipe.affine.flip_vertical > 0
    moves = _moves(recipe.affine)

    def example_views(key: Array, frames: Array) -> Batch:
        # One key for each operation, so that a knob of one changes no other.
        affine, place, colors = jax.random.split(key, 3)
        frames = to_float(frames)
        size = frames.shape[1:3]
        if moves:
            maps = jnp.stack(sample_affine(affine, size, recipe.affine))
            frames = jax.vmap(affine_image)(frames, maps)[0]
        elif flips:  # exact
            first, _ = sample_affine(affine, size, recipe.affine)
            frames = jnp.where(first[0, 0] < 0, frames[:, :, ::-1], frames)
            frames = jnp.where(first[1, 1] < 0, frames[:, ::-1], frames)
        if recipe.size is None or tuple(recipe.size) == size:
            corner = jnp.zeros(2, jnp.int32)
            cut = frames
        else:
            spare = jnp.array([have - want for have, want in zip(size, recipe.size)])
            corner = jax.random.randint(place, (2,), 0, spare + 1)
            start = (0, *corner, 0)
            cut = jax.lax.dynamic_slice(frames, start, (2, *recipe.size, frames.shape[-1]))
        made = {"frames": cut, "input": jitter_pair(colors, cut, recipe)}
        if recipe.whole:
            made |= {"frames": frames, "offset": corner[::-1].astype(jnp.float32)}
        return made

    def views(rng: Array, batch: Batch) -> Batch:
        image = batch["image"]
        checks.assert_rank(image, 5)
        checks.assert_axis_dimension(image, 1, 2)
        if recipe.size and any(w > h for w, h in zip(recipe.size, image.shape[2:4])):
            raise ValueError(
                f"size is {tuple(recipe.size)} and the frames are {image.shape[2:4]}: nothing that "
                "large can be cut out. Give a smaller size, or larger frames."
            )
        truth = [name for name in _TRUTH if name in batch]
        if truth and (moves or flips or recipe.size):
            raise ValueError(
                f"The batch holds {', '.join(truth)}, which does not follow the frames here; leave "
                "it out, or cut and move nothing."
            )
        keys = batch_keys(rng, batch)
        return {**batch, **jax.vmap(example_views)(keys, image)}

    return views


def _check(recipe: FlowRecipe) -> None:
    chances = {name: getattr(recipe, name) for name in recipe._fields if name in _CHANCES}
    chances |= {"flip": recipe.affine.flip, "flip_vertical": recipe.affine.flip_vertical}
    for name, value in chances.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is a probability, in [0, 1]; got {value}.")
    if recipe.size is not None and (len(recipe.size) != 2 or min(recipe.size) < 1):
        raise ValueError(f"size is a height and a width in pixels; got {recipe.size}.")


_CHANCES = ("jitter", "exposure", "asymmetric", "swap_channels", "erase")
