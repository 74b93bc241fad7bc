"""I-JEPA: from one block of an image, predict a momentum encoder's output for other blocks.

Assran et al., Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture,
CVPR 2023.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from sslax import augment, losses, models
from sslax.methods import schedules
from sslax.methods.common import Augmentation, at_step, knobs_of
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.ranges import Fraction
from sslax.types import Array, Batch, LossOutput, Method, Model, Pictures, Schedule, Variables


def ijepa(
    encoder: Model,
    predictor: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    patch: int = 16,
    momentum: Fraction | Schedule = 0.996,
    **blocks: Any,
) -> Method:
    """I-JEPA; the momentum encoder is exported.

    `loss = mean over target tokens of huber(predictor(encoder(context)) - LN(momentum_encoder(x)))`

    with the Huber loss of width 1 and LN a layer norm without parameters. All examples of a batch
    have blocks of the same sizes; `augment.random_token_blocks` says where its masks differ from
    the authors' code.

    Args:
        encoder: a vision transformer without a class token, of {'image', 'keep', 'keep_mask'} to an
            `Encoding` with 'tokens'.
        predictor: context tokens and positions to the tokens of target blocks, `JEPAPredictor`.
        augmentation: adds 'views' `[B, 1, H, W, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        patch: side of the patches in pixels.
        momentum: of the momentum encoder, or a schedule of it.
        **blocks: knobs of `augment.random_token_blocks`.
    """
    network = Network({"encoder": encoder, "predictor": predictor}, momentum={"encoder": encoder})

    def add_blocks(rng: Array, batch: Batch) -> Batch:
        views_rng, blocks_rng = jax.random.split(rng)
        batch = augmentation(views_rng, batch)
        view = batch["views"][:, 0]
        grid = (view.shape[1] // patch, view.shape[2] // patch)
        sample = partial(augment.random_token_blocks, grid=grid, size_key=blocks_rng, **blocks)
        with common.images_that_suit():
            sampled = jax.vmap(sample)(augment.batch_keys(blocks_rng, batch))
        return {**batch, "input": view, **sampled._asdict()}

    def forward(net: Parts, batch: Batch) -> tuple[Array, Array, Array]:
        """Predictions and targets `[B, M, L, D]`, and the momentum encoder's features."""
        context = {"keep": batch["context"], "keep_mask": batch["context_mask"]}
        tokens = net.encoder({"image": batch["input"], **context}).stages["tokens"]
        masks = {"targets": batch["targets"], "target_mask": batch["target_mask"]}
        predicted = net.predictor({"tokens": tokens, "like": batch["input"], **context, **masks})
        whole = net.momentum.encoder({"image": batch["input"]})
        wanted = jax.nn.standardize(whole.stages["tokens"], epsilon=1e-5)
        wanted = jax.vmap(lambda tokens, index: tokens[index])(wanted, batch["targets"])
        return predicted, jax.lax.stop_gradient(wanted), whole.features

    def mean_error(difference: Array, batch: Batch) -> Array:
        error = jnp.mean(optax.losses.huber_loss(difference), axis=-1)
        return losses.masked_mean(error, batch["target_mask"])

    def couple(  # by the number of targets, which differs among examples
        outputs: tuple[Array, ...], variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        predicted, wanted, features = outputs
        metrics = {
            "loss_at_chance": mean_error(wanted, batch),  # of predicting the mean, 0
            # Of the targets before their layer norm, which would hide a collapse.
            **common.embedding_metrics(features),
        }
        features = jax.lax.stop_gradient(features)[:, None]
        output = LossOutput(variables.model_state, variables.extra, metrics, features)
        return mean_error(predicted - wanted, batch), output

    def update(variables: Variables, step: Array) -> dict:
        return network.move(variables, at_step(momentum, step))

    def visualize(variables: Variables, batch: Batch, rng: Array) -> Pictures:
        batch = add_blocks(rng, batch)
        (predicted, wanted, _), _ = network.apply(forward, variables, batch)
        images = batch["input"]
        grid = [side // patch for side in images.shape[1:3]]

        def on_grid(tokens: Array, values: Array) -> Array:
            """The largest value at each position of the token grid, `[B, h, w, 1]`, else 0."""
            empty = jnp.zeros((len(images), grid[0] * grid[1]))
            put = jax.vmap(lambda row, index, value: row.at[index.ravel()].max(value.ravel()))
            return put(empty, tokens, values).reshape(-1, *grid, 1)

        def visible(tokens: Array, mask: Array) -> Array:
            found = on_grid(tokens, 1.0 * mask)
            pixels = jax.image.resize(found, (*images.shape[:3], 1), "nearest")
            return jnp.where(pixels > 0, images, 0.5)

        error = jnp.mean(jnp.abs(predicted - wanted), axis=-1) * batch["target_mask"]
        return {
            "image": images,
            "context": visible(batch["context"], batch["context_mask"]),
            "targets": visible(batch["targets"], batch["target_mask"]),
            "error, black 0 to white 1": jnp.clip(on_grid(batch["targets"], error), 0.0, 1.0),
        }

    return common.encoder_method(
        network,
        augmentation=add_blocks,
        evaluation_view=evaluation_view,
        init=partial(network.init, forward),
        embed=common.embedding(network, forward),
        couple=couple,
        update=update,
        visualize=visualize,
        encoder=network.momentum_encoder,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """I-JEPA from the sections `model`, `augment` and `ijepa`; the momentum rises to 1."""
    section = knobs_of(
        config, ijepa, predictor=models.JEPAPredictor, blocks=augment.random_token_blocks
    )
    common.check_transformer("config.ijepa.predictor", section["predictor"])
    patch = config.model.patch
    shared = {"remat": config.model.remat, "dtype": jnp.dtype(config.model.dtype)}
    predictor = models.JEPAPredictor(patch=patch, **section["predictor"], **shared)
    return ijepa(
        models.build_encoder(config.model),
        models.from_linen(predictor),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        patch=patch,
        momentum=schedules.linear(section["momentum"], 1.0, steps),
        **section["blocks"],
    )
