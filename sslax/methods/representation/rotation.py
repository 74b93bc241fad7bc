"""Rotation: by how many quarter turns was the image rotated?

Gidaris, Singh and Komodakis, Unsupervised Representation Learning by Predicting Image Rotations,
ICLR 2018.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, models
from sslax.methods.common import Augmentation, merge_views, split_views
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.types import Array, Batch, LossOutput, Method, Model, Pictures, Variables


def rotation(
    encoder: Model,
    classifier: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
) -> Method:
    """Rotation prediction, from all four rotations of every image.

    Args:
        encoder: images to an `Encoding`.
        classifier: features to 4 logits.
        augmentation: adds 'views' `[B, 1, S, S, C]`, upright.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
    """
    network = Network({"encoder": encoder, "classifier": classifier})
    rotated = common.pretext_task(
        augmentation, lambda key, view: {"input": augment.rotations(view)}
    )

    def forward(net: Parts, images: Array) -> tuple[Array, Array]:
        features = net.encoder(images).features
        return features, net.classifier(features)

    def init(rng: Array, batch: Batch) -> Variables:
        return network.init(forward, rng, merge_views(batch["input"]))

    def loss(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        images = merge_views(batch["input"])
        (features, logits), variables = network.apply(forward, variables, images, train=True)
        turns = jnp.tile(jnp.arange(4), len(batch["input"]))
        value, metrics = common.classification(logits, turns)
        upright = jax.lax.stop_gradient(split_views(features, 4)[:, :1])
        return value, LossOutput(variables.model_state, variables.extra, metrics, upright)

    def visualize(variables: Variables, batch: Batch, rng: Array) -> Pictures:
        images = rotated(rng, batch)["input"]
        turns = jax.random.randint(rng, (len(images),), 0, 4)
        puzzle = jnp.take_along_axis(images, turns[:, None, None, None, None], axis=1)[:, 0]
        (_, logits), _ = network.apply(forward, variables, puzzle)
        undo = jax.vmap(lambda image, k: augment.rotations(image)[-k % 4])
        solved = undo(puzzle, jnp.argmax(logits, axis=-1))
        return {"upright": images[:, 0], "rotated": puzzle, "rotated back": solved}

    return common.encoder_method(
        network,
        augmentation=rotated,
        evaluation_view=evaluation_view,
        init=init,
        loss=loss,
        mean_over_examples=True,
        visualize=visualize,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """Rotation from the sections `model` and `augment` of a config."""
    return rotation(
        models.build_encoder(config.model),
        models.from_linen(models.Classifier(4)),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
    )
