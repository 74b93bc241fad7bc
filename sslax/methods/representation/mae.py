"""MAE: a transformer sees a quarter of an image's patches and reconstructs the others.

He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, losses, models
from sslax.methods.common import Augmentation, knobs_of
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.ranges import Interval
from sslax.types import Array, Batch, LossOutput, Method, Model, Pictures, Variables


def mae(
    encoder: Model,
    decoder: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    patch: int = 16,
    mask_ratio: Annotated[float, Interval(0, 1, open_low=True, open_high=True)] = 0.75,
    normalize: bool = True,
) -> Method:
    """The masked autoencoder.

    Args:
        encoder: a vision transformer, of {'image', 'keep'} to an `Encoding` with 'tokens'.
        decoder: of {'tokens', 'keep', 'like'} to all patches' pixels `[N, T, P]`.
        augmentation: adds 'views' `[B, 1, H, W, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        patch: side of the patches in pixels.
        mask_ratio: share of the patches that is hidden.
        normalize: the targets are patches of mean 0 and standard deviation 1 rather than pixels.
    """
    network = Network({"encoder": encoder, "decoder": decoder})

    def hide(key: Array, view: Array) -> Batch:
        tokens = (view.shape[0] // patch) * (view.shape[1] // patch)
        keep, hidden = augment.random_masking(key, tokens, ratio=mask_ratio)
        return {"input": view, "keep": keep, "hidden": hidden}

    masked = common.pretext_task(augmentation, hide)

    def forward(net: Parts, batch: Batch) -> tuple[Array, Array]:
        """Features, and the predicted pixels `[B, T, P]` of all patches."""
        encoding = net.encoder({"image": batch["input"], "keep": batch["keep"]})
        tokens = encoding.stages["tokens"]
        pixels = net.decoder({"tokens": tokens, "keep": batch["keep"], "like": batch["input"]})
        return encoding.features, pixels

    def init(rng: Array, batch: Batch) -> Variables:
        return network.init(forward, rng, batch)

    def loss(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        outputs, variables = network.apply(forward, variables, batch, train=True)
        features, pixels = outputs
        targets = models.patchify(batch["input"], patch)
        per_image = losses.masked_reconstruction(
            pixels, targets, batch["hidden"], normalize=normalize
        )
        metrics = {
            # The score of the targets' mean is their variance.
            "loss_at_chance": _variance(targets, batch["hidden"], normalize),
            **common.embedding_metrics(features),
        }
        features = jax.lax.stop_gradient(features)[:, None]
        output = LossOutput(variables.model_state, variables.extra, metrics, features)
        return jnp.mean(per_image), output

    def visualize(variables: Variables, batch: Batch, rng: Array) -> Pictures:
        batch = masked(rng, batch)
        images, hidden = batch["input"], batch["hidden"][..., None] > 0
        (_, pixels), _ = network.apply(forward, variables, batch)
        patches = models.patchify(images, patch)
        if normalize:  # the network does not predict a patch's brightness: the truth lends it
            mean, std = _moments(patches)
            pixels = pixels * std + mean

        def image(patches: Array) -> Array:
            return jnp.clip(models.unpatchify(patches, patch, images.shape[1:3]), 0.0, 1.0)

        return {
            "image": images,
            "visible patches": image(jnp.where(hidden, 0.5, patches)),
            "reconstruction": image(jnp.where(hidden, pixels, patches)),
        }

    return common.encoder_method(
        network,
        augmentation=masked,
        evaluation_view=evaluation_view,
        init=init,
        loss=loss,
        mean_over_examples=True,
        visualize=visualize,
    )


def _moments(patches: Array) -> tuple[Array, Array]:
    mean = jnp.mean(patches, axis=-1, keepdims=True)
    return mean, jnp.sqrt(jnp.var(patches, axis=-1, ddof=1, keepdims=True) + 1e-6)


def _variance(targets: Array, hidden: Array, normalize: bool) -> Array:
    """The error of predicting, for each hidden patch, its mean; for pixels, the mean of all."""
    if normalize:
        mean, std = _moments(targets)
        targets, center = (targets - mean) / std, 0.0
    else:
        center = jnp.mean(targets)
    constant = jnp.full_like(targets, center)
    return jnp.mean(losses.masked_reconstruction(constant, targets, hidden))


def build(config: ConfigDict, steps: int) -> Method:
    """MAE from the sections `model`, `augment` and `mae` of a config."""
    knobs, patch = knobs_of(config, mae, decoder=models.MAEDecoder), config.model.patch
    common.check_transformer("config.mae.decoder", knobs["decoder"])
    dtype = jnp.dtype(config.model.dtype)
    decoder = models.MAEDecoder(
        patch=patch, **knobs.pop("decoder"), remat=config.model.remat, dtype=dtype
    )
    return mae(
        models.build_encoder(config.model),
        models.from_linen(decoder),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        patch=patch,
        **knobs,
    )
