"""Augmentation of video frames and stereo pairs: one draw for all frames, cameras that follow.

A sample is one example as a dictionary: 'frames' `[V, H, W, C]` float and, if known, 'intrinsics'
`[3, 3]` in pixels and 'baseline' `[]` in meters. The frames are S frames of a video, with the
target at S // 2, followed with `stereo` by the other image of the target's stereo pair. The
baseline is positive if the other camera is to the right.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from sslax import checks, ranges
from sslax.augment.color import color_jitter
from sslax.augment.image import apply_separable, to_float
from sslax.augment.keys import batch_keys
from sslax.errors import check_choice
from sslax.ops.camera import crop_intrinsics, flip_intrinsics, resize_intrinsics
from sslax.ranges import Fraction, Hue, Interval, NonNegative, PositiveRange, Range, replace_fields
from sslax.types import Array, Batch

ZoomRange = Range[Annotated[float, Interval(1)]]
# Ground truth of pixels and cameras, which flips and crops here do not update.
GROUND_TRUTH = ("depth", "disparity", "flow", "known", "moving", "pose", "visible")


class FrameRecipe(NamedTuple):
    """How the frames of an example are augmented, all identically. The defaults change nothing.

    Flip and zoom move pixels and update the cameras. Jitter and exposure change the network's input
    only: the loss compares the frames with their original colors.

    Attributes:
        flip: probability of a horizontal flip.
        zoom: range of the enlargement of width and height, each at least 1, before a crop to the
            original size.
        jitter: probability of color jitter.
        brightness, contrast, saturation, hue: strengths of the jitter.
        exposure: probability of a random exposure.
        gamma: range of its exponent.
        gain: range of its factor on all channels.
        tint: range of its factor on each channel.
    """

    flip: Fraction = 0.0
    zoom: ZoomRange = (1.0, 1.0)
    jitter: Fraction = 0.0
    brightness: NonNegative = 0.0
    contrast: NonNegative = 0.0
    saturation: NonNegative = 0.0
    hue: Hue = 0.0
    exposure: Fraction = 0.0
    gamma: PositiveRange = (0.8, 1.2)
    gain: PositiveRange = (0.5, 2.0)
    tint: PositiveRange = (0.8, 1.2)


FRAME_RECIPES: dict[str, FrameRecipe] = {
    "identity": FrameRecipe(),
    "monodepth": FrameRecipe(flip=0.5, exposure=0.5),
    "monodepth2": FrameRecipe(
        flip=0.5, jitter=0.5, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1
    ),
    "sfm_learner": FrameRecipe(zoom=(1.0, 1.15)),
}
"""Published recipes by name."""


def get_frame_recipe(name: str, **fields: Any) -> FrameRecipe:
    """A published recipe, with some fields replaced.

    Args:
        name: key of `FRAME_RECIPES`.
        **fields: fields of `FrameRecipe`.

    Raises:
        UserError: the recipe or a field is unknown; the message suggests the closest one.

    Example:
        >>> get_frame_recipe("monodepth2", jitter=0.0).flip
        0.5
    """
    check_choice("recipe", name, FRAME_RECIPES)
    return replace_fields(FRAME_RECIPES[name], fields)


def random_flip_frames(
    key: Array, sample: Batch, *, probability: float = 0.5, stereo: bool = False
) -> Batch:
    """Flips frames and their cameras horizontally with a given probability.

    `y[v, i, j] = x[v, i, W - 1 - j]`, `cx → W - 1 - cx`. A flip swaps the sides of a stereo pair.
    For a pair alone, the flipped right image becomes the left one and the baseline is unchanged; in
    a video the target keeps its position and the baseline changes sign.

    Args:
        key: random key.
        sample: one example, see the module docstring.
        probability: probability of the flip.
        stereo: whether the last frame is the other image of the target's stereo pair.

    Returns:
        The sample, with 'frames', 'intrinsics' and 'baseline' updated.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> frames = jnp.arange(4.0).reshape(2, 1, 2, 1)
        >>> sample = {"frames": frames, "baseline": jnp.float32(0.5)}
        >>> pair = random_flip_frames(jax.random.key(0), sample, probability=1.0, stereo=True)
        >>> pair["frames"][..., 0].tolist(), pair["baseline"].item()
        ([[[3.0, 2.0]], [[1.0, 0.0]]], 0.5)
    """
    frames = sample["frames"]
    checks.assert_rank(frames, 4)
    flips = jax.random.bernoulli(key, probability)
    pair = stereo and frames.shape[0] == 2
    flipped = {"frames": frames[::-1, :, ::-1] if pair else frames[:, :, ::-1]}
    if "intrinsics" in sample:
        flipped["intrinsics"] = flip_intrinsics(sample["intrinsics"], frames.shape[2])
    if "baseline" in sample and not pair:
        flipped["baseline"] = -sample["baseline"]
    chosen = {
        name: jnp.where(flips, x, sample[name].astype(x.dtype)) for name, x in flipped.items()
    }
    return {**sample, **chosen}


def random_zoom_frames(key: Array, sample: Batch, *, zoom: ZoomRange = (1.0, 1.15)) -> Batch:
    """Enlarges frames and crops them to their size, all identically, and updates the cameras.

    `s_x, s_y ~ U(zoom)`, and the crop's first column `l ~ U(0, (s_x - 1) W)`, likewise its first
    row. Pixel x of the result is read at `(x + l + 1/2) / s_x - 1/2` by bilinear interpolation, so
    `f → s f` and `c → (c + 1/2) s - 1/2 - l`.

    Args:
        key: random key.
        sample: one example, see the module docstring.
        zoom: range of the enlargement; 1 changes nothing.

    Returns:
        The sample, with 'frames' and 'intrinsics' updated. The baseline, in meters, is unchanged.

    Raises:
        ValueError: `zoom` is not an increasing pair of numbers of at least 1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> sample = {"frames": jnp.ones((3, 4, 6, 1)), "intrinsics": jnp.eye(3)}
        >>> zoomed = random_zoom_frames(jax.random.key(0), sample, zoom=(1.5, 1.5))
        >>> zoomed["frames"].shape, zoomed["intrinsics"][0, 0].item()
        ((3, 4, 6, 1), 1.5)

    Zhou et al., "Unsupervised Learning of Depth and Ego-Motion from Video", CVPR 2017.
    """
    ranges.check("zoom", zoom, ZoomRange)
    frames = sample["frames"]
    checks.assert_rank(frames, 4)
    sides = jnp.array(frames.shape[2:0:-1], jnp.float32)  # width, height
    u_scale, u_corner = jax.random.uniform(key, (2, 2), jnp.float32)
    scale = zoom[0] + (zoom[1] - zoom[0]) * u_scale
    corner = u_corner * (scale - 1) * sides
    columns, rows = (
        _zoom_weights(corner[axis], scale[axis], frames.shape[2 - axis]) for axis in (0, 1)
    )
    zoomed = {"frames": jax.vmap(lambda frame: apply_separable(frame, rows, columns))(frames)}
    if "intrinsics" in sample:
        zoomed["intrinsics"] = crop_intrinsics(
            resize_intrinsics(sample["intrinsics"], scale), corner[0], corner[1]
        )
    return {**sample, **zoomed}


def _zoom_weights(first: Array, scale: Array, size: int) -> Array:
    """`[size, size]` bilinear weights that enlarge an axis and crop it to its size at `first`."""
    pixel = jnp.arange(size, dtype=jnp.float32)
    center = jnp.clip((pixel + first + 0.5) / scale - 0.5, 0, size - 1)
    return jnp.maximum(0.0, 1.0 - jnp.abs(pixel - center[:, None]))


def random_exposure(
    key: Array,
    images: Array,
    *,
    gamma: PositiveRange = (0.8, 1.2),
    gain: PositiveRange = (0.5, 2.0),
    tint: PositiveRange = (0.8, 1.2),
    probability: float = 0.5,
) -> Array:
    """Random gamma, gain and tint, the same for all images, with a given probability.

    `y_c = clip(g t_c x_c^γ, 0, 1)`, `γ ~ U(gamma)`, `g ~ U(gain)`, `t_c ~ U(tint)`.

    Args:
        key: random key.
        images: `[..., H, W, C]` float in [0, 1].
        gamma, gain, tint: ranges, positive.
        probability: probability of any change.

    Returns:
        `[..., H, W, C]`.

    Raises:
        ValueError: a range is not a positive, increasing pair.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> double = {"gamma": (1.0, 1.0), "gain": (2.0, 2.0), "tint": (1.0, 1.0)}
        >>> image = jnp.array([[[0.25, 0.75]]])
        >>> random_exposure(jax.random.key(0), image, probability=1.0, **double).tolist()
        [[[0.5, 1.0]]]

    Godard et al., "Unsupervised Monocular Depth Estimation with Left-Right Consistency", CVPR 2017.
    """
    for name, value in (("gamma", gamma), ("gain", gain), ("tint", tint)):
        ranges.check(name, value, PositiveRange)
    checks.assert_unit_range(images)
    channels = images.shape[-1]
    u = jax.random.uniform(key, (3 + channels,), jnp.float32)
    exponent = gamma[0] + (gamma[1] - gamma[0]) * u[1]
    factor = (gain[0] + (gain[1] - gain[0]) * u[2]) * (tint[0] + (tint[1] - tint[0]) * u[3:])
    exponent, factor = exponent.astype(images.dtype), factor.astype(images.dtype)
    exposed = jnp.clip(factor * images**exponent, 0.0, 1.0)
    return jnp.where(u[0] < probability, exposed, images)


def make_frames(recipe: FrameRecipe, *, stereo: bool = False) -> Callable[[Array, Batch], Batch]:
    """Returns the function that adds the augmented frames of depth estimation to a batch.

    The key of an example is `fold_in(rng, index)`, so its augmentation depends only on `rng` and
    its index in the data set (see `example_keys`).

    Args:
        recipe: see `FrameRecipe`.
        stereo: whether the last image of an example is the other image of its target's stereo pair.

    Returns:
        `(rng, batch) -> batch`. Reads 'image' `[B, V, H, W, C]`, uint8 or float in [0, 1], 'index'
        `[B]`, and 'intrinsics' `[B, 3, 3]` and 'baseline' `[B]` if present. Adds 'frames'
        `[B, V, H, W, C]`, float32, flipped and zoomed but with their original colors, for the loss,
        and 'input', the same frames with augmented colors, for the network. Updates 'intrinsics'
        and 'baseline' to those of the frames. Everything else, 'image' included, is unchanged.

    Raises:
        ValueError: a field of the recipe is out of range. In the returned function: the batch has
            ground truth (depth, poses, flow, ...), which flips and zooms here do not update.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> augment = make_frames(get_frame_recipe("monodepth2"))
        >>> batch = {"image": jnp.zeros((2, 3, 8, 12, 3), jnp.uint8), "index": jnp.arange(2)}
        >>> batch = jax.eval_shape(augment, jax.random.key(0), batch)
        >>> batch["input"].shape, batch["frames"].dtype
        ((2, 3, 8, 12, 3), dtype('float32'))
    """
    ranges.check_record(recipe)
    moves = recipe.flip > 0 or tuple(recipe.zoom) != (1, 1)

    def augment(rng: Array, batch: Batch) -> Batch:
        checks.assert_rank(batch["image"], 5)
        truth = [name for name in GROUND_TRUTH if name in batch]
        if moves and truth:
            raise checks.value_error(
                f"the batch has {', '.join(truth)}, which flips and zooms do not update; leave it "
                "out, or set flip=0.0 and zoom=(1.0, 1.0)."
            )
        cameras: Batch = {k: batch[k] for k in ("intrinsics", "baseline") if k in batch}
        sample: Batch = {"frames": batch["image"], **cameras}
        keys = batch_keys(rng, batch)
        checks.assert_equal_shape_prefix([batch["index"], *sample.values()], 1)
        augment_sample = functools.partial(_augment_sample, recipe=recipe, stereo=stereo)
        augmented: Batch = jax.vmap(augment_sample)(keys, sample)
        return {**batch, **augmented}

    return augment


def _augment_sample(key: Array, sample: Batch, *, recipe: FrameRecipe, stereo: bool) -> Batch:
    # One key per operation, so that changing one operation does not change the others' draws.
    flip, zoom, jitter, exposure = jax.random.split(key, 4)
    sample = {**sample, "frames": to_float(sample["frames"])}
    # Operations with probability 0 are not compiled.
    if recipe.flip:
        sample = random_flip_frames(flip, sample, probability=recipe.flip, stereo=stereo)
    if tuple(recipe.zoom) != (1, 1):
        sample = random_zoom_frames(zoom, sample, zoom=recipe.zoom)
    network_input = sample["frames"]
    if recipe.jitter:
        strengths = {
            name: getattr(recipe, name) for name in ("brightness", "contrast", "saturation", "hue")
        }
        network_input = jax.vmap(
            lambda frame: color_jitter(jitter, frame, probability=recipe.jitter, **strengths)
        )(network_input)
    if recipe.exposure:
        ranges = {name: getattr(recipe, name) for name in ("gamma", "gain", "tint")}
        network_input = random_exposure(
            exposure, network_input, probability=recipe.exposure, **ranges
        )
    return {**sample, "input": network_input}
