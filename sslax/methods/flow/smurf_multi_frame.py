"""SMURF's second stage: a student of two frames learns from a trained teacher of three.

Stone et al., SMURF: Self-Teaching Multi-Frame Unsupervised RAFT with Full-Image Warping, CVPR 2021.
"""

from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, checks, losses, models
from sslax.errors import UserError, check_choice
from sslax.methods.common import Augmentation, merge_views, split_views
from sslax.methods.flow import from_config, matching, resolution
from sslax.methods.flow.fusion import fuse_flows
from sslax.methods.flow.method import (
    Encoder,
    Loss,
    check_pairs,
    flow_method,
    network_input,
    whole_network,
)
from sslax.methods.flow.terms import magnitude
from sslax.ranges import NonNegativeInt, PositiveFraction, PositiveInt
from sslax.types import (
    Array,
    Batch,
    FlowField,
    FlowMaps,
    LossOutput,
    Method,
    Model,
    Pictures,
    PyTree,
    Variables,
)

OCCLUSIONS = ("forward_backward", "range_map")
TEACHERS = ("arflow", "smurf", "smurf_multi_frame", "uflow", "unflow")


class PseudoLabels(NamedTuple):
    """Targets of the student.

    Attributes:
        flow: `[B, h, w, 2]`, from the middle frame to the next.
        mask: `[B, h, w]` float32, 1 where one of the other frames shows the pixel.
        filled: `[B, h, w]` float32, 1 where the flow is inferred from the previous frame.
    """

    flow: Array
    mask: Array
    filled: Array


class Settings(NamedTuple):
    """Knobs of `pseudo_labels`, as in `smurf_multi_frame`."""

    occlusion: str = "forward_backward"
    border_occluded: bool = True
    fusion_steps: int = 200
    fusion_hidden: int = 16
    fusion_stride: int = 1


def smurf_multi_frame(
    network: Model,
    teacher: Model,
    *,
    augmentation: Augmentation,
    student: Model | None = None,
    encoder: Encoder = whole_network,
    start_from_teacher: bool = False,
    occlusion: str = "forward_backward",
    border_occluded: bool = True,
    fusion_steps: NonNegativeInt = 200,
    fusion_hidden: PositiveInt = 16,
    fusion_stride: PositiveInt = 1,
    gamma: PositiveFraction = 0.8,
) -> Method:
    """SMURF's multi-frame self-supervision, a training stage of its own.

    ```
    target = fuse(f_T(t → t-1), f_T(t → t+1); m-, m+)
    loss   = Σ_i γ^(n - 1 - i) mean((m- or m+) |f_i(t → t+1) - target|)
    ```
    over the student's n iterations, which see the augmented frames t and t + 1 alone; m± are 1
    where frame t ± 1 shows the pixel according to the teacher's flows. The teacher T is the network
    that the first stage trained; its weights are kept in `extra` and stay frozen. Where it finds a
    pixel occluded in the next frame, `fuse_flows` infers its flow from the flow to the previous
    one.

    The authors write the targets to files once and train a new network on them. Here they are
    computed in each step, from frames that are already flipped and moved; the student is also a
    new network, unless `start_from_teacher`.

    Args:
        network: pairs to flows in both directions, for predictions.
        teacher: likewise, of the same parameters, perhaps with more iterations; its `init` returns
            the trained weights.
        augmentation: adds 'frames' `[B, 3, H, W, C]`, which the teacher is given, the student's
            'input' `[B, 2, h, w, C]`, from the last two of them, and perhaps 'offset' `[B, 2]`, the
            input's corner in the frames. See `triplet_augmentation`.
        student: of the same parameters; only its flow from the first frame to the second is used.
            None for `network`.
        encoder: the part of the network to export.
        start_from_teacher: the student starts with the teacher's weights rather than at random.
        occlusion: "forward_backward" or "range_map", of the teacher's flows.
        border_occluded: pixels that leave the frame count as occluded rather than as visible.
        fusion_steps: of `fuse_flows`, which runs for each example; likewise `fusion_hidden` and
            `fusion_stride`.
        gamma: γ.
    """
    settings = Settings(occlusion, border_occluded, fusion_steps, fusion_hidden, fusion_stride)

    def init(rng: Array, batch: Batch) -> Variables:
        check_pairs(batch["input"])
        x = network_input(batch)
        frozen = Variables(*teacher.init(rng, x), extra={})
        params, model_state = frozen[:2] if start_from_teacher else network.init(rng, x)
        return Variables(params, model_state, extra={"teacher": frozen})

    base = flow_method(
        network,
        augmentation=augmentation,
        loss=student_loss(student or network, teacher, settings, gamma=gamma),
        occlusion=occlusion,
        encoder=encoder,
    )

    def predict(variables: Variables, batch: Batch) -> FlowMaps:
        return base.predict(variables, {**batch, "image": last_pair(batch["image"])})

    def visualize(variables: Variables, batch: Batch, rng: Array) -> Pictures:
        frames = augment.to_float(batch["image"])
        check_triplets(frames)
        flows = teacher_flows(teacher, variables.extra["teacher"], frames)
        labels = pseudo_labels(augment.batch_keys(rng, batch), *flows, settings)
        # One scale for all columns, so that equal colors are equal motions.
        fastest = jnp.max(magnitude(labels.flow), axis=(1, 2), keepdims=True)
        return {
            "previous": frames[:, 0],
            "first": frames[:, 1],
            "second": frames[:, 2],
            "teacher": FlowField(flows[0][:, 0], fastest),
            "pseudo-label": FlowField(labels.flow, fastest),
            "from the previous frame": labels.filled[..., None],
            "labeled": labels.mask[..., None],
            "flow": FlowField(predict(variables, batch).flow, fastest),
        }

    def references(variables: Variables) -> dict[str, Variables]:
        return {"teacher": variables.extra["teacher"]._replace(extra=variables.extra)}

    return base._replace(init=init, predict=predict, visualize=visualize, references=references)


def student_loss(student: Model, teacher: Model, settings: Settings, *, gamma: float) -> Loss:
    """`Method.loss`: the student's iterations against pseudo-labels; see `smurf_multi_frame`."""

    def loss(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        check_pairs(batch["input"])
        params, model_state, extra = variables
        size = batch["input"].shape[2:4]
        network_key, fusion_key = jax.random.split(rng)
        flows = teacher_flows(teacher, extra["teacher"], batch["frames"])
        labels = pseudo_labels(augment.batch_keys(fusion_key, batch), *flows, settings)
        labels = crop_labels(labels, batch.get("offset"), size)
        x = network_input(batch, network_key)
        output, model_state = student.apply(params, model_state, x, True)
        predictions = resolution.iterations(output, size)[:, :, 0]

        def error(predictions: Array) -> Array:
            per_pixel, counted = losses.sequence_loss(
                predictions, labels.flow, mask=labels.mask, gamma=gamma
            )
            return losses.masked_mean(per_pixel, counted)

        distance = magnitude(predictions[-1] - labels.flow)
        metrics = {
            "loss_at_chance": error(jnp.zeros_like(predictions)),
            "distance": losses.masked_mean(distance, labels.mask),
            "filled": jnp.mean(labels.filled),
            "labeled": jnp.mean(labels.mask),
            "flow_length": jnp.mean(magnitude(predictions[-1])),
        }
        output = LossOutput(model_state, extra, jax.lax.stop_gradient(metrics))
        return error(predictions), output

    return loss


# Pseudo-labels.


def teacher_flows(network: Model, teacher: Variables, frames: Array) -> tuple[Array, Array]:
    """Flows between the middle one of three frames and the others, no gradient.

    Args:
        network: pairs to flows in both directions.
        teacher: its parameters and state.
        frames: `[B, 3, H, W, C]`.

    Returns:
        The flows from the middle frame to the next and to the previous one, `[B, 2, H, W, 2]`; and
        the flows from those to the middle frame, likewise.
    """
    pairs = jnp.stack([frames[:, 1:], frames[:, 1::-1]], axis=1)  # [B, 2, 2, H, W, C]
    x = {"image": merge_views(pairs)}
    output, _ = network.apply(teacher.params, teacher.model_state, x, False)
    flows = resolution.upsample(resolution.pyramid(output)[0], frames.shape[2:4])
    flows = split_views(jax.lax.stop_gradient(flows), 2)
    return flows[:, :, 0], flows[:, :, 1]


def pseudo_labels(keys: Array, forward: Array, backward: Array, settings: Settings) -> PseudoLabels:
    """The flow to the next frame, with occluded pixels inferred from the previous frame.

    Args:
        keys: a random key of each example, `[B]`.
        forward: `[B, 2, H, W, 2]`, from the middle frame, as `teacher_flows` returns it.
        backward: `[B, 2, H, W, 2]`, to the middle frame.
        settings: knobs.
    """
    checks.assert_equal_shape([forward, backward])
    ahead, back = merge_views(forward), merge_views(backward)
    visible = matching.visibility(ahead, back, occlusion=settings.occlusion) > 0.5
    if settings.border_occluded:
        visible &= matching.stays_inside(ahead)
    visible = split_views(visible, 2)
    future, past = visible[:, 0], visible[:, 1]
    fuse = partial(
        fuse_flows,
        steps=settings.fusion_steps,
        hidden=settings.fusion_hidden,
        stride=settings.fusion_stride,
    )

    def fuse_example(key: Array, flows: Array, future: Array, past: Array) -> Array:
        return fuse(key, flows[1], flows[0], visible_past=past, visible_future=future)

    flow = jax.lax.stop_gradient(jax.vmap(fuse_example)(keys, forward, future, past))
    mask, filled = future | past, past & ~future
    return PseudoLabels(flow, mask.astype(jnp.float32), filled.astype(jnp.float32))


def crop_labels(labels: PseudoLabels, offset: Array | None, size: tuple[int, int]) -> PseudoLabels:
    """The labels of a crop of `size` at `offset` `[B, 2]`; all of them where that is None."""
    if offset is None:
        return labels
    maps = jnp.concatenate([labels.flow, jnp.stack(labels[1:], axis=-1)], axis=-1)
    maps = matching.crop(maps, offset, size)
    return PseudoLabels(maps[..., :2], maps[..., 2], maps[..., 3])


# Frames.


def check_triplets(frames: Array) -> None:
    """Each example has three frames.

    Raises:
        UserError: it has not.
    """
    checks.assert_rank(frames, 5)
    if frames.shape[1] != 3:
        raise UserError(
            "Occluded flow is inferred from three frames, and each example has "
            f'{frames.shape[1]}: set config.data.frames=3 and config.data.target_frame="second".'
        )


def last_pair(images: Array) -> Array:
    """The last two of three frames `[B, 3, H, W, C]`; pairs as they are."""
    return images[:, 1:] if images.shape[1] == 3 else images


def triplet_augmentation(augmentation: Augmentation) -> Augmentation:
    """Augmentation of three frames by that of pairs.

    All three are moved and cropped alike; colors change in 'input' alone, which has the last two.

    Args:
        augmentation: as `augment.make_frame_pairs` returns it: an example's key depends on `rng`
            and its index alone.
    """

    def augment_triplets(rng: Array, batch: Batch) -> Batch:
        images = batch["image"]
        check_triplets(images)
        pair = augmentation(rng, {**batch, "image": images[:, 1:]})
        # The same keys, and so the same flips, moves and crops.
        previous = augmentation(rng, {**batch, "image": images[:, :2]})["frames"][:, :1]
        frames = jnp.concatenate([previous, pair["frames"]], axis=1)
        return {**pair, "image": images, "frames": frames}

    return augment_triplets


# From configs.

_KNOB = "config.smurf_multi_frame.teacher_from"
_FILE = "network.safetensors"  # in the folder of a finished run
_COMMAND = "`python -m sslax.main --config=configs/smurf.py --workdir={}`"


def start_from(network: Model, source: str) -> Model:
    """The network, initialized with the weights of a finished run, which are read once.

    Args:
        network: of the same parameters.
        source: the run's folder, or a file network.safetensors.

    Raises:
        UserError: from `init`, there is no finished run, it learns no flow, or its network is
            another.
    """
    knob, command = f"{_KNOB}={source}", _COMMAND.format(source)

    @cache
    def read() -> tuple[PyTree, PyTree, dict[str, Any]]:
        path = Path(source)
        if not (path / _FILE if path.is_dir() else path).is_file():
            raise UserError(f"{knob} holds no finished run: first run {command}.")
        return models.read_variables(path, file=_FILE)

    def init(rng: Array, x: PyTree) -> tuple[PyTree, PyTree]:
        *weights, metadata = read()
        method = metadata.get("method", "unknown")
        if method not in TEACHERS:
            raise UserError(
                f"{knob} is a run of {method}, which learns no flow: first run {command}."
            )
        like = jax.eval_shape(network.init, rng, x)
        if jax.tree.map(jnp.shape, tuple(weights)) != jax.tree.map(jnp.shape, like):
            raise UserError(
                f"The network of {knob} is another one: its config.model and "
                f"config.{method}.network have to be this run's config.model and "
                "config.smurf_multi_frame.network."
            )
        return jax.tree.map(jnp.asarray, tuple(weights))

    return network._replace(init=init)


def build(config: ConfigDict, steps: int) -> Method:
    """SMURF's second stage from the sections `model`, `augment` and `smurf_multi_frame`.

    `teacher_from` None is for a run whose checkpoints hold the teacher already.

    Raises:
        UserError: no teacher; an unknown knob, or one out of its range.
    """
    knobs = from_config.knobs_of(
        config, smurf_multi_frame, teacher_from=str | None, teacher_iterations=NonNegativeInt
    )
    check_choice("config.smurf_multi_frame.occlusion", knobs["occlusion"], OCCLUSIONS)
    source, iterations = knobs.pop("teacher_from"), knobs.pop("teacher_iterations")
    if source == "":
        raise UserError(
            f"{_KNOB} has to name the folder of a finished first stage: run "
            f"{_COMMAND.format('FOLDER')}."
        )
    shared = from_config.shared_arguments(config)
    changes = {"iterations": iterations} if iterations else {}
    teacher = from_config.build_network(config, **changes)
    return smurf_multi_frame(
        **shared | {"augmentation": triplet_augmentation(shared["augmentation"])},
        teacher=teacher if source is None else start_from(teacher, source),
        student=from_config.build_network(config, both=False),
        **knobs,
    )
