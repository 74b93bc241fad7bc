"""Fine-tuning: all weights of an encoder and a linear classifier on it, trained with labels.

From a trained encoder it measures what the representation is worth as a place to start from; from
an untrained one it is supervised training from scratch, the number to hold beside it.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from sslax import data
from sslax.data import records
from sslax.errors import UserError
from sslax.training import configuration, metrics, optim, sharding
from sslax.types import Array, Batch, Model, PyTree

_WARMUP = 0.1  # of the steps
_SHOW_EVERY = 10  # steps
_BLOCK = re.compile(r"block(\d+)")  # a layer of a vision transformer, counted from 1


class FinetuneResult(NamedTuple):
    """A fine-tuned network and what it is worth.

    Attributes:
        accuracy: top-1 accuracy on the test set after the last step, in [0, 1].
        losses: `[steps]` mean cross-entropy of each training batch.
        params: {'encoder': as given, 'classifier': {'kernel' [D, K], 'bias' [K]}}.
        model_state: of the encoder, its batch statistics moved on.
    """

    accuracy: float
    losses: np.ndarray
    params: PyTree
    model_state: PyTree


class _State(NamedTuple):
    step: Array
    params: PyTree
    model_state: PyTree
    opt_state: PyTree


def finetune(
    model: Model,
    params: PyTree,
    model_state: PyTree,
    train: data.Source,
    test: data.Source,
    *,
    num_classes: int,
    views: Callable[[Array, Batch], Batch],
    evaluation_view: Callable[[Array], Array],
    duration: str = "",
    batch_size: int = 128,
    optimizer: str = "sgd",
    learning_rate: float = 0.1,
    weight_decay: float = 0.0,
    layer_decay: float = 1.0,
    seed: int = 0,
    mesh: Mesh | None = None,
    workers: int = 0,
    progress: bool = False,
) -> FinetuneResult:
    """Trains an encoder with labels and measures it on the test set, once.

    A linear classifier that starts at zero stands on the encoder's features; both learn by
    cross-entropy, at one rate: a linear warm-up over a tenth of the steps, then half a cosine to
    0. Batch norms are in training mode: they use the batch's statistics and go on averaging them,
    and the test set is seen with these averages. The same arguments give the same bits.

    Args:
        model: images to an `Encoding`.
        params: of the encoder to start from; `model_state` likewise. They stay as they are.
        train: labeled records.
        test: labeled records.
        num_classes: K.
        views: `(rng, batch) -> batch` with images `[B, V, H, W, C]`; each view is an example.
        evaluation_view: from test images `[B, H, W, C]` to the encoder's input.
        duration: in steps, epochs or examples; '' for 30 epochs, or 500 steps where that is more.
        batch_size: examples a step, over all devices; of a smaller training set as many as divide
            over the devices. An epoch leaves its remainder out, other examples each time.
        optimizer: `sgd` (Nesterov momentum 0.9) or `adamw`, for vision transformers.
        learning_rate: at its peak, for 256 examples a step: x batch / 256.
        weight_decay: of kernels; biases and norms are spared.
        layer_decay: factor on the rate for each layer further from the classifier; of a vision
            transformer (Clark et al. 2020, https://arxiv.org/abs/2003.10555; MAE takes 0.75).
        seed: of the order of examples and of the views.
        mesh: devices; all of all processes where None.
        workers: threads that read records.
        progress: show how far it is, on the standard error stream.

    Returns:
        Accuracy, losses and the fine-tuned variables.

    Raises:
        UserError: unlabeled records, no step to take, an unknown optimizer, or a loss that is not
            finite.

    Example:
        >>> from sslax import augment, models
        >>> model = models.from_linen(models.ResNet(blocks=(1,), width=0.0625, small_stem=True))
        >>> labels = np.arange(16, dtype=np.int32) % 2
        >>> images = np.tile(255 * labels.astype("u1").reshape(16, 1, 1, 1), (1, 4, 4, 1))
        >>> records = data.ArraySource(images, labels)
        >>> finetune(
        ...     model,
        ...     *model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1))),
        ...     records,
        ...     records,
        ...     num_classes=2,
        ...     views=augment.make_views(augment.get_view_recipes("identity")),
        ...     evaluation_view=augment.to_float,
        ...     duration="20 steps",
        ...     learning_rate=1.0,
        ... ).accuracy
        1.0

    Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
    https://arxiv.org/abs/2002.05709, appendix B.8
    """
    for part, source in (("training", train), ("test", test)):
        if "label" not in source[0]:
            raise UserError(f"Fine-tuning needs labels, and the {part} images have none.")
    mesh = sharding.make_mesh() if mesh is None else mesh
    # At least one example for each device, and as many for all of them.
    batch_size = max(1, min(batch_size, len(train)) // mesh.size) * mesh.size
    if len(train) < batch_size:  # fewer examples than devices: some are seen more than once
        train = records.subset(train, np.resize(np.arange(len(train)), batch_size))
    steps = _steps(duration, batch_size, len(train) // batch_size)
    section = optim.defaults()
    section.update(
        name=optimizer, learning_rate=learning_rate, weight_decay=weight_decay, nesterov=True
    )
    rate = optim.learning_rate(
        section, batch_size=batch_size, warmup=int(_WARMUP * steps), total=steps
    )
    tx = optax.chain(optim.build(section, rate, steps), _scale_layers(layer_decay))
    everywhere = sharding.replicated(mesh)

    def encode(params: PyTree, model_state: PyTree, images: Array) -> Array:
        return model.apply(params, model_state, evaluation_view(images), False)[0].features

    features = jax.eval_shape(encode, params, model_state, test[0]["image"][None])

    def initial(params: PyTree, model_state: PyTree) -> _State:
        # Copies: an array that jit hands through as it is would be donated with the state.
        params, model_state = jax.tree.map(jnp.copy, (params, model_state))
        shape = (features.shape[-1], num_classes)
        classifier = {"kernel": jnp.zeros(shape), "bias": jnp.zeros(num_classes)}
        params = {"encoder": params, "classifier": classifier}
        return _State(jnp.zeros((), jnp.int32), params, model_state, tx.init(params))

    feed = data.make_feed(train, batch_size=batch_size, seed=seed, mesh=mesh, workers=workers)

    def step(state: _State, arrays: Any) -> tuple[_State, Array]:
        rng = jax.random.fold_in(jax.random.key(seed), state.step)
        return _train_step(model, tx, state, views(rng, feed.batch(arrays, state.step)))

    compiled = jax.jit(step, donate_argnums=0, out_shardings=everywhere)
    state, losses = jax.jit(initial, out_shardings=everywhere)(params, model_state), []
    line = metrics.Progress(steps, 0) if progress else None
    try:
        for done in range(1, steps + 1):
            state, loss = compiled(state, feed.arrays(done - 1))
            losses.append(loss)
            if line and (done % _SHOW_EVERY == 0 or done == steps):
                line.show(done, {"loss": float(loss)})
    finally:
        feed.close()
    losses = np.asarray(jax.device_get(losses))
    if not np.isfinite(losses).all():
        raise UserError(
            f"Fine-tuning diverged: the loss of step {np.isfinite(losses).argmin()} is not finite; "
            f"lower the learning rate of {learning_rate:g}."
        )
    variables = (state.params, state.model_state)
    count = jax.jit(partial(_count_right, model, evaluation_view), out_shardings=everywhere)
    batches = data.evaluation_batches(test, batch_size=batch_size, mesh=mesh, workers=workers)
    accuracy = sum(int(count(*variables, batch)) for batch in batches) / len(test)
    return FinetuneResult(accuracy, losses, *variables)


def _steps(duration: str, batch_size: int, steps_per_epoch: int) -> int:
    """The duration in steps; of '', 30 epochs or 500 steps, whichever is more.

    Example:
        >>> _steps("", 100, 80), _steps("", 100, 2), _steps("2 epochs", 100, 2)
        (2400, 500, 4)
    """
    sizes = {"batch_size": batch_size, "steps_per_epoch": steps_per_epoch}
    if not duration:
        return max(configuration.steps_of("30 epochs", **sizes), 500)
    steps = configuration.steps_of(duration, **sizes)
    if steps < 1:
        raise UserError(f'A duration of "{duration}" is less than one step; lengthen it.')
    return steps


def _train_step(
    model: Model, tx: optax.GradientTransformation, state: _State, batch: Batch
) -> tuple[_State, Array]:
    """One step on images `[B, V, H, W, C]`; returns its loss beside the state."""
    images = batch["image"].reshape(-1, *batch["image"].shape[2:])
    labels = jnp.repeat(batch["label"], batch["image"].shape[1])

    def mean_loss(params: PyTree) -> tuple[Array, PyTree]:
        logits, model_state = _logits(model, params, state.model_state, images, True)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), model_state

    (loss, model_state), gradient = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
    updates, opt_state = tx.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return _State(state.step + 1, params, model_state, opt_state), loss


def _count_right(
    model: Model, evaluation_view: Callable, params: PyTree, model_state: PyTree, batch: Batch
) -> Array:
    """How many of a batch's real rows are classified rightly."""
    images = evaluation_view(batch["image"])
    logits, _ = _logits(model, params, model_state, images, False)
    return jnp.sum((jnp.argmax(logits, axis=-1) == batch["label"]) & batch["mask"])


def _logits(
    model: Model, params: PyTree, model_state: PyTree, images: Array, train: bool
) -> tuple[Array, PyTree]:
    encoding, model_state = model.apply(params["encoder"], model_state, images, train)
    classifier = params["classifier"]
    features = encoding.features.astype(jnp.float32)
    return features @ classifier["kernel"] + classifier["bias"], model_state


def _scale_layers(decay: float) -> optax.GradientTransformation:
    """Multiplies the updates of a vision transformer by `decay` once for each layer above them.

    The classifier's stay as they are; the patch embedding, the class token and the positions lie
    below all blocks.
    """
    if decay == 1.0:
        return optax.identity()

    def layer(path: tuple, depth: int) -> int:
        part, *names = (key.key for key in path)
        if part == "classifier" or names[0] == "norm":
            return depth + 1
        block = _BLOCK.fullmatch(names[0])
        return int(block[1]) if block else 0

    def init(params: PyTree) -> optax.EmptyState:
        if not any(_BLOCK.fullmatch(name) for name in params["encoder"]):
            raise UserError(
                "A layer_decay is for vision transformers, and this encoder has no blocks: set it "
                "to 1.0."
            )
        return optax.EmptyState()

    def update(updates: PyTree, state: optax.EmptyState, params: PyTree = None) -> tuple:
        depth = sum(bool(_BLOCK.fullmatch(name)) for name in updates["encoder"])
        scaled = jax.tree.map_with_path(
            lambda path, leaf: decay ** (depth + 1 - layer(path, depth)) * leaf, updates
        )
        return scaled, state

    return optax.GradientTransformation(init, update)
