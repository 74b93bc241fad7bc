"""Shared by LeJEPA and VISReg: the views of an image agree, and the embeddings of each view are
normally distributed.

There is no teacher, and no gradient is stopped.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sslax import losses
from sslax.methods.common import Augmentation
from sslax.methods.representation import common
from sslax.models.compose import Network
from sslax.types import Array, Batch, LossOutput, Method, Model, Variables


def gaussian_views(
    encoder: Model,
    projector: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    drops_paths: bool,
    weight: float,
    regularizer: Callable[[Array, Array], Array],
    floor: Callable[[int], float],
) -> Method:
    """A method of many views and a regularizer that compares embeddings with N(0, I), with
    multi-crop.

    `loss = (1 - weight) * losses.view_invariance(z) + weight * regularizer(z)`

    All crops are pulled to the mean of the large ones. The crops of one size go through the network
    together, each size with batch statistics of its own.

    Args:
        encoder: images to an `Encoding`.
        projector: features to the embedding z that the loss compares.
        augmentation: adds 'views' `[B, V, H, W, C]` and, where small crops are wanted,
            'local_views' `[B, L, h, w, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        drops_paths: the encoder is given random keys, for its drop path.
        weight: of the regularizer.
        regularizer: `(embeddings [B, V + L, D], key) -> scalar`, each view by itself.
        floor: about its value for samples of N(0, I), from their number.
    """
    network = Network({"encoder": encoder, "projector": projector})

    def init(rng: Array, batch: Batch) -> Variables:
        batch = common.with_keys(rng, batch, drops_paths)
        return network.init(common.embed_crops, rng, batch)

    def embed(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[tuple[Array, Array], Variables]:
        batch = common.with_keys(jax.random.split(rng)[0], batch, drops_paths)
        return network.apply(common.embed_crops, variables, batch, train=True)

    def couple(
        outputs: tuple[Array, Array], variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        embeddings, features = outputs
        large, (count, views, _) = features.shape[1], embeddings.shape
        invariance = jnp.mean(losses.view_invariance(embeddings, global_views=large))
        gaussianity = regularizer(embeddings, jax.random.split(rng)[1])
        # Of normally distributed views that have nothing to do with each other.
        unrelated = 1 + (views / large - 2) / views
        metrics = {
            "accuracy": common.contrastive_accuracy(embeddings[:, 0], embeddings[:, 1]),
            "invariance": invariance,
            "gaussianity": gaussianity,
            "loss_at_chance": jnp.float32((1 - weight) * unrelated + weight * floor(count)),
            **common.embedding_metrics(embeddings[:, 0]),
        }
        metrics, features = jax.lax.stop_gradient((metrics, features))
        value = (1 - weight) * invariance + weight * gaussianity
        return value, LossOutput(variables.model_state, variables.extra, metrics, features)

    return common.encoder_method(
        network,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        init=init,
        embed=embed,
        couple=couple,
    )
