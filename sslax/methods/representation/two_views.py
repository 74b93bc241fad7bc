"""Shared by methods that compare views of an image, two as a rule.

All views go through the network as one merged batch `[B·V]`: batch norms see them together, or each
by itself where the encoder has `norm_groups=V`.
"""

from collections.abc import Callable
from functools import partial

import jax

from sslax.methods.common import Augmentation, at_step, merge_views, no_update, split_views
from sslax.methods.representation.common import EvaluationView, embedding, encoder_method
from sslax.models.compose import Network, Parts
from sslax.types import (
    Array,
    Batch,
    LossOutput,
    Method,
    Metrics,
    Model,
    PyTree,
    Schedule,
    Variables,
)

Objective = Callable[..., tuple[Array, Metrics]]


def joint_embedding(
    encoder: Model,
    projector: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: EvaluationView,
    objective: Objective,
) -> Method:
    """A method whose loss is a function of all views' embeddings.

    Args:
        encoder: images to an `Encoding`.
        projector: features to the embedding that the loss compares.
        augmentation: adds 'views' `[B, V, H, W, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        objective: `(embeddings [B, V, D], batch, rng, step) -> (loss, metrics)`.
    """
    network = Network({"encoder": encoder, "projector": projector})

    def forward(net: Parts, batch: Batch) -> tuple[Array, Array]:
        features = net.encoder(merge_views(batch["views"])).features
        outputs, views = (features, net.projector(features)), batch["views"].shape[1]
        features, embeddings = (split_views(x, views) for x in outputs)
        return features, embeddings

    def couple(
        outputs: tuple[Array, Array], variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        features, embeddings = outputs
        value, metrics = objective(embeddings, batch, rng, step)
        features = jax.lax.stop_gradient(features)
        return value, LossOutput(variables.model_state, variables.extra, metrics, features)

    return encoder_method(
        network,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        init=partial(network.init, forward),
        embed=embedding(network, forward),
        couple=couple,
    )


def cross_prediction(
    encoder: Model,
    projector: Model,
    predictor: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: EvaluationView,
    objective: Objective,
    momentum: float | Schedule | None,
) -> Method:
    """A method in which each view's prediction is compared with the other view's projection.

    Args:
        encoder: images to an `Encoding`.
        projector: features to the projection.
        predictor: projection to the prediction of the other view's projection.
        augmentation: adds 'views' `[B, 2, H, W, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        objective: `(predictions [B, 2, D], targets [B, 2, D]) -> (loss, metrics)`; view v's target
            is the other view's projection, without a gradient.
        momentum: of the copy of encoder and projector that makes the targets, or a schedule of it;
            None for targets by the network itself.
    """
    averaged = {"encoder": encoder, "projector": projector}
    network = Network(
        {**averaged, "predictor": predictor}, momentum=None if momentum is None else averaged
    )

    def forward(net: Parts, batch: Batch) -> tuple[Array, Array, Array]:
        images = merge_views(batch["views"])
        encoding = net.encoder(images)
        projections = net.projector(encoding.features)
        predictions = net.predictor(projections)
        if momentum is not None:
            projections = net.momentum.projector(net.momentum.encoder(images).features)
        return encoding.features, predictions, projections

    def couple(
        outputs: tuple[Array, ...], variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        features, predictions, projections = outputs
        targets = jax.lax.stop_gradient(projections[:, ::-1])
        value, metrics = objective(predictions, targets)
        features = jax.lax.stop_gradient(features)
        return value, LossOutput(variables.model_state, variables.extra, metrics, features)

    def update(variables: Variables, step: Array) -> PyTree:
        return network.move(variables, at_step(momentum, step))

    return encoder_method(
        network,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        init=partial(network.init, forward),
        embed=embedding(network, forward, views=2),
        couple=couple,
        update=no_update if momentum is None else update,
    )
