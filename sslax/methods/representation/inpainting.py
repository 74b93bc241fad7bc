"""Inpainting: a network paints what is missing from an image, and a critic judges the painting.

Pathak et al., Context Encoders: Feature Learning by Inpainting, CVPR 2016.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, models
from sslax.errors import UserError
from sslax.methods import common
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables

HOLES = ("center", "region")


class Hole(NamedTuple):
    """What is hidden of an image and how its reconstruction counts, `[H, W]` each."""

    hidden: Array  # 1 where the network does not see the image
    weight: Array  # of the squared error: 0 where nothing is painted


def inpainting(
    encoder: Model,
    decoder: Model,
    discriminator: Model | None = None,
    *,
    views: common.Views,
    evaluation_view: common.EvaluationView,
    hole: str = "center",
    overlap: int = 4,
    overlap_weight: float = 10.0,
    adversarial_weight: float = 0.001,
    fill: tuple[float, ...] = (0.5,),
) -> Method:
    """Context encoders, with an adversarial loss and without.

    Encoder and decoder minimize `(1 - w) L2 + w L_adv`, the discriminator its own cross-entropy, in
    one step: gradients stop where one's loss would reach the other, so that their sum trains both.
    The discriminator's rate is `optimizer.rates.discriminator`.

    Args:
        encoder: images with a hole to an `Encoding`.
        decoder: of {'features', 'like'} to images of the size of 'like'.
        discriminator: paintings to logits, positive for real ones; None does without.
        views: `(rng, batch) -> batch` with images `[B, 1, S, S, C]`.
        evaluation_view: for `predict`, from images `[B, H, W, C]` to the encoder's input.
        hole: "center", a square of half the side, of which the decoder paints just that square; or
            "region", a random shape over a quarter of the image, in a painting of the whole.
        overlap: pixels of the square's border that stay visible, so that the painting has to join
            what is around it.
        overlap_weight: of the squared error there.
        adversarial_weight: w; 0 without a discriminator.
        fill: color of the hole, one value or one for each channel.
    """
    w = adversarial_weight if discriminator else 0.0

    def dig(key: Array, image: Array) -> Batch:
        height, width = image.shape[:2]
        if hole == "region":
            hidden = augment.random_region_mask(key, height, width)
            made = Hole(hidden, hidden)
        else:
            side = min(height, width) // 2
            painted = augment.center_mask(height, width, side=side)
            hidden = augment.center_mask(height, width, side=side, overlap=overlap)
            made = Hole(hidden, jnp.where(hidden, 1.0, overlap_weight * painted))
        hidden, weight = (x.astype(jnp.float32)[..., None] for x in made)
        seen = jnp.where(hidden > 0, jnp.asarray(fill, image.dtype), image)
        return {"image": seen, "target": image, "hidden": hidden, "weight": weight}

    dug_views = common.with_task(views, dig)

    def painted_part(images: Array) -> Array:
        """The part of images `[B, H, W, ...]` that the decoder paints."""
        if hole == "region":
            return images
        height, width = images.shape[1:3]
        side = min(height, width) // 2
        top, left = (height - side) // 2, (width - side) // 2
        return images[:, top : top + side, left : left + side]

    def init(rng: Array, batch: Batch) -> Variables:
        keys = dict(zip(("encoder", "decoder", "discriminator"), jax.random.split(rng, 3)))
        target = painted_part(batch["target"])
        variables = {"encoder": encoder.init(keys["encoder"], batch["image"])}
        encoding, _ = encoder.apply(*variables["encoder"], batch["image"], False)
        inputs = {"features": _deepest(encoding), "like": target}
        variables["decoder"] = decoder.init(keys["decoder"], inputs)
        if discriminator:
            variables["discriminator"] = discriminator.init(keys["discriminator"], target)
        params, model_state = ({k: v[i] for k, v in variables.items()} for i in range(2))
        return Variables(params, model_state, extra={})

    def paint(
        params: PyTree, model_state: PyTree, batch: Batch, train: bool
    ) -> tuple[Array, Array, PyTree]:
        """Features, the painting, and the model state."""
        state = dict(model_state)
        encoding, state["encoder"] = encoder.apply(
            params["encoder"], model_state["encoder"], batch["image"], train
        )
        inputs = {"features": _deepest(encoding), "like": painted_part(batch["target"])}
        painting, state["decoder"] = decoder.apply(
            params["decoder"], model_state["decoder"], inputs, train
        )
        return encoding.features, painting, state

    def judge(params: PyTree, state: PyTree, images: Array) -> tuple[Array, PyTree]:
        logits, state = discriminator.apply(params, state, images, True)
        return logits, state

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        features, painting, state = paint(params, model_state, batch, True)
        target, weight = painted_part(batch["target"]), painted_part(batch["weight"])
        # In a random region's painting, what was seen is as it was: the critic looks at the hole.
        painting = jnp.where(weight > 0, painting, target)
        square = jnp.sum(weight * jnp.square(painting - target)) / (
            jnp.sum(weight) * target.shape[-1]
        )
        mean = jnp.sum(weight * target, (0, 1, 2)) / jnp.sum(weight)
        chance = jnp.sum(weight * jnp.square(target - mean[None, None, None])) / (
            jnp.sum(weight) * target.shape[-1]
        )
        value = (1 - w) * square
        metrics = {"l2": square, "l2_at_chance": chance, **common.embedding_metrics(features)}
        if discriminator:
            critic, held = params["discriminator"], jax.lax.stop_gradient(params["discriminator"])
            critic_state = model_state["discriminator"]
            real, critic_state = judge(critic, critic_state, target)
            fake, critic_state = judge(critic, critic_state, jax.lax.stop_gradient(painting))
            fooled, _ = judge(held, critic_state, painting)
            of_critic = jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))
            of_painter = jnp.mean(jax.nn.softplus(-fooled))
            value = value + w * of_painter + of_critic / 2
            state["discriminator"] = critic_state
            metrics |= {
                "critic_loss": of_critic / 2,
                "critic_accuracy": (jnp.mean(real > 0) + jnp.mean(fake < 0)) / 2,
                "painter_loss": of_painter,
            }
            metrics["loss_at_chance"] = (1 - w) * chance + (1 + w) * jnp.log(2.0)
        else:
            metrics["loss_at_chance"] = chance
        features = jax.lax.stop_gradient(features)[:, None]
        return value, LossOutput(state, extra, jax.lax.stop_gradient(metrics), features)

    def show(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array
    ) -> dict[str, Array]:
        batch = dug_views(rng, batch)
        _, painting, _ = paint(params, model_state, batch, False)
        whole = painting
        if hole != "region":
            height, width = batch["image"].shape[1:3]
            side = painting.shape[1]
            rest = [(height - side) // 2, (width - side) // 2]
            padding = [(0, 0), *((r, n - side - r) for r, n in zip(rest, (height, width))), (0, 0)]
            whole = jnp.pad(painting, padding)
        filled = jnp.where(batch["weight"] > 0, jnp.clip(whole, 0.0, 1.0), batch["image"])
        return {"image": batch["target"], "hole": batch["image"], "filled": filled}

    return common.method_of_encoder(
        encoder,
        views=dug_views,
        evaluation_view=evaluation_view,
        init=init,
        loss=loss,
        show=show,
    )


def _deepest(encoding: PyTree) -> Array:
    """The last stage's map: where things are matters to a painter."""
    return list(encoding.stages.values())[-1]


def build(config: ConfigDict, steps: int) -> Method:
    """Inpainting as the sections `model`, `augment` and `inpainting` of a config say."""
    knobs, dtype = dict(config.inpainting), jnp.dtype(config.model.dtype)
    if knobs["hole"] not in HOLES:
        raise UserError(f'config.inpainting.hole is "{knobs["hole"]}"; choose one of {HOLES}.')
    decoder = models.from_linen(models.ContextDecoder(**knobs.pop("decoder"), dtype=dtype))
    critic = models.from_linen(models.Discriminator(**knobs.pop("discriminator"), dtype=dtype))
    return inpainting(
        models.build_encoder(config.model),
        decoder,
        critic if knobs["adversarial_weight"] > 0 else None,
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
        fill=tuple(config.model.mean) or (0.5,),
        **knobs,
    )
