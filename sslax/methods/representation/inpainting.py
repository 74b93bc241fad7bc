"""Inpainting: a network fills a hole in an image, and a critic judges the result.

Pathak et al., Context Encoders: Feature Learning by Inpainting, CVPR 2016.
"""

from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, models
from sslax.errors import check_choice
from sslax.methods.common import Augmentation, knobs_of
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.ranges import Fraction, NonNegative, NonNegativeInt
from sslax.types import Array, Batch, LossOutput, Method, Metrics, Model, Pictures, Variables

HOLES = ("center", "region")


def inpainting(
    encoder: Model,
    decoder: Model,
    discriminator: Model | None = None,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    hole: str = "center",
    overlap: NonNegativeInt = 4,
    overlap_weight: NonNegative = 10.0,
    adversarial_weight: Fraction = 0.001,
    fill: tuple[float, ...] = (0.5,),
) -> Method:
    """Context encoders, with or without an adversarial loss.

    Encoder and decoder minimize `(1 - w) L2 + w L_adv`, the discriminator its own cross-entropy, in
    one step: gradients stop where one's loss would reach the other, so that their sum trains both.
    The discriminator's rate is `optimizer.rates.discriminator`.

    Args:
        encoder: images with a hole to an `Encoding`.
        decoder: of {'features', 'like'} to images of the size of 'like'.
        discriminator: paintings to logits, positive for real ones; None does without.
        augmentation: adds 'views' `[B, 1, S, S, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        hole: "center", a square of half the side, of which the decoder paints just that square; or
            "region", a random shape over a quarter of the image, in a painting of the whole.
        overlap: pixels of the square's border that stay visible, so that the painting has to join
            its surroundings.
        overlap_weight: of the squared error there.
        adversarial_weight: w; 0 without a discriminator.
        fill: color of the hole, one value or one for each channel.
    """
    w = adversarial_weight if discriminator else 0.0
    parts = {"encoder": encoder, "decoder": decoder}
    network = Network(parts | ({"discriminator": discriminator} if discriminator else {}))
    cut = partial(cut_hole, hole=hole, overlap=overlap, overlap_weight=overlap_weight, fill=fill)
    with_hole = common.pretext_task(augmentation, cut)

    def paint(net: Parts, batch: Batch) -> tuple[Array, Array]:
        """Features, and the painting."""
        encoding = net.encoder(batch["input"])
        deepest = [*encoding.stages.values()][-1]  # a map: a painter has to know where things are
        like = painted_part(batch["target"], hole)
        return encoding.features, net.decoder({"features": deepest, "like": like})

    def paint_and_judge(net: Parts, batch: Batch) -> Array:
        return judge(net, paint(net, batch)[1])

    def init(rng: Array, batch: Batch) -> Variables:
        return network.init(paint_and_judge if discriminator else paint, rng, batch)

    def loss(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        (features, painting), variables = network.apply(paint, variables, batch, train=True)
        target, weight = (painted_part(batch[name], hole) for name in ("target", "weight"))
        # Outside of a random region the painting is the image: the critic looks at the hole.
        painting = jnp.where(weight > 0, painting, target)
        mean = jnp.sum(weight * target, (0, 1, 2)) / jnp.sum(weight)
        error = _weighted_square(painting - target, weight)
        chance = _weighted_square(target - mean[None, None, None], weight)
        metrics = {"l2": error, "l2_at_chance": chance, **common.embedding_metrics(features)}
        value, metrics["loss_at_chance"] = (1 - w) * error, chance
        if discriminator:
            contest, more, variables = adversarial(network, variables, painting, target, w)
            value, metrics = value + contest, metrics | more
            metrics["loss_at_chance"] = (1 - w) * chance + (1 + w) * jnp.log(2.0)
        metrics, features = jax.lax.stop_gradient((metrics, features[:, None]))
        return value, LossOutput(variables.model_state, variables.extra, metrics, features)

    def visualize(variables: Variables, batch: Batch, rng: Array) -> Pictures:
        batch = with_hole(rng, batch)
        (_, painting), _ = network.apply(paint, variables, batch)
        painting = jnp.clip(_padded(painting, batch["input"].shape[1:3]), 0.0, 1.0)
        filled = jnp.where(batch["weight"] > 0, painting, batch["input"])
        return {"image": batch["target"], "hole": batch["input"], "filled": filled}

    return common.encoder_method(
        network,
        augmentation=with_hole,
        evaluation_view=evaluation_view,
        init=init,
        loss=loss,
        mean_over_examples=hole != "region",  # regions have different sizes
        visualize=visualize,
    )


def cut_hole(
    key: Array,
    view: Array,
    *,
    hole: str,
    overlap: int,
    overlap_weight: float,
    fill: tuple[float, ...],
) -> Batch:
    """The pretext task of one view `[H, W, C]`; the knobs are those of `inpainting`.

    Returns:
        'input', the view with a hole; 'target', the view; and 'weight' `[H, W, 1]` of the squared
        error, 0 where nothing is painted.
    """
    height, width = view.shape[:2]
    if hole == "region":
        hidden = weight = augment.random_region_mask(key, height, width)
    else:
        side = min(height, width) // 2
        painted = augment.center_mask(height, width, side=side)
        hidden = augment.center_mask(height, width, side=side, overlap=overlap)
        weight = jnp.where(hidden, 1.0, overlap_weight * painted)
    hidden, weight = (x.astype(jnp.float32)[..., None] for x in (hidden, weight))
    seen = jnp.where(hidden > 0, jnp.asarray(fill, view.dtype), view)
    return {"input": seen, "target": view, "weight": weight}


def painted_part(images: Array, hole: str) -> Array:
    """The part of images `[B, H, W, ...]` that the decoder paints."""
    if hole == "region":
        return images
    height, width = images.shape[1:3]
    side = min(height, width) // 2
    top, left = (height - side) // 2, (width - side) // 2
    return images[:, top : top + side, left : left + side]


def judge(net: Parts, images: Array) -> Array:
    """Forward pass of the discriminator alone."""
    return net.discriminator(images)


def adversarial(
    network: Network, variables: Variables, painting: Array, target: Array, weight: float
) -> tuple[Array, Metrics, Variables]:
    """The adversarial losses of painter and discriminator.

    Args:
        network: with a part `discriminator`.
        variables: of the method.
        painting: `[B, h, w, C]`.
        target: likewise.
        weight: of the painter's loss.

    Returns:
        The weighted loss of the painter plus that of the discriminator, each with a gradient to
        its own parameters alone; metrics; and the variables with the moved state.
    """
    real, variables = network.apply(judge, variables, target, train=True)
    fake, variables = network.apply(judge, variables, jax.lax.stop_gradient(painting), train=True)
    frozen = variables._replace(params=jax.lax.stop_gradient(variables.params))
    fooled, _ = network.apply(judge, frozen, painting, train=True)
    critic = (jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))) / 2
    painter = jnp.mean(jax.nn.softplus(-fooled))
    metrics = {
        "critic_loss": critic,
        "critic_accuracy": (jnp.mean(real > 0) + jnp.mean(fake < 0)) / 2,
        "painter_loss": painter,
    }
    return weight * painter + critic, metrics, variables


def _padded(painting: Array, size: tuple[int, int]) -> Array:
    """A painting of the central part, with zeros around it, `[B, H, W, C]`."""
    parts = painting.shape[1:3]
    before = [(whole - part) // 2 for whole, part in zip(size, parts)]
    after = [whole - part - rest for whole, part, rest in zip(size, parts, before)]
    return jnp.pad(painting, [(0, 0), *zip(before, after), (0, 0)])


def _weighted_square(difference: Array, weight: Array) -> Array:
    """Weighted mean of squares of `[B, H, W, C]`, with weights `[B, H, W, 1]`."""
    total = jnp.sum(weight * jnp.square(difference))
    return total / (jnp.sum(weight) * difference.shape[-1])


def build(config: ConfigDict, steps: int) -> Method:
    """Inpainting from the sections `model`, `augment` and `inpainting` of a config."""
    sections = {"decoder": models.ContextDecoder, "discriminator": models.Discriminator}
    knobs = knobs_of(config, inpainting, **sections)
    dtype = jnp.dtype(config.model.dtype)
    check_choice("config.inpainting.hole", knobs["hole"], HOLES)
    decoder = models.from_linen(models.ContextDecoder(**knobs.pop("decoder"), dtype=dtype))
    critic = models.from_linen(models.Discriminator(**knobs.pop("discriminator"), dtype=dtype))
    return inpainting(
        models.build_encoder(config.model),
        decoder,
        critic if knobs["adversarial_weight"] > 0 else None,
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        fill=tuple(config.model.mean) or (0.5,),
        **knobs,
    )
