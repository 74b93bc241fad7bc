"""LeJEPA: the views of an image agree, and the embeddings of each view are normally distributed.

Balestriero and LeCun, LeJEPA: Provable and Scalable Self-Supervised Learning Without the
Heuristics, 2025, https://arxiv.org/abs/2511.08544.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods.common import Augmentation, knobs_of
from sslax.methods.representation import common
from sslax.models.compose import Network
from sslax.ranges import PositiveFraction, PositiveInt
from sslax.types import Array, Batch, LossOutput, Method, Model, Variables

_GAUSSIAN = 1.0525  # SIGReg of N(0, I), for any number of examples and dimensions


def lejepa(
    encoder: Model,
    projector: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    drops_paths: bool = False,
    weight: PositiveFraction = 0.05,
    slices: PositiveInt = 1024,
) -> Method:
    """LeJEPA, with multi-crop; there is no teacher, and no gradient is stopped.

    `loss = (1 - weight) * losses.view_invariance(z) + weight * losses.sigreg(z)`

    All crops are pulled to the mean of the large ones, and each crop's embeddings are compared with
    N(0, I) by themselves. The crops of one size go through the network together, each size with
    batch statistics of its own.

    Args:
        encoder: images to an `Encoding`.
        projector: features to the embedding z that the loss compares.
        augmentation: adds 'views' `[B, V, H, W, C]` and, where small crops are wanted,
            'local_views' `[B, L, h, w, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        drops_paths: the encoder is given random keys, for its drop path.
        weight: lambda in the paper; it is tied to the batch, since SIGReg grows with it wherever
            embeddings are not Gaussian.
        slices: random directions of SIGReg, others in every step.
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
        large, views = features.shape[1], embeddings.shape[1]
        invariance = jnp.mean(losses.view_invariance(embeddings, global_views=large))
        gaussianity = losses.sigreg(embeddings, jax.random.split(rng)[1], slices=slices)
        # Of normally distributed views that have nothing to do with each other.
        unrelated = 1 + (views / large - 2) / views
        metrics = {
            "accuracy": common.contrastive_accuracy(embeddings[:, 0], embeddings[:, 1]),
            "invariance": invariance,
            "gaussianity": gaussianity,
            "loss_at_chance": jnp.float32((1 - weight) * unrelated + weight * _GAUSSIAN),
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


def build(config: ConfigDict, steps: int) -> Method:
    """LeJEPA from the sections `model`, `augment` and `lejepa` of a config."""
    knobs = knobs_of(config, lejepa, projector=models.Projector)
    return lejepa(
        models.build_encoder(config.model),
        models.build_projector(knobs.pop("projector"), dtype=config.model.dtype),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        drops_paths=bool(config.model.drop_path),
        **knobs,
    )
