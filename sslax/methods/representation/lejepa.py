"""LeJEPA: the views of an image agree, and the embeddings of each view are normally distributed.

Balestriero and LeCun, LeJEPA: Provable and Scalable Self-Supervised Learning Without the
Heuristics, 2025, https://arxiv.org/abs/2511.08544.
"""

from functools import partial

from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods.common import Augmentation, knobs_of
from sslax.methods.representation import common
from sslax.methods.representation.regularized import gaussian_views
from sslax.ranges import PositiveFraction, PositiveInt
from sslax.types import Method, Model


def lejepa(
    encoder: Model,
    projector: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    drops_paths: bool = False,
    weight: PositiveFraction = 0.05,
    slices: PositiveInt = 1024,
) -> Method:
    """LeJEPA, with multi-crop; there is no teacher, and no gradient is stopped.

    `loss = (1 - weight) * losses.view_invariance(z) + weight * losses.sigreg(z)`

    Args:
        encoder: images to an `Encoding`.
        projector: features to the embedding z that the loss compares.
        augmentation: adds 'views' `[B, V, H, W, C]` and, where small crops are wanted,
            'local_views' `[B, L, h, w, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        drops_paths: the encoder is given random keys, for its drop path.
        weight: lambda in the paper; it is tied to the batch, since SIGReg grows with it wherever
            embeddings are not Gaussian.
        slices: random directions of SIGReg, others in every step.
    """
    return gaussian_views(
        encoder,
        projector,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        drops_paths=drops_paths,
        weight=weight,
        regularizer=partial(losses.sigreg, slices=slices),
        floor=lambda count: 1.0525,  # for any number of examples and dimensions
    )


def build(config: ConfigDict, steps: int) -> Method:
    """LeJEPA from the sections `model`, `augment` and `lejepa` of a config."""
    knobs = knobs_of(config, lejepa, projector=models.Projector)
    return lejepa(
        models.build_encoder(config.model),
        models.build_projector(knobs.pop("projector"), dtype=config.model.dtype),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        drops_paths=bool(config.model.drop_path),
        **knobs,
    )
