"""TiCo: two views agree, and avoid the directions that the embeddings of earlier images have taken.

Zhu et al., TiCo: Transformation Invariance and Covariance Contrast for Self-Supervised Visual
Representation Learning, 2022, https://arxiv.org/abs/2206.10698.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods import schedules
from sslax.methods.common import Augmentation, at_step, knobs_of
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.ranges import Fraction, NonNegative
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Schedule, Variables


def tico(
    encoder: Model,
    projector: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    covariance_weight: NonNegative = 8.0,
    covariance_momentum: Fraction = 0.9,
    momentum: Fraction | Schedule = 0.99,
) -> Method:
    """TiCo; the loss is the mean of `losses.tico` over the images.

    The network embeds first views and its momentum copy second ones, each with batch statistics of
    its own. The covariance has the batch in it before the loss is computed; it starts at zero.

    Args:
        encoder: images to an `Encoding`.
        projector: features to the embedding.
        augmentation: adds 'views' `[B, 2, H, W, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        covariance_weight: rho in the paper.
        covariance_momentum: of the covariance; beta in the paper.
        momentum: of the momentum network, or a schedule of it.
    """
    parts = {"encoder": encoder, "projector": projector}
    network = Network(parts, momentum=parts)

    def forward(net: Parts, batch: Batch) -> tuple[Array, Array, Array]:
        encoding = net.encoder(batch["views"][:, 0])
        embeddings = net.projector(encoding.features)
        targets = net.momentum.projector(net.momentum.encoder(batch["views"][:, 1]).features)
        return encoding.features, embeddings, targets

    def init(rng: Array, batch: Batch) -> Variables:
        variables = network.init(forward, rng, batch)
        (_, embeddings, _), _ = network.apply(forward, variables, batch)
        covariance = jnp.zeros((embeddings.shape[1],) * 2)
        return variables._replace(extra={**variables.extra, "covariance": covariance})

    def couple(
        outputs: tuple[Array, ...], variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        features, embeddings, targets = outputs
        targets = jax.lax.stop_gradient(targets)
        covariance = losses.update_covariance(
            variables.extra["covariance"], embeddings, momentum=covariance_momentum
        )
        per_image = losses.tico(
            embeddings, targets, covariance, covariance_weight=covariance_weight
        )
        count, width = embeddings.shape
        # Of vectors that fill the sphere; each is also compared with itself.
        own = (1 - covariance_momentum) * (1 - 1 / width) / count
        metrics = {
            "accuracy": common.contrastive_accuracy(embeddings, targets),
            "similarity": -jnp.mean(losses.negative_cosine(embeddings, targets)),
            "loss_at_chance": jnp.float32(1 + covariance_weight * (1 / width + own)),
            **common.embedding_metrics(embeddings),
        }
        metrics, features = jax.lax.stop_gradient((metrics, features[:, None]))
        extra = {**variables.extra, "covariance": covariance}
        return jnp.mean(per_image), LossOutput(variables.model_state, extra, metrics, features)

    def update(variables: Variables, step: Array) -> PyTree:
        return network.move(variables, at_step(momentum, step))

    return common.encoder_method(
        network,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        init=init,
        embed=common.embedding(network, forward),
        couple=couple,
        update=update,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """TiCo from the sections `model`, `augment` and `tico` of a config; momentum rises to 1."""
    knobs = knobs_of(config, tico, projector=models.Projector)
    return tico(
        models.build_encoder(config.model),
        models.build_projector(knobs.pop("projector"), dtype=config.model.dtype),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        momentum=schedules.cosine(knobs.pop("momentum"), 1.0, steps),
        **knobs,
    )
