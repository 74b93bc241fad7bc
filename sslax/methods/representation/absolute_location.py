"""Absolute location: where in the image was a patch cut out? A diagnostic, not for training.

Nothing in a photograph's content says where in the image a patch was; a network that knows reads
it off the lens: chromatic aberration shifts the colors against each other, more so farther from
the center. Doersch, Gupta and Efros, Unsupervised Visual Representation Learning by Context
Prediction, ICCV 2015, section 4.
"""

import jax
from ml_collections import ConfigDict

from sslax import augment, models
from sslax.errors import check_choice
from sslax.methods.common import Augmentation, knobs_of, merge_views
from sslax.methods.representation import common
from sslax.methods.representation.context_prediction import COLORS, hide_colors
from sslax.models.compose import Network, Parts
from sslax.ranges import PositiveInt
from sslax.types import Array, Batch, LossOutput, Method, Model, Pictures, Variables


def absolute_location(
    encoder: Model,
    classifier: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    bins: PositiveInt = 3,
    patches: PositiveInt = 4,
    patch: PositiveInt = 32,
    colors: str = "keep",
) -> Method:
    """Location of patches as a classification into the cells of a grid.

    Args:
        encoder: patches to an `Encoding`.
        classifier: features to `bins`² logits.
        augmentation: adds 'views' `[B, 1, H, W, C]`, which patches are cut from; flips and crops
            would hide the answer.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        bins: cells along each side of the grid; chance is 1 / bins².
        patches: from each image.
        patch: side of a patch in pixels.
        colors: "keep", "drop" or "project"; see `context_prediction.hide_colors`.
    """
    network = Network({"encoder": encoder, "classifier": classifier})

    def cut(key: Array, view: Array) -> Batch:
        def one(key: Array) -> tuple[Array, Array]:
            position_key, color_key = jax.random.split(key)
            pixels, position = augment.random_patch(position_key, view, patch=patch)
            pixels = hide_colors(color_key, augment.standardize(pixels), colors)
            return pixels, augment.location_class(position, bins)

        pixels, cells = jax.vmap(one)(jax.random.split(key, patches))
        return {"input": pixels, "cell": cells}

    posed = common.pretext_task(augmentation, cut)

    def forward(net: Parts, images: Array) -> tuple[Array, Array]:
        features = net.encoder(images).features
        return features, net.classifier(features)

    def init(rng: Array, batch: Batch) -> Variables:
        return network.init(forward, rng, merge_views(batch["input"]))

    def loss(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        images = merge_views(batch["input"])
        (features, logits), variables = network.apply(forward, variables, images, train=True)
        value, metrics = common.classification(logits, batch["cell"].ravel())
        features = common.mean_over_tiles(features, patches)
        return value, LossOutput(variables.model_state, variables.extra, metrics, features)

    def visualize(variables: Variables, batch: Batch, rng: Array) -> Pictures:
        batch = posed(rng, batch)
        images, cells = batch["input"][:, 0], batch["cell"][:, 0]
        (_, logits), _ = network.apply(forward, variables, images)

        def grid(cells: Array) -> Array:
            return cells.reshape(-1, bins, bins, 1)

        return {
            "image": augment.to_float(batch["image"]),
            "patch": common.displayable(images),
            "predicted cell": grid(jax.nn.softmax(logits)),
            "true cell": grid(jax.nn.one_hot(cells, bins**2)),
        }

    return common.encoder_method(
        network,
        augmentation=posed,
        evaluation_view=evaluation_view,
        init=init,
        loss=loss,
        mean_over_examples=True,
        visualize=visualize,
        preprocess=models.standardized,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """Absolute location from `model`, `augment` and `absolute_location` of a config."""
    knobs = knobs_of(config, absolute_location)
    check_choice("config.absolute_location.colors", knobs["colors"], COLORS)
    return absolute_location(
        models.build_encoder(config.model),
        models.from_linen(models.Classifier(knobs["bins"] ** 2)),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        **knobs,
    )
