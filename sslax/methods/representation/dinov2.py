"""DINOv2: DINO on class tokens, iBOT on patches, with heads of their own, and KoLeo.

Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, TMLR 2024.
"""

from ml_collections import ConfigDict

from sslax.errors import UserError
from sslax.methods.common import Augmentation, knobs_of
from sslax.methods.representation import common, self_distillation
from sslax.methods.representation.self_distillation import Head, masked_distillation
from sslax.ranges import (
    Fraction,
    FractionRange,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
)
from sslax.types import Method, Model, Schedule

_SMALLEST_BLOCK = 4  # patches


def dinov2(
    encoder: Model,
    head: Head,
    patch_head: Head | None,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    teacher: Model | None = None,
    patch: int = 16,
    student_temperature: Positive = 0.1,
    teacher_temperature: Positive | Schedule = 0.04,
    momentum: Fraction | Schedule = 0.992,
    center_momentum: Fraction = 0.9,
    freeze_steps: NonNegativeInt = 0,
    mask_ratio: FractionRange = (0.1, 0.5),
    mask_probability: Fraction = 0.5,
    iterations: NonNegativeInt = 0,
    koleo_weight: NonNegative = 0.1,
    koleo_group: PositiveInt = 64,
) -> Method:
    """DINOv2 with multi-crop; the teacher, a momentum copy, is the exported encoder.

    `loss = DINO's loss of class tokens + mean over large crops of
    losses.masked_patch_distillation(patches) + koleo_weight * sum over large crops of
    losses.koleo(the student's class tokens before the head)`

    Other arguments than these are as in `ibot`. The center of patches is the mean of masked ones.

    Args:
        encoder: as in `ibot`.
        head: of class tokens.
        patch_head: of patches; None for that of class tokens.
        augmentation: as in `ibot`.
        evaluation_view: as in `ibot`.
        iterations: of Sinkhorn-Knopp, over the class tokens of both large crops of all images, and
            over all masked patches, in place of centering; 0 for centering.
        koleo_weight: 0 for none.
        koleo_group: images among which KoLeo searches neighbors, as large as the part of the batch
            that a device of the authors has; divides the batch.
    """
    return masked_distillation(
        encoder,
        head,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        patch_head=patch_head,
        teacher=teacher,
        patch=patch,
        student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
        momentum=momentum,
        center_momentum=center_momentum,
        freeze_steps=freeze_steps,
        mask_ratio=mask_ratio,
        mask_probability=mask_probability,
        smallest_block=_SMALLEST_BLOCK,
        center_on_masked=True,
        iterations=iterations,
        koleo_weight=koleo_weight,
        koleo_group=koleo_group,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """DINOv2 from the sections `model`, `augment` and `dinov2` of a config; momentum rises to 1.

    Raises:
        UserError: a value is out of range, or `koleo_group` does not divide the batch, or is 1.
    """
    patch_head = {**self_distillation.MASKED_HEAD, "outputs": NonNegativeInt}
    kinds = {**self_distillation.MASKED_SECTION, "patch_projector": patch_head}
    knobs = self_distillation.scheduled(knobs_of(config, dinov2, **kinds), steps)
    group = knobs["koleo_group"]
    if knobs["koleo_weight"] and (group == 1 or config.batch_size % group):
        raise UserError(
            f"config.dinov2.koleo_group = {group} must be at least 2 and divide config.batch_size "
            f"= {config.batch_size}."
        )
    encoder, teacher = self_distillation.build_encoders(config.model)
    dtype, of_patches = config.model.dtype, knobs.pop("patch_projector")
    return dinov2(
        encoder,
        self_distillation.build_head(knobs.pop("projector"), dtype),
        self_distillation.build_head(of_patches, dtype) if of_patches["outputs"] else None,
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        teacher=teacher,
        patch=config.model.patch,
        **knobs,
    )
