"""Supervised classification: an encoder and a linear classifier learn from labels.

Not self-supervised: what fine-tuning does with a trained encoder, and the upper bound beside SupCon
that the other methods are compared with: the same network, views and budget, with labels.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, models
from sslax.methods.common import Augmentation, knobs_of, merge_views, split_views
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.ranges import NonNegativeInt
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables


def supervised(
    encoder: Model,
    classifier: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    starting_weights: tuple[PyTree, PyTree] | None = None,
) -> Method:
    """Mean cross-entropy of a classifier on the encoder's features; both learn.

    Args:
        encoder: images to an `Encoding`.
        classifier: features to K logits.
        augmentation: adds 'views' `[B, V, H, W, C]`, each an example; batches have a 'label' `[B]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        starting_weights: the encoder's parameters and state to start from; None for random ones.
    """
    network = _network(encoder, classifier)

    def init(rng: Array, batch: Batch) -> Variables:
        variables = network.init(_forward, rng, merge_views(batch["views"]))
        if starting_weights is None:
            return variables
        # Copies, since the state is donated and the caller keeps the weights.
        params, model_state = jax.tree.map(jnp.copy, starting_weights)
        return variables._replace(
            params={**variables.params, "encoder": params},
            model_state={**variables.model_state, "encoder": model_state},
        )

    def loss(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        views = batch["views"].shape[1]
        images = merge_views(batch["views"])
        (features, logits), variables = network.apply(_forward, variables, images, train=True)
        value, metrics = common.classification(logits, jnp.repeat(batch["label"], views))
        features = jax.lax.stop_gradient(split_views(features, views))
        return value, LossOutput(variables.model_state, variables.extra, metrics, features)

    return common.encoder_method(
        network,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        init=init,
        loss=loss,
        mean_over_examples=True,
    )


def classify(encoder: Model, classifier: Model, variables: Variables, images: Array) -> Array:
    """Logits `[N, K]` of images `[N, H, W, C]`, batch norms with their averages."""
    (_, logits), _ = _network(encoder, classifier).apply(
        _forward, variables, augment.to_float(images)
    )
    return logits


def _network(encoder: Model, classifier: Model) -> Network:
    return Network({"encoder": encoder, "classifier": classifier})


def _forward(net: Parts, images: Array) -> tuple[Array, Array]:
    features = net.encoder(images).features.astype(jnp.float32)
    return features, net.classifier(features)


def build(config: ConfigDict, steps: int) -> Method:
    """Supervised classification from the sections `model`, `augment` and `supervised` of a config.

    Raises:
        UserError: `supervised.classes` is 0, since the training set has no labels.
    """
    classes = knobs_of(config, supervised, classes=NonNegativeInt)["classes"]
    if not classes:
        raise common.needs_labels("supervised")
    return supervised(
        models.build_encoder(config.model),
        models.from_linen(models.Classifier(classes)),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
    )
