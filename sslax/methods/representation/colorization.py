"""Colorization: which colors had a gray image?

Zhang, Isola and Efros, Colorful Image Colorization, ECCV 2016.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, losses, models, ops
from sslax.errors import UserError
from sslax.methods import common
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables

GRAY = 5.0  # an image whose |a| and |b| are nowhere more has no color to learn from


def colorization(
    encoder: Model,
    decoder: Model,
    bins: Array,
    *,
    views: common.Views,
    evaluation_view: common.EvaluationView,
    downsample: int = 4,
    sigma: float = 5.0,
    neighbors: int = 5,
    gamma: float = 0.5,
    prior_momentum: float = 0.99,
    temperature: float = 0.38,
) -> Method:
    """Colorization as classification into bins of Lab's (a, b).

    The loss is `mean_p w(q*(p)) CE(softmax(logits_p), q_p)` over the places p of images that have
    colors, with q the soft assignment of p's color to its nearest bins, q* the bin of most weight
    and w the class balance of the prior. The prior is a running mean of what the batches hold,
    from a uniform start; there is no file of another set's statistics.

    Args:
        encoder: lightness `[N, H, W, 1]` in [0, 1] to an `Encoding`.
        decoder: of {'stages', 'like'} to logits `[N, h, w, Q]`.
        bins: `[Q, 2]`, the centers (a, b).
        views: `(rng, batch) -> batch` with images `[B, 1, S, S, 3]`.
        evaluation_view: for `predict`, from images `[B, H, W, C]`, gray or RGB, to images.
        downsample: pixels along each side of a place.
        sigma: of the soft assignment's Gaussian, in units of Lab.
        neighbors: bins that share a color.
        gamma: share of the uniform distribution in the class balance.
        prior_momentum: of the prior's running mean.
        temperature: of the annealed mean that turns logits into a color, for `show`.
    """
    bins = jnp.asarray(bins)

    def split(key: Array, image: Array) -> Batch:
        if image.shape[-1] != 3:
            raise UserError(
                "The method colorization learns from colors and these images are gray; choose "
                "another config.method or a set of RGB images."
            )
        lab = ops.rgb_to_lab(image)
        size = tuple(side // downsample for side in image.shape[:2])
        ab = augment.resize(lab[..., 1:], size=size)
        colored = jnp.any(jnp.abs(ab) > GRAY)
        return {"image": lab[..., :1] / 100, "ab": ab, "colored": colored}

    split_views = common.with_task(views, split)

    def inputs(encoding: PyTree, batch: Batch) -> dict:
        return {"stages": encoding.stages, "like": batch["ab"]}

    def init(rng: Array, batch: Batch) -> Variables:
        encoder_rng, decoder_rng = jax.random.split(rng)
        of_encoder = encoder.init(encoder_rng, batch["image"])
        encoding, _ = encoder.apply(*of_encoder, batch["image"], False)
        of_decoder = decoder.init(decoder_rng, inputs(encoding, batch))
        params, model_state = (
            {"encoder": first, "decoder": second} for first, second in zip(of_encoder, of_decoder)
        )
        return Variables(
            params, model_state, {"prior": jnp.full(len(bins), 1 / len(bins), jnp.float32)}
        )

    def classify(
        params: PyTree, model_state: PyTree, batch: Batch, train: bool
    ) -> tuple[Array, Array, PyTree]:
        """Features, logits `[B, h, w, Q]` and the model state."""
        state = {}
        encoding, state["encoder"] = encoder.apply(
            params["encoder"], model_state["encoder"], batch["image"], train
        )
        logits, state["decoder"] = decoder.apply(
            params["decoder"], model_state["decoder"], inputs(encoding, batch), train
        )
        return encoding.features, logits, state

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        features, logits, state = classify(params, model_state, batch, True)
        targets = ops.soft_encode_ab(batch["ab"], bins, neighbors=neighbors, sigma=sigma)
        nearest = jnp.argmax(targets, axis=-1)
        cross_entropy = -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)
        weight = losses.class_rebalancing_weights(extra["prior"], gamma=gamma)[nearest]
        mask = jnp.broadcast_to(batch["colored"][:, None, None], cross_entropy.shape)
        value = losses.masked_mean(weight * cross_entropy, mask)
        seen = jnp.sum(targets * mask[..., None], (0, 1, 2))
        seen = seen / jnp.maximum(jnp.sum(mask), 1)
        moved = prior_momentum * extra["prior"] + (1 - prior_momentum) * seen
        hit = (jnp.argmax(logits, axis=-1) == nearest).astype(jnp.float32)
        metrics = {
            "accuracy": losses.masked_mean(hit, mask),
            "unweighted_loss": losses.masked_mean(cross_entropy, mask),
            "loss_at_chance": losses.masked_mean(weight, mask) * jnp.log(jnp.float32(len(bins))),
            **common.embedding_metrics(features),
        }
        extra = {"prior": jnp.where(jnp.any(mask), moved, extra["prior"])}
        features = jax.lax.stop_gradient(features)[:, None]
        return value, LossOutput(state, extra, jax.lax.stop_gradient(metrics), features)

    def show(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array
    ) -> dict[str, Array]:
        batch = split_views(rng, batch)
        gray = batch["image"]
        _, logits, _ = classify(params, model_state, batch, False)

        def colored(ab: Array) -> Array:
            size = (*gray.shape[:3], 2)
            ab = jax.image.resize(ab, size, "linear")
            return jnp.clip(ops.lab_to_rgb(jnp.concatenate([100 * gray, ab], -1)), 0.0, 1.0)

        return {
            "gray": gray,
            "colored by the network": colored(
                ops.annealed_mean(logits, bins, temperature=temperature)
            ),
            "colors at this resolution": colored(batch["ab"]),
        }

    return common.method_of_encoder(
        encoder,
        views=split_views,
        evaluation_view=evaluation_view,
        init=init,
        loss=loss,
        show=show,
        prepare=lightness,
    )


def lightness(images: Array) -> Array:
    """Lightness `[N, H, W, 1]` in [0, 1] of images `[N, H, W, C]`, gray or RGB."""
    rgb = jnp.broadcast_to(images, (*images.shape[:3], 3))
    return ops.rgb_to_lab(rgb)[..., :1] / 100


def build(config: ConfigDict, steps: int) -> Method:
    """Colorization as the sections `model`, `augment` and `colorization` of a config say."""
    knobs = dict(config.colorization)
    bins = ops.in_gamut_ab_bins(step=knobs.pop("bin"))
    section = knobs.pop("decoder").to_dict()
    stages = tuple(section.pop("stages"))
    decoder = models.ColorDecoder(len(bins), stages, **section, dtype=jnp.dtype(config.model.dtype))
    return colorization(
        models.build_encoder(config.model),
        models.from_linen(decoder),
        bins,
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
        **knobs,
    )
