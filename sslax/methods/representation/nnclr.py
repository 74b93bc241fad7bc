"""NNCLR: the nearest neighbor of each view, among earlier images, finds the image's other view.

Dwibedi et al., With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual
Representations, ICCV 2021, https://arxiv.org/abs/2104.14548.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods.common import Augmentation, knobs_of, merge_views
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.ranges import Positive, PositiveInt
from sslax.types import Array, Batch, LossOutput, Method, Model, Variables


def nnclr(
    encoder: Model,
    projector: Model,
    predictor: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    queue_size: PositiveInt = 98304,
    temperature: Positive = 0.1,
) -> Method:
    """NNCLR; the loss is the mean over both directions of `losses.nearest_neighbor_contrastive`.

    Projections have no gradient of their own, since they only look for neighbors; the projector
    learns through the predictor. The projections of first views join the queue after the loss: an
    image finds others, or, where the queue is longer than the data set, itself in an earlier view.

    Args:
        encoder: images to an `Encoding`; with per-view batch norms.
        projector: features to the projection, which is what the queue holds.
        predictor: projection to the prediction, which neighbors are compared with.
        augmentation: adds 'views' `[B, 2, H, W, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        queue_size: projections of earlier images, a multiple of the batch.
        temperature: of InfoNCE.

    Raises:
        UserError: in `init`, if the queue is no multiple of a batch.
    """
    network = Network({"encoder": encoder, "projector": projector, "predictor": predictor})

    def forward(net: Parts, batch: Batch) -> tuple[Array, Array, Array]:
        encoding = net.encoder(merge_views(batch["views"]))
        projections = net.projector(encoding.features)
        return encoding.features, projections, net.predictor(projections)

    def init(rng: Array, batch: Batch) -> Variables:
        network_rng, queue_rng = jax.random.split(rng)
        common.check_queue("nnclr", queue_size, batch["views"].shape[0])
        variables = network.init(forward, network_rng, batch)
        (_, projections, _), _ = network.apply(forward, variables, batch)
        queue = jax.random.normal(queue_rng, (queue_size, projections.shape[1]))
        return variables._replace(extra={"queue": losses.l2_normalize(queue)})

    def couple(
        outputs: tuple[Array, ...], variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        features, projections, predictions = outputs
        queue = variables.extra["queue"]
        value = sum(
            jnp.mean(
                losses.nearest_neighbor_contrastive(
                    projections[:, v], predictions[:, 1 - v], queue, temperature=temperature
                )
            )
            for v in range(2)
        )
        metrics = {
            "accuracy": common.contrastive_accuracy(predictions[:, 0], projections[:, 1]),
            "loss_at_chance": jnp.log(jnp.float32(len(features))),
            **common.embedding_metrics(projections[:, 0]),
        }
        newest = losses.l2_normalize(projections[:, 0])
        extra = {"queue": common.enqueue(queue, newest, step)}
        features = jax.lax.stop_gradient(features)
        return value / 2, LossOutput(variables.model_state, extra, metrics, features)

    return common.encoder_method(
        network,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        init=init,
        embed=common.embedding(network, forward, views=2),
        couple=couple,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """NNCLR from the sections `model`, `augment` and `nnclr` of a config."""
    knobs = knobs_of(config, nnclr, projector=models.Projector, predictor=models.Projector)
    common.check_queue("nnclr", knobs["queue_size"], config.batch_size)
    heads = {"dtype": config.model.dtype, "norm_groups": 2}
    return nnclr(
        models.build_encoder(config.model, norm_groups=2),
        models.build_projector(knobs.pop("projector"), **heads),
        models.build_projector(knobs.pop("predictor"), **heads),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        **knobs,
    )
