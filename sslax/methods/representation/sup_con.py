"""Supervised contrastive learning: all images of a class attract each other.

Not self-supervised: the upper bound that the other methods are compared with. Khosla et al.,
Supervised Contrastive Learning, NeurIPS 2020.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods.common import Augmentation, knobs_of, merge_views
from sslax.methods.representation import common
from sslax.methods.representation.two_views import joint_embedding
from sslax.ranges import Positive
from sslax.types import Array, Batch, Method, Metrics, Model


def sup_con(
    encoder: Model,
    projector: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    temperature: Positive = 0.1,
) -> Method:
    """SupCon; batch norms see both views as one batch.

    Args:
        encoder: images to an `Encoding`.
        projector: features to the embedding that the loss compares.
        augmentation: adds 'views' `[B, 2, H, W, C]`; batches have a 'label' `[B]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        temperature: of the similarities.

    Raises:
        UserError: in the loss, for batches without labels.
    """

    def objective(
        embeddings: Array, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, Metrics]:
        if "label" not in batch:
            raise common.needs_labels("sup_con")
        labels = jnp.repeat(batch["label"], 2)
        per_view = losses.sup_con(merge_views(embeddings), labels, temperature=temperature)
        return jnp.mean(per_view), {
            "accuracy": common.contrastive_accuracy(embeddings[:, 0], embeddings[:, 1]),
            "loss_at_chance": jnp.log(2.0 * embeddings.shape[0] - 1.0),
            **common.embedding_metrics(embeddings[:, 0]),
        }

    return joint_embedding(
        encoder,
        projector,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        objective=objective,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """SupCon from the sections `model`, `augment` and `sup_con` of a config."""
    knobs = knobs_of(config, sup_con, projector=models.Projector)
    return sup_con(
        models.build_encoder(config.model),
        models.build_projector(knobs.pop("projector"), dtype=config.model.dtype),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        **knobs,
    )
