"""Supervised contrastive learning: all images of a class attract each other.

Not self-supervised: the upper bound that the other methods are compared with. Khosla et al.,
Supervised Contrastive Learning, NeurIPS 2020.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.errors import UserError
from sslax.methods import common
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables


def sup_con(
    encoder: Model,
    projector: Model,
    *,
    views: common.Views,
    evaluation_view: common.EvaluationView,
    temperature: float = 0.1,
) -> Method:
    """SupCon; batch norms see both views as one batch.

    Args:
        encoder: images to an `Encoding`.
        projector: features to the embedding that the loss sees.
        views: `(rng, batch) -> batch` with images `[B, 2, H, W, C]` and a 'label' `[B]`.
        evaluation_view: for `predict`, from images `[B, H, W, C]` to the encoder's input.
        temperature: of the similarities.
    """
    network = common.chain(encoder=encoder, projector=projector)

    def init(rng: Array, batch: Batch) -> Variables:
        if "label" not in batch:
            raise UserError(
                "The method sup_con learns from labels and this set has none; choose another "
                "config.method, or give a labeled set (config.data.labels=True)."
            )
        return Variables(*network.init(rng, common.merge_views(batch["image"])), extra={})

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        images = common.merge_views(batch["image"])
        (encoding, embeddings), model_state = network.apply(params, model_state, images, True)
        labels = jnp.repeat(batch["label"], 2)
        value = jnp.mean(losses.sup_con(embeddings, labels, temperature=temperature))
        embeddings = common.split_views(embeddings, 2)
        metrics = {
            "accuracy": common.contrastive_accuracy(embeddings[:, 0], embeddings[:, 1]),
            "loss_at_chance": jnp.log(2.0 * embeddings.shape[0] - 1.0),
            **common.embedding_metrics(embeddings[:, 0]),
        }
        features = jax.lax.stop_gradient(common.split_views(encoding.features, 2))
        return value, LossOutput(model_state, extra, metrics, features)

    return common.method_of_encoder(
        encoder, views=views, evaluation_view=evaluation_view, init=init, loss=loss
    )


def build(config: ConfigDict, steps: int) -> Method:
    """SupCon as the sections `model`, `augment` and `sup_con` of a config say."""
    return sup_con(
        models.build_encoder(config.model),
        models.build_projector(config.sup_con.projector, dtype=config.model.dtype),
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
        temperature=config.sup_con.temperature,
    )
