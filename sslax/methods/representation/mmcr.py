"""MMCR: the mean embeddings of images span all dimensions, which takes views that agree.

Yerxa et al., Learning Efficient Coding of Natural Images with Maximum Manifold Capacity
Representations, NeurIPS 2023, https://arxiv.org/abs/2303.03307.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods.common import Augmentation, knobs_of, merge_views, no_update, split_views
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.ranges import ProperFraction
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables


def mmcr(
    encoder: Model,
    projector: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    momentum: ProperFraction = 0.0,
) -> Method:
    """MMCR; `losses.mmcr` is its loss, minus the nuclear norm of the images' mean embeddings.

    All views of all images go through the network as one batch `[B·V]`, whose statistics its batch
    norms have. With a momentum, as in the authors' recipe for ImageNet, a momentum copy embeds the
    same views, and an image's mean is that of its views in both networks. The nuclear norms of
    single images, whose weight is 0 in all of the authors' recipes, are left out.

    Args:
        encoder: images to an `Encoding`.
        projector: features to the embedding.
        augmentation: adds 'views' `[B, V, H, W, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        momentum: of the momentum copy; 0 for none.
    """
    parts = {"encoder": encoder, "projector": projector}
    network = Network(parts, momentum=parts if momentum else None)

    def forward(net: Parts, batch: Batch) -> tuple[Array, Array]:
        images, views = merge_views(batch["views"]), batch["views"].shape[1]
        features = net.encoder(images).features
        embeddings = split_views(net.projector(features), views)
        if momentum:
            copies = net.momentum.projector(net.momentum.encoder(images).features)
            copies = jax.lax.stop_gradient(split_views(copies, views))
            embeddings = jnp.concatenate([embeddings, copies], axis=1)
        return split_views(features, views), embeddings

    def couple(
        outputs: tuple[Array, Array], variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        features, embeddings = outputs
        count, views, width = *features.shape[:2], embeddings.shape[-1]
        value = losses.mmcr(embeddings)
        unit = losses.l2_normalize(embeddings)
        metrics = {
            "accuracy": common.contrastive_accuracy(embeddings[:, 0], embeddings[:, 1]),
            "centroid_norm": jnp.mean(jnp.linalg.norm(jnp.mean(unit, axis=1), axis=-1)),
            "loss_at_chance": jnp.float32(-_random_nuclear_norm(count, width) / views**0.5),
            **common.embedding_metrics(embeddings[:, 0]),
        }
        metrics, features = jax.lax.stop_gradient((metrics, features))
        return value, LossOutput(variables.model_state, variables.extra, metrics, features)

    def update(variables: Variables, step: Array) -> PyTree:
        return network.move(variables, momentum)

    return common.encoder_method(
        network,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        init=partial(network.init, forward),
        embed=common.embedding(network, forward),
        couple=couple,
        update=update if momentum else no_update,
    )


def _random_nuclear_norm(count: int, width: int) -> float:
    """Of random unit vectors, where they and their dimensions are many (Marčenko, Pastur 1967)."""
    few, many = sorted((count, width))
    ratio = few / many
    edges = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    # Squared singular values, divided by `many`, in the middles of 1,000 equal angles.
    angles = math.pi * (np.arange(1000) + 0.5) / 1000
    half = (edges[1] - edges[0]) / 2
    squares = sum(edges) / 2 - half * np.cos(angles)
    density = (half * np.sin(angles)) ** 2 / (2 * ratio * squares)  # of an angle, times π
    return few * math.sqrt(many / width) * float(np.mean(np.sqrt(squares) * density))


def build(config: ConfigDict, steps: int) -> Method:
    """MMCR from the sections `model`, `augment` and `mmcr` of a config."""
    knobs = knobs_of(config, mmcr, projector=models.Projector)
    return mmcr(
        models.build_encoder(config.model),
        models.build_projector(knobs.pop("projector"), dtype=config.model.dtype),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        **knobs,
    )
