"""Context prediction: on which of eight sides of the first patch did the second one lie?

Doersch, Gupta and Efros, Unsupervised Visual Representation Learning by Context Prediction, ICCV
2015.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, models
from sslax.errors import UserError, check_choice
from sslax.methods.common import Augmentation, knobs_of, merge_views, split_views
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.ranges import Fraction, NonNegativeInt, PositiveInt
from sslax.types import Array, Batch, LossOutput, Method, Model, Pictures, Variables

COLORS = ("drop", "project", "keep")


def context_prediction(
    encoder: Model,
    classifier: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    pairs: PositiveInt = 4,
    patch: PositiveInt = 96,
    gap: NonNegativeInt = 48,
    jitter: NonNegativeInt = 7,
    colors: str = "drop",
    down_up: Fraction = 0.33,
    smallest: PositiveInt = 100,
) -> Method:
    """Context prediction, with the paper's countermeasures against shortcuts.

    The gap and the jitter keep lines and textures from running on into the neighbor, `colors`
    hides the chromatic aberration of lenses (see `absolute_location`), the loss of resolution and
    the standardization hide what else a patch's pixels tell of their neighbors.

    Args:
        encoder: patches to an `Encoding`; the same for both.
        classifier: features `[N, 2, D]` of both patches to 8 logits.
        augmentation: adds 'views' `[B, 1, H, W, C]`, which patches are cut from.
        evaluation_view: from images `[B, H, W, C]` to images that are standardized as the patches
            are.
        pairs: of patches, from each image.
        patch: side of a patch in pixels.
        gap: pixels between the patches.
        jitter: pixels by which the second patch may lie off, each way.
        colors: "drop", "project" or "keep"; see `hide_colors`.
        down_up: share of the patches that lose resolution.
        smallest: pixels in all that such a patch keeps at least.
    """
    network = Network({"encoder": encoder, "classifier": classifier})

    def cut(key: Array, view: Array) -> Batch:
        def pair(key: Array) -> tuple[Array, Array]:
            position_key, look_key = jax.random.split(key)
            both, direction = augment.patch_pair(
                position_key, view, patch=patch, gap=gap, jitter=jitter
            )
            keys = jax.random.split(look_key, 2)
            return jax.vmap(obscure)(keys, both), direction

        patches, directions = jax.vmap(pair)(jax.random.split(key, pairs))
        return {"input": patches.reshape(-1, *patches.shape[2:]), "direction": directions}

    def obscure(key: Array, patch: Array) -> Array:
        resolution_key, color_key = jax.random.split(key)
        patch = augment.random_downsample(
            resolution_key, patch, probability=down_up, min_pixels=smallest
        )
        # Standardized first: the noise in a dropped channel must stay weak.
        return hide_colors(color_key, augment.standardize(patch), colors)

    posed = common.pretext_task(augmentation, cut)

    def forward(net: Parts, patches: Array) -> tuple[Array, Array]:
        features = net.encoder(merge_views(patches)).features
        return features, net.classifier(split_views(features, 2))

    def init(rng: Array, batch: Batch) -> Variables:
        return network.init(forward, rng, batch["input"])

    def loss(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        outputs, variables = network.apply(forward, variables, batch["input"], train=True)
        features, logits = outputs
        value, metrics = common.classification(logits, batch["direction"].ravel())
        features = common.mean_over_tiles(features, 2 * pairs)
        return value, LossOutput(variables.model_state, variables.extra, metrics, features)

    def visualize(variables: Variables, batch: Batch, rng: Array) -> Pictures:
        batch = posed(rng, batch)
        patches = batch["input"][:, :2]
        (_, logits), _ = network.apply(forward, variables, patches)
        patches = common.displayable(patches)
        arrange = jax.vmap(lambda both, direction: _arranged(both, direction, gap))
        return {
            "first": patches[:, 0],
            "second": patches[:, 1],
            "network's answer": arrange(patches, jnp.argmax(logits, axis=-1)),
            "answer": arrange(patches, batch["direction"][:, 0]),
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


def hide_colors(key: Array, patch: Array, how: str) -> Array:
    """A patch `[p, p, C]` without the traces of chromatic aberration in its colors.

    "drop" keeps one channel and puts noise in the others, "project" takes the green-magenta axis
    out, "keep" does nothing; gray patches stay as they are.
    """
    if patch.shape[-1] == 1 or how == "keep":
        return patch
    return augment.drop_colors(key, patch) if how == "drop" else augment.project_colors(patch)


def _arranged(patches: Array, direction: Array, gap: int) -> Array:
    """The first of two patches `[2, p, p, C]` in the middle, the second on one of eight sides."""
    side = patches.shape[1]
    cell = jnp.where(direction < 4, direction, direction + 1)  # of nine, without the middle
    canvas = jnp.ones((3 * side + 2 * gap,) * 2 + patches.shape[3:])
    canvas = jax.lax.dynamic_update_slice(canvas, patches[0], (side + gap, side + gap, 0))
    corner = (cell // 3 * (side + gap), cell % 3 * (side + gap), 0)
    return jax.lax.dynamic_update_slice(canvas, patches[1], corner)


def build(config: ConfigDict, steps: int) -> Method:
    """Context prediction from `model`, `augment` and `context_prediction` of a config."""
    knobs = knobs_of(config, context_prediction, classifier=models.TileClassifier)
    check_choice("config.context_prediction.colors", knobs["colors"], COLORS)
    if knobs["smallest"] > knobs["patch"] ** 2:
        raise UserError(
            f"config.context_prediction.smallest = {knobs['smallest']} is more than a patch has, "
            f"{knobs['patch']} x {knobs['patch']} pixels: lower it."
        )
    return context_prediction(
        models.build_encoder(config.model),
        models.from_linen(models.TileClassifier(classes=8, **knobs.pop("classifier"))),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        **knobs,
    )
