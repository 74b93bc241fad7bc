"""VICReg: views agree, every dimension varies, and no two dimensions vary together.

Bardes, Ponce and LeCun, VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised
Learning, ICLR 2022.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods.common import Augmentation, knobs_of
from sslax.methods.representation import common
from sslax.methods.representation.two_views import joint_embedding
from sslax.ranges import NonNegative
from sslax.types import Array, Batch, Method, Metrics, Model


def vicreg(
    encoder: Model,
    projector: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    invariance_weight: NonNegative = 25.0,
    variance_weight: NonNegative = 25.0,
    covariance_weight: NonNegative = 1.0,
) -> Method:
    """VICReg.

    Args:
        encoder: images to an `Encoding`; with per-view batch norms as in the authors' code.
        projector: features to the (wide) embedding that the loss compares.
        augmentation: adds 'views' `[B, 2, H, W, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        invariance_weight: of the mean squared distance between views.
        variance_weight: of the hinge on the standard deviations.
        covariance_weight: of the squared covariances.
    """

    def objective(
        embeddings: Array, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, Metrics]:
        first, second = embeddings[:, 0], embeddings[:, 1]
        value = losses.vicreg(
            first,
            second,
            invariance_weight=invariance_weight,
            variance_weight=variance_weight,
            covariance_weight=covariance_weight,
        )
        count, width = first.shape
        # Unrelated views of unit variance: covariances of mean 0 and variance 1 / (N - 1).
        chance = 2 * invariance_weight + 2 * covariance_weight * (width - 1) / (count - 1)
        return value, {
            "accuracy": common.contrastive_accuracy(first, second),
            "standard_deviation": jnp.mean(jnp.std(jax.lax.stop_gradient(first), axis=0)),
            "loss_at_chance": jnp.float32(chance),
            **common.embedding_metrics(first),
        }

    return joint_embedding(
        encoder,
        projector,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        objective=objective,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """VICReg from the sections `model`, `augment` and `vicreg` of a config."""
    knobs = knobs_of(config, vicreg, projector=models.Projector)
    return vicreg(
        models.build_encoder(config.model, norm_groups=2),
        models.build_projector(knobs.pop("projector"), dtype=config.model.dtype, norm_groups=2),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        **knobs,
    )
