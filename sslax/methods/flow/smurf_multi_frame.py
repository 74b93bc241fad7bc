"""SMURF's second stage: a student learns from what a trained network sees in three frames.

Stone et al., SMURF: Self-Teaching Multi-Frame Unsupervised RAFT with Full-Image Warping, CVPR 2021.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, losses
from sslax.errors import UserError
from sslax.methods import common
from sslax.methods.depth import geometry
from sslax.methods.flow import flow_common
from sslax.methods.flow.smurf import fuse_flows
from sslax.training import checkpoint, sharding
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables

OCCLUSIONS = ("forward_backward", "range_map")
TEACHERS = ("arflow", "smurf", "smurf_multi_frame", "uflow", "unflow")


def smurf_multi_frame(
    network: Model,
    *,
    views: common.Views,
    teacher: Model | None = None,
    student: Model | None = None,
    teacher_weights: common.Target | None = None,
    start_from_teacher: bool = False,
    occlusion: str = "forward_backward",
    border_occluded: bool = True,
    fusion_steps: int = 200,
    fusion_hidden: int = 16,
    fusion_stride: int = 1,
    gamma: float = 0.8,
) -> Method:
    """SMURF's multi-frame self-supervision, a stage of its own.

    ```
    target = fuse(f_T(t → t-1), f_T(t → t+1); m-, m+)
    loss   = Σ_i γ^(n - 1 - i) mean((m- or m+) |f_i(t → t+1) - target|)
    ```
    of the student's n iterations, which see t and t + 1 alone, augmented; m± are 1 where frame
    t ± 1 shows the pixel by the teacher's flows. The teacher T is the network that the first stage
    trained; its weights are in `extra` and stay as they are. Where it finds a pixel occluded in the
    next frame, `smurf.fuse_flows` tells its flow from the flow to the last one.

    The authors write the targets to files once and train a new network on them. Here they are made
    anew in each step, of frames that are flipped and moved already; the student is a new network,
    too, unless `start_from_teacher`.

    Args:
        network: of pairs to flows in both directions, for predictions.
        views: `(rng, batch) -> batch` with 'image' `[B, 3, H, W, C]`, which the teacher is given,
            and 'input' `[B, 2, h, w, C]`, the last two for the student; perhaps 'offset' `[B, 2]`,
            where in the frames the input begins. See `triplet_views`.
        teacher: a network of the same parameters, with more iterations perhaps; None for `network`.
        student: likewise; only its flow from the first frame to the second is looked at.
        teacher_weights: of the teacher; None where a checkpoint will replace them.
        start_from_teacher: the student begins as the teacher, rather than at random.
        occlusion: "forward_backward" or "range_map", of the teacher's flows.
        border_occluded: what leaves the frame counts as occluded; if not, as visible.
        fusion_steps, fusion_hidden, fusion_stride: of `smurf.fuse_flows`, which is called for each
            example.
        gamma: γ.
    """
    teacher, student = teacher or network, student or network
    knobs = {"steps": fusion_steps, "hidden": fusion_hidden, "stride": fusion_stride}
    seen_by = {"occlusion": occlusion, "border_occluded": border_occluded}

    def teach(extra: PyTree, images: Array, keys: Array) -> Lesson:
        forward, backward = teacher_flows(teacher, extra["teacher"], images)
        return lesson_of(keys, forward, backward, **seen_by, **knobs)

    def init(rng: Array, batch: Batch) -> Variables:
        flow_common.check(batch["input"])
        variables = network.init(rng, flow_common.network_input(batch))
        own = common.Target(*variables)
        if teacher_weights is not None:
            own = jax.tree.map(jnp.asarray, teacher_weights)
            variables = own if start_from_teacher else variables
        return Variables(*variables, extra={"teacher": own})

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        flow_common.check(batch["input"])
        size = batch["input"].shape[2:4]
        input_key, fusion_key = jax.random.split(rng)
        lesson = teach(extra, batch["image"], geometry.example_keys(fusion_key, batch))
        lesson = part_of(lesson, batch.get("offset"), size)
        inputs = flow_common.network_input(batch, input_key)
        output, state = student.apply(params, model_state, inputs, True)
        flows = flow_common.sequence_of(output, size)[:, :, 0]

        def compared(flows: Array) -> Array:
            error, counted = losses.sequence_loss(flows, lesson.flow, mask=lesson.mask, gamma=gamma)
            return losses.masked_mean(error, counted)

        value = compared(flows)
        metrics = {
            "loss_at_chance": compared(jnp.zeros_like(flows)),
            "distance": losses.masked_mean(length(flows[-1] - lesson.flow), lesson.mask),
            "filled": jnp.mean(lesson.filled),
            "taught": jnp.mean(lesson.mask),
            "flow_length": jnp.mean(length(flows[-1])),
        }
        return value, LossOutput(state, extra, jax.lax.stop_gradient(metrics))

    base = flow_common.flow_method(network, views=views, loss=loss, occlusion=occlusion)

    def predict(params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch) -> dict:
        pair = {**batch, "image": pair_of(batch["image"])}
        return base.predict(params, model_state, extra, pair)

    def show(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array
    ) -> dict[str, Array]:
        images = augment.to_float(batch["image"])
        check(images)
        forward, backward = teacher_flows(teacher, extra["teacher"], images)
        lesson = lesson_of(geometry.example_keys(rng, batch), forward, backward, **seen_by, **knobs)
        predicted = predict(params, model_state, extra, batch)
        # One scale for all, so that a color is a motion.
        fastest = jnp.max(length(lesson.flow), axis=(1, 2), keepdims=True)
        colors = partial(flow_common.flow_colors, max_radius=fastest)
        return {
            "before": images[:, 0],
            "first": images[:, 1],
            "second": images[:, 2],
            "teacher": colors(forward[:, 0]),
            "filled in": colors(lesson.flow),
            "from the past": lesson.filled[..., None],
            "taught": lesson.mask[..., None],
            "flow": colors(predicted["flow"]),
        }

    return base._replace(init=init, predict=predict, show=show)


class Lesson(NamedTuple):
    """What the student is taught of each example."""

    flow: Array  # [B, h, w, 2], from the middle frame to the next
    mask: Array  # [B, h, w] float32, 1 where some frame shows the pixel
    filled: Array  # [B, h, w] float32, 1 where the flow is from the past


def teacher_flows(network: Model, weights: common.Target, images: Array) -> tuple[Array, Array]:
    """Flows between the middle of three frames and the others, both ways; no gradient.

    Args:
        network: of pairs to flows in both directions.
        weights: its own.
        images: `[B, 3, H, W, C]`.

    Returns:
        From the middle frame, to the next and then to the last one, `[B, 2, H, W, 2]`; and from
        those to the middle frame, likewise.
    """
    pairs = jnp.stack([images[:, 1:], images[:, 1::-1]], axis=1)  # [B, 2, 2, H, W, C]
    output, _ = network.apply(*weights, {"image": common.merge_views(pairs)}, False)
    flows = flow_common.upsampled(flow_common.pyramid_of(output)[0], images.shape[2:4])
    flows = common.split_views(jax.lax.stop_gradient(flows), 2)
    return flows[:, :, 0], flows[:, :, 1]


def lesson_of(
    keys: Array,
    forward: Array,
    backward: Array,
    *,
    occlusion: str = "forward_backward",
    border_occluded: bool = True,
    **knobs: float,
) -> Lesson:
    """The flow to the next frame, filled in from the past; see `smurf_multi_frame`.

    Args:
        keys: a random key of each example, `[B]`.
        forward, backward: as `teacher_flows` returns them, `[B, 2, H, W, 2]`.
        occlusion: "forward_backward" or "range_map".
        border_occluded: what leaves the frame counts as occluded; if not, as visible.
        **knobs: of `smurf.fuse_flows`.
    """
    chex.assert_equal_shape([forward, backward])
    ahead, back = common.merge_views(forward), common.merge_views(backward)
    seen = flow_common.not_occluded(ahead, back, occlusion=occlusion) > 0.5
    if border_occluded:
        seen &= flow_common.stays(ahead)
    seen = common.split_views(seen, 2)
    future, past = seen[:, 0], seen[:, 1]

    def fuse(key: Array, flows: Array, future: Array, past: Array) -> Array:
        return fuse_flows(
            key, flows[1], flows[0], visible_past=past, visible_future=future, **knobs
        )

    flow = jax.lax.stop_gradient(jax.vmap(fuse)(keys, forward, future, past))
    return Lesson(flow, (future | past).astype(jnp.float32), (past & ~future).astype(jnp.float32))


def part_of(lesson: Lesson, offset: Array | None, size: tuple[int, int]) -> Lesson:
    """The lesson of the part of the frames that begins at `offset` `[B, 2]`; None for all."""
    if offset is None:
        return lesson
    maps = jnp.concatenate([lesson.flow, jnp.stack(lesson[1:], axis=-1)], axis=-1)
    maps = flow_common.part_of(maps, offset, size)
    return Lesson(maps[..., :2], maps[..., 2], maps[..., 3])


def length(flow: Array) -> Array:
    """Of the vectors of a flow `[..., 2]`, in pixels."""
    return jnp.sqrt(jnp.sum(jnp.square(jax.lax.stop_gradient(flow)), axis=-1))


def check(images: Array) -> None:
    """There are three frames of each example.

    Raises:
        UserError: there are not.
    """
    chex.assert_rank(images, 5)
    if images.shape[1] != 3:
        raise UserError(
            f"A pixel's past is seen in three frames, and each example has {images.shape[1]}: set "
            'config.data.frames=3 and config.data.target="second".'
        )


def pair_of(images: Array) -> Array:
    """The last two of three frames `[B, 3, H, W, C]`; pairs as they are."""
    return images[:, 1:] if images.shape[1] == 3 else images


def triplet_views(views: common.Views) -> common.Views:
    """Views of three frames, of views of pairs.

    All three are moved and cut alike; what changes colors changes 'input' alone, which is of the
    last two.

    Args:
        views: as `make_frame_pairs` makes them: an example's key is of `rng` and its index alone.
    """

    def made(rng: Array, batch: Batch) -> Batch:
        images = batch["image"]
        check(images)
        pair = views(rng, {**batch, "image": images[:, 1:]})
        # The same keys, and so the same flips, moves and cuts.
        before = views(rng, {**batch, "image": images[:, :2]})["image"][:, :1]
        return {**pair, "image": jnp.concatenate([before, pair["image"]], axis=1)}

    return made


# From configs.


def read_teacher(folder: str, network: Model) -> common.Target:
    """The weights of the flow network that the run in `folder` trained, at its latest checkpoint.

    Args:
        folder: of the run.
        network: whose parameters they have to be.

    Raises:
        UserError: there is no such run, it learns no flow, its network is another, or it has no
            checkpoint.
    """
    knob = "config.smurf_multi_frame.teacher_from"
    command = f"`python -m sslax.main --config=configs/smurf.py --workdir={folder or 'FOLDER'}`"
    if not folder:
        raise UserError(f"{knob} has to name the folder of a finished first stage: run {command}.")
    workdir = Path(folder).expanduser()
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"{knob}={folder} holds no finished run: first run {command}.")
    config, spec = checkpoint.read_description(workdir)
    if config.method not in TEACHERS:
        raise UserError(
            f"{knob}={folder} is a run of {config.method}, which learns no flow: first run "
            f"{command}."
        )
    theirs = flow_common.build_network(config, common.plain(config[config.method].network))
    like, wanted = (_shapes(model, spec["image_shape"]) for model in (theirs, network))
    if like != wanted:
        raise UserError(
            f"The network of {knob}={folder} is another one: its config.model and "
            f"config.{config.method}.network have to be this run's config.model and "
            "config.smurf_multi_frame.network."
        )
    everywhere = sharding.replicated(sharding.make_mesh())
    return common.Target(
        *checkpoint.read_variables(workdir, checkpoint.abstract_like(like, everywhere))
    )


def _shapes(network: Model, image_shape: list[int]) -> tuple[PyTree, PyTree]:
    """Parameters and state as shapes, of a network of frames `[V, H, W, C]`."""
    images = jax.ShapeDtypeStruct((1, 2, *image_shape[1:]), jnp.float32)
    return jax.eval_shape(network.init, jax.random.key(0), {"image": images})


def build(config: ConfigDict, steps: int) -> Method:
    """The second stage as the sections `model`, `augment` and `smurf_multi_frame` of a config say.

    `teacher_from` None is for a run whose checkpoints hold the teacher already.

    Raises:
        UserError: see `read_teacher`; an unknown knob, or one out of its range.
    """
    knobs = common.plain(config.smurf_multi_frame)
    flow_common.chosen("smurf_multi_frame", "occlusion", knobs["occlusion"], OCCLUSIONS)
    parts, iterations = knobs.pop("network"), knobs.pop("teacher_iterations")
    folder = knobs.pop("teacher_from")
    network = flow_common.build_network(config, parts)
    more = {**parts, "iterations": iterations} if iterations else parts
    return smurf_multi_frame(
        network,
        views=triplet_views(flow_common.training_views(config.augment)),
        teacher=flow_common.build_network(config, more),
        student=flow_common.build_network(config, parts, both=False),
        teacher_weights=None if folder is None else read_teacher(folder, network),
        **knobs,
    )
