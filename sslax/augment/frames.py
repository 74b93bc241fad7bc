"""Augmentation of frames whose geometry is known: one draw for all frames, cameras that follow.

A sample is one example as a dictionary: 'image' `[V, H, W, C]` float, the S frames of a video (the
target at S // 2) and, with stereo, the target's right-hand partner last; and, where they are known,
'intrinsics' `[3, 3]` in pixels and 'baseline' `[]`, positive where the partner's camera is to the
right.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sslax import checks
from sslax.augment.color import color_jitter
from sslax.augment.image import apply_separable, to_float
from sslax.augment.keys import batch_keys
from sslax.augment.views import assert_known, replace_known
from sslax.ops.camera import crop_intrinsics, flip_intrinsics, resize_intrinsics

Array = jax.Array
Batch = dict[str, Array]
Range = tuple[float, float]

# What belongs to the pixels of a sample and does not follow a flip or a crop here.
_TRUTH = ("depth", "disparity", "flow", "known", "moving", "pose", "visible")


class FrameRecipe(NamedTuple):
    """How the frames of an example are augmented, all of them alike. The defaults change nothing.

    Flip and zoom move pixels, and cameras with them. Jitter and exposure change the network's input
    alone: the loss compares images as they were taken.

    Attributes:
        flip: probability of mirroring left and right.
        zoom: range of the enlargement of width and of height, each at least 1, before a crop of
            the frames' own size.
        jitter: probability of the color jitter.
        brightness, contrast, saturation, hue: its strengths.
        exposure: probability of a random exposure.
        gamma: range of its exponent.
        gain: range of its factor on all channels.
        tint: range of its factor on each channel.
    """

    flip: float = 0.0
    zoom: Range = (1.0, 1.0)
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    exposure: float = 0.0
    gamma: Range = (0.8, 1.2)
    gain: Range = (0.5, 2.0)
    tint: Range = (0.8, 1.2)


FRAME_RECIPES: dict[str, FrameRecipe] = {
    "identity": FrameRecipe(),
    "monodepth": FrameRecipe(flip=0.5, exposure=0.5),
    "monodepth2": FrameRecipe(
        flip=0.5, jitter=0.5, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1
    ),
    "sfm_learner": FrameRecipe(zoom=(1.0, 1.15)),
}
"""Recipes of the papers by name."""


def get_frame_recipe(name: str, **knobs: object) -> FrameRecipe:
    """A paper's recipe with some knobs replaced.

    Args:
        name: key of `FRAME_RECIPES`.
        **knobs: fields of `FrameRecipe`.

    Raises:
        ValueError: for an unknown name or knob; it names the nearest known one.

    Example:
        >>> get_frame_recipe("monodepth2", jitter=0.0).flip
        0.5
    """
    assert_known(name, FRAME_RECIPES)
    return replace_known(FRAME_RECIPES[name], knobs)


def random_flip_frames(
    key: Array, sample: Batch, *, probability: float = 0.5, stereo: bool = False
) -> Batch:
    """Frames mirrored left to right, with a probability, and their cameras.

    ``y[v, i, j] = x[v, i, W - 1 - j]``, ``cx → W - 1 - cx``. A mirrored pair has its right camera
    on the left. So a pair alone changes places, the mirrored right image becoming the left one, and
    keeps its baseline; in a video the target stays, and the baseline changes its sign.

    Args:
        key: random key.
        sample: one example, see the module.
        probability: of the flip.
        stereo: whether the last image is the partner of the target.

    Returns:
        The sample, with 'image', 'intrinsics' and 'baseline' replaced where it has them.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> image = jnp.arange(4.0).reshape(2, 1, 2, 1)
        >>> sample = {"frames": image, "baseline": jnp.float32(0.5)}
        >>> pair = random_flip_frames(jax.random.key(0), sample, probability=1.0, stereo=True)
        >>> pair["frames"][..., 0].tolist(), pair["baseline"].item()
        ([[[3.0, 2.0]], [[1.0, 0.0]]], 0.5)
    """
    image = sample["frames"]
    checks.assert_rank(image, 4)
    flips = jax.random.bernoulli(key, probability)
    pair = stereo and image.shape[0] == 2
    mirrored = {"frames": image[::-1, :, ::-1] if pair else image[:, :, ::-1]}
    if "intrinsics" in sample:
        mirrored["intrinsics"] = flip_intrinsics(sample["intrinsics"], image.shape[2])
    if "baseline" in sample and not pair:
        mirrored["baseline"] = -sample["baseline"]
    chosen = {name: jnp.where(flips, x, sample[name]) for name, x in mirrored.items()}
    return {**sample, **chosen}


def random_zoom_frames(key: Array, sample: Batch, *, zoom: Range = (1.0, 1.15)) -> Batch:
    """Frames enlarged, and cropped to their size, all alike, and their cameras.

    ``s_x, s_y ~ U(zoom)``, the crop's first pixel ``l ~ U(0, (s_x - 1) W)``, and its row likewise;
    pixel x of the result is read at ``(x + l + 1/2) / s_x - 1/2`` by bilinear interpolation, so
    that ``f → s f`` and ``c → (c + 1/2) s - 1/2 - l``.

    Args:
        key: random key.
        sample: one example, see the module.
        zoom: range of the enlargement; 1 is none.

    Returns:
        The sample, with 'image' and 'intrinsics' replaced where it has them. The baseline is in
        meters and stays.

    Raises:
        ValueError: if `zoom` is not an increasing pair from 1 on.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> sample = {"frames": jnp.ones((3, 4, 6, 1)), "intrinsics": jnp.eye(3)}
        >>> made = random_zoom_frames(jax.random.key(0), sample, zoom=(1.5, 1.5))
        >>> made["frames"].shape, made["intrinsics"][0, 0].item()
        ((3, 4, 6, 1), 1.5)

    Zhou et al., Unsupervised Learning of Depth and Ego-Motion from Video, 2017.
    """
    if len(zoom) != 2 or not 1 <= zoom[0] <= zoom[1]:
        raise ValueError(f"zoom is an increasing pair of enlargements from 1 on; got {zoom}.")
    image = sample["frames"]
    checks.assert_rank(image, 4)
    sides = jnp.array(image.shape[2:0:-1], jnp.float32)  # width, height
    size, place = jax.random.uniform(key, (2, 2))
    scale = zoom[0] + (zoom[1] - zoom[0]) * size
    corner = place * (scale - 1) * sides
    columns, rows = (
        _zoom_weights(corner[axis], scale[axis], image.shape[2 - axis]) for axis in (0, 1)
    )
    made = {"frames": jax.vmap(lambda frame: apply_separable(frame, rows, columns))(image)}
    if "intrinsics" in sample:
        made["intrinsics"] = crop_intrinsics(
            resize_intrinsics(sample["intrinsics"], scale), corner[0], corner[1]
        )
    return {**sample, **made}


def _zoom_weights(first: Array, scale: Array, size: int) -> Array:
    """`[size, size]` bilinear weights of `size` pixels from `first` on, of `scale · size`."""
    pixel = jnp.arange(size, dtype=jnp.float32)
    center = jnp.clip((pixel + first + 0.5) / scale - 0.5, 0, size - 1)
    return jnp.maximum(0.0, 1.0 - jnp.abs(pixel - center[:, None]))


def random_exposure(
    key: Array,
    images: Array,
    *,
    gamma: Range = (0.8, 1.2),
    gain: Range = (0.5, 2.0),
    tint: Range = (0.8, 1.2),
    probability: float = 0.5,
) -> Array:
    """Random gamma, brightness and tint, with a probability, the same for all images.

    ``y_c = clip(g t_c x_c^γ, 0, 1)``, ``γ ~ U(gamma)``, ``g ~ U(gain)``, ``t_c ~ U(tint)``.

    Args:
        key: random key.
        images: `[..., H, W, C]` float in [0, 1].
        gamma, gain, tint: ranges, positive.
        probability: of the change as a whole.

    Returns:
        `[..., H, W, C]`.

    Raises:
        ValueError: if a range is not positive and increasing.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> light = {"gamma": (1.0, 1.0), "gain": (2.0, 2.0), "tint": (1.0, 1.0)}
        >>> image = jnp.array([[[0.25, 0.75]]])
        >>> random_exposure(jax.random.key(0), image, probability=1.0, **light).tolist()
        [[[0.5, 1.0]]]

    Godard et al., Unsupervised Monocular Depth Estimation with Left-Right Consistency, 2017.
    """
    ranges = {"gamma": gamma, "gain": gain, "tint": tint}
    for name, value in ranges.items():
        if len(value) != 2 or not 0 < value[0] <= value[1]:
            raise ValueError(f"{name} must be a positive, increasing pair, got {value}.")
    channels = images.shape[-1]
    u = jax.random.uniform(key, (3 + channels,))
    exponent = gamma[0] + (gamma[1] - gamma[0]) * u[1]
    factor = (gain[0] + (gain[1] - gain[0]) * u[2]) * (tint[0] + (tint[1] - tint[0]) * u[3:])
    lit = jnp.clip(factor * images**exponent, 0.0, 1.0)
    return jnp.where(u[0] < probability, lit, images)


def frame_views(recipe: FrameRecipe, *, stereo: bool = False) -> Callable[[Array, Batch], Batch]:
    """Function that augments a batch of frames.

    The key of an example is ``fold_in(rng, index)``: its augmentation depends on `rng` and on its
    index in the set, neither on its place in the batch nor on the number of devices.

    Args:
        recipe: what to do.
        stereo: whether the last image of each example is the partner of its target.

    Returns:
        `(rng, batch) -> batch`: reads 'image' `[B, V, H, W, C]`, uint8 or float in [0, 1], 'index'
        `[B]` and, where the batch has them, 'intrinsics' `[B, 3, 3]` and 'baseline' `[B]`; replaces
        them by those of the flipped and zoomed frames, 'image' float32 with its colors as they
        were; adds 'input', the same frames with the colors that the network is given; and passes
        everything else through.

    Raises:
        ValueError: if a knob is out of its range; in the function, if the batch holds true depth,
            poses or flow, which would not follow a flip or a zoom.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> views = frame_views(get_frame_recipe("monodepth2"))
        >>> batch = {"image": jnp.zeros((2, 3, 8, 12, 3), jnp.uint8), "index": jnp.arange(2)}
        >>> batch = jax.eval_shape(views, jax.random.key(0), batch)
        >>> batch["input"].shape, batch["frames"].dtype
        ((2, 3, 8, 12, 3), dtype('float32'))
    """
    for name in ("flip", "jitter", "exposure"):
        if not 0 <= getattr(recipe, name) <= 1:
            raise ValueError(f"{name} is a probability, in [0, 1]; got {getattr(recipe, name)}.")
    moves = recipe.flip > 0 or tuple(recipe.zoom) != (1, 1)

    def example_views(key: Array, sample: Batch) -> Batch:
        # One key for each operation, so that a knob of one changes no other.
        flip, zoom, jitter, exposure = jax.random.split(key, 4)
        sample = {**sample, "frames": to_float(sample["frames"])}
        # An operation that never happens is left out of the program.
        if recipe.flip:
            sample = random_flip_frames(flip, sample, probability=recipe.flip, stereo=stereo)
        if tuple(recipe.zoom) != (1, 1):
            sample = random_zoom_frames(zoom, sample, zoom=recipe.zoom)
        seen = sample["frames"]
        if recipe.jitter:
            strengths = {
                name: getattr(recipe, name)
                for name in ("brightness", "contrast", "saturation", "hue")
            }
            seen = jax.vmap(
                lambda frame: color_jitter(jitter, frame, probability=recipe.jitter, **strengths)
            )(seen)
        if recipe.exposure:
            ranges = {name: getattr(recipe, name) for name in ("gamma", "gain", "tint")}
            seen = random_exposure(exposure, seen, probability=recipe.exposure, **ranges)
        return {**sample, "input": seen}

    def views(rng: Array, batch: Batch) -> Batch:
        checks.assert_rank(batch["image"], 5)
        truth = [name for name in _TRUTH if name in batch]
        if moves and truth:
            raise ValueError(
                f"The batch holds {', '.join(truth)}, which does not follow a flip or a zoom; "
                "leave it out, or set flip=0.0 and zoom=(1.0, 1.0)."
            )
        cameras = {k: batch[k] for k in ("intrinsics", "baseline") if k in batch}
        sample = {"frames": batch["image"], **cameras}
        keys = batch_keys(rng, batch)
        checks.assert_equal_shape_prefix([batch["index"], *sample.values()], 1)
        return {**batch, **jax.vmap(example_views)(keys, sample)}

    return views
