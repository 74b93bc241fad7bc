"""The architecture on one page: what a batch, a model, a method and the training state are.

Everything here is a record of arrays or a record of pure functions; nothing imports Flax.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array
PyTree = Any
# 'image' [B, H, W, C] (uint8, or float in [0, 1]), 'index' [B] int32 (the example's place in its
# set: the source of its random key) and, where there are labels, 'label' [B] int32.
Batch = dict[str, Array]
Metrics = dict[str, Array]
Schedule = Callable[[Array], Array]


class Model(NamedTuple):
    """A network as two pure functions, so that any library's modules fit.

    Attributes:
        init: `(rng, x) -> (params, model_state)`; x is an array, or a dictionary of arrays where
            a network takes several.
        apply: `(params, model_state, x, train) -> (output, model_state)`; `train` is static.
    """

    init: Callable[[Array, Any], tuple[PyTree, PyTree]]
    apply: Callable[[PyTree, PyTree, Any, bool], tuple[Any, PyTree]]


class Encoding(NamedTuple):
    """What an encoder returns.

    Attributes:
        features: pooled output `[N, D]`.
        stages: inner activations by name, shallow first: `[N, h, w, C]`, or `[N, T, C]` of tokens.
    """

    features: Array
    stages: dict[str, Array]


class Variables(NamedTuple):
    """Everything a method owns: trained parameters, model state (batch statistics), the rest."""

    params: PyTree
    model_state: PyTree
    extra: PyTree  # momentum targets, queues, centers, probes; {} where there is none


class LossOutput(NamedTuple):
    """What a loss returns beside its scalar.

    Attributes:
        model_state: updated model state.
        extra: updated method state.
        metrics: named scalars.
        features: `[B, V, D]` encoder outputs, gradient stopped, that the online probe reads;
            None where a method has no image-level features.
    """

    model_state: PyTree
    extra: PyTree
    metrics: Metrics
    features: Array | None = None


class Method(NamedTuple):
    """A self-supervised method: a record of pure functions.

    `variables` stands for `params, model_state, extra`.

    Attributes:
        views: `(rng, batch) -> batch`, augmentation on the device; identity where there is none.
        init: `(rng, batch) -> Variables`, from a batch that went through `views`.
        loss: `(params, model_state, extra, batch, rng, step) -> (scalar, LossOutput)`.
        update: `(params, extra, step) -> extra`, after the optimizer's step: moving averages.
        predict: `(*variables, batch) -> dict` from a batch as the data gives it: 'features'
            `[B, D]` and 'stages', or 'disparity', 'pose', 'flow', ...
        show: `(*variables, batch, rng) -> dict`, the task in pictures, for people: a title for
            each column, and under it an image `[B, h, w, C]` in [0, 1] for each example.
        encoder: `(*variables) -> (params, model_state)`, the encoder that a user takes away.
        prepare: `images -> x`, what that encoder is given of images `[N, H, W, C]` in [0, 1].
    """

    views: Callable[[Array, Batch], Batch]
    init: Callable[[Array, Batch], Variables]
    loss: Callable[[PyTree, PyTree, PyTree, Batch, Array, Array], tuple[Array, LossOutput]]
    update: Callable[[PyTree, PyTree, Array], PyTree]
    predict: Callable[[PyTree, PyTree, PyTree, Batch], dict[str, Any]]
    show: Callable[[PyTree, PyTree, PyTree, Batch, Array], dict[str, Array]]
    encoder: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    prepare: Callable[[Array], Array]


class TrainState(NamedTuple):
    """The whole state of a run, arrays only. `step` is the only clock."""

    step: Array
    params: PyTree
    model_state: PyTree
    extra: PyTree
    opt_state: PyTree
    rng: Array
