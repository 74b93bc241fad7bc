"""Rotation: by how many quarter turns was the image turned?

Gidaris, Singh and Komodakis, Unsupervised Representation Learning by Predicting Image Rotations,
ICLR 2018.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, models
from sslax.methods import common
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables


def rotation(
    encoder: Model,
    classifier: Model,
    *,
    views: common.Views,
    evaluation_view: common.EvaluationView,
) -> Method:
    """Rotation prediction, from all four rotations of every image.

    Args:
        encoder: images to an `Encoding`.
        classifier: features to 4 logits.
        views: `(rng, batch) -> batch` with images `[B, 1, S, S, C]`, upright.
        evaluation_view: for `predict`, from images `[B, H, W, C]` to the encoder's input.
    """
    network = common.chain(encoder=encoder, classifier=classifier)
    turned = common.with_task(views, lambda key, image: {"image": augment.rotations(image)})

    def init(rng: Array, batch: Batch) -> Variables:
        return Variables(*network.init(rng, common.merge_views(batch["image"])), extra={})

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        images = common.merge_views(batch["image"])
        (encoding, logits), model_state = network.apply(params, model_state, images, True)
        turns = jnp.tile(jnp.arange(4), len(batch["image"]))
        value, metrics = common.classification(logits, turns)
        upright = jax.lax.stop_gradient(common.split_views(encoding.features, 4)[:, :1])
        return value, LossOutput(model_state, extra, metrics, upright)

    def show(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array
    ) -> dict[str, Array]:
        images = turned(rng, batch)["image"]
        turns = jax.random.randint(rng, (len(images),), 0, 4)
        puzzle = jnp.take_along_axis(images, turns[:, None, None, None, None], axis=1)[:, 0]
        (_, logits), _ = network.apply(params, model_state, puzzle, False)
        back = jax.vmap(lambda image, k: augment.rotations(image)[-k % 4])
        solved = back(puzzle, jnp.argmax(logits, axis=-1))
        return {"upright": images[:, 0], "turned": puzzle, "turned back": solved}

    return common.method_of_encoder(
        encoder,
        views=turned,
        evaluation_view=evaluation_view,
        init=init,
        loss=loss,
        show=show,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """Rotation as the sections `model` and `augment` of a config say."""
    return rotation(
        models.build_encoder(config.model),
        models.from_linen(models.Classifier(4)),
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
    )
