"""Jigsaw: in which of a set of orders were nine tiles of the image shuffled?

Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, ECCV
2016.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sslax import augment, models, ops
from sslax.methods import common
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Variables


def jigsaw(
    encoder: Model,
    classifier: Model,
    permutations: Array,
    *,
    views: common.Views,
    evaluation_view: common.EvaluationView,
    tile: int = 64,
    jitter: int = 10,
    color_jitter: float = 0.01,
) -> Method:
    """Jigsaw puzzles.

    The gaps between the tiles, their own standardization and the shift of their colors against
    each other keep the network from matching edges, brightness and chromatic aberration.

    Args:
        encoder: tiles to an `Encoding`; the same for all.
        classifier: features `[N, 9, D]` of the tiles in their places to K logits.
        permutations: `[K, 9]`; row k puts tile `permutations[k, i]` into place i.
        views: `(rng, batch) -> batch` with images `[B, 1, S, S, C]`, which tiles are cut from.
        evaluation_view: for `predict`, from images `[B, H, W, C]` to the encoder's input.
        tile: side of a tile in pixels, less than a third of the image's.
        jitter: pixels by which a tile may lie off the middle of its cell, each way.
        color_jitter: largest shift of a tile's channel, in units of the whole range.
    """
    permutations = jnp.asarray(permutations)
    tiles = permutations.shape[1]
    network = common.chain(encoder=encoder, classifier=common.on_groups(classifier, tiles))

    def cut(key: Array, image: Array) -> Batch:
        tile_key, color_key, order_key = jax.random.split(key, 3)
        found = augment.jigsaw_tiles(
            tile_key, image, grid=round(tiles**0.5), tile=tile, jitter=jitter
        )
        shape = (tiles, 1, 1, found.shape[-1])
        shift = jax.random.uniform(color_key, shape, minval=-color_jitter, maxval=color_jitter)
        order = jax.random.randint(order_key, (), 0, len(permutations))
        found = jnp.clip(found + shift, 0.0, 1.0)
        return {"image": found[permutations[order]], "order": order}

    cut_views = common.with_task(views, cut)

    def init(rng: Array, batch: Batch) -> Variables:
        return Variables(*network.init(rng, _standardized(batch["image"])), extra={})

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        images = _standardized(batch["image"])
        (encoding, logits), model_state = network.apply(params, model_state, images, True)
        value, metrics = common.classification(logits, batch["order"])
        features = common.mean_of_tiles(encoding.features, tiles)
        return value, LossOutput(model_state, extra, metrics, features)

    def show(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array
    ) -> dict[str, Array]:
        batch = cut_views(rng, batch)
        puzzle = batch["image"]
        (_, logits), _ = network.apply(params, model_state, _standardized(puzzle), False)

        def ordered(orders: Array) -> Array:
            places = jnp.argsort(permutations[orders], axis=1)  # where each tile now is
            return jnp.take_along_axis(puzzle, places[..., None, None, None], axis=1)

        return {
            "puzzle": _mosaic(puzzle),
            "solved by the network": _mosaic(ordered(jnp.argmax(logits, axis=-1))),
            "solution": _mosaic(ordered(batch["order"])),
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


def _standardized(tiles: Array) -> Array:
    """`[B, T, t, t, C]` to `[B·T, t, t, C]`, each tile of mean 0 and deviation 1."""
    return common.standardized(common.merge_views(tiles))


def _mosaic(tiles: Array) -> Array:
    """Tiles `[B, g², t, t, C]`, row by row, as one image with white lines between them."""
    batch, count, side, _, channels = tiles.shape
    grid = round(count**0.5)
    line = max(1, side // 10)
    tiles = jnp.pad(tiles, [(0, 0), (0, 0), (line, 0), (line, 0), (0, 0)], constant_values=1.0)
    tiles = tiles.reshape(batch, grid, grid, side + line, side + line, channels)
    image = tiles.transpose(0, 1, 3, 2, 4, 5).reshape(batch, grid * (side + line), -1, channels)
    return image[:, line:, line:]


@functools.cache
def permutation_set(count: int) -> np.ndarray:
    """`[count, 9]` permutations far from each other, made once a process (in seconds)."""
    return ops.jigsaw_permutations(count)


def build(config: ConfigDict, steps: int) -> Method:
    """Jigsaw as the sections `model`, `augment` and `jigsaw` of a config say."""
    knobs = dict(config.jigsaw)
    count, section = knobs.pop("permutations"), knobs.pop("classifier")
    return jigsaw(
        models.build_encoder(config.model),
        models.from_linen(models.TileClassifier(classes=count, **section)),
        permutation_set(count),
        views=common.training_views(config.augment),
        evaluation_view=common.evaluation_view(config.augment),
        **knobs,
    )
