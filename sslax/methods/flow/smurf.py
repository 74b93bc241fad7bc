"""SMURF: RAFT learns from every iteration's flow, matched in whole frames, and teaches itself.

Stone et al., SMURF: Self-Teaching Multi-Frame Unsupervised RAFT with Full-Image Warping, CVPR 2021.
"""

import chex
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from sslax import losses, ops
from sslax.methods import common
from sslax.methods.flow import flow_common
from sslax.types import Array, Batch, LossOutput, Method, Model, PyTree, Schedule


def smurf(
    network: Model,
    *,
    views: common.Views,
    data: str = "census",
    data_weight: float = 1.0,
    occlusion: str = "range_map",
    occlusion_start: float = 0.0,
    smoothness_weight: float = 2.5,
    smoothness_order: int = 1,
    edge_weight: float = 150.0,
    selfsup_weight: float | Schedule = 0.3,
    selfsup_crop: float = 1 / 6,
    gamma: float = 0.8,
) -> Method:
    """SMURF.

    ```
    loss = Σ_i γ^(n - 1 - i) [w_d D(f_i) + w_s S(f_i) + w_t T(f_i student, f_n teacher)]
    ```
    with UFlow's terms, all at full resolution, for the flow f_i of each of RAFT's n iterations.
    Where the views cut the network's input out of the frames, D reads the whole frames: a pixel
    that leaves the input has its match beyond the border.

    Args:
        network: of pairs to flows, one for each iteration, the last one best.
        views: `(rng, batch) -> batch` with 'input' `[B, 2, h, w, C]` of the network and 'image',
            which the loss compares: of the same size; or, with 'offset' `[B, 2]`, whole frames.
        data, data_weight, occlusion, occlusion_start: as in `uflow`.
        smoothness_weight: w_s: Sintel 2.5, Chairs 2, both with order 1; KITTI 2 with order 2.
        smoothness_order: 1 or 2.
        edge_weight: how much an edge of the frame frees the flow.
        selfsup_weight: w_t, or a schedule of it; where it is 0 the passes it needs are left out.
        selfsup_crop: margin that the student does not see, as a part of the shorter side.
        gamma: γ.
    """

    def loss(
        params: PyTree, model_state: PyTree, extra: PyTree, batch: Batch, rng: Array, step: Array
    ) -> tuple[Array, LossOutput]:
        flow_common.check(batch["input"])
        images, seen, offset = batch["image"], batch["input"], batch.get("offset")
        size = seen.shape[2:4]
        keys = jax.random.split(rng)
        inputs = flow_common.network_input(batch, keys[0])
        output, state = network.apply(params, model_state, inputs, True)
        flows = flow_common.sequence_of(output, size)
        clean = images
        if offset is not None:
            corner = jnp.repeat(offset, 2, axis=0)
            clean = common.split_views(
                flow_common.part_of(flow_common.both(images), corner, size), 2
            )
        knobs = {"order": smoothness_order, "edge_weight": edge_weight}

        def terms(flow: Array) -> tuple[Array, Array, flow_common.Match]:
            made = flow_common.match(images, flow, occlusion=occlusion, offset=offset)
            weight = flow_common.weight_at(made, step, occlusion_start)
            photometric = flow_common.data_term(made.target, made.warped, weight, data=data)
            return photometric, flow_common.smoothness(clean, flow, **knobs), made

        weights = losses.sequence_weights(len(flows), gamma=gamma)
        photometric, smooth, made = jax.vmap(terms)(flows)
        value = jnp.sum(weights * (data_weight * photometric + smoothness_weight * smooth))

        margin = flow_common.margin_of(size, selfsup_crop)

        def taught() -> Array:
            output, _ = network.apply(params, model_state, {"image": clean}, False)
            teacher = flow_common.sequence_of(output, size)[-1]
            center = {**batch, "input": flow_common.enlarged_center(seen, margin)}
            inputs = flow_common.network_input(center, keys[1])
            output, _ = network.apply(params, model_state, inputs, True)
            lessons = jax.lax.map(
                lambda flow: flow_common.self_supervision(flow, teacher, margin=margin, size=size)[
                    0
                ],
                flow_common.sequence_of(output, size),
            )
            return jnp.sum(weights * lessons)

        teaching = common.at_step(selfsup_weight, step)
        lesson = flow_common.when_needed(teaching, taught)
        value = value + teaching * lesson

        still = jnp.ones(clean.shape[:1] + size, jnp.float32)
        chance = flow_common.data_term(clean[:, 0], clean[:, 1], still, data=data)
        metrics = flow_common.flow_metrics(
            jax.tree.map(lambda x: x[-1], made),
            flows[-1],
            photometric=photometric[-1],
            at_chance=chance,
            smooth=smooth[-1],
        )
        resting = flow_common.smoothness(clean, jnp.zeros_like(flows[-1]), **knobs)
        at_rest = data_weight * chance + smoothness_weight * resting
        metrics |= {"self_supervision": lesson, "loss_at_chance": jnp.sum(weights) * at_rest}
        return value, LossOutput(state, extra, jax.lax.stop_gradient(metrics))

    return flow_common.flow_method(network, views=views, loss=loss, occlusion=occlusion)


def fuse_flows(
    key: Array,
    past: Array,
    future: Array,
    *,
    visible_past: Array,
    visible_future: Array,
    hidden: int = 16,
    steps: int = 200,
    learning_rate: float = 1e-2,
    stride: int = 1,
) -> Array:
    """Fills in the flow to the next frame, where that is occluded, from the flow to the last one.

    ```
    future(p) ≈ g(past(p), p) - past(p)
    ```
    A small network g, of 1 x 1 convolutions, is trained on this sequence alone, on the pixels that
    both frames show; without it (g = 0) the motion just goes on. Where the next frame does not show
    a pixel and the last one does, its answer replaces the flow. The result is the target of a
    second stage, `smurf_multi_frame`: a network is trained on it with `losses.sequence_loss` and
    augmented input.

    Args:
        key: random key of the weights of g.
        past: `[H, W, 2]`, from the middle frame to the one before, in pixels.
        future: `[H, W, 2]`, from the middle frame to the one after.
        visible_past: `[H, W]`, 1 where the frame before shows the pixel.
        visible_future: `[H, W]`, 1 where the frame after does.
        hidden: channels of g's two hidden layers.
        steps: of Adam, on all pixels at a time.
        learning_rate: of Adam.
        stride: g is trained on every so-manyth pixel of every so-manyth row.

    Returns:
        `[H, W, 2]`: `future`, and the answer where only the past is visible.

    Example:
        >>> still = jnp.zeros((4, 5, 2))
        >>> seen = jnp.ones((4, 5))
        >>> fuse_flows(
        ...     jax.random.key(0), still, still, visible_past=seen, visible_future=seen, steps=1
        ... ).shape
        (4, 5, 2)
    """
    chex.assert_equal_shape([past, future])
    chex.assert_equal_shape([visible_past, visible_future, past[..., 0]])
    height, width = past.shape[:2]
    shown_past, shown_future = visible_past > 0.5, visible_future > 0.5
    taught = shown_past & shown_future
    # In units of the typical motion, so that one rate suits slow and fast sequences.
    square = jnp.sum(jnp.square(past), axis=-1)
    scale = jnp.sqrt(losses.masked_mean(square, taught) + 1e-6)
    place = 2 * ops.pixel_grid(height, width) / jnp.array([width, height]) - 1
    x = jnp.concatenate([past / scale, place], axis=-1)
    sizes = (x.shape[-1], hidden, hidden, 2)
    keys = jax.random.split(key, 3)
    weights = [
        # The last layer begins with zero: the motion goes on.
        (jax.random.normal(k, (a, b)) * (2 / a) ** 0.5 * (i < 2), jnp.zeros(b))
        for i, (k, a, b) in enumerate(zip(keys, sizes[:-1], sizes[1:]))
    ]

    def change(weights: PyTree, y: Array) -> Array:
        for i, (matrix, bias) in enumerate(weights):
            y = jnp.dot(y, matrix, precision="highest") + bias
            y = jax.nn.leaky_relu(y, 0.1) if i < 2 else y
        return y

    some = (slice(None, None, stride),) * 2
    inputs, wanted, counted = x[some], ((future + past) / scale)[some], taught[some]

    def loss(weights: PyTree) -> Array:
        error = losses.robust_l1(change(weights, inputs) - wanted)
        return losses.masked_mean(jnp.mean(error, axis=-1), counted)

    tx = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def step(carry: tuple[PyTree, PyTree], _: None) -> tuple[tuple[PyTree, PyTree], None]:
        weights, state = carry
        updates, state = tx.update(jax.grad(loss)(weights), state, weights)
        return (optax.apply_updates(weights, updates), state), None

    (weights, _), _ = jax.lax.scan(step, (weights, tx.init(weights)), length=steps)
    filled = shown_past & ~shown_future
    return jnp.where(filled[..., None], scale * change(weights, x) - past, future)


def build(config: ConfigDict, steps: int) -> Method:
    """SMURF as the sections `augment` and `smurf` of a config say."""
    knobs = common.plain(config.smurf)
    flow_common.chosen("smurf", "data", knobs["data"], flow_common.DATA_TERMS)
    flow_common.chosen("smurf", "occlusion", knobs["occlusion"], flow_common.OCCLUSIONS)
    flow_common.scheduled(knobs, "selfsup", steps)
    knobs["occlusion_start"] *= steps
    network = flow_common.build_network(config, knobs.pop("network"))
    return smurf(network, views=flow_common.training_views(config.augment), **knobs)
