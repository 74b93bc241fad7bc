"""BYOL: each view predicts a slowly moving copy of the network's projection of the other view.

Grill et al., Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning, NeurIPS 2020.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods import schedules
from sslax.methods.common import Augmentation, knobs_of
from sslax.methods.representation import common
from sslax.methods.representation.two_views import cross_prediction
from sslax.ranges import Fraction
from sslax.types import Array, Method, Metrics, Model, Schedule


def byol(
    encoder: Model,
    projector: Model,
    predictor: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    momentum: Fraction | Schedule = 0.996,
) -> Method:
    """BYOL; the loss is the sum over both directions of the squared distance of unit vectors.

    Args:
        encoder: images to an `Encoding`; with per-view batch norms as in the authors' code.
        projector: features to the projection.
        predictor: projection to the prediction of the other view's target projection.
        augmentation: adds 'views' `[B, 2, H, W, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        momentum: of the target network, or a schedule of it.
    """

    def objective(predictions: Array, targets: Array) -> tuple[Array, Metrics]:
        distances = 2 + 2 * losses.negative_cosine(predictions, targets)
        return jnp.mean(jnp.sum(distances, axis=1)), {
            "accuracy": common.contrastive_accuracy(predictions[:, 0], targets[:, 0]),
            "loss_at_chance": jnp.float32(4.0),  # unrelated directions
            **common.embedding_metrics(targets[:, 1]),
        }

    return cross_prediction(
        encoder,
        projector,
        predictor,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        objective=objective,
        momentum=momentum,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """BYOL from the sections `model`, `augment` and `byol` of a config; momentum rises to 1."""
    section = knobs_of(config, byol, projector=models.Projector, predictor=models.Projector)
    heads = {"dtype": config.model.dtype, "norm_groups": 2}
    return byol(
        models.build_encoder(config.model, norm_groups=2),
        models.build_projector(section["projector"], **heads),
        models.build_projector(section["predictor"], **heads),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        momentum=schedules.cosine(section["momentum"], 1.0, steps),
    )
