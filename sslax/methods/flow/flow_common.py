"""What the methods share that learn optical flow.

A network takes pairs of frames `[B, 2, H, W, C]` and gives flows in both directions, from the
first frame to the second and back: PWC-Net at several levels, `[B, 2, h, w, 2]` each in pixels of
the level, finest first; RAFT at each of I iterations, `[B, 2, I, H, W, 2]`. Losses are symmetric in
time: here both directions are one batch of N = 2 B, a frame as the target and the other one as the
source that is read.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, losses, models, ops
from sslax.augment import flow as flow_augment
from sslax.errors import UserError, nearest
from sslax.methods import common
from sslax.models.pwc import PWCNet
from sslax.models.raft import RAFT
from sslax.types import Array, Batch, Method, Metrics, Model, PyTree, Schedule, Variables

OCCLUSIONS = ("forward_backward", "range_map", "none")
DATA_TERMS = ("census", "l1", "ssim")


# Both directions as one batch.


def both(x: Array) -> Array:
    """`[B, 2, ...]` to `[2 B, ...]`: the frame, or the flow, of each target."""
    return common.merge_views(x)


def other(x: Array) -> Array:
    """`[B, 2, ...]` to `[2 B, ...]`: each target's other frame, or the flow the other way."""
    return common.merge_views(x[:, ::-1])


# Networks.


def network_input(batch: Batch, rng: Array | None = None) -> Batch:
    """What a network is given: 'image' `[B, 2, H, W, C]` and, in training, 'key' `[B]`.

    A key is of the example by its place in its set, so that its place in the batch and the devices
    do not matter.
    """
    x = {"image": batch["input"]}
    if rng is not None:
        x["key"] = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, batch["index"])
    return x


def pyramid_of(output: Array | Sequence[Array]) -> tuple[Array, ...]:
    """A network's flows at each level, finest first; of RAFT the last iteration's alone."""
    return tuple(output) if isinstance(output, tuple | list) else (output[:, :, -1],)


def sequence_of(output: Array | Sequence[Array], size: tuple[int, int]) -> Array:
    """A network's flows at full resolution in the order of iterations, `[I, B, 2, H, W, 2]`.

    Of PWC-Net the finest level alone, enlarged.
    """
    if isinstance(output, tuple | list):
        return upsampled(output[0], size)[None]
    return jnp.moveaxis(output, 2, 0)


def level_factor(flow: Array, size: tuple[int, int]) -> int:
    """How many pixels of the frames one of the level is: 1, 2, 4, ..."""
    factor = 1
    while flow.shape[-3] < -(-size[0] // factor) or flow.shape[-2] < -(-size[1] // factor):
        factor *= 2
    return factor


def upsampled(flow: Array, size: tuple[int, int], factor: int | None = None) -> Array:
    """A level's flow `[..., h, w, 2]` enlarged, bilinearly and in its new pixels.

    Args:
        flow: of a level.
        size: `(H, W)` of the frames, or of what is wanted of them.
        factor: of the enlargement; None to the frames' resolution.
    """
    factor = factor or level_factor(flow, size)
    if factor == 1:
        return flow
    return models.upsample_flow(flow, factor, size=size)


def at_level(images: Array, flow: Array) -> Array:
    """Frames `[B, 2, H, W, C]`, averaged down to a level's resolution.

    Sides that are no multiple of the level's pixel are continued by their last pixels, as the
    networks do.
    """
    size = images.shape[2:4]
    factor = level_factor(flow, size)
    if factor == 1:
        return images
    pads = [(0, 0), (0, 0), *((0, factor * n - m) for n, m in zip(flow.shape[2:4], size)), (0, 0)]
    padded = jnp.pad(images, [(low, max(0, high)) for low, high in pads], mode="edge")
    return ops.resize(padded, flow.shape[2:4], method="area")


# What is where in the other frame.


class Match(NamedTuple):
    """The other frame, seen along the flow, of both directions (N = 2 B)."""

    target: Array  # [N, h, w, C], the frame itself
    warped: Array  # [N, h, w, C], the other frame read at p + flow(p)
    inside: Array  # [N, h, w] bool, p + flow(p) is in the other frame
    visible: Array  # [N, h, w] float32, inside and not occluded; no gradient


def match(
    images: Array,
    flows: Array,
    *,
    occlusion: str = "forward_backward",
    threshold: float | None = None,
    offset: Array | None = None,
) -> Match:
    """Reads each frame along the flow of the other one, and says what is occluded there.

    The gradient reaches the flow by the place that is read; the frames and masks have none.

    Args:
        images: frames `[B, 2, H, W, C]`.
        flows: `[B, 2, h, w, 2]`, in pixels of the frames; h, w are theirs unless there is an
            `offset`.
        occlusion: "forward_backward" (0.01, 0.5), "range_map" or "none".
        threshold: of the range map; None for a soft one.
        offset: `[B, 2]`, `(x, y)` in pixels: the flows are those of a part of the frames that
            begins there. Pixels that leave the part are matched all the same, in the whole
            frame; no flow back is known there, so they count as visible.

    Wang et al., CVPR 2018 ("range_map"); Sundaram et al., ECCV 2010 ("forward_backward"); Stone et
    al., SMURF, 2021 (parts).
    """
    chex.assert_rank([images, flows], 5)
    images = jax.lax.stop_gradient(images)
    forward, backward = both(flows), other(flows)
    target, source = both(images), other(images)
    if offset is None:
        chex.assert_equal_shape_prefix([images, flows], 4)
        warped, inside = ops.warp_flow(source, forward)
    else:
        corner = jnp.repeat(offset, 2, axis=0)
        grid = ops.pixel_grid(*flows.shape[2:4])
        places = grid + corner[:, None, None] + forward
        warped, inside = jax.vmap(ops.bilinear_sample)(source, places)
        target = part_of(target, corner, flows.shape[2:4])
    seen = not_occluded(forward, backward, occlusion=occlusion, threshold=threshold)
    visible = inside.astype(jnp.float32) * seen
    return Match(target, warped, inside, jax.lax.stop_gradient(visible))


def part_of(images: Array, corner: Array, size: tuple[int, int]) -> Array:
    """`size` pixels of each image `[N, H, W, C]` from its corner `[N, 2]`, `(x, y)`, on."""

    def cut(image: Array, corner: Array) -> Array:
        x, y = corner.astype(jnp.int32)
        return jax.lax.dynamic_slice(image, (y, x, 0), (*size, image.shape[-1]))

    return jax.vmap(cut)(images, corner)


def not_occluded(
    forward: Array, backward: Array, *, occlusion: str, threshold: float | None = None
) -> Array:
    """1 where a pixel is visible in the other frame, `[N, h, w]` float32, no gradient.

    What leaves the frame of the flows is not judged here (1): whether the other frame goes on there
    is for the caller to know.
    """
    if occlusion == "none":
        return jnp.ones(forward.shape[:3], jnp.float32)
    if occlusion == "forward_backward":
        seen = ops.forward_backward_mask(forward, backward).astype(jnp.float32)
    else:
        seen = ops.range_map_mask(backward, threshold=threshold).astype(jnp.float32)
    return jnp.where(stays(forward), seen, 1.0)


def stays(flow: Array) -> Array:
    """Where a flow `[N, h, w, 2]` leads to a place within the frame, `[N, h, w]` bool."""
    place = jax.lax.stop_gradient(ops.pixel_grid(*flow.shape[1:3]) + flow)
    last = jnp.array([flow.shape[2] - 1, flow.shape[1] - 1], place.dtype)
    return jnp.all((place >= 0) & (place <= last), axis=-1)


TRUSTED = 0.5  # least part of a frame that an occlusion estimate may leave


def weight_at(made: Match, step: Array | int = 0, start: float = 0.0) -> Array:
    """How much each pixel counts in the loss, `[N, h, w]` float32.

    `visible`; but `inside` before step `start`, and of a frame of which less than half would be
    left: an untrained network's flows agree nowhere, and a loss of no pixels, which is 0, would
    have no gradient to mend them.
    """
    inside = made.inside.astype(jnp.float32)
    left = jnp.sum(made.visible, axis=(1, 2), keepdims=True)
    whole = jnp.sum(inside, axis=(1, 2), keepdims=True)
    trusted = left >= TRUSTED * whole
    if start > 0:
        trusted &= step >= start
    return jnp.where(trusted, made.visible, inside)


# Loss terms.


def data_term(target: Array, warped: Array, weight: Array, *, data: str = "census") -> Array:
    """UFlow's and SMURF's comparison of frames, a masked mean.

    Args:
        target: `[N, h, w, C]`.
        warped: the same shape.
        weight: `[N, h, w]`, of each pixel.
        data: "census" (7 x 7, `robust_power`), "l1" (`robust_l1`) or "ssim" ((1 - SSIM) / 2).
    """
    if data == "census":
        distance, valid = losses.census_error(target, warped, mask=weight)
        return losses.masked_mean(losses.robust_power(distance), weight * valid)
    if data == "l1":
        error = jnp.mean(losses.robust_l1(target - warped), axis=-1)
    else:
        error = losses.photometric_error(target, warped, ssim_weight=1.0)
    return losses.masked_mean(error, weight)


def smoothness(images: Array, flows: Array, *, order: int, edge_weight: float) -> Array:
    """UFlow's: half of the edge-aware smoothness of flows `[B, 2, h, w, 2]`, robust."""
    return 0.5 * losses.edge_aware_smoothness(
        both(flows),
        both(images),
        order=order,
        edge_weight=edge_weight,
        penalty=losses.robust_l1,
    )


def margin_of(size: tuple[int, int], crop: float) -> int:
    """Pixels that are cut off at each side: a part of the shorter side; something is left."""
    return min(round(crop * min(size)), (min(size) - 1) // 2)


def enlarged_center(x: Array, margin: float, sides: tuple[float, float] | None = None) -> Array:
    """`[..., h, w, C]` without `margin` of its pixels on each side, enlarged to its size again.

    Bilinear; margin and sides may be fractions of pixels. Values stay as they are: of a flow see
    `enlarged_flow`.

    Args:
        x: images or maps.
        margin: in pixels of x.
        sides: height and width of what the frames take of x, None for all.
    """
    height, width = x.shape[-3:-1]
    sides = sides or (height, width)

    def weights(size: int, side: float) -> Array:
        pixel = jnp.arange(size, dtype=jnp.float32)
        place = margin + (pixel + 0.5) * ((side - 2 * margin) / side) - 0.5
        place = jnp.clip(place, 0, size - 1)
        return jnp.maximum(0.0, 1.0 - jnp.abs(pixel - place[:, None]))

    flat = x.reshape(-1, height, width, x.shape[-1])
    rows, columns = weights(height, sides[0]), weights(width, sides[1])
    made = jax.vmap(lambda image: augment.apply_separable(image, rows, columns))(flat)
    return made.reshape(x.shape)


def enlarged_flow(flow: Array, margin: float, sides: tuple[float, float] | None = None) -> Array:
    """`enlarged_center` of a flow `[..., h, w, 2]`, whose vectors grow with the pixels."""
    height, width = sides or flow.shape[-3:-1]
    growth = jnp.array([width / (width - 2 * margin), height / (height - 2 * margin)])
    return growth * enlarged_center(flow, margin, sides)


def self_supervision(
    student: Array, teacher: Array, *, margin: int, size: tuple[int, int]
) -> tuple[Array, Array]:
    """How far a student who sees the center of frames is from a teacher who sees all of them.

    ```
    mask  = center(c_0.003(teacher)) (1 - c_0.03(student))
    error = mean(mask robust_l1(student - center(teacher)))
    ```
    where `c` is `ops.forward_backward_confidence`, 0 where the flow leaves the frame: the teacher
    agrees with itself, and the student does not. The mean is over all pixels.

    Args:
        student: `[B, 2, h, w, 2]`, of the enlarged centers.
        teacher: `[B, 2, h, w, 2]`, of the whole frames; no gradient.
        margin: what was cut off on each side, in pixels of the frames.
        size: `(H, W)` of the frames.

    Returns:
        The error, and the mask `[2 B, h, w]`.

    Jonschkowski et al., What Matters in Unsupervised Optical Flow, ECCV 2020.
    """
    chex.assert_equal_shape([student, teacher])
    factor = level_factor(student, size)
    share, sides = margin / factor, (size[0] / factor, size[1] / factor)
    teacher = jax.lax.stop_gradient(teacher)
    sure = ops.forward_backward_confidence(both(teacher), other(teacher), sigma=0.003)
    sure = enlarged_center(sure[..., None], share, sides)[..., 0]
    unsure = 1 - ops.forward_backward_confidence(both(student), other(student), sigma=0.03)
    mask = jax.lax.stop_gradient(sure * unsure)
    error = losses.robust_l1(both(student) - enlarged_flow(both(teacher), share, sides))
    return jnp.mean(mask[..., None] * error), mask


def ramp(weight: float, start: float, length: float) -> Schedule:
    """0 until step `start`, then rising evenly, and `weight` after `length` steps more.

    Example:
        >>> rise = ramp(0.6, 100, 50)
        >>> [round(float(rise(step)), 2) for step in (100, 125, 200)]
        [0.0, 0.3, 0.6]
    """

    def at(step: Array) -> Array:
        share = (jnp.asarray(step, jnp.float32) - start) / max(length, 1.0)
        return weight * jnp.clip(share, 0.0, 1.0)

    return at


def when_needed(weight: Array | float, term: Callable[[], Array]) -> Array:
    """`term()`, and 0 without its cost where its weight is 0.

    On CPU a weight that changes in the run costs its term throughout: there XLA's convolutions take
    many times as long in a branch as outside of one.
    """
    if isinstance(weight, int | float):
        return term() if weight else jnp.float32(0.0)
    if jax.default_backend() == "cpu":
        return jnp.where(weight > 0, term(), 0.0)
    return jax.lax.cond(weight > 0, term, lambda: jnp.float32(0.0))


# What is said and shown of a run.


def flow_metrics(
    made: Match, flows: Array, *, photometric: Array, at_chance: Array, smooth: Array
) -> Metrics:
    """What every flow method says, no gradient.

    Args:
        made: match of the finest flow.
        flows: the finest flow, in pixels of the frames.
        photometric: the loss's own comparison of frames, finest.
        at_chance: the same of the frames as they are, that is for a flow of zero.
        smooth: the loss's own smoothness, finest.
    """
    motion = jnp.sqrt(jnp.sum(jnp.square(jax.lax.stop_gradient(flows)), axis=-1))
    return {
        "photometric": photometric,
        "photometric_at_chance": at_chance,
        "smoothness": smooth,
        "visible": jnp.mean(made.visible),
        "inside": jnp.mean(made.inside.astype(jnp.float32)),
        "flow_length": jnp.mean(motion),
    }


def flow_colors(flow: Array, *, max_radius: Array | float | None = None) -> Array:
    """Flow `[B, h, w, 2]` in the Middlebury benchmark's colors `[B, h, w, 3]`, in [0, 1].

    As `figures.flow_colors`, inside of a compiled program: the hue is the direction, white does
    not move, and color saturates with speed up to `max_radius`, by default each map's greatest.

    Example:
        >>> flow_colors(jnp.array([[[[2.0, 0.0], [0.0, 0.0]]]]))[0, 0].tolist()
        [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    """
    from sslax.figures.maps import flow_wheel

    wheel = jnp.asarray(flow_wheel(), jnp.float32)
    x, y = flow[..., 0], flow[..., 1]
    speed = jnp.hypot(x, y)
    if max_radius is None:
        max_radius = jnp.max(speed, axis=(-2, -1), keepdims=True)
    radius = (speed / jnp.where(max_radius > 0, max_radius, 1.0))[..., None]
    place = (jnp.arctan2(-(y + 0.0), -x) / jnp.pi + 1) / 2 * (len(wheel) - 1)
    first = jnp.floor(place).astype(jnp.int32)
    blend = (place - first)[..., None]
    hue = (1 - blend) * wheel[first] + blend * wheel[(first + 1) % len(wheel)]
    # A hundredth of a gray level: rounding must not put the fastest beyond the greatest.
    color = jnp.where(radius <= 1 + 1e-5, 255 - radius * (255 - hue), 0.75 * hue)
    return jnp.clip(color, 0.0, 255.0) / 255


def flow_method(
    network: Model,
    *,
    views: common.Views,
    loss: Callable,
    occlusion: str,
) -> Method:
    """A method that learns flow; what follows from its network is filled in.

    Args:
        network: of pairs of frames, or a dictionary as `network_input` makes it, to flows.
        views: `(rng, batch) -> batch` with 'image' and 'input'.
        loss: as in `Method`.
        occlusion: what 'visible' is made by; with "none", by "forward_backward".
    """
    occlusion = "forward_backward" if occlusion == "none" else occlusion

    def init(rng: Array, batch: Batch) -> Variables:
        check(batch["input"])
        return Variables(*network.init(rng, network_input(batch)), extra={})

    def flows_of(params: PyTree, model_state: PyTree, images: Array) -> Array:
        output, _ = network.apply(params, model_state, {"image": images}, False)
        return upsampled(pyramid_of(output)[0], images.shape[2:4])

    def predict(params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch) -> dict:
        images = augment.to_float(batch["image"])
        check(images)
        flows = flows_of(params, model_state, images)
        made = match(images, flows, occlusion=occlusion)
        visible = common.split_views(made.visible, 2)
        return {"flow": flows[:, 0], "backward": flows[:, 1], "visible": visible[:, 0]}

    def show(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array
    ) -> dict[str, Array]:
        images = augment.to_float(batch["image"])
        check(images)
        flows = flows_of(params, model_state, images)
        made = match(images, flows, occlusion=occlusion)
        warped, visible = (common.split_views(x, 2)[:, 0] for x in (made.warped, made.visible))
        error = jnp.mean(jnp.abs(images[:, 0] - warped), axis=-1)
        return {
            "first": images[:, 0],
            "second": images[:, 1],
            "flow": flow_colors(flows[:, 0]),
            "warped second": warped,
            "error": jnp.clip(2 * error, 0.0, 1.0)[..., None],
            "visible": visible[..., None],
        }

    return Method(
        views, init, loss, common.no_update, predict, show, feature_pyramid, augment.to_float
    )


def check(images: Array) -> None:
    """There are two frames of each example.

    Raises:
        UserError: there are not.
    """
    chex.assert_rank(images, 5)
    if images.shape[1] != 2:
        raise UserError(
            f"Flow is between two frames, and each example has {images.shape[1]}: set "
            'config.data.frames=2 and config.data.target="first".'
        )


def feature_pyramid(params: PyTree, model_state: PyTree, extra: PyTree) -> tuple[PyTree, PyTree]:
    """The part of a flow network that sees one frame; all of it where no part is named so."""

    def features(tree: PyTree) -> PyTree:
        return {name: leaf for name, leaf in tree.items() if name.startswith(_FEATURES)}

    of_state = {name: features(part) for name, part in model_state.items()}
    return features(params) or params, of_state


_FEATURES = ("pyramid", "feature_encoder")


# From configs.


NETWORKS = {"pwc": PWCNet, "raft": RAFT}


def build_network(config: ConfigDict, knobs: dict[str, Any], *, both: bool = True) -> Model:
    """The network of `config.model.name`, "pwc" or "raft", its width and dtype, and other knobs.

    Args:
        config: a whole config.
        knobs: fields of the module.
        both: False for the flow from the first frame to the second alone, of the same parameters.

    Raises:
        UserError: there is no such network, or no such knob of it.
    """
    if config.model.name not in NETWORKS:
        known = nearest(config.model.name, [*NETWORKS])
        raise UserError(f'There is no flow network "{config.model.name}": {known}')
    module = NETWORKS[config.model.name]
    known = [field.name for field in dataclasses.fields(module) if field.name not in _GIVEN]
    for knob in knobs:
        if knob not in known:
            raise UserError(
                f"config.{config.method}.network.{knob}: {config.model.name} has no such knob: "
                f"{nearest(knob, known)}"
            )
    if config.model.dtype not in ("float32", "bfloat16"):
        raise UserError(
            f"config.model.dtype is {config.model.dtype!r}; choose 'float32' or 'bfloat16'."
        )
    dtype = jnp.dtype(config.model.dtype)
    return models.from_linen(module(**knobs, width=config.model.width, dtype=dtype, both=both))


_GIVEN = ("parent", "name", "width", "dtype", "both")


def training_views(section: ConfigDict) -> common.Views:
    """The views of an `augment` section: a `recipe` of pairs by name, with knobs replaced.

    Raises:
        UserError: unknown recipe or knob, or a knob out of its range.
    """
    knobs = common.plain(section)
    if not knobs.get("size", True):
        knobs.pop("size")  # (): the size of the frames
    try:
        recipe = flow_augment.get_flow_recipe(knobs.pop("recipe"), **knobs)
        return flow_augment.make_frame_pairs(recipe)
    except ValueError as error:
        raise UserError(f"config.augment: {error}") from error


def scheduled(knobs: dict[str, Any], term: str, steps: int) -> None:
    """Makes `TERM_weight` a schedule of it, from `TERM_start` on over `TERM_ramp` of the run.

    Example:
        >>> knobs = {"selfsup_weight": 0.6, "selfsup_start": 0.5, "selfsup_ramp": 0.1}
        >>> scheduled(knobs, "selfsup", 1000)
        >>> list(knobs), round(float(knobs["selfsup_weight"](550)), 3)
        (['selfsup_weight'], 0.3)
    """
    weight, start, length = (knobs.pop(f"{term}_{name}") for name in ("weight", "start", "ramp"))
    knobs[f"{term}_weight"] = ramp(weight, start * steps, length * steps) if weight else 0.0


def chosen(section: str, knob: str, value: Any, known: tuple) -> None:
    """The knob is one of its known values.

    Raises:
        UserError: it is not.
    """
    if value not in known:
        raise UserError(f"config.{section}.{knob} is {value!r}; choose one of {known}.")
