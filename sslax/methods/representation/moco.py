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
from sslax.methods import common
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Schedule, Variables


def moco(
    encoder: Model,
    projector: Model,
    key_encoder: Model,
    *,
    views: common.Views,
    evaluation_view: common.EvaluationView,
    queue_size: int = 65536,
    temperature: float = 0.2,
    momentum: float | Schedule = 0.999,
    symmetric: bool = False,
) -> Method:
    """MoCo.

    The momentum network of a step is moved before it makes that step's keys (after the optimizer's
    step before, which is the same moment).

    Args:
        encoder: images to an `Encoding`; makes the queries.
        projector: features to the embedding.
        key_encoder: `encoder` with other companions in its batch norms. Queries must not share
            batch statistics with their own keys, which would tell them apart: the papers shuffle
            the keys between devices. `BatchNorm` in blocks for the queries and interleaved for the
            keys does the same and moves no image.
        views: `(rng, batch) -> batch` with images `[B, 2, H, W, C]`.
        evaluation_view: for `predict`, from images `[B, H, W, C]` to the encoder's input.
        queue_size: keys of earlier batches, a multiple of the keys of a batch.
        temperature: of InfoNCE.
        momentum: of the key network, or a schedule of it.
        symmetric: each view is a query once and a key once; twice the keys and the work.
    """
    online = common.chain(encoder=encoder, projector=projector)
    target = common.chain(encoder=key_encoder, projector=projector)

    def sides(images: Array) -> tuple[Array, Array]:
        """Images of the queries and of their keys, merged in the same order."""
        queries, keys = (images, images[:, ::-1]) if symmetric else (images[:, :1], images[:, 1:])
        return common.merge_views(queries), common.merge_views(keys)

    def init(rng: Array, batch: Batch) -> Variables:
        network_rng, queue_rng = jax.random.split(rng)
        queries, _ = sides(batch["image"])
        if queue_size % len(queries):
            raise UserError(
                f"config.moco.queue_size = {queue_size} is no multiple of the {len(queries)} keys "
                "of a batch; whole batches are replaced."
            )
        variables = online.init(network_rng, queries)
        (_, embeddings), _ = online.apply(*variables, queries, False)
        queue = jax.random.normal(queue_rng, (queue_size, embeddings.shape[1]))
        extra = {
            "target": common.target_of(*variables, "encoder", "projector"),
            "queue": losses.l2_normalize(queue),
        }
        return Variables(*variables, extra)

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        query_images, key_images = sides(batch["image"])
        (encoding, queries), model_state = online.apply(params, model_state, query_images, True)
        (_, keys), target_state = target.apply(*extra["target"], key_images, True)
        keys = losses.l2_normalize(jax.lax.stop_gradient(keys))
        queue = extra["queue"]
        per_query = losses.info_nce(queries, keys, negatives=queue, temperature=temperature)
        metrics = {
            "accuracy": _accuracy(queries, keys, queue),
            "loss_at_chance": jnp.log(1.0 + queue_size),
            **common.embedding_metrics(queries),
        }
        features = jax.lax.stop_gradient(common.split_views(encoding.features, 1 + symmetric))
        start = (step * len(keys)) % queue_size
        extra = {
            "target": extra["target"]._replace(model_state=target_state),
            "queue": jax.lax.dynamic_update_slice_in_dim(queue, keys, start, axis=0),
        }
        return jnp.mean(per_query), LossOutput(model_state, extra, metrics, features)

    def update(params: PyTree, extra: PyTree, step: Array) -> PyTree:
        moved = extra["target"].move(params, common.at_step(momentum, step))
        return {**extra, "target": moved}

    return common.method_of_encoder(
        encoder,
        views=views,
        evaluation_view=evaluation_view,
        init=init,
        loss=loss,
        update=update,
    )


def _accuracy(queries: Array, keys: Array, queue: Array) -> Array:
    """Share of queries that are nearer to their key than to all of the queue."""
    queries = losses.l2_normalize(jax.lax.stop_gradient(queries))
    own = jnp.sum(queries * keys, axis=-1)
    return jnp.mean(own > jnp.max(queries @ queue.T, axis=-1))


def build(config: ConfigDict, steps: int) -> Method:
    """MoCo as the sections `model`, `augment` and `moco` of a config say."""
    section = config.moco
    return moco(
        models.build_encoder(config.model, norm_groups=section.norm_groups, norm_blocks=True),
        models.build_projector(section.projector, dtype=config.model.dtype),
        models.build_encoder(config.model, norm_groups=section.norm_groups),
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
        queue_size=section.queue_size,
        temperature=section.temperature,
        momentum=section.momentum,
        symmetric=section.symmetric,
    )
