"""W-MSE: the views of an image agree after the embeddings of each view are whitened.

Ermolov et al., Whitening for Self-Supervised Representation Learning, ICML 2021,
https://arxiv.org/abs/2007.06346.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import losses, models
from sslax.errors import UserError
from sslax.methods.common import Augmentation, knobs_of
from sslax.methods.representation import common
from sslax.methods.representation.two_views import joint_embedding
from sslax.ranges import Fraction, PositiveInt
from sslax.types import Array, Batch, Method, Metrics, Model


def w_mse(
    encoder: Model,
    projector: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    group_size: PositiveInt = 128,
    iterations: PositiveInt = 1,
    epsilon: Fraction = 1e-5,
) -> Method:
    """W-MSE; `losses.w_mse` is its loss, of all pairs of views. No gradient is stopped.

    Args:
        encoder: images to an `Encoding`; with per-view batch norms as in the authors' code.
        projector: features to the embedding that is whitened, with joint batch norms.
        augmentation: adds 'views' `[B, V, H, W, C]`; two or four in the paper.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        group_size: images that are whitened together, which divides the batch; in the paper twice
            the dimensions of the embedding. Groups are drawn anew in each step.
        iterations: random divisions of a batch into groups.
        epsilon: of the identity in the covariance; 0 in the authors' code.
    """

    def objective(
        embeddings: Array, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, Metrics]:
        knobs = {"group_size": group_size, "iterations": iterations, "epsilon": epsilon}
        return losses.w_mse(embeddings, rng, **knobs), {
            "accuracy": common.contrastive_accuracy(embeddings[:, 0], embeddings[:, 1]),
            "loss_at_chance": jnp.float32(2.0),  # unrelated directions
            **common.embedding_metrics(embeddings[:, 0]),
        }

    return joint_embedding(
        encoder,
        projector,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        objective=objective,
    )


def _check_groups(size: int, batch: int, outputs: int) -> None:
    """Raises a `UserError` if groups do not divide the batch, or cannot be whitened."""
    if batch % size:
        sizes = [n for n in range(outputs + 1, batch + 1) if batch % n == 0]
        nearest = min(sizes, key=lambda n: abs(n - size), default=None)
        remedy = f"choose {nearest}, or " if nearest else "choose "
        raise UserError(
            f"config.w_mse.group_size = {size} does not divide config.batch_size = {batch}: "
            f"{remedy}another batch size."
        )
    if size <= outputs:
        raise UserError(
            f"config.w_mse.group_size = {size} must be more than config.w_mse.projector.outputs = "
            f"{outputs}, or the covariance of a group is singular: choose {2 * outputs} or fewer "
            "outputs."
        )


def build(config: ConfigDict, steps: int) -> Method:
    """W-MSE from the sections `model`, `augment` and `w_mse` of a config."""
    knobs = knobs_of(config, w_mse, projector=models.Projector)
    projector = knobs.pop("projector")
    augmentation = common.build_augmentation(config.augment)  # which checks the section
    views = config.augment.count
    if views < 2:
        raise UserError("config.augment.count = 1: W-MSE compares views; choose 2 or 4.")
    _check_groups(knobs["group_size"], config.batch_size, projector["outputs"])
    return w_mse(
        models.build_encoder(config.model, norm_groups=views),
        models.build_projector(projector, dtype=config.model.dtype),
        augmentation=augmentation,
        evaluation_view=common.build_evaluation_view(config.augment),
        **knobs,
    )
