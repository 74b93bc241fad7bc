"""SwAV: each view predicts to which prototypes another view was assigned, all used alike.

Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, NeurIPS
2020.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods import common
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables


def swav(
    encoder: Model,
    projector: Model,
    prototypes: Model,
    *,
    views: common.Views,
    evaluation_view: common.EvaluationView,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    freeze_steps: int = 0,
    queue_size: int = 0,
    queue_start: int = 0,
) -> Method:
    """SwAV with multi-crop.

    The crops of one size go through the network together, each size with batch statistics of its
    own. Prototypes have unit length in the forward pass, where the authors' code renormalizes
    their weights between steps.

    Args:
        encoder: images to an `Encoding`.
        projector: features to the embedding.
        prototypes: embeddings to their scores with K prototypes.
        views: `(rng, batch) -> batch` with images `[B, 2, H, W, C]`, whose assignments are
            predicted, and, where small crops are wanted, 'local' `[B, L, h, w, C]`.
        evaluation_view: for `predict`, from images `[B, H, W, C]` to the encoder's input.
        temperature: of the predictions.
        epsilon: of the assignments; smaller is harder.
        iterations: of Sinkhorn-Knopp.
        freeze_steps: the prototypes do not move in the first steps.
        queue_size: images of earlier batches whose embeddings join the balance, a multiple of the
            batch; 0 for none. For batches with fewer images than there are prototypes.
        queue_start: the step from which they do.
    """
    network = common.chain(encoder=encoder, projector=projector)

    def init(rng: Array, batch: Batch) -> Variables:
        network_rng, prototypes_rng = jax.random.split(rng)
        images = common.merge_views(batch["image"])
        params, model_state = network.init(network_rng, images)
        (_, embeddings), _ = network.apply(params, model_state, images, False)
        params["prototypes"], model_state["prototypes"] = prototypes.init(
            prototypes_rng, embeddings
        )
        extra = {}
        if queue_size:
            extra["queue"] = jnp.zeros((queue_size, 2, embeddings.shape[1]))
        return Variables(params, model_state, extra)

    def scores_of_queue(params: PyTree, model_state: PyTree, queue: Array) -> Array:
        """Scores `[M, 2, K]` of earlier embeddings under today's prototypes."""
        scores, _ = prototypes.apply(
            params["prototypes"], model_state["prototypes"], common.merge_views(queue), True
        )
        return common.split_views(scores, 2)

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        embeddings, features, state = common.apply_crops(network, params, model_state, batch)
        held = jax.lax.stop_gradient(params["prototypes"])
        weights = jax.tree.map(
            lambda free, still: jnp.where(step < freeze_steps, still, free),
            params["prototypes"],
            held,
        )
        scores, state["prototypes"] = prototypes.apply(
            weights, model_state["prototypes"], common.merge_views(embeddings), True
        )
        scores = common.split_views(scores, embeddings.shape[1])

        def predict_assignments(queue: Array | None) -> Array:
            return losses.swapped_prediction(
                scores,
                queue=queue,
                temperature=temperature,
                epsilon=epsilon,
                iterations=iterations,
            )

        if queue_size:
            queue = extra["queue"]
            per_image = jax.lax.cond(
                step >= max(queue_start, queue_size // len(scores)),  # full, and asked for
                lambda: predict_assignments(scores_of_queue(params, model_state, queue)),
                lambda: predict_assignments(None),
            )
            start = (step * len(scores)) % queue_size
            newest = jax.lax.stop_gradient(embeddings[:, :2])
            extra = {"queue": jax.lax.dynamic_update_slice_in_dim(queue, newest, start, axis=0)}
        else:
            per_image = predict_assignments(None)
        metrics = {
            "accuracy": common.contrastive_accuracy(embeddings[:, 0], embeddings[:, 1]),
            "prototypes_used": _prototypes_used(scores[:, :2]),
            "loss_at_chance": jnp.log(jnp.float32(scores.shape[-1])),
            **common.embedding_metrics(embeddings[:, 0]),
        }
        return jnp.mean(per_image), LossOutput(state, extra, metrics, features)

    return common.method_of_encoder(
        encoder, views=views, evaluation_view=evaluation_view, init=init, loss=loss
    )


def _prototypes_used(scores: Array) -> Array:
    """Share of the prototypes that are the nearest one of some view of the batch."""
    count = scores.shape[-1]
    nearest = jnp.argmax(scores, axis=-1).ravel()
    return jnp.mean(jax.nn.one_hot(nearest, count).max(axis=0))


def build(config: ConfigDict, steps: int) -> Method:
    """SwAV as the sections `model`, `augment` and `swav` of a config say."""
    section = config.swav
    return swav(
        models.build_encoder(config.model),
        models.build_projector(section.projector, dtype=config.model.dtype),
        models.from_linen(models.Prototypes(section.prototypes)),
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
        temperature=section.temperature,
        epsilon=section.epsilon,
        iterations=section.iterations,
        freeze_steps=round(section.freeze * steps),
        queue_size=section.queue_size,
        queue_start=round(section.queue_start * steps),
    )
