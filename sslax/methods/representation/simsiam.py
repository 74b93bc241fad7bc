"""SimSiam: each view's prediction meets the other view's projection, whose gradient stops.

Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods import common
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables


def simsiam(
    encoder: Model,
    projector: Model,
    predictor: Model,
    *,
    views: common.Views,
    evaluation_view: common.EvaluationView,
) -> Method:
    """SimSiam.

    Args:
        encoder: images to an `Encoding`; with per-view batch norms it is the authors' code.
        projector: features to the projection.
        predictor: projection to the prediction of the other view's projection.
        views: `(rng, batch) -> batch` with images `[B, 2, H, W, C]`.
        evaluation_view: for `predict`, from images `[B, H, W, C]` to the encoder's input.
    """
    network = common.chain(encoder=encoder, projector=projector, predictor=predictor)

    def init(rng: Array, batch: Batch) -> Variables:
        return Variables(*network.init(rng, common.merge_views(batch["image"])), extra={})

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        images = common.merge_views(batch["image"])
        outputs, model_state = network.apply(params, model_state, images, True)
        encoding, projections, predictions = outputs
        projections, predictions = (common.split_views(z, 2) for z in (projections, predictions))
        others = jax.lax.stop_gradient(projections[:, ::-1])
        metrics = {
            "accuracy": common.contrastive_accuracy(predictions[:, 0], others[:, 0]),
            "loss_at_chance": jnp.float32(0.0),  # unrelated directions
            **common.embedding_metrics(projections[:, 0]),
        }
        features = jax.lax.stop_gradient(common.split_views(encoding.features, 2))
        value = jnp.mean(losses.negative_cosine(predictions, others))
        return value, LossOutput(model_state, extra, metrics, features)

    return common.method_of_encoder(
        encoder, views=views, evaluation_view=evaluation_view, init=init, loss=loss
    )


def build(config: ConfigDict, steps: int) -> Method:
    """SimSiam as the sections `model`, `augment` and `simsiam` of a config say."""
    heads = {"dtype": config.model.dtype, "norm_groups": 2}
    return simsiam(
        models.build_encoder(config.model, norm_groups=2),
        models.build_projector(config.simsiam.projector, **heads),
        models.build_projector(config.simsiam.predictor, **heads),
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
    )
