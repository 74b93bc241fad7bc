"""iBOT: DINO whose student also predicts the teacher's output for the patches that it did not see.

Zhou et al., iBOT: Image BERT Pre-Training with Online Tokenizer, ICLR 2022.
"""

from ml_collections import ConfigDict

from sslax.methods.common import Augmentation, knobs_of
from sslax.methods.representation import common, self_distillation
from sslax.methods.representation.self_distillation import Head, masked_distillation
from sslax.ranges import Fraction, FractionRange, NonNegativeInt, Positive
from sslax.types import Method, Model, Schedule


def ibot(
    encoder: Model,
    projector: Model,
    prototypes: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    teacher: Model | None = None,
    patch: int = 16,
    student_temperature: Positive = 0.1,
    teacher_temperature: Positive | Schedule = 0.04,
    momentum: Fraction | Schedule = 0.996,
    center_momentum: Fraction = 0.9,
    freeze_steps: NonNegativeInt = 0,
    mask_ratio: FractionRange = (0.1, 0.5),
    mask_probability: Fraction = 0.5,
) -> Method:
    """iBOT with multi-crop; the teacher, a momentum copy, is the exported encoder.

    `loss = DINO's loss of class tokens + mean over large crops of
    losses.masked_patch_distillation(patches)`

    Class tokens and patches share the head and have a center each, which for patches is the mean
    over all of them. The student sees large crops with blocks of patches masked, also where DINO's
    loss compares it with the other crop; a crop without masked patches has a patch loss of 0.

    Args:
        encoder: a vision transformer with a mask token and a class token, of {'image', 'masked'} to
            an `Encoding` with 'tokens'.
        projector: class tokens and patches `[N, D]` to the bottleneck.
        prototypes: bottleneck to K logits; the last layer.
        augmentation: adds 'views' `[B, 2, H, W, C]`, for student and teacher, and, where small
            crops are wanted, 'local_views' `[B, L, h, w, C]` for the student.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        teacher: the encoder without its drop path; the other one is then given random keys. None
            where nothing is dropped.
        patch: side of the patches in pixels.
        student_temperature: divides the student's logits.
        teacher_temperature: divides the teacher's; a number or a schedule.
        momentum: of the teacher, or a schedule of it.
        center_momentum: of the running means of the teacher's logits.
        freeze_steps: the last layer does not learn in the first steps.
        mask_ratio: range of the share of patches to mask; blocks do not always reach it.
        mask_probability: that a large crop has masked patches.
    """
    return masked_distillation(
        encoder,
        Head(projector, prototypes),
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        teacher=teacher,
        patch=patch,
        student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
        momentum=momentum,
        center_momentum=center_momentum,
        freeze_steps=freeze_steps,
        mask_ratio=mask_ratio,
        mask_probability=mask_probability,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """iBOT from the sections `model`, `augment` and `ibot` of a config; momentum rises to 1."""
    knobs = knobs_of(config, ibot, **self_distillation.MASKED_SECTION)
    knobs = self_distillation.scheduled(knobs, steps)
    encoder, teacher = self_distillation.build_encoders(config.model)
    return ibot(
        encoder,
        *self_distillation.build_head(knobs.pop("projector"), config.model.dtype),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        teacher=teacher,
        patch=config.model.patch,
        **knobs,
    )
