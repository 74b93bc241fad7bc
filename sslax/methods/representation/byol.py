"""BYOL: each view predicts what a slow copy of the network makes of the other view.

Grill et al., Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning, NeurIPS 2020.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods import common
from sslax.training import optim
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Schedule, Variables


def byol(
    encoder: Model,
    projector: Model,
    predictor: Model,
    *,
    views: common.Views,
    evaluation_view: common.EvaluationView,
    momentum: float | Schedule = 0.996,
) -> Method:
    """BYOL; the loss is the sum over both directions of the squared distance of unit vectors.

    Args:
        encoder: images to an `Encoding`; with per-view batch norms it is the authors' code.
        projector: features to the projection.
        predictor: projection to the prediction of the other view's target projection.
        views: `(rng, batch) -> batch` with images `[B, 2, H, W, C]`.
        evaluation_view: for `predict`, from images `[B, H, W, C]` to the encoder's input.
        momentum: of the target network, or a schedule of it.
    """
    online = common.chain(encoder=encoder, projector=projector, predictor=predictor)
    target = common.chain(encoder=encoder, projector=projector)

    def init(rng: Array, batch: Batch) -> Variables:
        variables = online.init(rng, common.merge_views(batch["image"]))
        return Variables(
            *variables, {"target": common.target_of(*variables, "encoder", "projector")}
        )

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        images = common.merge_views(batch["image"])
        (encoding, _, predictions), model_state = online.apply(params, model_state, images, True)
        (_, targets), target_state = target.apply(*extra["target"], images, True)
        predictions, targets = (common.split_views(z, 2) for z in (predictions, targets))
        others = jax.lax.stop_gradient(targets[:, ::-1])
        value = jnp.mean(jnp.sum(2 + 2 * losses.negative_cosine(predictions, others), axis=1))
        metrics = {
            "accuracy": common.contrastive_accuracy(predictions[:, 0], others[:, 0]),
            "loss_at_chance": jnp.float32(4.0),  # unrelated directions
            **common.embedding_metrics(targets[:, 0]),
        }
        features = jax.lax.stop_gradient(common.split_views(encoding.features, 2))
        extra = {"target": extra["target"]._replace(model_state=target_state)}
        return value, LossOutput(model_state, extra, metrics, features)

    def update(params: PyTree, extra: PyTree, step: Array) -> PyTree:
        return {"target": extra["target"].move(params, common.at_step(momentum, step))}

    return common.method_of_encoder(
        encoder,
        views=views,
        evaluation_view=evaluation_view,
        init=init,
        loss=loss,
        update=update,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """BYOL as the sections `model`, `augment` and `byol` of a config say; momentum rises to 1."""
    heads = {"dtype": config.model.dtype, "norm_groups": 2}
    return byol(
        models.build_encoder(config.model, norm_groups=2),
        models.build_projector(config.byol.projector, **heads),
        models.build_projector(config.byol.predictor, **heads),
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
        momentum=optim.cosine(config.byol.momentum, 1.0, steps),
    )
