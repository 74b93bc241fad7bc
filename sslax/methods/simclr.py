"""SimCLR: two views of an image attract each other, all other images of the batch repel.

Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.evaluate import collapse
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

    def init(rng: Array, batch: Batch) -> Variables:
        encoder_rng, projector_rng = jax.random.split(rng)
        images = common.merge_views(batch["image"])
        encoder_variables = encoder.init(encoder_rng, images)
        encoding, _ = encoder.apply(*encoder_variables, images, False)
        projector_variables = projector.init(projector_rng, encoding.features)
        params, model_state = (
            {"encoder": of_encoder, "projector": of_projector}
            for of_encoder, of_projector in zip(encoder_variables, projector_variables)
        )
        return Variables(params, model_state, extra={})

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        images = common.merge_views(batch["image"])
        encoding, encoder_state = encoder.apply(
            params["encoder"], model_state["encoder"], images, True
        )
        embeddings, projector_state = projector.apply(
            params["projector"], model_state["projector"], encoding.features, True
        )
        features = common.split_views(encoding.features, 2)
        embeddings = common.split_views(embeddings, 2)
        first, second = embeddings[:, 0], embeddings[:, 1]
        per_view = losses.nt_xent(first, second, temperature=common.at_step(temperature, step))
        metrics = {
            "accuracy": contrastive_accuracy(first, second),
            "loss_at_chance": jnp.log(2.0 * first.shape[0] - 1.0),
            "embedding_std": collapse.embedding_std(first),
            "effective_rank": collapse.effective_rank(first),
        }
        return jnp.mean(per_view), LossOutput(
            model_state={"encoder": encoder_state, "projector": projector_state},
            extra=extra,
            metrics=jax.lax.stop_gradient(metrics),
            features=jax.lax.stop_gradient(features),
        )

    def predict(params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch) -> dict:
        images = evaluation_view(batch["image"])
        encoding, _ = encoder.apply(params["encoder"], model_state["encoder"], images, False)
        return {"features": encoding.features, "stages": common.pool(encoding.stages)}

    return Method(views, init, loss, common.no_update, predict)


def contrastive_accuracy(first: Array, second: Array) -> Array:
    """Share of first views whose nearest second view is their own; chance is 1 / N."""
    first, second = (
        z / (jnp.linalg.norm(z, axis=-1, keepdims=True) + 1e-12) for z in (first, second)
    )
    nearest = jnp.argmax(first @ second.T, axis=-1)
    return jnp.mean(nearest == jnp.arange(first.shape[0]))


def build(config: ConfigDict, steps: int) -> Method:
    """SimCLR as the sections `model`, `augment` and `simclr` of a config say."""
    return simclr(
        models.build_encoder(config.model),
        models.build_projector(config.simclr.projector, dtype=config.model.dtype),
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
        temperature=config.simclr.temperature,
    )
