"""DINO: a student matches the sharpened, centered output of its own slow copy, from small crops.

Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses
from sslax.methods.common import Augmentation, at_step, knobs_of, merge_views, split_views
from sslax.methods.representation import common, self_distillation
from sslax.models.compose import Network, Parts
from sslax.ranges import Fraction, NonNegativeInt, Positive
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Schedule, Variables


def dino(
    encoder: Model,
    projector: Model,
    prototypes: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    teacher: Model | None = None,
    student_temperature: Positive = 0.1,
    teacher_temperature: Positive | Schedule = 0.04,
    momentum: Fraction | Schedule = 0.996,
    center_momentum: Fraction = 0.9,
    freeze_steps: NonNegativeInt = 0,
) -> Method:
    """DINO with multi-crop; the teacher, a momentum copy, is the exported encoder.

    Args:
        encoder: images to an `Encoding`.
        projector: features to the bottleneck.
        prototypes: bottleneck to K logits; DINO's last layer.
        augmentation: adds 'views' `[B, 2, H, W, C]`, for student and teacher, and, where small
            crops are wanted, 'local_views' `[B, L, h, w, C]` for the student.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        teacher: the encoder without its drop path; the other one is then given random keys. None
            where nothing is dropped.
        student_temperature: divides the student's logits.
        teacher_temperature: divides the teacher's; a number or a schedule.
        momentum: of the teacher, or a schedule of it.
        center_momentum: of the running mean of the teacher's logits.
        freeze_steps: the last layer does not learn in the first steps.
    """
    parts = {"encoder": encoder, "projector": projector, "prototypes": prototypes}
    network = Network(parts, momentum={**parts, "encoder": teacher or encoder})

    def bottlenecks(net: Parts, batch: Batch) -> tuple[Array, Array, Array]:
        """Features `[B, 2, D]`, bottlenecks of student `[B, 2 + L, d]` and teacher `[B, 2, d]`."""
        student, features = common.embed_crops(net, batch)
        teacher = net.momentum.encoder(merge_views(batch["views"])).features
        return features, student, split_views(net.momentum.projector(teacher), 2)

    def logits(net: Parts, student: Array, teacher: Array) -> tuple[Array, Array]:
        """Logits of student `[B, 2 + L, K]` and teacher `[B, 2, K]`."""
        ours = net.prototypes(merge_views(student))
        theirs = net.momentum.prototypes(merge_views(teacher))
        return split_views(ours, student.shape[1]), split_views(theirs, 2)

    def forward(net: Parts, batch: Batch) -> tuple[Array, Array]:
        _, student, teacher = bottlenecks(net, batch)
        return logits(net, student, teacher)

    def init(rng: Array, batch: Batch) -> Variables:
        batch = common.with_keys(rng, batch, teacher is not None)
        variables = network.init(forward, rng, batch)
        (student, _), _ = network.apply(forward, variables, batch)
        center = jnp.zeros(student.shape[-1])
        return variables._replace(extra={**variables.extra, "center": center})

    def embed(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[tuple[Array, ...], Variables]:
        batch = common.with_keys(rng, batch, teacher is not None)
        return network.apply(bottlenecks, variables, batch, train=True)

    def couple(
        outputs: tuple[Array, ...], variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        features, ours, theirs = outputs
        last = common.freeze_until(variables.params["prototypes"], step, freeze_steps)
        variables = variables._replace(params={**variables.params, "prototypes": last})
        (student, teacher), variables = network.apply(logits, variables, ours, theirs, train=True)
        center, sharpness = variables.extra["center"], at_step(teacher_temperature, step)
        value = self_distillation.cross_view_loss(
            student,
            teacher,
            center=center,
            student_temperature=student_temperature,
            teacher_temperature=sharpness,
        )
        targets = jax.nn.softmax((teacher - center[None, None]) / sharpness)
        metrics = {
            "accuracy": common.contrastive_accuracy(ours[:, 0], theirs[:, 1]),
            "teacher_entropy": self_distillation.entropy(targets),
            "loss_at_chance": jnp.log(jnp.float32(student.shape[-1])),
            **common.embedding_metrics(theirs[:, 0]),
        }
        center = losses.update_center(center, teacher, momentum=center_momentum)
        extra = {**variables.extra, "center": center}
        metrics, features = jax.lax.stop_gradient((metrics, features))
        return value, LossOutput(variables.model_state, extra, metrics, features)

    def update(variables: Variables, step: Array) -> PyTree:
        return network.move(variables, at_step(momentum, step))

    return common.encoder_method(
        network,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        init=init,
        embed=embed,
        couple=couple,
        update=update,
        encoder=network.momentum_encoder,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """DINO from the sections `model`, `augment` and `dino` of a config; momentum rises to 1."""
    knobs = self_distillation.scheduled(knobs_of(config, dino, **self_distillation.SECTION), steps)
    encoder, teacher = self_distillation.build_encoders(config.model)
    return dino(
        encoder,
        *self_distillation.build_head(knobs.pop("projector"), config.model.dtype),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        teacher=teacher,
        **knobs,
    )
