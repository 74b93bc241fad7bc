"""SwAV: each view predicts the other view's assignment to prototypes, which are all used alike.

Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, NeurIPS
2020.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.methods.common import Augmentation, knobs_of, merge_views, split_views
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.ranges import Fraction, NonNegativeInt, Positive, PositiveInt
from sslax.types import Array, Batch, LossOutput, Method, Model, Variables


def swav(
    encoder: Model,
    projector: Model,
    prototypes: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    temperature: Positive = 0.1,
    epsilon: Positive = 0.05,
    iterations: PositiveInt = 3,
    freeze_steps: NonNegativeInt = 0,
    queue_size: NonNegativeInt = 0,
    queue_start_step: NonNegativeInt = 0,
) -> Method:
    """SwAV with multi-crop.

    The crops of one size go through the network together, each size with batch statistics of its
    own. Prototypes have unit length in the forward pass, where the authors' code renormalizes
    their weights between steps.

    Args:
        encoder: images to an `Encoding`.
        projector: features to the embedding.
        prototypes: embeddings to their scores with K prototypes.
        augmentation: adds 'views' `[B, 2, H, W, C]`, whose assignments are predicted, and, where
            small crops are wanted, 'local_views' `[B, L, h, w, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        temperature: of the predictions.
        epsilon: of the assignments; smaller is harder.
        iterations: of Sinkhorn-Knopp.
        freeze_steps: the prototypes do not learn in the first steps.
        queue_size: images of earlier batches whose embeddings join the balance, a multiple of the
            batch; 0 for none. For batches with fewer images than there are prototypes.
        queue_start_step: the step from which they do.

    Raises:
        UserError: in `init`, if the queue is no multiple of a batch.
    """
    network = Network({"encoder": encoder, "projector": projector, "prototypes": prototypes})

    def score(net: Parts, embeddings: Array) -> Array:
        """Scores `[N, V, K]` of embeddings `[N, V, D]`."""
        return split_views(net.prototypes(merge_views(embeddings)), embeddings.shape[1])

    def forward(net: Parts, batch: Batch) -> tuple[Array, Array, Array]:
        embeddings, features = common.embed_crops(net, batch)
        return features, embeddings, score(net, embeddings)

    def init(rng: Array, batch: Batch) -> Variables:
        common.check_queue("swav", queue_size, batch["views"].shape[0])
        variables = network.init(forward, rng, batch)
        if not queue_size:
            return variables
        (_, embeddings, _), _ = network.apply(forward, variables, batch)
        return variables._replace(extra={"queue": jnp.zeros((queue_size, 2, embeddings.shape[-1]))})

    def embed(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[tuple[Array, Array], Variables]:
        return network.apply(common.embed_crops, variables, batch, train=True)

    def couple(
        outputs: tuple[Array, Array], variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        embeddings, features = outputs
        frozen = common.freeze_until(variables.params["prototypes"], step, freeze_steps)
        variables = variables._replace(params={**variables.params, "prototypes": frozen})
        scores, variables = network.apply(score, variables, embeddings, train=True)

        extra, queue_scores, queue_mask = variables.extra, None, None
        if queue_size:
            queue = extra["queue"]
            queue_scores, _ = network.apply(score, variables, queue)
            joins = step >= max(queue_start_step, queue_size // len(scores))  # it is full by then
            queue_mask = jnp.broadcast_to(joins, queue_size)
            extra = {"queue": common.enqueue(queue, embeddings[:, :2], step)}
        per_image = losses.swapped_prediction(
            scores,
            queue=queue_scores,
            queue_mask=queue_mask,
            temperature=temperature,
            epsilon=epsilon,
            iterations=iterations,
        )
        metrics = {
            "accuracy": common.contrastive_accuracy(embeddings[:, 0], embeddings[:, 1]),
            "prototypes_used": common.prototypes_used(scores[:, :2]),
            "loss_at_chance": jnp.log(jnp.float32(scores.shape[-1])),
            **common.embedding_metrics(embeddings[:, 0]),
        }
        features = jax.lax.stop_gradient(features)
        return jnp.mean(per_image), LossOutput(variables.model_state, extra, metrics, features)

    return common.encoder_method(
        network,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        init=init,
        embed=embed,
        couple=couple,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """SwAV from the sections `model`, `augment` and `swav` of a config."""
    knobs = knobs_of(
        config,
        swav,
        projector=models.Projector,
        prototypes=PositiveInt,
        freeze=Fraction,
        queue_start=Fraction,
    )
    common.check_queue("swav", knobs["queue_size"], config.batch_size)
    freeze, queue_start = knobs.pop("freeze"), knobs.pop("queue_start")
    return swav(
        models.build_encoder(config.model),
        models.build_projector(knobs.pop("projector"), dtype=config.model.dtype),
        models.from_linen(models.Prototypes(knobs.pop("prototypes"))),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        freeze_steps=round(freeze * steps),
        queue_start_step=round(queue_start * steps),
        **knobs,
    )
