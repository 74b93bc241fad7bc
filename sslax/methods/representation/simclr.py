"""SimCLR: two views of an image attract each other, all other images of the batch repel.

Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods import common
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Schedule, Variables


def simclr(
    encoder: Model,
    projector: Model,
    *,
    views: common.Views,
    evaluation_view: common.EvaluationView,
    temperature: float | Schedule = 0.1,
) -> Method:
    """SimCLR.

    The two views go through the network as one batch `[B·V]`, so the statistics of its batch norms
    are joint over both views and, with the batch sharded over devices, global.

    Args:
        encoder: images to an `Encoding`.
        projector: features to the embedding that the loss sees.
        views: `(rng, batch) -> batch` with images `[B, 2, H, W, C]`.
        evaluation_view: for `predict`, from images `[B, H, W, C]` to the encoder's input.
        temperature: of NT-Xent, or a schedule of it.
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
        per_view = losses.nt_xent(first, second, temperature=common.at_step(temperature, step))
        metrics = {
            "accuracy": common.contrastive_accuracy(first, second),
            "loss_at_chance": jnp.log(2.0 * first.shape[0] - 1.0),
            **common.embedding_metrics(first),
        }
        features = jax.lax.stop_gradient(common.split_views(encoding.features, 2))
        return jnp.mean(per_view), LossOutput(model_state, extra, metrics, features)

    return common.method_of_encoder(
        encoder, views=views, evaluation_view=evaluation_view, init=init, loss=loss
    )


def build(config: ConfigDict, steps: int) -> Method:
    """SimCLR as the sections `model`, `augment` and `simclr` of a config say."""
    return simclr(
        models.build_encoder(config.model),
        models.build_projector(config.simclr.projector, dtype=config.model.dtype),
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
        temperature=config.simclr.temperature,
    )
