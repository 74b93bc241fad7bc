"""Barlow Twins: the cross-correlation of two views' embeddings shall be the identity.

Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, ICML 2021.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods import common
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables


def barlow_twins(
    encoder: Model,
    projector: Model,
    *,
    views: common.Views,
    evaluation_view: common.EvaluationView,
    off_diagonal_weight: float = 0.0051,
    scale: float = 1.0,
) -> Method:
    """Barlow Twins.

    Args:
        encoder: images to an `Encoding`; with per-view batch norms it is the authors' code.
        projector: features to the (wide) embedding that the loss sees.
        views: `(rng, batch) -> batch` with images `[B, 2, H, W, C]`.
        evaluation_view: for `predict`, from images `[B, H, W, C]` to the encoder's input.
        off_diagonal_weight: of the redundancy term.
        scale: factor on the loss. LARS divides it out, but for the weight decay and the leaves it
            does not adapt.
    """
    network = common.chain(encoder=encoder, projector=projector)

    def init(rng: Array, batch: Batch) -> Variables:
        return Variables(*network.init(rng, common.merge_views(batch["image"])), extra={})

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        images = common.merge_views(batch["image"])
        (encoding, embeddings), model_state = network.apply(params, model_state, images, True)
        embeddings = common.split_views(embeddings, 2)
        first, second = embeddings[:, 0], embeddings[:, 1]
        value = losses.barlow_twins(first, second, off_diagonal_weight=off_diagonal_weight)
        count, width = first.shape
        # Unrelated views: correlations of mean 0 and variance 1 / N.
        chance = width * (1 + 1 / count) + off_diagonal_weight * width * (width - 1) / count
        metrics = {
            "accuracy": common.contrastive_accuracy(first, second),
            "correlation": _diagonal(first, second),
            "loss_at_chance": jnp.float32(scale * chance),
            **common.embedding_metrics(first),
        }
        features = jax.lax.stop_gradient(common.split_views(encoding.features, 2))
        return scale * value, LossOutput(model_state, extra, metrics, features)

    return common.method_of_encoder(
        encoder, views=views, evaluation_view=evaluation_view, init=init, loss=loss
    )


def _diagonal(first: Array, second: Array) -> Array:
    """Mean of the cross-correlation's diagonal: 1 for equal views, 0 for unrelated ones."""
    first, second = (
        (z - z.mean(0, keepdims=True)) / (z.std(0, keepdims=True) + 1e-6)
        for z in jax.lax.stop_gradient((first, second))
    )
    return jnp.mean(first * second)


def build(config: ConfigDict, steps: int) -> Method:
    """Barlow Twins as the sections `model`, `augment` and `barlow_twins` of a config say."""
    section = config.barlow_twins
    return barlow_twins(
        models.build_encoder(config.model, norm_groups=2),
        models.build_projector(section.projector, dtype=config.model.dtype, norm_groups=2),
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
        off_diagonal_weight=section.off_diagonal_weight,
        scale=section.scale,
    )
