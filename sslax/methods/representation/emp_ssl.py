"""EMP-SSL: many patches of an image agree with their mean, and those of all images fill the space.

Tong et al., EMP-SSL: Towards Self-Supervised Learning in One Training Epoch, 2023,
https://arxiv.org/abs/2304.03977.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sslax import augment, losses, models
from sslax.methods.common import Augmentation, knobs_of, merge_views, plain, split_views
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.ranges import NonNegative, Positive, PositiveInt
from sslax.types import Array, Batch, Features, LossOutput, Method, Model, Variables


def emp_ssl(
    encoder: Model,
    expander: Model,
    projector: Model,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    evaluation_patches: Callable[[Array], Array],
    invariance_weight: NonNegative = 200.0,
    epsilon: Positive = 0.2,
) -> Method:
    """EMP-SSL; `losses.emp_ssl` is its loss.

    All patches of all images go through the network as one batch `[B·V]`, whose statistics its
    batch norms have. A network that has seen patches alone is also used on patches: an image's
    features are the mean over some of them. The stage "hidden", the expander's output, is what the
    authors evaluate.

    Args:
        encoder: images to an `Encoding`.
        expander: features to a wider layer, which a ReLU follows.
        projector: that layer to the embedding that the loss compares.
        augmentation: adds 'views' `[B, V, H, W, C]`, the patches.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input, for a single view.
        evaluation_patches: from images `[B, H, W, C]` to patches `[B, P, h, w, C]`, without chance.
        invariance_weight: of the cosines of patches and their mean; the coding rate has weight 1.
        epsilon: the distortion of the coding rate.
    """
    network = Network({"encoder": encoder, "expander": expander, "projector": projector})

    def describe(net: Parts, images: Array) -> tuple[Array, dict[str, Array]]:
        encoding = net.encoder(images)
        hidden = jax.nn.relu(net.expander(encoding.features))
        return encoding.features, {**common.pool_stages(encoding.stages), "hidden": hidden}

    def forward(net: Parts, batch: Batch) -> tuple[Array, Array]:
        features, stages = describe(net, merge_views(batch["views"]))
        outputs = features, net.projector(stages["hidden"])
        features, embeddings = (split_views(x, batch["views"].shape[1]) for x in outputs)
        return features, embeddings

    def couple(
        outputs: tuple[Array, Array], variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        features, embeddings = outputs
        count, views, width = embeddings.shape
        knobs = {"invariance_weight": invariance_weight, "epsilon": epsilon}
        value = losses.emp_ssl(embeddings, **knobs)
        unit = losses.l2_normalize(embeddings)
        mean = losses.l2_normalize(jnp.mean(unit, axis=1, keepdims=True))
        similarity = jnp.mean(jnp.sum(unit * mean, axis=-1))
        chance = -_random_coding_rate(count, width, epsilon) - invariance_weight / views**0.5
        metrics = {
            "accuracy": common.contrastive_accuracy(embeddings[:, 0], embeddings[:, 1]),
            "similarity": similarity,
            "coding_rate": -value - invariance_weight * similarity,
            "loss_at_chance": jnp.float32(chance),
            **common.embedding_metrics(embeddings[:, 0]),
        }
        metrics, features = jax.lax.stop_gradient((metrics, features))
        return value, LossOutput(variables.model_state, variables.extra, metrics, features)

    def predict(variables: Variables, batch: Batch) -> Features:
        patches = evaluation_patches(batch["image"])
        bags, _ = network.apply(describe, variables, merge_views(patches))
        return Features(
            *jax.tree.map(lambda x: jnp.mean(split_views(x, patches.shape[1]), axis=1), bags)
        )

    method = common.encoder_method(
        network,
        augmentation=augmentation,
        evaluation_view=evaluation_view,
        init=partial(network.init, forward),
        embed=common.embedding(network, forward),
        couple=couple,
    )
    return method._replace(predict=predict)


def patch_grid(recipe: augment.ViewRecipe, side: int) -> Callable[[Array], Array]:
    """Square patches at the places of a regular grid, with the area and size of a recipe's crops.

    Args:
        recipe: of the augmentation; nothing but its crop is used.
        side: of the grid, which spans the image; 1 for the central patch.

    Returns:
        From images `[B, H, W, C]` to `[B, side², h, w, C]`, float32.
    """
    places = np.linspace(0.0, 1.0, side) if side > 1 else np.array([0.5])

    def patches(images: Array) -> Array:
        sides = images.shape[1:3]
        edge = round(math.sqrt(math.prod(sides) * np.mean(recipe.crop_scale or 1.0)))
        box = [min(edge, length) for length in sides]
        tops, lefts = (np.rint(places * (a - b)) for a, b in zip(sides, box))

        def crop(image: Array, top: Array, left: Array) -> Array:
            size = recipe.size or sides
            return augment.resized_crop(image, top, left, *box, size=size)

        of_rows = jax.vmap(crop, (None, 0, 0))
        return jax.vmap(of_rows, (0, None, None))(
            images, jnp.repeat(tops, side), jnp.tile(lefts, side)
        )

    return patches


def _random_coding_rate(count: int, width: int, epsilon: float) -> float:
    """Of random unit vectors, in the limit of many of many dimensions (Verdú and Shamai 1999)."""
    ratio, gain = width / count, 1 / epsilon
    low, high = (math.sqrt(gain * (1 + s * math.sqrt(ratio)) ** 2 + 1) for s in (-1, 1))
    shift = (high - low) ** 2 / 4
    rate = ratio * math.log1p(gain - shift) + math.log1p(gain * ratio - shift) - shift / gain
    return count / 2 * rate


def build(config: ConfigDict, steps: int) -> Method:
    """EMP-SSL from the sections `model`, `augment` and `emp_ssl` of a config."""
    sizes = {"hidden": PositiveInt, "outputs": PositiveInt}
    knobs = knobs_of(config, emp_ssl, projector=sizes, evaluation_grid=PositiveInt)
    augmentation = common.build_augmentation(config.augment)  # which checks the section
    hidden, outputs = (knobs["projector"][name] for name in sizes)
    heads = (
        {"layers": 1, "outputs": hidden, "last_norm": "affine"},
        {"layers": 2, "hidden": hidden, "outputs": outputs, "last_bias": True},
    )
    crops = {name: plain(config.augment).get(name) for name in ("recipe", "size", "crop_scale")}
    recipe = augment.get_view_recipes(
        crops.pop("recipe"), **{name: value for name, value in crops.items() if value is not None}
    )[0]
    return emp_ssl(
        models.build_encoder(config.model),
        *(models.build_projector(head, dtype=config.model.dtype) for head in heads),
        augmentation=augmentation,
        evaluation_view=common.build_evaluation_view(config.augment),
        evaluation_patches=patch_grid(recipe, knobs["evaluation_grid"]),
        invariance_weight=knobs["invariance_weight"],
        epsilon=knobs["epsilon"],
    )
