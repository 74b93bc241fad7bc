"""DINO: a student matches the sharpened, centered output of its own slow copy, from small crops.

Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods import common
from sslax.training import optim
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Schedule, Variables


def dino(
    encoder: Model,
    projector: Model,
    *,
    views: common.Views,
    evaluation_view: common.EvaluationView,
    student_temperature: float = 0.1,
    teacher_temperature: float | Schedule = 0.04,
    momentum: float | Schedule = 0.996,
    center_momentum: float = 0.9,
    freeze_steps: int = 0,
) -> Method:
    """DINO with multi-crop; the teacher is the encoder to take away.

    Args:
        encoder: images to an `Encoding`.
        projector: features to K logits; its last layer is named "prototypes".
        views: `(rng, batch) -> batch` with images `[B, 2, H, W, C]`, for student and teacher, and,
            where small crops are wanted, 'local' `[B, L, h, w, C]` for the student.
        evaluation_view: for `predict`, from images `[B, H, W, C]` to the encoder's input.
        student_temperature: divides the student's logits.
        teacher_temperature: divides the teacher's; a number or a schedule.
        momentum: of the teacher, or a schedule of it.
        center_momentum: of the running mean of the teacher's logits.
        freeze_steps: the projector's last layer does not move in the first steps.
    """
    network = common.chain(encoder=encoder, projector=projector)

    def init(rng: Array, batch: Batch) -> Variables:
        images = common.merge_views(batch["image"])
        variables = network.init(rng, images)
        (_, logits), _ = network.apply(*variables, images, False)
        extra = {
            "target": common.target_of(*variables, "encoder", "projector"),
            "center": jnp.zeros(logits.shape[-1]),
        }
        return Variables(*variables, extra)

    def hold_last_layer(params: PyTree, step: Array) -> PyTree:
        """The same parameters; in the first steps no gradient reaches the last layer."""
        last = params["projector"]["prototypes"]
        last = jax.tree.map(
            lambda leaf: jnp.where(step < freeze_steps, jax.lax.stop_gradient(leaf), leaf), last
        )
        return {**params, "projector": {**params["projector"], "prototypes": last}}

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        params = hold_last_layer(params, step)
        student, features, state = common.apply_crops(network, params, model_state, batch)
        large = common.merge_views(batch["image"])
        (_, teacher), target_state = network.apply(*extra["target"], large, True)
        teacher = common.split_views(teacher, 2)
        sharpness = common.at_step(teacher_temperature, step)
        pairs = losses.distillation_cross_entropy(
            student[:, None],
            teacher[:, :, None],
            center=extra["center"],
            student_temperature=student_temperature,
            teacher_temperature=sharpness,
        )
        others = ~jnp.eye(2, student.shape[1], dtype=bool)
        value = jnp.sum(jnp.mean(pairs, axis=0) * others) / jnp.sum(others)
        targets = jax.nn.softmax((teacher - extra["center"][None, None]) / sharpness)
        metrics = {
            "accuracy": common.contrastive_accuracy(student[:, 0], teacher[:, 1]),
            # Collapse to one output has entropy 0, to the uniform one log K.
            "teacher_entropy": jnp.mean(jnp.sum(jax.scipy.special.entr(targets), axis=-1)),
            "loss_at_chance": jnp.log(jnp.float32(student.shape[-1])),
            **common.embedding_metrics(teacher[:, 0]),
        }
        extra = {
            "target": extra["target"]._replace(model_state=target_state),
            "center": losses.update_center(extra["center"], teacher, momentum=center_momentum),
        }
        return value, LossOutput(state, extra, jax.lax.stop_gradient(metrics), features)

    def update(params: PyTree, extra: PyTree, step: Array) -> PyTree:
        moved = extra["target"].move(params, common.at_step(momentum, step))
        return {**extra, "target": moved}

    def teacher_encoder(params: PyTree, model_state: PyTree, extra: PyTree) -> tuple:
        return common.trained_encoder(*extra["target"], extra)

    return common.method_of_encoder(
        encoder,
        views=views,
        evaluation_view=evaluation_view,
        init=init,
        loss=loss,
        update=update,
        encoder=teacher_encoder,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """DINO as the sections `model`, `augment` and `dino` of a config say; momentum rises to 1."""
    section = config.dino
    warmup = max(round(section.teacher_warmup * steps), 1)
    first, last = section.teacher_temperature

    def teacher_temperature(step: Array) -> Array:
        return first + (last - first) * jnp.minimum(step / warmup, 1.0)

    return dino(
        models.build_encoder(config.model),
        models.from_linen(
            models.DINOHead(**section.projector, dtype=jnp.dtype(config.model.dtype))
        ),
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
        student_temperature=section.student_temperature,
        teacher_temperature=teacher_temperature,
        momentum=optim.cosine(section.momentum, 1.0, steps),
        center_momentum=section.center_momentum,
        freeze_steps=round(section.freeze * steps),
    )
