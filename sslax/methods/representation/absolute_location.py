"""Absolute location: where in the image was a patch cut out? A diagnosis, not a way to learn.

Nothing in a photograph's content says where in the image a patch was; a network that knows reads
it off the lens: chromatic aberration shifts the colors against each other, the more the farther
from the middle. Doersch, Gupta and Efros, Unsupervised Visual Representation Learning by Context
Prediction, ICCV 2015, section 4.
"""

import jax
from ml_collections import ConfigDict

from sslax import augment, models
from sslax.methods import common
from sslax.methods.representation.context_prediction import check_colors, hide_colors
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables


def absolute_location(
    encoder: Model,
    classifier: Model,
    *,
    views: common.Views,
    evaluation_view: common.EvaluationView,
    bins: int = 3,
    patches: int = 4,
    patch: int = 96,
    colors: str = "keep",
) -> Method:
    """Location of patches as a classification into the cells of a grid.

    Args:
        encoder: patches to an `Encoding`.
        classifier: features to `bins`² logits.
        views: `(rng, batch) -> batch` with images `[B, 1, H, W, C]`, which patches are cut from.
            Flips and crops would hide what is asked for.
        evaluation_view: for `predict`, from images `[B, H, W, C]` to the encoder's input.
        bins: cells along each side of the grid; chance is 1 / bins².
        patches: from each image.
        patch: side of a patch in pixels.
        colors: "keep", "drop" or "project"; see `context_prediction.hide_colors`.
    """
    network = common.chain(encoder=encoder, classifier=classifier)

    def cut(key: Array, image: Array) -> Batch:
        def one(key: Array) -> tuple[Array, Array]:
            place_key, color_key = jax.random.split(key)
            found, position = augment.random_patch(place_key, image, patch=patch)
            found = hide_colors(color_key, augment.standardize(found), colors)
            return found, augment.location_class(position, bins)

        found, cells = jax.vmap(one)(jax.random.split(key, patches))
        return {"image": found, "cell": cells}

    cut_views = common.with_task(views, cut)

    def init(rng: Array, batch: Batch) -> Variables:
        return Variables(*network.init(rng, common.merge_views(batch["image"])), extra={})

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        images = common.merge_views(batch["image"])
        (encoding, logits), model_state = network.apply(params, model_state, images, True)
        value, metrics = common.classification(logits, batch["cell"].ravel())
        features = common.mean_of_tiles(encoding.features, patches)
        return value, LossOutput(model_state, extra, metrics, features)

    def show(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array
    ) -> dict[str, Array]:
        whole, batch = batch["image"], cut_views(rng, batch)
        images, cells = batch["image"][:, :1], batch["cell"][:, 0]
        (_, logits), _ = network.apply(params, model_state, common.merge_views(images), False)

        def grid(cells: Array) -> Array:
            return cells.reshape(-1, bins, bins, 1)

        return {
            "image": augment.to_float(whole),
            "patch": common.displayed(images[:, 0]),
            "guessed place": grid(jax.nn.softmax(logits)),
            "true place": grid(jax.nn.one_hot(cells, bins**2)),
        }

    return common.method_of_encoder(
        encoder,
        views=cut_views,
        evaluation_view=evaluation_view,
        init=init,
        loss=loss,
        show=show,
        prepare=common.standardized,
    )


def build(config: ConfigDict, steps: int) -> Method:
    """Absolute location as `model`, `augment` and `absolute_location` of a config say."""
    section = config.absolute_location
    check_colors(section.colors)
    return absolute_location(
        models.build_encoder(config.model),
        models.from_linen(models.Classifier(section.bins**2)),
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
        **section,
    )
