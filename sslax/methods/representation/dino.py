"""DINO: a student matches the sharpened, centered output of its own slow copy, from small crops.

Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, losses, models, ranges
from sslax.methods import schedules
from sslax.methods.common import Augmentation, at_step, knobs_of, merge_views, split_views
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.ranges import Fraction, NonNegativeInt, Positive, PositiveInt
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

    def with_keys(rng: Array, batch: Batch) -> Batch:
        return {**batch, "key": augment.batch_keys(rng, batch)} if teacher else batch

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
        batch = with_keys(rng, batch)
        variables = network.init(forward, rng, batch)
        (student, _), _ = network.apply(forward, variables, batch)
        center = jnp.zeros(student.shape[-1])
        return variables._replace(extra={**variables.extra, "center": center})

    def embed(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[tuple[Array, ...], Variables]:
        return network.apply(bottlenecks, variables, with_keys(rng, batch), train=True)

    def couple(
        outputs: tuple[Array, ...], variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        features, ours, theirs = outputs
        last = common.freeze_until(variables.params["prototypes"], step, freeze_steps)
        variables = variables._replace(params={**variables.params, "prototypes": last})
        (student, teacher), variables = network.apply(logits, variables, ours, theirs, train=True)
        center, sharpness = variables.extra["center"], at_step(teacher_temperature, step)
        pairs = losses.distillation_cross_entropy(
            student[:, None],
            teacher[:, :, None],
            center=center,
            student_temperature=student_temperature,
            teacher_temperature=sharpness,
        )
        others = ~jnp.eye(2, student.shape[1], dtype=bool)
        value = jnp.sum(jnp.mean(pairs, axis=0) * others) / jnp.sum(others)
        targets = jax.nn.softmax((teacher - center[None, None]) / sharpness)
        metrics = {
            "accuracy": common.contrastive_accuracy(ours[:, 0], theirs[:, 1]),
            # Collapse to one output has entropy 0, to the uniform one log K.
            "teacher_entropy": jnp.mean(jnp.sum(jax.scipy.special.entr(targets), axis=-1)),
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
    head_kinds = {**ranges.kinds_of(models.DINOHead), "outputs": PositiveInt}
    section = knobs_of(
        config,
        dino,
        teacher_temperature=tuple[Positive, Positive],
        teacher_warmup=Fraction,
        freeze=Fraction,
        projector=head_kinds,
    )
    head, dtype = section["projector"], jnp.dtype(config.model.dtype)
    prototypes = models.Prototypes(head.pop("outputs"), dtype)
    first, last = section["teacher_temperature"]
    warmup = max(round(section["teacher_warmup"] * steps), 1)
    encoder, teacher = models.build_encoder(config.model), None
    if config.model.drop_path:
        whole = config.model.copy_and_resolve_references()
        whole.drop_path = 0.0
        teacher = models.build_encoder(whole)
    return dino(
        encoder,
        models.from_linen(models.DINOHead(**head, dtype=dtype)),
        models.from_linen(prototypes),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        teacher=teacher,
        student_temperature=section["student_temperature"],
        teacher_temperature=schedules.linear(first, last, warmup),
        momentum=schedules.cosine(section["momentum"], 1.0, steps),
        center_momentum=section["center_momentum"],
        freeze_steps=round(section["freeze"] * steps),
    )
