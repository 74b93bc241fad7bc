"""SimCLR: two views of an image attract each other, all other images of the batch repel.

Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods.common import Augmentation, at_step, knobs_of
from sslax.methods.representation import common
from sslax.methods.representation.two_views import joint_embedding
from sslax.ranges import Positive
from sslax.types import Array, Batch, Method, Metrics, Model, Schedule


def simclr(
    encoder: Model,
    projector: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    temperature: Positive | Schedule = 0.1,
) -> Method:
    """SimCLR.

    The two views go through the network as one batch `[B·2]`, so the statistics of its batch norms
    are joint over both views and, with the batch sharded over devices, global.

    Args:
        encoder: images to an `Encoding`.
        projector: features to the embedding that the loss compares.
        augmentation: adds 'views' `[B, 2, H, W, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        temperature: of NT-Xent, or a schedule of it.
    """

    def objective(
        embeddings: Array, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, Metrics]:
        first, second = embeddings[:, 0], embeddings[:, 1]
        per_view = losses.nt_xent(first, second, temperature=at_step(temperature, step))
        return jnp.mean(per_view), {
            "accuracy": common.contrastive_accuracy(first, second),
            "loss_at_chance": jnp.log(2.0 * first.shape[0] - 1.0),
            **common.embedding_metrics(first),
        }

    return joint_embedding(
        encoder,
        projector,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        objective=objective,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """SimCLR from the sections `model`, `augment` and `simclr` of a config."""
    knobs = knobs_of(config, simclr, projector=models.Projector)
    return simclr(
        models.build_encoder(config.model),
        models.build_projector(knobs.pop("projector"), dtype=config.model.dtype),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        **knobs,
    )
