"""MoCo v1 and v2: a query finds its key among a queue of keys from earlier batches.

He et al., Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020; Chen et
al., Improved Baselines with Momentum Contrastive Learning, 2020. The versions differ in their
config alone: v2 has a projector of two layers, stronger views, a higher temperature and a cosine.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.errors import UserError
from sslax.methods.common import Augmentation, at_step, knobs_of, merge_views
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.ranges import Fraction, Positive, PositiveInt
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Schedule, Variables


def moco(
    encoder: Model,
    projector: Model,
    key_encoder: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    queue_size: PositiveInt = 65536,
    temperature: Positive = 0.2,
    momentum: Fraction | Schedule = 0.999,
    symmetric: bool = False,
) -> Method:
    """MoCo.

    The momentum encoder moves before it makes a step's keys (after the previous step's update,
    which is the same moment).

    Args:
        encoder: images to an `Encoding`; makes the queries.
        projector: features to the embedding.
        key_encoder: `encoder` with other groups of examples in its batch norms. Queries must not
            share batch statistics with their own keys, which would give the answer away: the
            papers shuffle the keys between devices. `BatchNorm` in blocks for the queries and
            interleaved for the keys does the same and moves no image.
        augmentation: adds 'views' `[B, 2, H, W, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        queue_size: keys of earlier batches, a multiple of the keys of a batch.
        temperature: of InfoNCE.
        momentum: of the momentum encoder, or a schedule of it.
        symmetric: each view is a query once and a key once, for twice the work.

    Raises:
        UserError: in `init`, if the queue is not a multiple of a batch's keys.
    """
    network = Network(
        {"encoder": encoder, "projector": projector},
        momentum={"encoder": key_encoder, "projector": projector},
    )

    def forward(net: Parts, batch: Batch) -> tuple[Array, Array, Array]:
        views = batch["views"]
        queries, keys = (views, views[:, ::-1]) if symmetric else (views[:, :1], views[:, 1:])
        encoding = net.encoder(merge_views(queries))
        key_encoding = net.momentum.encoder(merge_views(keys))
        return (
            encoding.features,
            net.projector(encoding.features),
            net.momentum.projector(key_encoding.features),
        )

    def init(rng: Array, batch: Batch) -> Variables:
        network_rng, queue_rng = jax.random.split(rng)
        keys_per_batch = batch["views"].shape[0] * (1 + symmetric)
        common.check_queue("moco", queue_size, keys_per_batch)
        variables = network.init(forward, network_rng, batch)
        (_, embeddings, _), _ = network.apply(forward, variables, batch)
        queue = jax.random.normal(queue_rng, (queue_size, embeddings.shape[1]))
        return variables._replace(extra={**variables.extra, "queue": losses.l2_normalize(queue)})

    def couple(
        outputs: tuple[Array, ...], variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        features, *both = outputs
        queries, keys = (merge_views(embeddings) for embeddings in both)
        queue = variables.extra["queue"]
        keys = losses.l2_normalize(jax.lax.stop_gradient(keys))
        per_query = losses.info_nce(queries, keys, negatives=queue, temperature=temperature)
        metrics = {
            "accuracy": _accuracy(queries, keys, queue),
            "loss_at_chance": jnp.log(1.0 + queue_size),
            **common.embedding_metrics(queries),
        }
        features = jax.lax.stop_gradient(features)
        extra = {**variables.extra, "queue": common.enqueue(queue, keys, step)}
        return jnp.mean(per_query), LossOutput(variables.model_state, extra, metrics, features)

    def update(variables: Variables, step: Array) -> PyTree:
        return network.move(variables, at_step(momentum, step))

    return common.encoder_method(
        network,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        init=init,
        embed=common.embedding(network, forward, views=1 + symmetric),
        couple=couple,
        update=update,
    )


def _accuracy(queries: Array, keys: Array, queue: Array) -> Array:
    """Share of queries that are nearer to their key than to all of the queue."""
    queries = losses.l2_normalize(jax.lax.stop_gradient(queries))
    own = jnp.sum(queries * keys, axis=-1)
    return jnp.mean(own > jnp.max(queries @ queue.T, axis=-1))


def build(config: ConfigDict, steps: int) -> Method:
    """MoCo from the sections `model`, `augment` and `moco` of a config."""
    knobs = knobs_of(config, moco, norm_groups=PositiveInt, projector=models.Projector)
    groups = knobs.pop("norm_groups")
    if config.batch_size % groups:
        raise UserError(
            f"config.moco.norm_groups = {groups} does not divide config.batch_size = "
            f"{config.batch_size}: groups have equally many images."
        )
    common.check_queue("moco", knobs["queue_size"], config.batch_size * (1 + knobs["symmetric"]))
    return moco(
        models.build_encoder(config.model, norm_groups=groups, norm_blocks=True),
        models.build_projector(knobs.pop("projector"), dtype=config.model.dtype),
        models.build_encoder(config.model, norm_groups=groups),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        **knobs,
    )
