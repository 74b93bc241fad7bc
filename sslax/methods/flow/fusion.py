"""Flow of occluded pixels, inferred from the previous frame.

Stone et al., SMURF: Self-Teaching Multi-Frame Unsupervised RAFT with Full-Image Warping, CVPR 2021.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from sslax import checks, losses, ops
from sslax.types import Array, PyTree


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
    """Replaces the flow to the next frame, where that is occluded, by one inferred from the past.

    ```
    future(p) ≈ g(past(p), p) - past(p)
    ```
    A small network g of 1 x 1 convolutions is trained on this example alone, on the pixels that
    both frames show; with g = 0 the motion is constant. Its prediction replaces the flow of pixels
    that the previous frame shows and the next one does not. The result is the target of
    `smurf_multi_frame`.

    Args:
        key: random key of g's weights.
        past: `[H, W, 2]`, from the middle frame to the previous one, in pixels.
        future: `[H, W, 2]`, from the middle frame to the next one.
        visible_past: `[H, W]`, 1 where the previous frame shows the pixel.
        visible_future: `[H, W]`, 1 where the next frame does.
        hidden: channels of g's two hidden layers.
        steps: of Adam, on all pixels at once.
        learning_rate: of Adam.
        stride: g is trained on every `stride`-th pixel in both directions.

    Returns:
        `[H, W, 2]`: `future`, with predictions where only the previous frame shows the pixel.

    Example:
        >>> still = jnp.zeros((4, 5, 2))
        >>> visible = jnp.ones((4, 5))
        >>> masks = {"visible_past": visible, "visible_future": visible}
        >>> fuse_flows(jax.random.key(0), still, still, **masks, steps=1).shape
        (4, 5, 2)
    """
    checks.assert_equal_shape([past, future])
    checks.assert_equal_shape([visible_past, visible_future, past[..., 0]])
    visible_past, visible_future = visible_past > 0.5, visible_future > 0.5
    in_both = visible_past & visible_future
    # In units of the typical motion, so that one learning rate suits slow and fast sequences.
    square = jnp.sum(jnp.square(past), axis=-1)
    scale = jnp.sqrt(losses.masked_mean(square, in_both) + 1e-6)
    height, width = past.shape[:2]
    position = 2 * ops.pixel_grid(height, width) / jnp.array([width, height]) - 1
    x = jnp.concatenate([past / scale, position], axis=-1)
    every = (slice(None, None, stride),) * 2
    inputs, targets, mask = x[every], ((future + past) / scale)[every], in_both[every]

    def loss(weights: PyTree) -> Array:
        error = losses.robust_l1(_perceptron(weights, inputs) - targets)
        return losses.masked_mean(jnp.mean(error, axis=-1), mask)

    weights = _initial_weights(key, (x.shape[-1], hidden, hidden, 2))
    weights = _minimize(loss, weights, steps=steps, learning_rate=learning_rate)
    prediction = scale * _perceptron(weights, x) - past
    only_past = visible_past & ~visible_future
    return jnp.where(only_past[..., None], prediction, future)


def _initial_weights(key: Array, sizes: tuple[int, ...]) -> PyTree:
    """He initialization; the last layer starts at zero, where the motion is constant."""
    keys, last = jax.random.split(key, len(sizes) - 1), len(sizes) - 2
    return [
        (jax.random.normal(k, (a, b)) * (2 / a) ** 0.5 * (i < last), jnp.zeros(b))
        for i, (k, a, b) in enumerate(zip(keys, sizes[:-1], sizes[1:]))
    ]


def _perceptron(weights: PyTree, x: Array) -> Array:
    for i, (matrix, bias) in enumerate(weights):
        x = jnp.dot(x, matrix, precision="highest") + bias
        x = jax.nn.leaky_relu(x, 0.1) if i < len(weights) - 1 else x
    return x


def _minimize(
    loss: Callable[[PyTree], Array], weights: PyTree, *, steps: int, learning_rate: float
) -> PyTree:
    """The weights after `steps` of Adam with cosine decay."""
    tx = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def step(carry: tuple[PyTree, PyTree], _: None) -> tuple[tuple[PyTree, PyTree], None]:
        weights, state = carry
        updates, state = tx.update(jax.grad(loss)(weights), state, weights)
        return (optax.apply_updates(weights, updates), state), None

    (weights, _), _ = jax.lax.scan(step, (weights, tx.init(weights)), length=steps)
    return weights
