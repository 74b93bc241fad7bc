"""Context prediction: on which of eight sides of the first patch did the second one lie?

Doersch, Gupta and Efros, Unsupervised Visual Representation Learning by Context Prediction, ICCV
2015.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, models
from sslax.errors import UserError
from sslax.methods import common
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables


def context_prediction(
    encoder: Model,
    classifier: Model,
    *,
    views: common.Views,
    evaluation_view: common.EvaluationView,
    pairs: int = 4,
    patch: int = 96,
    gap: int = 48,
    jitter: int = 7,
    colors: str = "drop",
    down_up: float = 0.33,
    smallest: int = 100,
) -> Method:
    """Context prediction, with the paper's measures against shortcuts.

    The gap and the jitter keep lines and textures from running on into the neighbor, `colors`
    hides the chromatic aberration of lenses (see `absolute_location`), the loss of resolution and
    the standardization hide the rest of what a patch's pixels tell of their neighbors.

    Args:
        encoder: patches to an `Encoding`; the same for both.
        classifier: features `[N, 2, D]` of both patches to 8 logits.
        views: `(rng, batch) -> batch` with images `[B, 1, H, W, C]`, which patches are cut from.
        evaluation_view: for `predict`, from images `[B, H, W, C]` to images that are
            standardized as the patches are.
        pairs: of patches, from each image.
        patch: side of a patch in pixels.
        gap: pixels between the patches.
        jitter: pixels by which the second patch may lie off, each way.
        colors: "drop", "project" or "keep"; see `hide_colors`.
        down_up: share of the patches that lose resolution.
        smallest: pixels in all that such a patch keeps at least.
    """
    network = common.chain(encoder=encoder, classifier=common.on_groups(classifier, 2))

    def cut(key: Array, image: Array) -> Batch:
        def pair(key: Array) -> tuple[Array, Array]:
            place_key, look_key = jax.random.split(key)
            both, direction = augment.patch_pair(
                place_key, image, patch=patch, gap=gap, jitter=jitter
            )
            keys = jax.random.split(look_key, 2)
            return jax.vmap(obscure)(keys, both), direction

        patches, directions = jax.vmap(pair)(jax.random.split(key, pairs))
        return {"image": patches.reshape(-1, *patches.shape[2:]), "direction": directions}

    def obscure(key: Array, patch: Array) -> Array:
        resolution_key, color_key = jax.random.split(key)
        patch = augment.random_downsample(
            resolution_key, patch, probability=down_up, min_pixels=smallest
        )
        # Standardized first: the noise in a dropped channel must stay weak.
        return hide_colors(color_key, augment.standardize(patch), colors)

    cut_views = common.with_task(views, cut)

    def init(rng: Array, batch: Batch) -> Variables:
        return Variables(*network.init(rng, common.merge_views(batch["image"])), extra={})

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        patches = common.merge_views(batch["image"])
        (encoding, logits), model_state = network.apply(params, model_state, patches, True)
        value, metrics = common.classification(logits, batch["direction"].ravel())
        features = common.mean_of_tiles(encoding.features, 2 * pairs)
        return value, LossOutput(model_state, extra, metrics, features)

    def show(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array
    ) -> dict[str, Array]:
        batch = cut_views(rng, batch)
        patches = batch["image"][:, :2]
        (_, logits), _ = network.apply(params, model_state, common.merge_views(patches), False)
        patches = common.displayed(patches)
        place = jax.vmap(lambda both, direction: _placed(both, direction, gap))
        return {
            "first": patches[:, 0],
            "second": patches[:, 1],
            "put by the network": place(patches, jnp.argmax(logits, axis=-1)),
            "as it was": place(patches, batch["direction"][:, 0]),
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


def hide_colors(key: Array, patch: Array, how: str) -> Array:
    """A patch `[p, p, C]` without what chromatic aberration does to its colors.

    "drop" keeps one channel and puts noise in the others, "project" takes the green-magenta axis
    out, "keep" does nothing, and so do all for gray patches.
    """
    if patch.shape[-1] == 1 or how == "keep":
        return patch
    return augment.drop_colors(key, patch) if how == "drop" else augment.project_colors(patch)


def _placed(patches: Array, direction: Array, gap: int) -> Array:
    """The first of two patches `[2, p, p, C]` in the middle, the second on one of eight sides."""
    side = patches.shape[1]
    cell = jnp.where(direction < 4, direction, direction + 1)  # of nine, without the middle
    canvas = jnp.ones((3 * side + 2 * gap,) * 2 + patches.shape[3:])
    canvas = jax.lax.dynamic_update_slice(canvas, patches[0], (side + gap, side + gap, 0))
    corner = (cell // 3 * (side + gap), cell % 3 * (side + gap), 0)
    return jax.lax.dynamic_update_slice(canvas, patches[1], corner)


def build(config: ConfigDict, steps: int) -> Method:
    """Context prediction as `model`, `augment` and `context_prediction` of a config say."""
    knobs = dict(config.context_prediction)
    check_colors(knobs["colors"])
    return context_prediction(
        models.build_encoder(config.model),
        models.from_linen(models.TileClassifier(classes=8, **knobs.pop("classifier"))),
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
        **knobs,
    )


def check_colors(colors: str) -> None:
    """Refuses what `hide_colors` does not know."""
    if colors not in ("drop", "project", "keep"):
        raise UserError(f'colors is "{colors}"; choose "drop", "project" or "keep".')
