"""MAE: a transformer sees a quarter of an image's patches and reconstructs the others.

He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, losses, models
from sslax.methods import common
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables


def mae(
    encoder: Model,
    decoder: Model,
    *,
    views: common.Views,
    evaluation_view: common.EvaluationView,
    patch: int = 16,
    mask_ratio: float = 0.75,
    normalize: bool = True,
) -> Method:
    """The masked autoencoder.

    Args:
        encoder: a vision transformer, of {'image', 'keep'} to an `Encoding` with 'tokens'.
        decoder: of {'tokens', 'keep', 'like'} to all patches' pixels `[N, T, P]`.
        views: `(rng, batch) -> batch` with images `[B, 1, H, W, C]`.
        evaluation_view: for `predict`, from images `[B, H, W, C]` to the encoder's input.
        patch: side of the patches in pixels.
        mask_ratio: share of the patches that is hidden.
        normalize: the targets are patches of mean 0 and deviation 1 rather than pixels.
    """

    def hide(key: Array, image: Array) -> Batch:
        tokens = (image.shape[0] // patch) * (image.shape[1] // patch)
        keep, mask = augment.random_masking(key, tokens, ratio=mask_ratio)
        return {"image": image, "keep": keep, "mask": mask}

    masked_views = common.with_task(views, hide)

    def inputs(batch: Batch) -> dict[str, Array]:
        return {"image": batch["image"], "keep": batch["keep"]}

    def decoder_inputs(tokens: Array, batch: Batch) -> dict[str, Array]:
        return {"tokens": tokens, "keep": batch["keep"], "like": batch["image"]}

    def init(rng: Array, batch: Batch) -> Variables:
        encoder_rng, decoder_rng = jax.random.split(rng)
        of_encoder = encoder.init(encoder_rng, inputs(batch))
        encoding, _ = encoder.apply(*of_encoder, inputs(batch), False)
        of_decoder = decoder.init(decoder_rng, decoder_inputs(encoding.stages["tokens"], batch))
        params, model_state = (
            {"encoder": first, "decoder": second} for first, second in zip(of_encoder, of_decoder)
        )
        return Variables(params, model_state, extra={})

    def reconstruct(
        params: PyTree, model_state: PyTree, batch: Batch, train: bool
    ) -> tuple[Array, Array, PyTree]:
        """Features, the patches' predicted pixels `[B, T, P]`, and the model state."""
        state = {}
        encoding, state["encoder"] = encoder.apply(
            params["encoder"], model_state["encoder"], inputs(batch), train
        )
        pixels, state["decoder"] = decoder.apply(
            params["decoder"],
            model_state["decoder"],
            decoder_inputs(encoding.stages["tokens"], batch),
            train,
        )
        return encoding.features, pixels, state

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        features, pixels, state = reconstruct(params, model_state, batch, True)
        targets = models.patchify(batch["image"], patch)
        per_image = losses.masked_reconstruction(
            pixels, targets, batch["mask"], normalize=normalize
        )
        metrics = {
            # What the mean of the targets would score: their variance.
            "loss_at_chance": _variance(targets, batch["mask"], normalize),
            **common.embedding_metrics(features),
        }
        features = jax.lax.stop_gradient(features)[:, None]
        return jnp.mean(per_image), LossOutput(state, extra, metrics, features)

    def show(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array
    ) -> dict[str, Array]:
        batch = masked_views(rng, batch)
        images, mask = batch["image"], batch["mask"][..., None] > 0
        _, pixels, _ = reconstruct(params, model_state, batch, False)
        patches = models.patchify(images, patch)
        if normalize:  # the network does not say how bright a patch is: that is lent by the truth
            mean, std = _moments(patches)
            pixels = pixels * std + mean

        def image(patches: Array) -> Array:
            return jnp.clip(models.unpatchify(patches, patch, images.shape[1:3]), 0.0, 1.0)

        return {
            "image": images,
            "seen": image(jnp.where(mask, 0.5, patches)),
            "reconstructed": image(jnp.where(mask, pixels, patches)),
        }

    return common.method_of_encoder(
        encoder,
        views=masked_views,
        evaluation_view=evaluation_view,
        init=init,
        loss=loss,
        show=show,
    )


def _moments(patches: Array) -> tuple[Array, Array]:
    mean = jnp.mean(patches, axis=-1, keepdims=True)
    return mean, jnp.sqrt(jnp.var(patches, axis=-1, ddof=1, keepdims=True) + 1e-6)


def _variance(targets: Array, mask: Array, normalize: bool) -> Array:
    """The error of predicting, for each hidden patch, its mean; for pixels, the mean of all."""
    if normalize:
        mean, std = _moments(targets)
        targets, center = (targets - mean) / std, 0.0
    else:
        center = jnp.mean(targets)
    return jnp.mean(losses.masked_reconstruction(jnp.full_like(targets, center), targets, mask))


def build(config: ConfigDict, steps: int) -> Method:
    """MAE as the sections `model`, `augment` and `mae` of a config say."""
    section, patch = config.mae, config.model.patch
    decoder = models.MAEDecoder(patch=patch, **section.decoder, dtype=jnp.dtype(config.model.dtype))
    return mae(
        models.build_encoder(config.model),
        models.from_linen(decoder),
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
        patch=patch,
        mask_ratio=section.mask_ratio,
        normalize=section.normalize,
    )
