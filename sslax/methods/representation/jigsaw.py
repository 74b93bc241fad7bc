"""Jigsaw: in which of a set of permutations were nine tiles of the image shuffled?

Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, ECCV
2016.
"""

import functools
import math
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sslax import augment, models, ops
from sslax.methods.common import Augmentation, knobs_of, merge_views, split_views
from sslax.methods.representation import common
from sslax.models.compose import Network, Parts
from sslax.ranges import Fraction, Interval, NonNegativeInt, PositiveInt
from sslax.types import Array, Batch, LossOutput, Method, Model, Pictures, Variables


def jigsaw(
    encoder: Model,
    classifier: Model,
    permutations: Array,
    *,
    augmentation: Augmentation,
    evaluation_view: common.EvaluationView,
    tile: PositiveInt = 64,
    jitter: NonNegativeInt = 10,
    color_jitter: Fraction = 0.01,
) -> Method:
    """Jigsaw puzzles.

    The gaps between the tiles, their own standardization and the shift of their colors against
    each other keep the network from matching edges, brightness and chromatic aberration.

    Args:
        encoder: tiles to an `Encoding`; the same for all.
        classifier: features `[N, 9, D]` of the tiles in their cells to K logits.
        permutations: `[K, 9]`; row k puts tile `permutations[k, i]` into cell i.
        augmentation: adds 'views' `[B, 1, S, S, C]`, which tiles are cut from.
        evaluation_view: from images `[B, H, W, C]` to the encoder's input.
        tile: side of a tile in pixels, less than a third of the image's.
        jitter: pixels by which a tile may lie off the middle of its cell, each way.
        color_jitter: largest shift of a tile's channel, in units of the whole range.
    """
    permutations = jnp.asarray(permutations)
    tiles = permutations.shape[1]
    network = Network({"encoder": encoder, "classifier": classifier})

    def shuffle(key: Array, view: Array) -> Batch:
        tile_key, color_key, order_key = jax.random.split(key, 3)
        cut = augment.jigsaw_tiles(tile_key, view, grid=round(tiles**0.5), tile=tile, jitter=jitter)
        shape = (tiles, 1, 1, cut.shape[-1])
        shift = jax.random.uniform(color_key, shape, minval=-color_jitter, maxval=color_jitter)
        order = jax.random.randint(order_key, (), 0, len(permutations))
        cut = jnp.clip(cut + shift, 0.0, 1.0)
        return {"input": cut[permutations[order]], "order": order}

    shuffled = common.pretext_task(augmentation, shuffle)

    def forward(net: Parts, batch: Batch) -> tuple[Array, Array]:
        features = net.encoder(models.standardized(merge_views(batch["input"]))).features
        return features, net.classifier(split_views(features, tiles))

    def init(rng: Array, batch: Batch) -> Variables:
        return network.init(forward, rng, batch)

    def loss(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        (features, logits), variables = network.apply(forward, variables, batch, train=True)
        value, metrics = common.classification(logits, batch["order"])
        features = common.mean_over_tiles(features, tiles)
        return value, LossOutput(variables.model_state, variables.extra, metrics, features)

    def visualize(variables: Variables, batch: Batch, rng: Array) -> Pictures:
        batch = shuffled(rng, batch)
        puzzle = batch["input"]
        (_, logits), _ = network.apply(forward, variables, batch)

        def ordered(orders: Array) -> Array:
            cells = jnp.argsort(permutations[orders], axis=1)  # of each tile, now
            return jnp.take_along_axis(puzzle, cells[..., None, None, None], axis=1)

        return {
            "puzzle": _mosaic(puzzle),
            "network's solution": _mosaic(ordered(jnp.argmax(logits, axis=-1))),
            "solution": _mosaic(ordered(batch["order"])),
        }

    return common.encoder_method(
        network,
        augmentation=shuffled,
        evaluation_view=evaluation_view,
        init=init,
        loss=loss,
        mean_over_examples=True,
        visualize=visualize,
        preprocess=models.standardized,
    )


def _mosaic(tiles: Array) -> Array:
    """Tiles `[B, g², t, t, C]`, row by row, as one image with white lines between them."""
    batch, count, side, _, channels = tiles.shape
    grid = round(count**0.5)
    line = max(1, side // 10)
    tiles = jnp.pad(tiles, [(0, 0), (0, 0), (line, 0), (line, 0), (0, 0)], constant_values=1.0)
    tiles = tiles.reshape(batch, grid, grid, side + line, side + line, channels)
    image = tiles.transpose(0, 1, 3, 2, 4, 5).reshape(batch, grid * (side + line), -1, channels)
    return image[:, line:, line:]


Permutations = Annotated[int, Interval(2, math.factorial(9))]


@functools.cache
def permutation_set(count: int) -> np.ndarray:
    """`[count, 9]` permutations far from each other, computed once a process (in seconds)."""
    return ops.jigsaw_permutations(count)


def build(config: ConfigDict, steps: int) -> Method:
    """Jigsaw from the sections `model`, `augment` and `jigsaw` of a config."""
    knobs = knobs_of(
        config,
        jigsaw,
        permutations=Permutations,
        classifier=models.TileClassifier,
    )
    count, section = knobs.pop("permutations"), knobs.pop("classifier")
    return jigsaw(
        models.build_encoder(config.model),
        models.from_linen(models.TileClassifier(classes=count, **section)),
        permutation_set(count),
        augmentation=common.build_augmentation(config.augment),
        evaluation_view=common.build_evaluation_view(config.augment),
        **knobs,
    )
