"""The architecture on one page: batches, models, methods, tasks, predictions, the training state.

Everything here is a record of arrays or a record of pure functions; nothing imports Flax.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array
PyTree = Any
Metrics = dict[str, Array]
Schedule = Callable[[Array], Array]

Batch = dict[str, Array]
"""Arrays by name, with the batch on the first axis. A name means the same thing everywhere:

| name | array |
|---|---|
| `image` | the data as stored: uint8 (or float in [0, 1]) `[B, H, W, C]`, or `[B, V, H, W, C]` where V images belong together |
| `index` | int32 `[B]`: the example's position in its data set, the source of its random key |
| `label` | int32 `[B]`: the class, where the data set has classes |
| `mask` | bool `[B]`: False for the rows that only pad a batch to its size |
| `views` | float32 `[B, V, H, W, C]`: random views of the image, as a method compares them |
| `local_views` | float32 `[B, L, h, w, C]`: small random crops beside them (multi-crop) |
| `frames` | float32 `[B, V, H, W, C]`: augmented frames, as the loss of depth or flow compares them |
| `input` | float32: what a network is given, where that differs from views or frames |
"""  # noqa: E501


class Model(NamedTuple):
    """A network as two pure functions, so that modules of any library fit.

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
        stages: intermediate activations by name, shallow first: `[N, h, w, C]`, or `[N, T, C]` for
            tokens.
    """

    features: Array
    stages: dict[str, Array]


class Variables(NamedTuple):
    """Everything a method owns.

    Attributes:
        params: trained parameters, with a top-level entry for each part of the network.
        model_state: batch statistics, by the same parts.
        extra: the rest: momentum copies, queues, centers, probes; {} where there is none.
    """

    params: PyTree
    model_state: PyTree
    extra: PyTree


class LossOutput(NamedTuple):
    """What a loss returns beside its scalar.

    Attributes:
        model_state: updated model state.
        extra: updated method state.
        metrics: named scalars.
        features: `[B, V, D]` encoder outputs without a gradient, for the online probe; None where
            a method has no image-level features.
    """

    model_state: PyTree
    extra: PyTree
    metrics: Metrics
    features: Array | None = None


# Tasks: what a run is for. `sslax.tasks` says how each is evaluated, drawn, written and loaded.


class Representation(NamedTuple):
    """The task of learning an encoder; `Method.predict` returns `Features`."""


class Depth(NamedTuple):
    """The task of learning depth, and perhaps ego-motion; `Method.predict` returns `DepthMaps`.

    Attributes:
        frames: consecutive frames that poses are predicted from; 1 where there are no poses.
        metric: depth is in meters, because training knew the baseline of a stereo pair or the
            distance between frames; otherwise its scale is unknown.
    """

    frames: int = 1
    metric: bool = False


class Flow(NamedTuple):
    """The task of learning optical flow; `Method.predict` returns `FlowMaps`."""


Task = Representation | Depth | Flow


class Features(NamedTuple):
    """Prediction of a representation: `[B, D]`, and each stage's pooled activations `[B, C]`."""

    features: Array
    stages: dict[str, Array]


class DepthMaps(NamedTuple):
    """Prediction of depth and ego-motion; None for what a method does not predict.

    Attributes:
        depth: `[B, H, W]` along the optical axis, of the target frame.
        disparity: `[B, H, W]` in pixels of the target frame.
        pose: `[B, S, 4, 4]`, from the target's camera to each frame's.
        intrinsics: `[B, 3, 3]` in pixels of the target frame, where the camera is learned.
        alpha: `[B]`, of its lens, where that is learned (`ops.UnifiedCamera`).
    """

    depth: Array | None = None
    disparity: Array | None = None
    pose: Array | None = None
    intrinsics: Array | None = None
    alpha: Array | None = None


class FlowMaps(NamedTuple):
    """Prediction of optical flow.

    Attributes:
        flow: `[B, H, W, 2]` from the first frame to the second, (x, y) in pixels.
        backward: `[B, H, W, 2]` from the second frame to the first.
        visible: `[B, H, W]`, 1 where the second frame shows the pixel too.
    """

    flow: Array
    backward: Array | None = None
    visible: Array | None = None


class Labels(NamedTuple):
    """What a test set knows of a representation: classes `[B]`; None where it is unlabeled."""

    label: Array | None = None


class DepthTruth(NamedTuple):
    """What a test set knows of depth and ego-motion; None for what it does not.

    Attributes:
        depth: `[B, H, W]` in meters, 0 where unknown.
        pose: `[B, S, 4, 4]`, from the target's camera to each frame's.
        intrinsics: `[B, 3, 3]` in pixels.
        baseline: `[B]` meters between the stereo cameras.
        sequence: `[B]`, equal for consecutive frames of one video.
        alpha: `[B]`, of the lens (`ops.UnifiedCamera`); None for a pinhole camera.
    """

    depth: Array | None = None
    pose: Array | None = None
    intrinsics: Array | None = None
    baseline: Array | None = None
    sequence: Array | None = None
    alpha: Array | None = None


class FlowTruth(NamedTuple):
    """What a test set knows of optical flow; None for what it does not.

    Attributes:
        flow: `[B, H, W, 2]` in pixels.
        known: `[B, H, W]` bool, where the flow is known.
        visible: `[B, H, W]`, 1 where the second frame shows the pixel too.
        pixel: `[B, 2]`, width and height of a pixel, in which errors are measured: where images are
            stretched, in stored pixels.
    """

    flow: Array | None = None
    known: Array | None = None
    visible: Array | None = None
    pixel: Array | None = None


# Columns of the pictures that `Method.visualize` returns; plain arrays are images in [0, 1].


class InverseDepth(NamedTuple):
    """Disparity or inverse depth `[B, H, W]`, to be drawn in colors: near is bright."""

    values: Array


class FlowField(NamedTuple):
    """Flow `[B, H, W, 2]` to be drawn on the color wheel.

    Attributes:
        values: the flow in pixels.
        max_radius: speed of full saturation, broadcastable to `[B, H, W]`; None for each map's own
            maximum.
    """

    values: Array
    max_radius: Array | None = None


Pictures = dict[str, Array | InverseDepth | FlowField]


class Method(NamedTuple):
    """A self-supervised method: a record of pure functions.

    Attributes:
        task: what the method learns, with its specifics.
        augment: `(rng, batch) -> batch`, random augmentation on the device; identity where there
            is none.
        init: `(rng, batch) -> Variables`, from an augmented batch.
        loss: `(variables, batch, rng, step) -> (scalar, LossOutput)` of an augmented batch.
        update: `(variables, step) -> extra`, after the optimizer's step: moving averages.
        predict: `(variables, batch) -> Features | DepthMaps | FlowMaps`, the prediction of the
            task, from a batch as the data set gives it.
        visualize: `(variables, batch, rng) -> Pictures`, the training task in pictures: a title for
            each column, and under it an image `[B, h, w, C]` in [0, 1], or a map, per example.
        encoder: `(variables) -> (params, model_state)` of the exported encoder.
        preprocess: `images -> x`, from images `[N, H, W, C]` in [0, 1] to that encoder's input.
        evaluation_view: `images -> images` of the size that encoder is evaluated at, from
            images as the data set gives them.
        references: `(variables) -> {name: Variables}`, other networks inside `extra` that are worth
            evaluating beside the trained one, such as a frozen teacher.
        mean_over_examples: whether the loss is the mean of the losses of single examples (but for
            batch statistics).
        embed: `(variables, batch, rng, step) -> (outputs, Variables)`: what the loss needs of the
            networks, of single examples, `[B, ...]` each, and the variables with the moved state.
        couple: `(outputs, variables, batch, rng, step) -> (scalar, LossOutput)`: the loss of all
            outputs together. `loss` is `couple` after `embed`. Both are None where the loss is not
            divided like this.
    """

    task: Task
    augment: Callable[[Array, Batch], Batch]
    init: Callable[[Array, Batch], Variables]
    loss: Callable[[Variables, Batch, Array, Array], tuple[Array, LossOutput]]
    update: Callable[[Variables, Array], PyTree]
    predict: Callable[[Variables, Batch], Features | DepthMaps | FlowMaps]
    visualize: Callable[[Variables, Batch, Array], Pictures]
    encoder: Callable[[Variables], tuple[PyTree, PyTree]]
    preprocess: Callable[[Array], Any]
    evaluation_view: Callable[[Array], Array] = lambda images: images
    references: Callable[[Variables], dict[str, Variables]] = lambda variables: {}
    mean_over_examples: bool = False
    embed: Callable[[Variables, Batch, Array, Array], tuple[PyTree, Variables]] | None = None
    couple: Callable[[PyTree, Variables, Batch, Array, Array], tuple[Array, LossOutput]] | None = (
        None
    )

    @property
    def accumulates(self) -> bool:
        """Whether the loss of a batch can be had from micro-batches."""
        return self.mean_over_examples or self.couple is not None


class TrainState(NamedTuple):
    """The whole state of a run, arrays only. `step` is the only clock."""

    step: Array
    params: PyTree
    model_state: PyTree
    extra: PyTree
    opt_state: PyTree
    rng: Array

    @property
    def variables(self) -> Variables:
        """What the method owns."""
        return Variables(self.params, self.model_state, self.extra)
