"""The few lines that methods share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from sslax import augment, losses
from sslax.errors import UserError
from sslax.measures import collapse
from sslax.types import Array, Batch, Encoding, Method, Metrics, Model, PyTree, Schedule

Views = Callable[[Array, Batch], Batch]
EvaluationView = Callable[[Array], Array]


def at_step(knob: float | Schedule, step: Array) -> Array | float:
    """A knob's value at a step: the knob itself, or what the schedule says."""
    return knob(step) if callable(knob) else knob


def merge_views(images: Array) -> Array:
    """`[B, V, ...]` to `[B·V, ...]`, which moves no data between devices."""
    return images.reshape(-1, *images.shape[2:])


def split_views(outputs: Array, views: int) -> Array:
    """`[B·V, ...]` back to `[B, V, ...]`."""
    return outputs.reshape(-1, views, *outputs.shape[1:])


def chain(**models: Model) -> Model:
    """Models in a row as one: parameters and state by name, the outputs of all as a tuple.

    Each model takes the output before it; of an `Encoding`, the features. Parameters of other names
    are left alone, so a part of a chain (a momentum target without the predictor) takes the
    parameters of the whole.
    """

    def init(rng: Array, x: Array) -> tuple[PyTree, PyTree]:
        params, state = {}, {}
        for (name, model), key in zip(models.items(), jax.random.split(rng, len(models))):
            params[name], state[name] = model.init(key, x)
            output, _ = model.apply(params[name], state[name], x, False)
            x = output.features if isinstance(output, Encoding) else output
        return params, state

    def apply(params: PyTree, model_state: PyTree, x: Array, train: bool) -> tuple[Any, PyTree]:
        outputs, state = [], {}
        for name, model in models.items():
            output, state[name] = model.apply(params[name], model_state[name], x, train)
            x = output.features if isinstance(output, Encoding) else output
            outputs.append(output)
        return tuple(outputs), state

    return Model(init, apply)


def on_groups(model: Model, size: int) -> Model:
    """A model of `[B, size, D]` as one of merged rows `[B·size, D]`: of all tiles of an image."""

    def init(rng: Array, x: Array) -> tuple[PyTree, PyTree]:
        return model.init(rng, split_views(x, size))

    def apply(params: PyTree, model_state: PyTree, x: Array, train: bool) -> tuple[Any, PyTree]:
        return model.apply(params, model_state, split_views(x, size), train)

    return Model(init, apply)


class Target(NamedTuple):
    """A slow copy of a chain: parameters and state by name, of no gradient."""

    params: PyTree
    model_state: PyTree

    def move(self, params: PyTree, momentum: float | Array) -> "Target":
        """`momentum · own + (1 - momentum) · params`, over the parts that the copy has."""
        own = {name: params[name] for name in self.params}
        return self._replace(params=optax.incremental_update(own, self.params, 1 - momentum))


def target_of(params: PyTree, model_state: PyTree, *names: str) -> Target:
    """A copy, as it is now, of the named parts of a chain."""
    return Target(*({name: tree[name] for name in names} for tree in (params, model_state)))


def apply_crops(
    network: Model, params: PyTree, model_state: PyTree, batch: Batch
) -> tuple[Array, Array, PyTree]:
    """A chain that ends in embeddings, applied to the crops of each size in turn.

    Args:
        network: encoder first, embeddings last.
        params, model_state: of the chain.
        batch: 'image' `[B, V, H, W, C]` and, where there are small crops, 'local'
            `[B, L, h, w, C]`.

    Returns:
        Embeddings `[B, V + L, D]`, features `[B, V, D]` of the large crops without a gradient, and
        the model state.
    """
    embeddings, features = [], []
    for name in ("image", "local"):
        if name in batch:
            views = batch[name].shape[1]
            images = merge_views(batch[name])
            (encoding, *_, out), model_state = network.apply(params, model_state, images, True)
            embeddings.append(split_views(out, views))
            features.append(split_views(encoding.features, views))
    return jnp.concatenate(embeddings, axis=1), jax.lax.stop_gradient(features[0]), model_state


def embedding_metrics(embeddings: Array) -> Metrics:
    """Whether embeddings `[N, D]` collapse: `embedding_std` and `effective_rank`, no gradient."""
    embeddings = jax.lax.stop_gradient(embeddings)
    return {
        "embedding_std": collapse.embedding_std(embeddings),
        "effective_rank": collapse.effective_rank(embeddings),
    }


def contrastive_accuracy(queries: Array, keys: Array) -> Array:
    """Share of queries `[N, D]` whose nearest key `[N, D]` is their own; chance is 1 / N."""
    queries, keys = (losses.l2_normalize(jax.lax.stop_gradient(z)) for z in (queries, keys))
    nearest = jnp.argmax(queries @ keys.T, axis=-1)
    return jnp.mean(nearest == jnp.arange(queries.shape[0]))


def classification(logits: Array, labels: Array) -> tuple[Array, Metrics]:
    """Mean cross-entropy of logits `[N, K]`; accuracy, and what guessing would give of both."""
    classes = logits.shape[-1]
    logits = logits.astype(jnp.float32)
    value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    return value, {
        "accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == labels),
        "accuracy_at_chance": jnp.float32(1 / classes),
        "loss_at_chance": jnp.log(jnp.float32(classes)),
    }


def mean_of_tiles(features: Array, tiles: int) -> Array:
    """Features `[B·T, D]` of tiles as one for each image, `[B, 1, D]`, without a gradient."""
    features = jax.lax.stop_gradient(features)
    return jnp.mean(split_views(features, tiles), axis=1, keepdims=True)


def pool(stages: dict[str, Array]) -> dict[str, Array]:
    """Each stage's activations `[N, ..., C]`, averaged over their places: `[N, C]` float32."""
    return {
        name: jnp.mean(stage, axis=tuple(range(1, stage.ndim - 1)), dtype=jnp.float32)
        for name, stage in stages.items()
    }


def no_update(params: PyTree, extra: PyTree, step: Array) -> PyTree:
    """`update` of a method without moving averages."""
    return extra


def trained_encoder(params: PyTree, model_state: PyTree, extra: PyTree) -> tuple[PyTree, PyTree]:
    """`encoder` of a method whose gradient trains the encoder that a user takes away."""
    return params["encoder"], model_state["encoder"]


def method_of_encoder(
    model: Model,
    *,
    views: Views,
    evaluation_view: EvaluationView,
    init: Callable,
    loss: Callable,
    update: Callable = no_update,
    show: Callable | None = None,
    encoder: Callable = trained_encoder,
    prepare: Callable[[Array], Array] = augment.to_float,
) -> Method:
    """A method that learns an encoder; what follows from `model` and `encoder` is filled in.

    Args:
        model: what `prepare` makes of images to an `Encoding`.
        views: as in `Method`; likewise `init`, `loss`, `update`, `encoder` and `prepare`.
        evaluation_view: from images `[B, H, W, C]` to images of the encoder's size.
        show: as in `Method`; None shows the views.
    """

    def predict(params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch) -> dict:
        x = prepare(evaluation_view(batch["image"]))
        encoding, _ = model.apply(*encoder(params, model_state, extra), x, False)
        return {"features": encoding.features, "stages": pool(encoding.stages)}

    def show_views(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array
    ) -> dict[str, Array]:
        made = views(rng, batch)
        columns = {"image": augment.to_float(batch["image"])}
        for name, key in (("view", "image"), ("small view", "local")):
            for i in range(made[key].shape[1] if key in made else 0):
                columns[f"{name} {i + 1}"] = made[key][:, i]
        return columns

    return Method(views, init, loss, update, predict, show or show_views, encoder, prepare)


def training_views(section: ConfigDict) -> Views:
    """The views of an `augment` section: a `recipe` by name, with any of its knobs replaced.

    With `local`, a section of its `count` and knobs, small views come beside the large ones; what
    it does not say of colors and flips it takes from the large views' knobs.

    Raises:
        UserError: unknown recipe or knob, or a knob out of its range.
    """
    knobs = plain(section)
    recipe, local = knobs.pop("recipe"), knobs.pop("local", {"count": 0})
    shared = {name: value for name, value in knobs.items() if name not in ("size", "crop_scale")}
    try:
        small = augment.get_local_recipes(recipe, **{**shared, **local}) if local["count"] else ()
        return augment.make_views(augment.get_view_recipes(recipe, **knobs), small)
    except ValueError as error:
        raise UserError(f"config.augment: {error}") from error


def with_task(views: Views, task: Callable[[Array, Array], Batch]) -> Views:
    """Views whose first image of each example is made into a task.

    Args:
        views: `(rng, batch) -> batch` with images `[B, V, H, W, C]`.
        task: `(key, image [H, W, C]) -> dict` of one example's arrays: its 'image' and whatever
            the loss wants to know. The key depends on the example's place in its set alone.

    Raises:
        UserError: in the views, where the images do not suit the task (they are too small, say).
    """

    def made(rng: Array, batch: Batch) -> Batch:
        views_rng, task_rng = jax.random.split(rng)
        batch = views(views_rng, batch)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(task_rng, batch["index"])
        try:
            return {**batch, **jax.vmap(task)(keys, batch["image"][:, 0])}
        except ValueError as error:
            raise UserError(f"The images do not suit the task: {error}") from error

    return made


def evaluation_view(section: ConfigDict) -> EvaluationView:
    """Images `[B, H, W, C]` as they are, or their central square at an `augment` section's size."""
    view = augment.make_views((augment.ViewRecipe(size=section.get("size")),))

    def evaluate(images: Array) -> Array:
        index = jnp.zeros(images.shape[0], jnp.int32)  # nothing is random here
        return merge_views(view(jax.random.key(0), {"image": images, "index": index})["image"])

    return evaluate


def standardized(images: Array) -> Array:
    """Images `[N, H, W, C]`, each and each of its channels of mean 0 and deviation 1."""
    return jax.vmap(augment.standardize)(images)


def displayed(patches: Array) -> Array:
    """Standardized patches as images in [0, 1], for people."""
    return jnp.clip(0.5 + 0.25 * patches, 0.0, 1.0)


def plain(value: Any) -> Any:
    """Dictionaries for sections, tuples for the lists that a config read from JSON has."""
    if isinstance(value, ConfigDict | dict):
        return {name: plain(entry) for name, entry in value.items()}
    return tuple(value) if isinstance(value, list) else value
