"""SimMIM: a transformer sees an image with masked blocks and predicts their pixels by a linear map.

Xie et al., SimMIM: A Simple Framework for Masked Image Modeling, CVPR 2022.
"""

from collections.abc import Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, losses, models
from sslax.methods.common import Augmentation, knobs_of
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.models.linen import normalize
from sslax.ranges import Interval, PositiveInt
from sslax.types import Array, Batch, LossOutput, Method, Model, Pictures, Variables


def simmim(
    encoder: Model,
    head: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    patch: int = 16,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    drops_paths: bool = False,
    mask_unit: PositiveInt = 32,
    mask_ratio: Annotated[float, Interval(0, 1, open_low=True, open_high=True)] = 0.6,
) -> Method:
    """SimMIM, with a vision transformer.

    `loss = mean over masked pixels of |head(encoder(masked image)) - (image - mean) / std|`

    All images have equally many masked pixels, so that the mean over each is that over all.

    Args:
        encoder: a vision transformer with a mask token, of {'image', 'masked'} to an `Encoding`
            with 'tokens'.
        head: of {'tokens', 'like'} to all patches' pixels `[N, T, P]`; `models.PixelHead`.
        augmentation: adds 'views' `[B, 1, H, W, C]`.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        patch: side of the patches in pixels.
        mean: of the channels, which the targets are normalized by, as the encoder's input is.
        std: of the channels, likewise.
        drops_paths: the encoder is given random keys, for its drop path.
        mask_unit: side in pixels of the squares that are masked as a whole, a multiple of `patch`.
        mask_ratio: share of them that is masked, rounded up.

    Raises:
        UserError: from the augmentation, if a view does not divide into squares of `mask_unit`, or
            these into patches.
    """
    network = Network({"encoder": encoder, "head": head})

    def mask(key: Array, view: Array) -> Batch:
        sides = view.shape[:2]
        if mask_unit % patch or any(side % mask_unit for side in sides):
            raise ValueError(
                f"{sides[0]} x {sides[1]} pixels do not divide into squares of config.simmim."
                f"mask_unit = {mask_unit}, or these into patches of {patch}"
            )
        grid, unit = [side // patch for side in sides], mask_unit // patch
        masked = augment.random_unit_masking(key, (grid[0], grid[1]), unit=unit, ratio=mask_ratio)
        return {"input": view, "masked": masked}

    masking = common.pretext_task(augmentation, mask)

    def forward(net: Parts, batch: Batch) -> tuple[Array, Array]:
        """Features, and the predicted pixels `[B, T, P]` of all patches."""
        x = {"image": batch["input"], **{k: batch[k] for k in ("masked", "key") if k in batch}}
        encoding = net.encoder(x)
        tokens = encoding.stages["tokens"]
        return encoding.features, net.head({"tokens": tokens, "like": batch["input"]})

    def init(rng: Array, batch: Batch) -> Variables:
        return network.init(forward, rng, common.with_keys(rng, batch, drops_paths))

    def loss(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        batch = common.with_keys(rng, batch, drops_paths)
        outputs, variables = network.apply(forward, variables, batch, train=True)
        features, pixels = outputs
        targets = models.patchify(normalize(batch["input"], mean, std), patch)

        def error(predictions: Array) -> Array:
            per_image = losses.masked_reconstruction(
                predictions, targets, batch["masked"], penalty=jnp.abs
            )
            return jnp.mean(per_image)

        metrics = {
            "loss_at_chance": error(jnp.zeros_like(targets)),  # of the mean color of the data
            **common.embedding_metrics(features),
        }
        metrics, features = jax.lax.stop_gradient((metrics, features[:, None]))
        output = LossOutput(variables.model_state, variables.extra, metrics, features)
        return error(pixels), output

    def visualize(variables: Variables, batch: Batch, rng: Array) -> Pictures:
        batch = masking(rng, batch)
        images, masked = batch["input"], batch["masked"][..., None]
        (_, pixels), _ = network.apply(forward, variables, batch)
        patches, size = models.patchify(images, patch), images.shape[1:3]
        predicted = models.unpatchify(pixels, patch, size) * jnp.array(std) + jnp.array(mean)
        predicted = models.patchify(jnp.clip(predicted, 0.0, 1.0), patch)
        return {
            "image": images,
            "visible patches": models.unpatchify(jnp.where(masked, 0.5, patches), patch, size),
            "prediction": models.unpatchify(jnp.where(masked, predicted, patches), patch, size),
        }

    return common.encoder_method(
        network,
        augmentation=masking,
        evaluation_view=evaluation_view,
        init=init,
        loss=loss,
        mean_over_examples=True,
        visualize=visualize,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """SimMIM from the sections `model`, `augment` and `simmim` of a config."""
    section, knobs = config.model, knobs_of(config, simmim)
    encoder = models.build_encoder(section)  # which checks the section
    colors = {"mean": tuple(section.mean), "std": tuple(section.std)} if section.mean else {}
    head = models.PixelHead(patch=section.patch, dtype=jnp.dtype(section.dtype))
    return simmim(
        encoder,
        models.from_linen(head),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        patch=section.patch,
        **colors,
        drops_paths=bool(section.drop_path),
        **knobs,
    )
