"""Shared by representation methods: the rest of the method, metrics, augmentation."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from sslax import augment, losses, ranges
from sslax.errors import UserError
from sslax.measures import collapse
from sslax.methods.common import (
    Augmentation,
    composed,
    merge_views,
    no_update,
    plain,
    split_views,
)
from sslax.models.compose import Network, Parts
from sslax.ranges import NonNegativeInt, PositiveInt
from sslax.types import (
    Array,
    Batch,
    Encoding,
    Features,
    Method,
    Metrics,
    Pictures,
    PyTree,
    Representation,
    Variables,
)

EvaluationView = Callable[[Array], Array]


def encoder_method(
    network: Network,
    *,
    augmentation: Augmentation,
    evaluation_view: EvaluationView,
    init: Callable,
    loss: Callable | None = None,
    embed: Callable | None = None,
    couple: Callable | None = None,
    mean_over_examples: bool = False,
    update: Callable = no_update,
    visualize: Callable | None = None,
    encoder: Callable | None = None,
    preprocess: Callable[[Array], Array] = augment.to_float,
) -> Method:
    """A method that learns an encoder; what follows from the network is filled in.

    Args:
        network: has a part `encoder`, from preprocessed images to an `Encoding`.
        augmentation: `Method.augment`.
        evaluation_view: from images `[B, H, W, C]` to images of the encoder's size.
        init: as in `Method`; likewise `mean_over_examples`, `update` and `preprocess`.
        loss: as in `Method`; None where `embed` and `couple` make it.
        embed: as in `Method`; likewise `couple`.
        visualize: as in `Method`; None shows the views.
        encoder: as in `Method`; None for the part that the gradient trains.
    """
    model, encoder = network.parts["encoder"], encoder or network.encoder

    def predict(variables: Variables, batch: Batch) -> Features:
        x = preprocess(evaluation_view(batch["image"]))
        encoding, _ = model.apply(*encoder(variables), x, False)
        return Features(encoding.features, pool_stages(encoding.stages))

    def show_views(variables: Variables, batch: Batch, rng: Array) -> Pictures:
        augmented = augmentation(rng, batch)
        columns: Pictures = {"image": augment.to_float(batch["image"])}
        for title, key in (("view", "views"), ("local view", "local_views")):
            if key in augmented:
                views = jnp.moveaxis(augmented[key], 1, 0)
                columns |= {f"{title} {i}": view for i, view in enumerate(views, start=1)}
        return columns

    return Method(
        task=Representation(),
        augment=augmentation,
        init=init,
        loss=loss or composed(embed, couple),
        mean_over_examples=mean_over_examples,
        embed=embed,
        couple=couple,
        update=update,
        predict=predict,
        visualize=visualize or show_views,
        encoder=encoder,
        preprocess=preprocess,
        evaluation_view=evaluation_view,
    )


def pool_stages(stages: dict[str, Array]) -> dict[str, Array]:
    """Each stage's activations `[N, ..., C]`, averaged over positions: `[N, C]` float32."""
    return {
        name: jnp.mean(stage, axis=tuple(range(1, stage.ndim - 1)), dtype=jnp.float32)
        for name, stage in stages.items()
    }


def embedding(network: Network, forward: Callable, *, views: int = 0) -> Callable:
    """`Method.embed` by a forward pass in training.

    Args:
        network: of the method.
        forward: returns a tuple of outputs.
        views: of an image, if the outputs are of merged views, which are split again.
    """

    def embed(
        variables: Variables, batch: Batch, rng: Array, step: Array
    ) -> tuple[tuple[Array, ...], Variables]:
        outputs, variables = network.apply(forward, variables, batch, train=True)
        if views:
            outputs = tuple(split_views(output, views) for output in outputs)
        return outputs, variables

    return embed


def encode_crops(net: Parts, batch: Batch) -> Iterator[tuple[int, Encoding]]:
    """The encoder on the crops of each size in turn (multi-crop), the large ones first.

    Args:
        net: of a forward pass, with the part `encoder`.
        batch: 'views' `[B, V, H, W, C]` and, where there are small crops, 'local_views'
            `[B, L, h, w, C]`; with 'key' `[B]`, the encoder is given a random key for each crop;
            with 'keep' `[B, V, K]` or 'masked' `[B, V, T]`, the patches of the large crops that it
            sees, or does not.

    Yields:
        The number of crops of an image, and the encoding of them all, `[B·V]`.
    """
    for group, name in enumerate(("views", "local_views")):
        if name not in batch:
            continue
        views = batch[name].shape[1]
        x = {"image": merge_views(batch[name])}
        if name == "views":
            x |= {entry: merge_views(batch[entry]) for entry in _PATCHES if entry in batch}
        if "key" in batch:
            keys = jax.vmap(jax.random.fold_in, (0, None))(batch["key"], group)
            split = jax.vmap(lambda key, views=views: jax.random.split(key, views))(keys)
            x["key"] = merge_views(split)
        yield views, net.encoder(x if len(x) > 1 else x["image"])


_PATCHES = ("keep", "masked")


def embed_crops(net: Parts, batch: Batch) -> tuple[Array, Array]:
    """Encoder and projector on the crops of each size in turn.

    Args:
        net: of a forward pass, with the parts `encoder` and `projector`.
        batch: as in `encode_crops`.

    Returns:
        Embeddings `[B, V + L, D]`, and features `[B, V, D]` of the large crops.
    """
    embeddings, features = [], []
    for views, encoding in encode_crops(net, batch):
        embeddings.append(split_views(net.projector(encoding.features), views))
        features.append(split_views(encoding.features, views))
    return jnp.concatenate(embeddings, axis=1), features[0]


def with_keys(rng: Array, batch: Batch, wanted: bool = True) -> Batch:
    """The batch with 'key' `[B]`, a random key of each example, where the encoder drops paths."""
    return {**batch, "key": augment.batch_keys(rng, batch)} if wanted else batch


def freeze_until(params: PyTree, step: Array, first: int) -> PyTree:
    """The same parameters, without a gradient before step `first`."""
    return jax.tree.map(
        lambda leaf: jnp.where(step < first, jax.lax.stop_gradient(leaf), leaf), params
    )


# Metrics.


_MEASURED = 512  # dimensions; devices exchange what is measured, in every step


def embedding_metrics(embeddings: Array) -> Metrics:
    """Whether embeddings `[N, D]` collapse: `embedding_std`, and the `effective_rank` of the first
    512 dimensions; no gradient."""
    embeddings = jax.lax.stop_gradient(embeddings)
    return {
        "embedding_std": collapse.embedding_std(embeddings),
        "effective_rank": collapse.effective_rank(embeddings[:, :_MEASURED]),
    }


def contrastive_accuracy(queries: Array, keys: Array) -> Array:
    """Share of queries `[N, D]` whose nearest key `[N, D]` is their own, by the cosine of the first
    512 dimensions; chance is 1 / N."""
    queries, keys = (
        losses.l2_normalize(jax.lax.stop_gradient(z[:, :_MEASURED])) for z in (queries, keys)
    )
    nearest = jnp.argmax(queries @ keys.T, axis=-1)
    return jnp.mean(nearest == jnp.arange(queries.shape[0]))


def prototypes_used(scores: Array) -> Array:
    """Share of K prototypes that are the nearest one of some of the scores `[..., K]`."""
    count = scores.shape[-1]
    nearest = jnp.argmax(scores, axis=-1).ravel()
    return jnp.mean(jax.nn.one_hot(nearest, count).max(axis=0))


def classification(logits: Array, labels: Array) -> tuple[Array, Metrics]:
    """Mean cross-entropy of logits `[N, K]`; accuracy, and the chance values of both."""
    classes = logits.shape[-1]
    logits = logits.astype(jnp.float32)
    value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    return value, {
        "accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == labels),
        "accuracy_at_chance": jnp.float32(1 / classes),
        "loss_at_chance": jnp.log(jnp.float32(classes)),
    }


def mean_over_tiles(features: Array, tiles: int) -> Array:
    """Features `[B·T, D]` of an image's tiles, averaged: `[B, 1, D]`, without a gradient."""
    features = jax.lax.stop_gradient(features)
    return jnp.mean(split_views(features, tiles), axis=1, keepdims=True)


# Augmentation.


_LARGE = ("count", "size", "crop_scale")  # knobs that small views do not share


def build_augmentation(section: ConfigDict) -> Augmentation:
    """The augmentation of an `augment` section: a `recipe` by name, with its knobs replaced.

    With `count`, that many views, in which those of the recipe take turns. With `local`, a section
    of its `count` and knobs, small views come beside the large ones; the colors and flips that it
    does not name are those of the large views.

    Raises:
        UserError: unknown recipe or knob, or a knob out of its range.
    """
    knobs = plain(section)
    fields, recipes = ranges.kinds_of(augment.ViewRecipe), Literal[tuple(augment.VIEW_RECIPES)]
    local_kinds = {**fields, "count": NonNegativeInt}
    kinds = {**fields, "recipe": recipes, "count": PositiveInt, "local": local_kinds}
    ranges.check_knobs("config.augment", knobs, kinds)
    recipe, local = knobs.pop("recipe"), knobs.pop("local", {"count": 0})
    shared = {name: value for name, value in knobs.items() if name not in _LARGE}
    try:
        small = augment.get_local_recipes(recipe, **{**shared, **local}) if local["count"] else ()
        return augment.make_views(augment.get_view_recipes(recipe, **knobs), small)
    except ValueError as error:
        raise UserError(f"config.augment: {error}") from error


def build_evaluation_view(section: ConfigDict) -> EvaluationView:
    """Images `[B, H, W, C]` as they are, or their central square at an `augment` section's size."""
    view = augment.make_views((augment.ViewRecipe(size=section.get("size")),))

    def evaluation_view(images: Array) -> Array:
        index = jnp.zeros(images.shape[0], jnp.int32)  # nothing is random here
        return merge_views(view(jax.random.key(0), {"image": images, "index": index})["views"])

    return evaluation_view


def pretext_task(augmentation: Augmentation, task: Callable[[Array, Array], Batch]) -> Augmentation:
    """An augmentation whose first view of each image becomes a pretext task.

    Args:
        augmentation: adds 'views' `[B, V, H, W, C]`.
        task: `(key, view [H, W, C]) -> dict` of one example's arrays: the network's 'input' and
            the targets. The key depends on `rng` and the example's index alone.

    Raises:
        UserError: in the result, where the images do not suit the task (too small, say).
    """

    def augment_and_pose(rng: Array, batch: Batch) -> Batch:
        views_rng, task_rng = jax.random.split(rng)
        batch = augmentation(views_rng, batch)
        keys = augment.batch_keys(task_rng, batch)
        with images_that_suit():
            return {**batch, **jax.vmap(task)(keys, batch["views"][:, 0])}

    return augment_and_pose


@contextmanager
def images_that_suit() -> Iterator[None]:
    """Where a pretext task is made: a `ValueError` becomes a `UserError`."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"The images do not suit the task: {error}") from error


def needs_labels(method: str) -> UserError:
    """The mistake of a method that learns from labels, of a set that has none."""
    return UserError(
        f"The method {method} learns from labels and this set has none; choose another "
        "config.method, or give a labeled set (config.data.labels=True)."
    )


def check_queue(name: str, size: int, batch: int) -> None:
    """Checks the `queue_size` of the config's section of that name, in which whole batches of
    `batch` entries are replaced.

    Raises:
        UserError: it is no multiple of a batch.
    """
    if size % batch:
        below = size // batch * batch
        raise UserError(
            f"config.{name}.queue_size = {size} is no multiple of the {batch} entries of a batch, "
            f"and whole batches are replaced: choose {below or batch}, or another batch size."
        )


def enqueue(queue: Array, entries: Array, step: Array) -> Array:
    """A queue `[M, ...]` in which the entries `[N, ...]` of a step, without a gradient, have
    replaced the oldest ones; N divides M."""
    start = (step * len(entries)) % len(queue)
    return jax.lax.dynamic_update_slice_in_dim(queue, jax.lax.stop_gradient(entries), start, axis=0)


def check_transformer(name: str, section: Mapping[str, int]) -> None:
    """Checks the `width` of a small transformer in the config's section of that name.

    Raises:
        UserError: it is no multiple of 4, for its positions, and of `heads`.
    """
    width, heads = section["width"], section["heads"]
    if width % math.lcm(4, heads):
        raise UserError(
            f"{name}.width = {width} must be a multiple of 4 and of {name}.heads = {heads}."
        )


def displayable(patches: Array) -> Array:
    """Standardized patches as images in [0, 1]."""
    return jnp.clip(0.5 + 0.25 * patches, 0.0, 1.0)
