"""SimSiam: each view's prediction matches the other view's projection, with a stop-gradient.

Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods.common import Augmentation, knobs_of
from sslax.methods.representation import common
from sslax.methods.representation.two_views import cross_prediction
from sslax.types import Array, Method, Metrics, Model


def simsiam(
    encoder: Model,
    projector: Model,
    predictor: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
) -> Method:
    """SimSiam; the loss is the mean negative cosine over both directions.

    Args:
        encoder: images to an `Encoding`; with per-view batch norms as in the authors' code.
        projector: features to the projection.
        predictor: projection to the prediction of the other view's projection.
        augmentation: adds 'views' `[B, 2, H, W, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
    """

    def objective(predictions: Array, targets: Array) -> tuple[Array, Metrics]:
        return jnp.mean(losses.negative_cosine(predictions, targets)), {
            "accuracy": common.contrastive_accuracy(predictions[:, 0], targets[:, 0]),
            "loss_at_chance": jnp.float32(0.0),  # unrelated directions
            **common.embedding_metrics(targets[:, 1]),
        }

    return cross_prediction(
        encoder,
        projector,
        predictor,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        objective=objective,
        momentum=None,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """SimSiam from the sections `model`, `augment` and `simsiam` of a config."""
    section = knobs_of(config, simsiam, projector=models.Projector, predictor=models.Projector)
    heads = {"dtype": config.model.dtype, "norm_groups": 2}
    return simsiam(
        models.build_encoder(config.model, norm_groups=2),
        models.build_projector(section["projector"], **heads),
        models.build_projector(section["predictor"], **heads),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
    )
