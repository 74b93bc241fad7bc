"""data2vec 2.0: from a few patches, predict what a slow copy makes of all patches in many layers.

Baevski et al., Efficient Self-supervised Learning with Contextualized Target Representations for
Vision, Speech and Language, ICML 2023.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, losses, models
from sslax.errors import UserError
from sslax.methods import schedules
from sslax.methods.common import Augmentation, at_step, knobs_of, merge_views, split_views
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.ranges import Fraction, Interval, NonNegative, PositiveInt
from sslax.types import (
    Array,
    Batch,
    LossOutput,
    Method,
    Model,
    Pictures,
    PyTree,
    Schedule,
    Variables,
)


def data2vec2(
    encoder: Model,
    decoder: Model,
    teacher: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    patch: int = 16,
    masks: PositiveInt = 16,
    mask_ratio: Annotated[float, Interval(0, 1, open_low=True, open_high=True)] = 0.8,
    block: PositiveInt = 3,
    surplus: Fraction = 0.07,
    class_weight: NonNegative = 2.56,
    momentum: Fraction | Schedule = 0.9998,
) -> Method:
    """data2vec 2.0 of images; the trained encoder is exported, as in the authors' code.

    ```
    y = LN(mean over layers l of IN(mlp_l))                  of the teacher, for the whole image
    loss = mean over images, masks and masked patches t of |decoder(encoder(visible))_t - y_t|² / √D
         + class_weight * mean over images and masks of |class token - mean_t y_t|² / √D
    ```

    with IN the normalization of each channel over an image's patches and LN that of each patch over
    its D channels, both without parameters. The teacher sees an image once for all of its masks.

    Args:
        encoder: a vision transformer, of {'image', 'keep'} to an `Encoding` with 'tokens'.
        decoder: of {'tokens', 'keep', 'key', 'like'} to all patches' predictions `[N, T, D]`.
        teacher: the encoder, whose momentum copy it is applied to, with the outputs of the MLPs to
            be predicted as stages "mlp..." `[N, (1 +) T, D]`.
        augmentation: adds 'views' `[B, 1, H, W, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        patch: side of the patches in pixels.
        masks: of an image, in each step.
        mask_ratio: as in `augment.inverse_block_masking`, where it is `ratio`; likewise `block` and
            `surplus`.
        class_weight: of the class token's loss; 0 for none, and for an encoder without that token.
        momentum: of the teacher, or a schedule of it.
    """
    network = Network({"encoder": encoder, "decoder": decoder}, momentum={"encoder": teacher})

    def hide(key: Array, view: Array) -> Batch:
        grid = (view.shape[0] // patch, view.shape[1] // patch)

        def draw(key: Array) -> tuple[Array, Array]:
            return augment.inverse_block_masking(
                key, grid, ratio=mask_ratio, block=block, surplus=surplus
            )

        keep, hidden = jax.vmap(draw)(jax.random.split(key, masks))
        return {"input": view, "keep": keep, "hidden": hidden}

    masked = common.pretext_task(augmentation, hide)

    def forward(net: Parts, batch: Batch) -> tuple[Array, ...]:
        """Features `[B, M, D]` of the visible patches and `[B, D]` of the teacher, predictions
        `[B, M, T, D]` and targets `[B, T, D]`; and class tokens `[B, M, D]`, unless their loss has
        no weight."""
        images, keep = batch["input"], merge_views(batch["keep"])
        copies = jnp.broadcast_to(images[:, None], (len(images), masks, *images.shape[1:]))
        copies = merge_views(copies)
        keys = merge_views(jax.vmap(lambda key: jax.random.split(key, masks))(batch["key"]))
        encoding = net.encoder({"image": copies, "keep": keep})
        tokens = encoding.stages["tokens"]
        predicted = net.decoder({"tokens": tokens, "keep": keep, "key": keys, "like": copies})
        whole = net.momentum.encoder(images)
        wanted = jax.lax.stop_gradient(_targets(whole.stages, predicted.shape[1]))
        features, predicted = (split_views(x, masks) for x in (encoding.features, predicted))
        found = features, whole.features, predicted, wanted
        return (*found, split_views(tokens[:, 0], masks)) if class_weight else found

    def error(predicted: Array, wanted: Array, hidden: Array, *classes: Array) -> Array:
        """The loss, of predictions and class tokens as `forward` returns them."""
        root = wanted.shape[-1] ** 0.5
        shape = (*predicted.shape[:2], *wanted.shape[1:])
        targets = jnp.broadcast_to(wanted[:, None], shape)
        patches = (merge_views(x) for x in (predicted, targets, hidden))
        value = root * jnp.mean(losses.masked_reconstruction(*patches))
        for tokens in classes:
            distances = jnp.square(tokens - jnp.mean(wanted, axis=1)[:, None])
            value += class_weight * root * jnp.mean(distances)
        return value

    def init(rng: Array, batch: Batch) -> Variables:
        return network.init(forward, rng, common.with_keys(rng, batch))

    def loss(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        batch = common.with_keys(rng, batch)
        outputs, variables = network.apply(forward, variables, batch, train=True)
        features, whole, predicted, wanted, *classes = outputs
        hidden = batch["hidden"]
        nothing = (jnp.zeros_like(x) for x in classes)
        metrics = {
            "loss_at_chance": error(jnp.zeros_like(predicted), wanted, hidden, *nothing),
            "target_std": _deviation(wanted[:, None], hidden),
            "prediction_std": _deviation(predicted, hidden),
            # Of the teacher before its outputs are normalized, which would hide a collapse.
            **common.embedding_metrics(whole),
        }
        metrics, features = jax.lax.stop_gradient((metrics, features))
        output = LossOutput(variables.model_state, variables.extra, metrics, features)
        return error(predicted, wanted, hidden, *classes), output

    def update(variables: Variables, step: Array) -> PyTree:
        return network.move(variables, at_step(momentum, step))

    def visualize(variables: Variables, batch: Batch, rng: Array) -> Pictures:
        batch = common.with_keys(rng, masked(rng, batch))
        images, hidden = batch["input"], batch["hidden"][:, 0, :, None]
        (_, _, predicted, wanted, *_), _ = network.apply(forward, variables, batch)
        errors = jnp.mean(jnp.square(predicted[:, 0] - wanted), axis=-1, keepdims=True) * hidden
        patches, size = models.patchify(images, patch), images.shape[1:3]
        errors = jnp.broadcast_to(jnp.clip(errors, 0.0, 1.0), (*errors.shape[:2], patch**2))
        return {
            "image": images,
            "visible patches": models.unpatchify(jnp.where(hidden, 0.5, patches), patch, size),
            "error, black 0 to white 1": models.unpatchify(errors, patch, size),
        }

    return common.encoder_method(
        network,
        augmentation=masked,
        evaluation_view=evaluation_view,
        init=init,
        loss=loss,
        mean_over_examples=True,
        update=update,
        visualize=visualize,
    )


def _targets(stages: dict[str, Array], patches: int) -> Array:
    """`[N, T, D]`: the mean of the MLPs' outputs for the T patches, which are the last tokens."""
    found = [stage[:, -patches:] for name, stage in stages.items() if name.startswith("mlp")]
    alike = [jax.nn.standardize(layer, axis=1, epsilon=1e-5) for layer in found]
    return jax.nn.standardize(sum(alike) / len(alike), epsilon=1e-5)


def _deviation(vectors: Array, hidden: Array) -> Array:
    """Standard deviation over the masked patches of a batch, averaged over dimensions.

    Args:
        vectors: `[B, M, T, D]`, or `[B, 1, T, D]` where they are the same for all masks.
        hidden: `[B, M, T]`.
    """
    weight = hidden[..., None] / jnp.sum(hidden)
    mean = jnp.sum(weight * vectors, axis=(0, 1, 2))
    return jnp.mean(jnp.sqrt(jnp.sum(weight * jnp.square(vectors - mean), axis=(0, 1, 2)) + 1e-6))


def build(config: ConfigDict, steps: int) -> Method:
    """data2vec 2.0 from the sections `model`, `augment` and `data2vec2` of a config.

    The momentum rises linearly over the first `momentum_rise` of the run, and is constant then.
    """
    own = {"decoder": models.Data2VecDecoder, "layers": PositiveInt}
    own |= {"final_momentum": Fraction, "momentum_rise": Fraction}
    knobs, section = knobs_of(config, data2vec2, **own), config.model
    layers, depth = knobs.pop("layers"), getattr(models.encoder_module(section), "depth", 0)
    if layers > depth:
        raise UserError(
            f"config.data2vec2.layers = {layers} is more than the {depth} blocks of a vision "
            "transformer that config.model has."
        )
    if knobs["class_weight"] and not section.class_token:
        raise UserError(
            "config.model.class_token is False, but config.data2vec2.class_weight is "
            f"{knobs['class_weight']}: set it to 0.0."
        )
    first, final = knobs.pop("momentum"), knobs.pop("final_momentum")
    rise = knobs.pop("momentum_rise") * steps
    shared = {"patch": section.patch, "dtype": jnp.dtype(section.dtype)}
    return data2vec2(
        models.build_encoder(section),
        models.from_linen(models.Data2VecDecoder(**knobs.pop("decoder"), **shared)),
        models.build_encoder(section, mlp_stages=layers),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        patch=section.patch,
        momentum=schedules.linear(first, final, rise),
        **knobs,
    )
