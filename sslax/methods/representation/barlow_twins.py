"""Barlow Twins: the cross-correlation of two views' embeddings is driven to the identity.

Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, ICML 2021.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods.common import Augmentation, knobs_of
from sslax.methods.representation import common
from sslax.methods.representation.two_views import joint_embedding
from sslax.ranges import NonNegative, Positive
from sslax.types import Array, Batch, Method, Metrics, Model


def barlow_twins(
    encoder: Model,
    projector: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    off_diagonal_weight: NonNegative = 0.0051,
    scale: Positive = 1.0,
) -> Method:
    """Barlow Twins.

    Args:
        encoder: images to an `Encoding`; with per-view batch norms as in the authors' code.
        projector: features to the (wide) embedding that the loss correlates.
        augmentation: adds 'views' `[B, 2, H, W, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        off_diagonal_weight: of the redundancy term.
        scale: factor on the loss. LARS divides it out, except for weight decay and for the leaves
            that it does not adapt: 0.024 here, or a rate of 0.024 for biases and norms alone, as in
            the authors' code.
    """

    def objective(
        embeddings: Array, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, Metrics]:
        first, second = embeddings[:, 0], embeddings[:, 1]
        value = losses.barlow_twins(first, second, off_diagonal_weight=off_diagonal_weight)
        count, width = first.shape
        # Unrelated views: correlations of mean 0 and variance 1 / N.
        chance = width * (1 + 1 / count) + off_diagonal_weight * width * (width - 1) / count
        return scale * value, {
            "accuracy": common.contrastive_accuracy(first, second),
            "correlation": _mean_correlation(first, second),
            "loss_at_chance": jnp.float32(scale * chance),
            **common.embedding_metrics(first),
        }

    return joint_embedding(
        encoder,
        projector,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        objective=objective,
    )


def _mean_correlation(first: Array, second: Array) -> Array:
    """Mean of the cross-correlation's diagonal: 1 for equal views, 0 for unrelated ones."""
    first, second = (
        (z - z.mean(0, keepdims=True)) / (z.std(0, keepdims=True) + 1e-6)
        for z in jax.lax.stop_gradient((first, second))
    )
    return jnp.mean(first * second)


def build(config: ConfigDict, steps: int) -> Method:
    """Barlow Twins from the sections `model`, `augment` and `barlow_twins` of a config."""
    knobs = knobs_of(config, barlow_twins, projector=models.Projector)
    return barlow_twins(
        models.build_encoder(config.model, norm_groups=2),
        models.build_projector(knobs.pop("projector"), dtype=config.model.dtype, norm_groups=2),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        **knobs,
    )
