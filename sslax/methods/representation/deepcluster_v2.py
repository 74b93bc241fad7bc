"""DeepCluster v2: every crop predicts its image's cluster, and images are clustered every epoch.

Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, NeurIPS
2020, https://arxiv.org/abs/2006.09882; the first version: Caron et al., Deep Clustering for
Unsupervised Learning of Visual Features, ECCV 2018.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from sslax import losses, models, ops
from sslax.errors import UserError
from sslax.methods.common import Augmentation, knobs_of
from sslax.methods.representation import common
from sslax.models.compose import Network
from sslax.ranges import NonNegativeInt, Positive, PositiveInt
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables


def deepcluster_v2(
    encoder: Model,
    projector: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    examples: int,
    steps_per_epoch: int,
    prototypes: PositiveInt = 3000,
    heads: PositiveInt = 3,
    temperature: Positive = 0.1,
    iterations: PositiveInt = 10,
) -> Method:
    """DeepCluster v2 with multi-crop; the loss is the mean over crops and heads of the
    cross-entropy between cosines to the prototypes, over the temperature, and the image's cluster.

    A bank keeps the unit embeddings of an epoch's large crops. After its last step, each head
    clusters those of one large crop, in turn, by spherical k-means from random ones of them: the
    centroids are the prototypes of the next epoch, which no gradient moves. Images that the epoch
    left out, to fill its last batch, have no cluster, and no loss in the next one.

    The authors fill the bank by a forward pass before they train. Here the first epoch does: no
    image has a cluster in it, so that its loss is 0 and nothing learns.

    Args:
        encoder: images to an `Encoding`.
        projector: features to the embedding.
        augmentation: adds 'views' `[B, V, H, W, C]` and, where small crops are wanted,
            'local_views' `[B, L, h, w, C]`; keeps 'index' `[B]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        examples: images of the training set.
        steps_per_epoch: whole batches of them.
        prototypes: K, clusters of each head.
        heads: clusterings of the same images.
        temperature: of the predictions.
        iterations: of k-means.

    Raises:
        UserError: in `init`, if an epoch has fewer images than there are prototypes.
    """
    network = Network({"encoder": encoder, "projector": projector})

    def init(rng: Array, batch: Batch) -> Variables:
        network_rng, prototypes_rng = jax.random.split(rng)
        size, views = batch["views"].shape[:2]
        kept = steps_per_epoch * size
        if prototypes > kept:
            raise UserError(
                f"config.deepcluster_v2.prototypes = {prototypes} are more than the {kept} images "
                "of an epoch, which are their first places: choose fewer."
            )
        variables = network.init(common.embed_crops, network_rng, batch)
        (embeddings, _), _ = network.apply(common.embed_crops, variables, batch)
        first = jax.random.normal(prototypes_rng, (heads, prototypes, embeddings.shape[-1]))
        extra = {
            "bank": jnp.zeros((kept, views, embeddings.shape[-1])),
            "index": jnp.zeros(kept, jnp.int32),
            "prototypes": losses.l2_normalize(first),
            "clusters": jnp.full((heads, examples), -1, jnp.int32),
        }
        return variables._replace(extra=extra)

    def couple(
        outputs: tuple[Array, Array], variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        embeddings, features = losses.l2_normalize(outputs[0]), outputs[1]
        extra, views = variables.extra, features.shape[1]
        scores = jnp.einsum("bcd,hkd->bhck", embeddings, extra["prototypes"]) / temperature
        cluster = jnp.take(extra["clusters"], batch["index"], axis=1).T[..., None]  # [B, H, 1]
        known = jnp.broadcast_to(cluster >= 0, scores.shape[:3])
        target = jnp.broadcast_to(jnp.maximum(cluster, 0), scores.shape[:3])
        errors = optax.softmax_cross_entropy_with_integer_labels(scores, target)
        count = jnp.maximum(jnp.sum(known), 1)
        right = known & (jnp.argmax(scores, axis=-1) == target)
        metrics = {
            "accuracy": jnp.sum(right) / count,
            "prototypes_used": common.prototypes_used(scores[:, 0, :views]),
            "loss_at_chance": jnp.log(jnp.float32(prototypes)),
            **common.embedding_metrics(embeddings[:, 0]),
        }
        extra = {
            **extra,
            "bank": common.enqueue(extra["bank"], embeddings[:, :views], step),
            "index": common.enqueue(extra["index"], batch["index"], step),
        }
        value = jnp.sum(jnp.where(known, errors, 0)) / count
        features = jax.lax.stop_gradient(features)
        return value, LossOutput(variables.model_state, extra, metrics, features)

    def cluster(extra: PyTree, key: Array) -> PyTree:
        kept, views, _ = extra["bank"].shape

        def of_head(head: Array) -> tuple[Array, Array]:
            points = jnp.take(extra["bank"], head % views, axis=1)
            order = jax.random.permutation(jax.random.fold_in(key, head), kept)
            start = jnp.take(points, order[:prototypes], axis=0)
            return ops.spherical_kmeans(points, start, iterations=iterations)

        centroids, found = jax.lax.map(of_head, jnp.arange(heads))
        clusters = jnp.full_like(extra["clusters"], -1).at[:, extra["index"]].set(found)
        return {**extra, "prototypes": centroids, "clusters": clusters}

    def update(variables: Variables, step: Array) -> PyTree:
        # Which embeddings k-means starts from needs no seed of its own: they are the run's.
        clustered = partial(cluster, key=jax.random.fold_in(jax.random.key(0), step))
        at_end = step % steps_per_epoch == 0
        return jax.lax.cond(at_end, clustered, lambda extra: extra, variables.extra)

    return common.encoder_method(
        network,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        init=init,
        embed=common.embedding(network, common.embed_crops),
        couple=couple,
        update=update,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """DeepCluster v2 from the sections `model`, `augment` and `deepcluster_v2` of a config.

    Raises:
        UserError: `deepcluster_v2.examples` is less than a batch, since no plan has set it.
    """
    knobs = knobs_of(config, deepcluster_v2, projector=models.Projector, examples=NonNegativeInt)
    per_epoch = knobs["examples"] // config.batch_size
    if not per_epoch:
        raise UserError(
            f"config.deepcluster_v2.examples is {knobs['examples']}, less than a batch: it is the "
            "size of the training set, which `make_plan` sets where it is 0."
        )
    return deepcluster_v2(
        models.build_encoder(config.model),
        models.build_projector(knobs.pop("projector"), dtype=config.model.dtype),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        steps_per_epoch=per_epoch,
        **knobs,
    )
