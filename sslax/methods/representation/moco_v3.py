"""MoCo v3: MoCo with a predictor, both views as queries, and the batch in place of the queue.

Chen, Xie and He, An Empirical Study of Training Self-Supervised Vision Transformers, ICCV 2021.
With a vision transformer the patch embedding stays random (`model.freeze_patch_embedding`), which
keeps the training stable.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods import common
from sslax.training import optim
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Schedule, Variables


def moco_v3(
    encoder: Model,
    projector: Model,
    predictor: Model,
    *,
    views: common.Views,
    evaluation_view: common.EvaluationView,
    temperature: float = 0.2,
    momentum: float | Schedule = 0.99,
) -> Method:
    """MoCo v3; the loss is the sum over both directions of 2 · temperature · InfoNCE.

    Args:
        encoder: images to an `Encoding`; with per-view batch norms it is the authors' code.
        projector: features to the projection.
        predictor: projection to the query.
        views: `(rng, batch) -> batch` with images `[B, 2, H, W, C]`.
        evaluation_view: for `predict`, from images `[B, H, W, C]` to the encoder's input.
        temperature: of InfoNCE.
        momentum: of the key network, or a schedule of it.
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
        (encoding, _, queries), model_state = online.apply(params, model_state, images, True)
        (_, keys), target_state = target.apply(*extra["target"], images, True)
        queries = common.split_views(queries, 2)
        keys = jax.lax.stop_gradient(common.split_views(keys, 2)[:, ::-1])
        both = sum(
            jnp.mean(losses.info_nce(queries[:, v], keys[:, v], temperature=temperature))
            for v in range(2)
        )
        metrics = {
            "accuracy": common.contrastive_accuracy(queries[:, 0], keys[:, 0]),
            "loss_at_chance": 4 * temperature * jnp.log(jnp.float32(keys.shape[0])),
            **common.embedding_metrics(keys[:, 0]),
        }
        features = jax.lax.stop_gradient(common.split_views(encoding.features, 2))
        extra = {"target": extra["target"]._replace(model_state=target_state)}
        return 2 * temperature * both, LossOutput(model_state, extra, metrics, features)

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
    """MoCo v3 as the sections `model`, `augment` and `moco_v3` say; momentum rises to 1."""
    heads = {"dtype": config.model.dtype, "norm_groups": 2}
    return moco_v3(
        models.build_encoder(config.model, norm_groups=2),
        models.build_projector(config.moco_v3.projector, **heads),
        models.build_projector(config.moco_v3.predictor, **heads),
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
        temperature=config.moco_v3.temperature,
        momentum=optim.cosine(config.moco_v3.momentum, 1.0, steps),
    )
