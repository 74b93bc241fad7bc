"""Colorization: which colors does a gray image have?

Zhang, Isola and Efros, Colorful Image Colorization, ECCV 2016.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sslax import augment, losses, models, ops
from sslax.errors import UserError
from sslax.methods.common import Augmentation, knobs_of
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.ranges import Fraction, Positive, PositiveInt
from sslax.types import Array, Batch, LossOutput, Method, Model, Pictures, Variables

GRAY = 5.0  # an image whose |a| and |b| are nowhere larger has no color to learn from


def colorization(
    encoder: Model,
    decoder: Model,
    bins: Array,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    downsample: PositiveInt = 4,
    sigma: Positive = 5.0,
    neighbors: PositiveInt = 5,
    gamma: Fraction = 0.5,
    prior_momentum: Fraction = 0.99,
    temperature: Positive = 0.38,
) -> Method:
    """Colorization as classification into bins of Lab's (a, b).

    The loss is `mean_p w(q*(p)) CE(softmax(logits_p), q_p)` over the places p of images that have
    colors, with q the soft assignment of p's color to its nearest bins, q* the bin of most weight
    and w the class balance of the prior. The prior is a running mean over the batches, starting
    uniform; there is no file of another set's statistics.

    Args:
        encoder: lightness `[N, H, W, 1]` in [0, 1] to an `Encoding`.
        decoder: of {'stages', 'like'} to logits `[N, h, w, Q]`.
        bins: `[Q, 2]`, the centers (a, b).
        augmentation: adds 'views' `[B, 1, S, S, 3]`.
        evaluation_view: from images `[B, H, W, C]`, gray or RGB, to images.
        downsample: pixels along each side of a place.
        sigma: of the soft assignment's Gaussian, in units of Lab.
        neighbors: bins that share a color.
        gamma: share of the uniform distribution in the class balance.
        prior_momentum: of the prior's running mean.
        temperature: of the annealed mean that turns logits into a color, for `visualize`.

    Raises:
        UserError: in the augmentation, for images that are not RGB.
    """
    bins = jnp.asarray(bins)
    network = Network({"encoder": encoder, "decoder": decoder})

    def split(key: Array, view: Array) -> Batch:
        if view.shape[-1] != 3:
            raise UserError(
                "The method colorization learns from colors, and these images have "
                f"{view.shape[-1]} channel(s) rather than RGB; choose another config.method or a "
                "set of RGB images."
            )
        lab = ops.rgb_to_lab(view)
        size = tuple(side // downsample for side in view.shape[:2])
        ab = augment.resize(lab[..., 1:], size=size)
        colored = jnp.any(jnp.abs(ab) > GRAY)
        return {"input": lab[..., :1] / 100, "ab": ab, "colored": colored}

    split_colors = common.pretext_task(augmentation, split)

    def forward(net: Parts, batch: Batch) -> tuple[Array, Array]:
        """Features, and logits `[B, h, w, Q]`."""
        encoding = net.encoder(batch["input"])
        logits = net.decoder({"stages": encoding.stages, "like": batch["ab"]})
        return encoding.features, logits

    def init(rng: Array, batch: Batch) -> Variables:
        prior = jnp.full(len(bins), 1 / len(bins), jnp.float32)
        return network.init(forward, rng, batch)._replace(extra={"prior": prior})

    def couple(  # by the number of colored images
        outputs: tuple[Array, Array], variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        features, logits = outputs
        prior = variables.extra["prior"]
        targets = ops.soft_encode_ab(batch["ab"], bins, neighbors=neighbors, sigma=sigma)
        nearest = jnp.argmax(targets, axis=-1)
        cross_entropy = -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)
        weight = losses.class_rebalancing_weights(prior, gamma=gamma)[nearest]
        colored = jnp.broadcast_to(batch["colored"][:, None, None], cross_entropy.shape)
        value = losses.masked_mean(weight * cross_entropy, colored)
        hit = (jnp.argmax(logits, axis=-1) == nearest).astype(jnp.float32)
        metrics = {
            "accuracy": losses.masked_mean(hit, colored),
            "unweighted_loss": losses.masked_mean(cross_entropy, colored),
            "loss_at_chance": losses.masked_mean(weight, colored) * jnp.log(jnp.float32(len(bins))),
            **common.embedding_metrics(features),
        }
        frequencies = jnp.sum(targets * colored[..., None], (0, 1, 2))
        frequencies = frequencies / jnp.maximum(jnp.sum(colored), 1)
        moved = prior_momentum * prior + (1 - prior_momentum) * frequencies
        extra = {"prior": jnp.where(jnp.any(colored), moved, prior)}
        metrics, features = jax.lax.stop_gradient((metrics, features[:, None]))
        return value, LossOutput(variables.model_state, extra, metrics, features)

    def visualize(variables: Variables, batch: Batch, rng: Array) -> Pictures:
        batch = split_colors(rng, batch)
        gray = batch["input"]
        (_, logits), _ = network.apply(forward, variables, batch)

        def colored(ab: Array) -> Array:
            ab = jax.image.resize(ab, (*gray.shape[:3], 2), "linear")
            return jnp.clip(ops.lab_to_rgb(jnp.concatenate([100 * gray, ab], -1)), 0.0, 1.0)

        predicted = ops.annealed_mean(logits, bins, temperature=temperature)
        return {
            "gray": gray,
            "colored by the network": colored(predicted),
            "true colors at this resolution": colored(batch["ab"]),
        }

    return common.encoder_method(
        network,
        augmentation=split_colors,
        evaluation_view=evaluation_view,
        init=init,
        embed=common.embedding(network, forward),
        couple=couple,
        visualize=visualize,
        preprocess=models.lightness,
    )


@functools.cache
def color_bins(step: int) -> np.ndarray:
    """`ops.in_gamut_ab_bins`, computed once a process."""
    return ops.in_gamut_ab_bins(step=step)


def build(config: ConfigDict, steps: int) -> Method:
    """Colorization from the sections `model`, `augment` and `colorization` of a config."""
    knobs = knobs_of(config, colorization, bin=PositiveInt, decoder=models.ColorDecoder)
    step = knobs.pop("bin")
    bins = color_bins(step)
    if knobs["neighbors"] > len(bins):
        raise UserError(
            f"config.colorization.neighbors = {knobs['neighbors']} is more than the {len(bins)} "
            f"bins that config.colorization.bin = {step} gives: lower one of them."
        )
    section = knobs.pop("decoder")
    stages = tuple(section.pop("stages"))
    decoder = models.ColorDecoder(len(bins), stages, **section, dtype=jnp.dtype(config.model.dtype))
    return colorization(
        models.build_encoder(config.model),
        models.from_linen(decoder),
        bins,
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        **knobs,
    )
