"""MSN: views with missing patches are assigned to the same prototypes as the whole image.

Assran et al., Masked Siamese Networks for Label-Efficient Learning, ECCV 2022.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, losses, models, ranges
from sslax.methods import schedules
from sslax.methods.common import Augmentation, at_step, knobs_of, merge_views, split_views
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.ranges import (
    Fraction,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    ProperFraction,
)
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Schedule, Variables


def msn(
    encoder: Model,
    projector: Model,
    prototypes: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    patch: int = 16,
    mask_ratio: ProperFraction = 0.15,
    entropy_weight: NonNegative = 1.0,
    temperature: Positive = 0.1,
    sharpening: Positive = 0.25,
    iterations: NonNegativeInt = 3,
    momentum: Fraction | Schedule = 0.996,
) -> Method:
    """MSN; the target encoder, a momentum copy, is the exported one. `losses.msn` is its loss.

    The first view is the target's, whole; the other large views, of which patches are dropped, and
    all small ones are anchors. Both sides share the prototypes, which learn from the anchors alone.

    Args:
        encoder: a vision transformer, of {'image', 'keep'} to an `Encoding`.
        projector: features to the embedding.
        prototypes: embedding to cosines with K learned vectors.
        augmentation: adds 'views' `[B, V, H, W, C]` with V > 1 and, where small crops are wanted,
            'local_views' `[B, L, h, w, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        patch: side of the patches in pixels.
        mask_ratio: share of the patches of a large anchor that is dropped.
        entropy_weight: of the entropy of the mean assignment.
        temperature: divides the cosines.
        sharpening: of the targets, whose temperature is `sharpening * temperature`.
        iterations: of Sinkhorn-Knopp on the targets; 0 for none.
        momentum: of the target encoder, or a schedule of it.
    """
    averaged = {"encoder": encoder, "projector": projector}
    network = Network({**averaged, "prototypes": prototypes}, momentum=averaged)

    def drop_patches(rng: Array, batch: Batch) -> Batch:
        views_rng, drop_rng = jax.random.split(rng)
        batch = augmentation(views_rng, batch)
        _, views, height, width, _ = batch["views"].shape
        tokens = (height // patch) * (width // patch)

        def keep(key: Array) -> Array:
            """`[V - 1, K]` patches of each large anchor of an image."""
            keys = jax.random.split(key, views - 1)
            return jax.vmap(lambda k: augment.random_masking(k, tokens, ratio=mask_ratio)[0])(keys)

        return {**batch, "keep": jax.vmap(keep)(augment.batch_keys(drop_rng, batch))}

    def embeddings(net: Parts, batch: Batch) -> tuple[Array, Array, Array]:
        """Features `[B, 1, D]` of the target, embeddings of anchors `[B, V - 1 + L, d]` and of the
        target `[B, d]`."""
        target, anchors = batch["views"][:, 0], {**batch, "views": batch["views"][:, 1:]}
        ours, _ = common.embed_crops(net, anchors)
        features = net.momentum.encoder(target).features
        return features[:, None], ours, net.momentum.projector(features)

    def scores(net: Parts, anchors: Array, targets: Array) -> tuple[Array, Array]:
        """Cosines of anchors `[B, V - 1 + L, K]` and targets `[B, K]`."""
        ours = net.prototypes(merge_views(anchors))
        return split_views(ours, anchors.shape[1]), net.prototypes(targets)

    def forward(net: Parts, batch: Batch) -> tuple[Array, Array]:
        _, anchors, targets = embeddings(net, batch)
        return scores(net, anchors, targets)

    def init(rng: Array, batch: Batch) -> Variables:
        return network.init(forward, rng, batch)

    def embed(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[tuple[Array, ...], Variables]:
        return network.apply(embeddings, variables, batch, train=True)

    def couple(
        outputs: tuple[Array, ...], variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        features, anchors, targets = outputs
        (ours, theirs), variables = network.apply(scores, variables, anchors, targets, train=True)
        value = losses.msn(
            ours,
            theirs,
            entropy_weight=entropy_weight,
            temperature=temperature,
            sharpening=sharpening,
            iterations=iterations,
        )
        metrics = {
            "accuracy": common.contrastive_accuracy(anchors[:, 0], targets),
            "entropy_gap": losses.mean_entropy_gap(ours, temperature=temperature),
            "prototypes_used": common.prototypes_used(theirs),
            "loss_at_chance": jnp.log(jnp.float32(ours.shape[-1])),
            **common.embedding_metrics(targets),
        }
        metrics, features = jax.lax.stop_gradient((metrics, features))
        return value, LossOutput(variables.model_state, variables.extra, metrics, features)

    def update(variables: Variables, step: Array) -> PyTree:
        return network.move(variables, at_step(momentum, step))

    return common.encoder_method(
        network,
        augmentation=drop_patches,
        evaluation_view=evaluation_view,
        init=init,
        embed=embed,
        couple=couple,
        update=update,
        encoder=network.momentum_encoder,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """MSN from the sections `model`, `augment` and `msn` of a config.

    The momentum rises linearly, and would be 1 after a quarter of the run more, as in the authors'
    code.
    """
    head_kinds = {**ranges.kinds_of(models.DINOHead), "prototypes": PositiveInt}
    knobs = knobs_of(config, msn, projector=head_kinds)
    head, dtype = knobs.pop("projector"), jnp.dtype(config.model.dtype)
    count = head.pop("prototypes")
    return msn(
        models.build_encoder(config.model),
        models.from_linen(models.DINOHead(**head, dtype=dtype)),
        models.from_linen(models.Prototypes(count)),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        patch=config.model.patch,
        **{**knobs, "momentum": schedules.linear(knobs["momentum"], 1.0, 1.25 * steps)},
    )
