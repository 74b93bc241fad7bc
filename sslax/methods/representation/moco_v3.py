"""MoCo v3: MoCo with a predictor, both views as queries, and the batch in place of the queue.

Chen, Xie and He, An Empirical Study of Training Self-Supervised Vision Transformers, ICCV 2021.
With a vision transformer the patch embedding stays random (`model.freeze_patch_embedding`), which
keeps the training stable.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods import schedules
from sslax.methods.common import Augmentation, knobs_of
from sslax.methods.representation import common
from sslax.methods.representation.two_views import cross_prediction
from sslax.ranges import Fraction, Positive
from sslax.types import Array, Method, Metrics, Model, Schedule


def moco_v3(
    encoder: Model,
    projector: Model,
    predictor: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    temperature: Positive = 1.0,
    momentum: Fraction | Schedule = 0.99,
) -> Method:
    """MoCo v3; the loss is the sum over both directions of 2 · temperature · InfoNCE.

    Args:
        encoder: images to an `Encoding`; with per-view batch norms as in the authors' code.
        projector: features to the projection.
        predictor: projection to the query.
        augmentation: adds 'views' `[B, 2, H, W, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        temperature: of InfoNCE; 1.0 for ResNets, 0.2 for vision transformers.
        momentum: of the momentum encoder, or a schedule of it.
    """

    def objective(queries: Array, keys: Array) -> tuple[Array, Metrics]:
        both = sum(
            jnp.mean(losses.info_nce(queries[:, v], keys[:, v], temperature=temperature))
            for v in range(2)
        )
        return 2 * temperature * both, {
            "accuracy": common.contrastive_accuracy(queries[:, 0], keys[:, 0]),
            "loss_at_chance": 4 * temperature * jnp.log(jnp.float32(keys.shape[0])),
            **common.embedding_metrics(keys[:, 0]),
        }

    return cross_prediction(
        encoder,
        projector,
        predictor,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        objective=objective,
        momentum=momentum,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """MoCo v3 from the sections `model`, `augment` and `moco_v3`; momentum rises to 1."""
    section = knobs_of(config, moco_v3, projector=models.Projector, predictor=models.Projector)
    heads = {"dtype": config.model.dtype, "norm_groups": 2}
    return moco_v3(
        models.build_encoder(config.model, norm_groups=2),
        models.build_projector(section["projector"], **heads),
        models.build_projector(section["predictor"], **heads),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        temperature=section["temperature"],
        momentum=schedules.cosine(section["momentum"], 1.0, steps),
    )
