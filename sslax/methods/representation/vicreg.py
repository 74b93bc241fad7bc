"""VICReg: views agree, every dimension varies, and no two dimensions vary together.

Bardes, Ponce and LeCun, VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised
Learning, ICLR 2022.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods import common
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables


def vicreg(
    encoder: Model,
    projector: Model,
    *,
    views: common.Views,
    evaluation_view: common.EvaluationView,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
) -> Method:
    """VICReg.

    Args:
        encoder: images to an `Encoding`; with per-view batch norms it is the authors' code.
        projector: features to the (wide) embedding that the loss sees.
        views: `(rng, batch) -> batch` with images `[B, 2, H, W, C]`.
        evaluation_view: for `predict`, from images `[B, H, W, C]` to the encoder's input.
        invariance_weight: of the mean squared distance between views.
        variance_weight: of the hinge on the standard deviations.
        covariance_weight: of the squared covariances.
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
        metrics = {
            "accuracy": common.contrastive_accuracy(first, second),
            "standard_deviation": jnp.mean(jnp.std(jax.lax.stop_gradient(first), axis=0)),
            "loss_at_chance": jnp.float32(chance),
            **common.embedding_metrics(first),
        }
        features = jax.lax.stop_gradient(common.split_views(encoding.features, 2))
        return value, LossOutput(model_state, extra, metrics, features)

    return common.method_of_encoder(
        encoder, views=views, evaluation_view=evaluation_view, init=init, loss=loss
    )


def build(config: ConfigDict, steps: int) -> Method:
    """VICReg as the sections `model`, `augment` and `vicreg` of a config say."""
    section = config.vicreg
    return vicreg(
        models.build_encoder(config.model, norm_groups=2),
        models.build_projector(section.projector, dtype=config.model.dtype, norm_groups=2),
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
        invariance_weight=section.invariance_weight,
        variance_weight=section.variance_weight,
        covariance_weight=section.covariance_weight,
    )
